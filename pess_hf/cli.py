"""What every recipe shares: one-line errors, an output folder checked early, files written whole or not at all.

Imports neither torch nor transformers, so that a recipe can report a slip before the heavy imports.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pess_hf.errors import PessError

#: How long a process other than the first waits before it says why it failed.
GRACE_SECONDS = 5.0

_CURES = {
    errno.ENOENT: "check the path",
    errno.EACCES: "choose a path you may read and write, or change its permissions",
    errno.EPERM: "choose a path you may read and write, or change its permissions",
    errno.EROFS: "choose a path on a file system that can be written",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "a part of this path is a file; choose another path",
    errno.EEXIST: "a file of this name is in the way; choose another path",
    errno.ENOSPC: "free some disk space or choose another path",
    errno.EDQUOT: "free some of your disk quota or choose another path",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def run_recipe(main: Callable[..., None]) -> None:
    """Run a recipe's `main` and turn what the user can mend into one line and an exit status.

    A `PessError`, and an `OSError` such as a missing file, a full disk or an unknown model id, become ``error: ...``
    on stderr and status 1; Ctrl-C becomes ``interrupted`` and status 130. All else is a bug and keeps its traceback.
    With ``PESS_DEBUG=1`` in the environment the traceback of the mendable errors is shown as well. Of several
    processes the first speaks at once and the others after some seconds: by then the launcher has ended those that
    failed with it, so that one error is one line.

    Args:
        main: The recipe, called without arguments.

    Raises:
        SystemExit: With the status above, if `main` did not succeed.

    Example:
        >>> def main() -> None:
        ...     raise PessError("rows.jsonl, line 3: expected an object, found a list")
        >>> run_recipe(main)
        Traceback (most recent call last):
        ...
        SystemExit: 1
    """
    try:
        main()
    except PessError as err:
        _fail(str(err))
    except OSError as err:
        # transformers and huggingface_hub raise a bare OSError for an unknown model id or an unreachable Hub.
        _fail(describe_os_error(err))
    except KeyboardInterrupt:
        if _rank() == 0:
            print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception:
        # The end of another process breaks what this one was exchanging with it; the launcher is about to end it too.
        if _is_one_of_several():
            time.sleep(GRACE_SECONDS)
        raise


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _is_one_of_several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _fail(message: str) -> None:
    """Print the one line and leave; called inside an `except` block."""
    if _is_one_of_several() and _rank() > 0:
        time.sleep(GRACE_SECONDS)
    if os.environ.get("PESS_DEBUG", "") not in ("", "0"):
        traceback.print_exc()
    sys.stdout.flush()
    print(f"error: {one_line(message)}", file=sys.stderr)
    raise SystemExit(1) from None


def one_line(message: str) -> str:
    r"""Fold line breaks and the white space around them to one blank each.

    Example:
        >>> one_line("first\n  second")
        'first second'
    """
    return re.sub(r"\s*[\r\n]+\s*", " ", message.strip())


def describe_os_error(error: OSError, path: str | os.PathLike[str] | None = None) -> str:
    """Say in one line which file an `OSError` is about, what went wrong and what to do.

    Args:
        error: The error to describe.
        path: The file to name; by default the error's own.

    Returns:
        ``file: reason; cure``, or the folded message of an error that names no file.

    Example:
        >>> describe_os_error(FileNotFoundError(2, "No such file or directory", "rows.jsonl"))
        'rows.jsonl: no such file or directory; check the path'
    """
    name = path if path is not None else error.filename
    if name is None and error.errno not in _CURES:
        return one_line(str(error)) or type(error).__name__
    shown = "" if name is None else f"{os.fsdecode(name)}: "
    reason = error.strerror or type(error).__name__
    cure = _CURES.get(error.errno or 0)
    return f"{shown}{reason[:1].lower()}{reason[1:]}" + (f"; {cure}" if cure else "")


def prepare_output_dir(path: str | os.PathLike[str]) -> Path:
    """Make sure that a folder exists and can be written, before any work is done.

    Args:
        path: The folder; it and its parents are created where they are missing.

    Returns:
        The folder.

    Raises:
        PessError: If it cannot be created or written. Folders created on the way are removed again.

    Example:
        >>> prepare_output_dir("runs/first").is_dir()
        True
    """
    folder = Path(path)
    missing = [step for step in (folder, *folder.parents) if not os.path.exists(step)]
    probe = folder / f".write-test-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("x", encoding="utf-8")
        probe.unlink()
    except OSError as err:
        _remove_quietly(probe, missing)
        raise PessError(f"cannot write to the output folder {describe_os_error(err, folder)}") from err
    return folder


def prepare_output_file(path: str | os.PathLike[str]) -> Path:
    """Make sure that a file can be written, before any work is done; its folder is created where it is missing.

    Raises:
        PessError: If it cannot be, or if something other than a file has its name.

    Example:
        >>> prepare_output_file("runs/first/scores.json").name
        'scores.json'
    """
    file = Path(path)
    if not os.fspath(path):
        raise PessError("output: expected a file to write, found an empty name; name a file")
    if file.is_dir():
        raise PessError(f"{file}: expected a file to write, found a folder; name a file")
    prepare_output_dir(file.absolute().parent)
    return file


def check_distinct_files(reads: Sequence[str], **writes: str | None) -> None:
    """Refuse to write a file that is also read, or two results into one file.

    Args:
        reads: Files that are read; names of other sources do no harm.
        writes: Setting -> the file it names; None passes.

    Raises:
        PessError: Naming the two settings.

    Example:
        >>> check_distinct_files(["rows.jsonl"], output="scores.json", plot=None)
    """
    taken = {os.path.realpath(path): "data" for path in reads}
    for name, path in writes.items():
        if path is None:
            continue
        other = taken.setdefault(os.path.realpath(path), name)
        if other != name:
            raise PessError(f"{name}: expected a file of its own, found {path}, which is {other} too. Name another.")


def check_counts(arguments: Any, *names: str) -> None:
    """Refuse counts below 1; None passes.

    Raises:
        PessError: Naming the first that is.
    """
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise PessError(f"{name}: expected 1 or more, found {value}.")


def _remove_quietly(file: Path, folders: list[Path]) -> None:
    """Take back what a failed `prepare_output_dir` created; a folder that is in use by now stays."""
    with suppress(OSError):
        file.unlink()
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, binary: bool = False) -> Iterator[IO[Any]]:
    """Open a UTF-8 text file that appears under its name only when the block has ended well.

    Text goes to a temporary file in the same folder, which is flushed to the disk and then renamed. If the block
    raises, the temporary file is removed and a file that was there before stays as it was.

    Args:
        path: The file to write; its folder must exist. A link is followed.
        binary: Whether it takes bytes in place of text.

    Yields:
        The open file.

    Raises:
        PessError: If the file cannot be written, naming `path` and a cure.

    Example:
        >>> with atomic_write("note.txt") as file:
        ...     _ = file.write("whole or not at all")
    """
    # Renaming over a link would replace the link, and over a device such as /dev/null would destroy it.
    target = Path(os.path.realpath(path))
    if os.path.exists(target) and not os.path.isfile(target):
        raise PessError(f"{os.fspath(path)}: expected a file to write, found something else; name a file")
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(8)}.tmp")
    try:
        as_text: dict[str, Any] = {} if binary else {"encoding": "utf-8", "newline": "\n"}
        with open(temporary, "xb" if binary else "x", **as_text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as err:
        # A failing write carries an errno and no file name; an error about another file is not ours to rename.
        if err.errno is not None and err.filename in (None, str(temporary)):
            raise PessError(describe_os_error(err, path)) from err
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write `obj` as indented JSON, whole or not at all; the order of keys is kept.

    Args:
        path: The file to write.
        obj: What `json` can write.

    Raises:
        PessError: If a number is NaN or infinite, which JSON cannot say, or if the file cannot be written.

    Example:
        >>> write_json("metrics.json", {"persona_f1": 0.5})
    """
    text = _dump(path, obj, "", indent=2)
    with atomic_write(path) as file:
        file.write(text + "\n")


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[Any]) -> None:
    """Write one JSON value a line, whole or not at all; `rows` is read once and never held in memory.

    Args:
        path: The file to write.
        rows: The values, one for each line.

    Raises:
        PessError: If a number is NaN or infinite, or if the file cannot be written.

    Example:
        >>> write_jsonl("predictions.jsonl", [{"persona": ["I sing."]}])
    """
    with atomic_write(path) as file:
        for number, row in enumerate(rows, start=1):
            file.write(_dump(path, row, f", line {number}") + "\n")


def _dump(path: str | os.PathLike[str], obj: Any, where: str, indent: int | None = None) -> str:
    """Strict JSON text of `obj`."""
    try:
        return json.dumps(obj, ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError as err:
        found = _find_not_finite(obj, "")
        if found is None:
            raise
        raise PessError(f"{os.fspath(path)}{where}: {found}, expected a finite number; nothing was written") from err


def _find_not_finite(value: Any, place: str) -> str | None:
    """Say where in nested containers the first number stands that JSON cannot hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"'{place}' is {value}" if place else f"the value is {value}"
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    found = (_find_not_finite(item, f"{place}.{key}" if place else str(key)) for key, item in items)
    return next((text for text in found if text is not None), None)
