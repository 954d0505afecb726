"""The consistency term: consistent generated sentences near the reference, inconsistent ones away from it."""

from __future__ import annotations

import torch
import torch.nn.functional as F

# Finite, so that a row without negatives gives log-sum-exp a defined gradient; far below any cosine / temperature.
_MASKED = -1e9


def consistency_loss(
    anchors: torch.Tensor,
    candidates: torch.Tensor,
    positives: torch.Tensor,
    negatives: torch.Tensor,
    temperature: float = 0.1,
) -> torch.Tensor:
    """Contrastive loss of one dialogue between reference and generated sentences (PESS, the consistency loss).

    With s_ij = h_i . h_j / T, Pos(i) the positives of anchor i and N(i) its negatives,

        l_i = - 1/|Pos(i)| * sum_{j in Pos(i)} log( exp(s_ij) / (exp(s_ij) + sum_{n in N(i)} exp(s_in)) )

    averaged over the anchors that have positives. Zero, with a zero gradient, where no anchor has a positive, or
    no negative stands against it.

    Args:
        anchors: Representations of the reference sentences, (A, D); unit vectors where cosine is meant.
        candidates: Representations of the generated sentences, (K, D).
        positives: Which candidates belong to which anchor, (A, K) bool.
        negatives: Which candidates are inconsistent, (A, K) bool.
        temperature: T, above 0; lower means sharper.

    Returns:
        A scalar. The gradient flows into anchors and candidates alike; half precision is computed in float32, also
        under autocast.

    Raises:
        ValueError: If the temperature is not above 0.

    Example:
        >>> anchors = torch.tensor([[1.0, 0.0]])
        >>> candidates = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> positives, negatives = torch.tensor([[True, False]]), torch.tensor([[False, True]])
        >>> consistency_loss(anchors, candidates, positives, negatives, temperature=1.0)  # log(1 + exp(-1))
        tensor(0.3133)
    """
    if not temperature > 0:
        raise ValueError(f"temperature: expected a number above 0, found {temperature}.")
    if anchors.dtype in (torch.float16, torch.bfloat16):
        anchors, candidates = anchors.float(), candidates.float()
    with torch.autocast(anchors.device.type, enabled=False):
        scores = anchors @ candidates.T / temperature  # (A, D) @ (D, K) -> (A, K)
    if scores.numel() == 0:
        return anchors.sum() * 0.0 + candidates.sum() * 0.0
    against = scores.masked_fill(~negatives, _MASKED).logsumexp(dim=1, keepdim=True)  # (A, 1)
    pair_loss = F.softplus(against - scores) * positives  # (A, K); log(1 + exp(against - s_ij))
    per_anchor = pair_loss.sum(dim=1) / positives.sum(dim=1).clamp(min=1)  # (A,)
    return per_anchor.sum() / positives.any(dim=1).sum().clamp(min=1)


def sentence_representations(hidden: torch.Tensor, spans: list[tuple[int, int]]) -> torch.Tensor:
    """Mean of the decoder's last hidden states over each sentence's tokens, L2-normalised.

    Args:
        hidden: Last hidden states of one decoder row, (T, D).
        spans: Half-open token ranges [start, end) of the K sentences; each holds at least one token.

    Returns:
        Unit vectors, (K, D), in float32 at least. The gradient flows into `hidden`.

    Example:
        >>> sentence_representations(torch.tensor([[3.0, 0.0], [3.0, 8.0]]), [(0, 2)])
        tensor([[0.6000, 0.8000]])
    """
    if hidden.dtype in (torch.float16, torch.bfloat16):
        hidden = hidden.float()
    if not spans:
        return hidden[:0]
    means = torch.stack([hidden[start:end].mean(dim=0) for start, end in spans])  # (K, D)
    return F.normalize(means, dim=-1)
