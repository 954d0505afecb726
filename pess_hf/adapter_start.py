"""A LoRA run that starts from an adapter: what its own adapter will belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pess_hf.adapter import is_adapter
from pess_hf.errors import PessError
from pess_hf.lora_args import BASE_FOLDER, LoraArguments


def named_base(name: str | None, revision: str | None, args: LoraArguments, training_args: Any) -> str | None:
    """The checkpoint that the adapter of a LoRA run will belong to; called before anything is loaded.

    A start from an adapter opens its base model with the adapter merged. These weights are in no checkpoint, so the
    run saves them in its folder `base`, and the new adapter belongs to that.

    Args:
        name: What the run starts from: Hub id or folder, or None.
        revision: Its branch, tag or commit.
        args: Whether and how adapters are trained.
        training_args: `output_dir` and `process_index` are read.

    Returns:
        `name`, or None where no name identifies the weights that the run starts from.

    Raises:
        PessError: If weights of few bits are to take in an adapter, or the run would write over the adapter that it
            starts from or over that one's base.

    Example:
        >>> from types import SimpleNamespace
        >>> run = SimpleNamespace(output_dir="runs/second", process_index=0)
        >>> named_base("facebook/bart-base", None, LoraArguments(), run)
        'facebook/bart-base'
    """
    if name is None or not args.use_lora or not is_adapter(name, **({"revision": revision} if revision else {})):
        return name
    if args.is_quantized:
        raise PessError(
            f"{args.quantization}: expected a whole model to start from, found the adapter {name}, which cannot be "
            "merged into weights of so few bits without loss. Make a whole model first: recipes/merge_adapter.py"
        )
    folder, start = Path(training_args.output_dir).resolve(), Path(name).resolve()
    if folder in (start, start.parent):
        raise PessError(
            f"output_dir: expected another folder than that of the adapter {name}, which the run starts from, found "
            "the same. Name a new one, or go on with the run that wrote it: --resume_from_checkpoint true"
        )
    if training_args.process_index == 0:
        print(f"LoRA on {name}: that adapter is merged; the merged model is saved in {folder / BASE_FOLDER}.")
    return None
