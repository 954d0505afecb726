"""One run at a time into an output: a lock that the kernel takes back from a process that is killed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pess_hf.cli import prepare_output_dir
from pess_hf.errors import PessError
from pess_hf.main_process import on_main_process


@contextlib.contextmanager
def sole_writer(path: str, state: Any) -> Iterator[None]:
    """Keep other runs from writing into an output while the block lasts.

    The main process holds the lock for all processes of its run. The lock file, `.NAME.lock` beside the output, goes
    at the end; one that a killed run has left locks nobody out.

    Args:
        path: The output, a file or a folder; the folder that it lies in is created where it is missing.
        state: An accelerate `PartialState`.

    Raises:
        PessError: If another run holds the lock.

    Example:
        >>> from accelerate import PartialState
        >>> with sole_writer("runs/personas.jsonl", PartialState()):
        ...     Path("runs/.personas.jsonl.lock").exists()
        True
    """
    with contextlib.ExitStack() as held:
        on_main_process(state, lambda: held.enter_context(_lock(path)))
        yield


@contextlib.contextmanager
def _lock(path: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    target = Path(path).absolute()
    lock_file = prepare_output_dir(target.parent) / f".{target.name}.lock"
    lock = FileLock(lock_file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise PessError(
            f"{path}: expected no other run that writes it, found one at work. Wait until it has ended, or name "
            "another --output."
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock_file.unlink()  # before the release: who has it open finds a file without a name, and asks anew
        lock.release()
