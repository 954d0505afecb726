"""Beam search that keeps a dialogue's encoder states once, not once per beam.

`generate` repeats the encoder's output for every beam, so cross-attention projects, keeps and, at every token,
reorders `num_beams` equal copies of each dialogue's keys and values. Here they stay single and where they are, and the
beams of a dialogue become several queries of one attention call.

Letters: B dialogues, K beams, H heads, S source tokens, T target tokens, d width of a head.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, EncoderDecoderCache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

#: The name that models know `shared_beam_attention` by.
SHARED_BEAMS = "pess_shared_beams"


def shared_beam_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention whose keys may belong to several rows of queries.

    Args:
        module: The attention layer.
        query: Queries, (B * K, H, T, d); the K rows of a dialogue stand together.
        key: Keys, (B, H, S, d), or one row per query row as usual.
        value: Values, like `key`.
        attention_mask: Of cross-attention, (B, 1, T, S), the same for every target position; None lets all pass.
        **kwargs: Passed on.

    Returns:
        The attended values, (B * K, T, H, d), and None in place of the weights.
    """
    rows, heads, length, width = query.shape
    beams = rows // len(key)
    if beams == 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if length > 1:  # a prompt, once per call of `generate`: not worth folding
        key, value = key.repeat_interleave(beams, dim=0), value.repeat_interleave(beams, dim=0)
        mask = None if attention_mask is None else attention_mask.repeat_interleave(beams, dim=0)
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    folded = query.view(-1, beams, heads, width).transpose(1, 2)  # (B * K, H, 1, d) -> (B, H, K, d)
    kwargs["is_causal"] = False  # the K queries are beams, not positions one after the other
    attended, _ = sdpa_attention_forward(module, folded, key, value, attention_mask, **kwargs)  # (B, K, H, d)
    return attended.reshape(rows, 1, heads, width), None


AttentionInterface.register(SHARED_BEAMS, shared_beam_attention)
AttentionMaskInterface.register(SHARED_BEAMS, sdpa_mask)


@contextlib.contextmanager
def shared_beams(model: Any) -> Iterator[None]:
    """Let the beams of a dialogue share its encoder states while the block runs.

    Only models that run on PyTorch's own attention ("sdpa", what `from_pretrained` chooses) are changed; with any
    other attention, and for a model that does not extract, `generate` goes on as it always does.

    Args:
        model: An extractor.

    Example:
        >>> with shared_beams(model):  # doctest: +SKIP
        ...     model.generate(input_ids=input_ids, num_beams=10)
    """
    parts = {part.config._attn_implementation for part in model.modules() if isinstance(part, PreTrainedModel)}
    if parts != {"sdpa"} or not isinstance(model, BeamSharingMixin):
        yield
        return
    model.set_attn_implementation(SHARED_BEAMS)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")  # type: ignore[attr-defined]


class BeamSharingMixin:
    """The two steps of `generate` that would repeat or move what all beams of a dialogue have in common."""

    config: Any
    get_decoder: Any

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Any, dict[str, Any]]:
        """Repeat what belongs to a beam; inside `shared_beams`, what belongs to a dialogue stays single."""
        shared = {}
        if self.get_decoder().config._attn_implementation == SHARED_BEAMS:
            is_encoder_decoder = False
            shared = {name: model_kwargs.pop(name, None) for name in ("encoder_outputs", "attention_mask")}
        input_ids, model_kwargs = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        return input_ids, model_kwargs | shared

    @staticmethod
    def _reorder_cache(cache: Any, beam_idx: torch.LongTensor) -> Any:
        """Move the beams' own keys and values; those of the dialogue are the same for all of its beams."""
        own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
        own.reorder_cache(beam_idx)
        return cache
