"""Which checkpoint a training recipe goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pess_hf.errors import PessError


def find_checkpoint(training_args: Any) -> str | None:
    """The checkpoint to resume from; a folder with checkpoints that nobody asked to resume is an error.

    Args:
        training_args: `output_dir` and `resume_from_checkpoint` are read.

    Returns:
        A folder, or None to start anew.

    Raises:
        PessError: There are checkpoints and nobody asked for them, or the one asked for is not there.

    Example:
        >>> from types import SimpleNamespace
        >>> find_checkpoint(SimpleNamespace(output_dir="runs/new", resume_from_checkpoint=None)) is None
        True
    """
    from transformers.trainer_utils import get_last_checkpoint

    asked, folder = training_args.resume_from_checkpoint, training_args.output_dir
    last = get_last_checkpoint(folder) if Path(folder).is_dir() else None
    if asked is None or str(asked).lower() == "false":
        if last is not None:
            raise PessError(
                f"{folder}: expected a folder without checkpoints, found {Path(last).name}. "
                "Go on with --resume_from_checkpoint true, or choose another --output_dir."
            )
        return None
    if str(asked).lower() != "true":
        if not (Path(asked) / "trainer_state.json").is_file():
            raise PessError(
                f"resume_from_checkpoint: expected true or a checkpoint's folder, found {asked}, which has no "
                "trainer_state.json."
            )
        return str(asked)
    if last is None:
        raise PessError(f"{folder}: expected a checkpoint to resume from, found none.")
    return last
