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
