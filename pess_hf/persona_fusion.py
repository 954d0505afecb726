"""Fusion of the encoded context with the encoded persona (PAL, arXiv 2212.09235).

Letters used in shapes: B batch, L context positions, M persona positions, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PersonaFusion(nn.Module):
    """Mix what the context says about the persona, and the other way round, into the context's encoding.

    With H_c the context and H_p the persona, padded by zero vectors to one length L:

        A_c = softmax(H_p H_c^T) H_c          persona positions look at the context
        A_p = softmax(H_c H_p^T) H_p          context positions look at the persona
        C   = LayerNorm_1(A_c + H_p)
        Q   = LayerNorm_2(A_p + H_c)
        H   = w_1 H_c + w_2 C + w_3 Q         w = softmax(mix_logits), starting equal

    Nothing is scaled inside the softmax. Source: PAL (arXiv 2212.09235), persona-augmented encoder. The masks take
    padding out of both softmaxes, and a padded persona position counts as a zero vector wherever it stands, so a
    row's result does not depend on the batch around it. Persona position i meets context position i counted over the
    unpadded positions of each; persona positions beyond the context's length reach H through A_p alone, because the
    decoder never sees the context's padding. Rows without a persona keep their context unchanged.

    Args:
        d_model: Hidden size D of both encodings.

    Example:
        >>> fusion = PersonaFusion(8)
        >>> fusion(torch.randn(2, 5, 8), torch.randn(2, 3, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.norm_persona = nn.LayerNorm(d_model)
        self.norm_context = nn.LayerNorm(d_model)
        self.mix_logits = nn.Parameter(torch.zeros(3))

    def forward(
        self,
        context: Tensor,
        persona: Tensor,
        context_mask: Tensor | None = None,
        persona_mask: Tensor | None = None,
    ) -> Tensor:
        """Fuse a batch.

        Args:
            context: (B, L, D), the encoder's output for the context, H_c.
            persona: (B, M, D), the encoder's output for the persona, H_p.
            context_mask: (B, L), nonzero where the context is not padding; all of it by default.
            persona_mask: (B, M), nonzero where the persona is not padding; all of it by default. A row of zeros has
                no persona.

        Returns:
            (B, L, D), the encoding that the decoder attends to under `context_mask`.
        """
        if persona.shape[1] == 0:
            return context
        context_mask = _as_bool_mask(context_mask, context)  # (B, L)
        persona_mask = _as_bool_mask(persona_mask, persona)  # (B, M)
        # Zero rather than only masked: zero weight times a NaN in the padding would still be NaN.
        memory = context.masked_fill(~context_mask[..., None], 0)  # (B, L, D)
        persona = persona.masked_fill(~persona_mask[..., None], 0)  # (B, M, D)
        beside = _align(persona, persona_mask, context_mask)  # (B, L, D)

        about_context = _attend(beside, memory, context_mask)  # (B, L, D)
        about_persona = _attend(memory, persona, persona_mask)  # (B, L, D)
        weights = self.mix_logits.softmax(dim=0)  # (3,)
        fused = (
            weights[0] * memory
            + weights[1] * self.norm_persona(about_context + beside)
            + weights[2] * self.norm_context(about_persona + memory)
        )
        has_persona = persona_mask.any(dim=1)  # (B,)
        return torch.where(has_persona[:, None, None], fused, context)


def _as_bool_mask(mask: Tensor | None, states: Tensor) -> Tensor:
    if mask is None:
        return torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
    return mask.bool()


def _attend(queries: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
    """Unscaled dot-product attention of `queries` (B, L, D) over the unpadded positions of `memory` (B, K, D)."""
    scores = queries @ memory.transpose(1, 2)  # (B, L, D) @ (B, D, K) -> (B, L, K)
    # Unscaled scores are large: half precision would round them before the softmax.
    scores = scores.float().masked_fill(~memory_mask[:, None, :], torch.finfo(torch.float32).min)
    return scores.softmax(dim=-1).to(memory.dtype) @ memory  # (B, L, K) @ (B, K, D) -> (B, L, D)


def _align(persona: Tensor, persona_mask: Tensor, context_mask: Tensor) -> Tensor:
    """Put the n-th unpadded persona position beside the n-th unpadded context position, zeros where there is none."""
    nth = context_mask.long().cumsum(dim=1) - 1  # (B, L), -1 before the first
    length = persona_mask.sum(dim=1, keepdim=True)  # (B, 1)
    unpadded_first = persona_mask.long().argsort(dim=1, descending=True, stable=True)  # (B, M)
    source = unpadded_first.gather(1, nth.clamp(0, persona.shape[1] - 1))  # (B, L)
    beside = persona.gather(1, source[..., None].expand(-1, -1, persona.shape[2]))  # (B, M, D) -> (B, L, D)
    missing = ~context_mask | (nth >= length)  # (B, L)
    return beside.masked_fill(missing[..., None], 0)
