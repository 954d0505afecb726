"""Which checkpoint training goes on from, and which ones it deletes."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from transformers.utils import logging

from pess_hf.checkpoint_faults import STATE, checkpoint_fault
from pess_hf.checkpoint_manifest import read_manifest
from pess_hf.errors import PessError

logger = logging.get_logger(__name__)

# Out of the way of everything that looks for `checkpoint-*`.
_DISCARDED = ".discarded-"


def find_checkpoint(training_args: Any) -> str | None:
    """The checkpoint to resume from; a folder with checkpoints that nobody asked to resume is an error.

    Args:
        training_args: `output_dir`, `resume_from_checkpoint` and the processes are read.

    Returns:
        A folder, or None to start anew.

    Raises:
        PessError: There are checkpoints and nobody asked for them, or none is whole, or the one asked for is not.

    Example:
        >>> from types import SimpleNamespace
        >>> find_checkpoint(SimpleNamespace(output_dir="runs/new", resume_from_checkpoint=None)) is None
        True
    """
    asked, folder = training_args.resume_from_checkpoint, training_args.output_dir
    if asked is None or str(asked).lower() == "false":
        there = checkpoints(folder)
        if there:
            raise PessError(
                f"{folder}: expected a folder without checkpoints, found {there[-1].name}. "
                "Go on with --resume_from_checkpoint true, or choose another --output_dir."
            )
        return None
    return resolve_checkpoint(True if str(asked).lower() == "true" else str(asked), training_args)


def checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints in a run's folder, whole or not, the oldest step first.

    Example:
        >>> checkpoints("runs/new")
        []
    """
    found = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted((path for path in found if path.is_dir()), key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])


def resolve_checkpoint(asked: str | bool, training_args: Any) -> str:
    """The newest whole checkpoint of the run's folder, or the one asked for if it is whole.

    Args:
        asked: True, or a checkpoint's folder.
        training_args: `output_dir` and the processes are read.

    Returns:
        Its folder.

    Raises:
        PessError: There is none, or what is there is damaged; each is named with what is wrong.

    Example:
        >>> resolve_checkpoint(True, PessTrainingArguments(output_dir="runs/new"))  # doctest: +SKIP
    """
    chosen = _newest_whole(training_args) if asked is True else _whole(str(asked), training_args)
    manifest = read_manifest(chosen) or {}
    saved_by = manifest.get("processes", training_args.world_size)
    if saved_by != training_args.world_size and training_args.process_index == 0:
        logger.warning(
            f"{chosen} was saved by {saved_by} processes and {training_args.world_size} go on from it: the weights "
            "will not be those of an uninterrupted run."
        )
    return chosen


def _newest_whole(training_args: Any) -> str:
    folder, faults = training_args.output_dir, []
    for checkpoint in reversed(checkpoints(folder)):
        fault = checkpoint_fault(checkpoint, training_args.world_size)
        if fault is None:
            return os.path.join(folder, checkpoint.name)
        faults.append(f"{checkpoint.name} ({fault})")
        if training_args.process_index == 0:
            logger.warning(f"{folder}: {faults[-1]} is damaged and passed over.")
    if not faults:
        raise PessError(f"{folder}: expected a checkpoint to resume from, found none.")
    raise PessError(
        f"{folder}: expected a whole checkpoint to resume from, found damaged ones only: {', '.join(faults)}. "
        "Delete them and start anew without --resume_from_checkpoint."
    )


def _whole(asked: str, training_args: Any) -> str:
    if not (Path(asked) / STATE).is_file():
        raise PessError(
            f"resume_from_checkpoint: expected true or a checkpoint's folder, found {asked}, which has no {STATE}."
        )
    fault = checkpoint_fault(asked, training_args.world_size)
    if fault is not None:
        raise PessError(
            f"{asked}: expected a whole checkpoint, found a damaged one ({fault}). "
            "Name another one, or pass true for the newest whole one."
        )
    return asked


def discard(checkpoint: str | Path) -> None:
    """Delete a checkpoint so that, whenever the process dies, no half of it passes for a checkpoint.

    Args:
        checkpoint: Its folder; nothing is done where it is absent.

    Example:
        >>> discard("runs/new/checkpoint-5")
    """
    checkpoint = Path(checkpoint)
    if checkpoint.is_dir():
        aside = checkpoint.with_name(_DISCARDED + checkpoint.name)
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(checkpoint, aside)
    for leftover in checkpoint.parent.glob(f"{_DISCARDED}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def rotate(current: str | Path, limit: int | None, best: str | None, processes: int = 1) -> None:
    """Delete checkpoints beyond `save_total_limit`: damaged ones first, then the oldest.

    The `Trainer`'s own rotation cannot tell a damaged checkpoint from a whole one, and runs before the other
    processes have written their part.

    Args:
        current: The checkpoint that was finished just now; it stays, and so does the best one.
        limit: How many may stay; None or 0 for all of them.
        best: The best checkpoint's folder, if one is known.
        processes: How many processes train.

    Example:
        >>> rotate("runs/new/checkpoint-5", limit=None, best=None)
    """
    if not limit or limit < 0:
        return
    current = Path(current)
    kept = {current.name, Path(best).name} if best else {current.name}
    others = [path for path in checkpoints(current.parent) if path.name not in kept]
    # By time, not by step: of two runs in one folder the earlier one's go first.
    others.sort(key=lambda path: (checkpoint_fault(path, processes) is None, path.stat().st_mtime_ns))
    for checkpoint in others[: max(0, len(others) + len(kept) - limit)]:
        discard(checkpoint)
