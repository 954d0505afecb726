"""Token-level negative log-likelihood, the first term."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def token_nll(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Negative log-likelihood of each token, computed in float32 whatever the logits come in.

    The caller divides: the plain term is a sum over the tokens of the whole global batch divided by their number,
    so that accumulation steps and processes change nothing.

    Args:
        logits: Next-token scores, (N, V).
        labels: Token ids, (N,), each in [0, V).
        label_smoothing: Probability mass spread evenly over the vocabulary, in [0, 1).

    Returns:
        One value in nats per token, (N,). The gradient flows into `logits`.

    Example:
        >>> token_nll(torch.zeros(2, 4), torch.tensor([0, 3])).round(decimals=4)
        tensor([1.3863, 1.3863])
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
