"""A name for the weights of a model, for caches of what it made."""

from __future__ import annotations

import hashlib
from typing import Any

import torch


def weights_digest(model: Any) -> str:
    """A digest that two models share only if names, types, shapes and values of their weights are the same.

    Args:
        model: Anything with a `state_dict`.

    Example:
        >>> weights_digest(torch.nn.ReLU())[:8]
        'e3b0c442'
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()


def scorer_digest(scorer: Any) -> str | None:
    """A digest of a sentence encoder or an `NliScorer`: its weights, and how it is put together.

    Args:
        scorer: What a `PersonaMatcher` matches with.

    Returns:
        The digest; None for a scorer without weights, of which nothing is known.

    Example:
        >>> scorer_digest(object()) is None
        True
    """
    model = getattr(scorer, "model", scorer)  # an NliScorer holds its cross-encoder
    if not hasattr(model, "state_dict"):
        return None
    return f"{model} {weights_digest(model)}"
