"""Whether what a LoRA run goes on from is its own: the adapter in a checkpoint, and the base model beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pess_hf.errors import PessError

ADAPTER_WEIGHTS = "adapter_model.safetensors"


def check_adapter_fits(model: Any, checkpoint: str | Path) -> None:
    """See that a checkpoint's adapter sits on the layers that this run trains.

    PEFT itself leaves out in silence what has no counterpart.

    Args:
        model: The PEFT model that is to go on; any other model passes.
        checkpoint: A folder with `adapter_model.safetensors`; only its header is read.

    Raises:
        PessError: If a tensor is in one of them only, or has another shape; the message names it.

    Example:
        >>> check_adapter_fits(model, "runs/mine/checkpoint-500")  # doctest: +SKIP
    """
    if not hasattr(model, "peft_config"):
        return
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    ours = {name: list(tensor.shape) for name, tensor in tensors.items()}
    with safe_open(Path(checkpoint) / ADAPTER_WEIGHTS, "pt") as file:
        theirs = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no mapping
    differing = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
    if differing:
        raise PessError(
            f"{checkpoint}: expected an adapter on the layers that this run trains, found {len(differing)} tensors "
            f"that only one of them has in this shape, such as {differing[0]}. Resume with the lora_target_modules, "
            "lora_rank and freeze_encoder that the run was begun with."
        )


def check_same_base(model: Any, folder: str | Path) -> None:
    """See that the base model a resumed run made is the one that its adapter was begun on.

    Args:
        model: The model before it gets its adapter.
        folder: Where the run saved the base model when it began.

    Raises:
        PessError: If a weight differs; an adapter fits no other base.

    Example:
        >>> check_same_base(model, "runs/mine/base")  # doctest: +SKIP
    """
    saved = type(model).from_pretrained(str(folder)).state_dict()
    ours = model.state_dict()
    for name in sorted(saved.keys() | ours.keys()):
        pair = saved.get(name), ours.get(name)
        if any(one is None for one in pair) or not torch.equal(*(one.cpu() for one in pair)):
            raise PessError(
                f"{folder}: expected the base model that this run was begun with, found another one ({name} differs). "
                "Resume with the settings, the seed and the data that it was begun with."
            )
