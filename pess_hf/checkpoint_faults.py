"""What is wrong with a checkpoint: told by its manifest, and without one by the files themselves."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pess_hf.checkpoint_manifest import MANIFEST, manifest_fault, read_manifest
from pess_hf.cli import describe_os_error, one_line

STATE = "trainer_state.json"
# Of each group one must be there; a message names the first. The folders are those of FSDP and DeepSpeed.
_WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors", "*/adapter_model.safetensors",
    "pytorch_model_fsdp*", "global_step*",
)  # fmt: skip
_OPTIMIZER = ("optimizer.pt", "optimizer.bin", "optimizer_*", "global_step*")
_SCHEDULER = ("scheduler.pt", "global_step*")
_PICKLES = (".pt", ".pth", ".bin")


def checkpoint_fault(folder: str | Path, processes: int = 1) -> str | None:
    """Say what is wrong with a checkpoint that training is to go on from.

    A checkpoint of this library has a manifest, written when everything else was on the disk. One without a manifest
    comes from a plain `Trainer` or was being written when its process died: there every file is examined. A
    `Trainer` writes `trainer_state.json` last, so that a whole one shows that the first process had come to its end.

    Args:
        folder: The checkpoint.
        processes: How many processes train now; without a manifest each of them needs its random state.

    Returns:
        ``file: expected ..., found ...``, or None for a whole checkpoint.

    Example:
        >>> import tempfile
        >>> checkpoint_fault(tempfile.mkdtemp())
        'trainer_state.json: expected a file, found none'
    """
    folder = Path(folder)
    try:
        manifest = read_manifest(folder)
    except (OSError, ValueError):
        return f"{MANIFEST}: expected a manifest, found what cannot be read"
    try:
        if manifest is not None:
            return manifest_fault(folder, manifest) or _first(_missing(folder))
        return _first(_missing(folder)) or _first(_unreadable(folder)) or _random_state_fault(folder, processes)
    except OSError as error:
        return describe_os_error(error)


def _first(faults: Iterable[str]) -> str | None:
    return next(iter(faults), None)


def _missing(folder: Path) -> Iterator[str]:
    for patterns in ((STATE,), _WEIGHTS, _OPTIMIZER, _SCHEDULER):
        if not any(True for pattern in patterns for _ in folder.glob(pattern)):
            yield f"{patterns[0]}: expected a file, found none"


def _unreadable(folder: Path) -> Iterator[str]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        fault = None
        if path.suffix == ".json":
            fault = _json_fault(path, folder)
        elif path.suffix == ".safetensors":
            fault = _safetensors_fault(path)
        elif path.suffix in _PICKLES and not zipfile.is_zipfile(path):  # torch.save writes its directory last
            fault = "expected what torch.save writes, found a file that is cut or something else"
        if fault is not None:
            yield f"{path.relative_to(folder).as_posix()}: {fault}"


def _json_fault(path: Path, folder: Path) -> str | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return f"expected JSON, found what cannot be read ({one_line(str(error))})"
    if path.name == STATE:
        return _step_fault(value, folder)
    if path.name.endswith(".safetensors.index.json"):
        gone = sorted({name for name in value["weight_map"].values() if not (path.parent / name).is_file()})
        return f"expected the files that it names, found no {gone[0]}" if gone else None
    return None


def _step_fault(state: Any, folder: Path) -> str | None:
    """A folder that is named after another step holds what two runs wrote into it."""
    named = re.fullmatch(r"checkpoint-(\d+)", folder.name)
    if named and state.get("global_step") != int(named[1]):
        return f"expected step {named[1]}, found {state.get('global_step')}"
    return None


def _safetensors_fault(path: Path) -> str | None:
    """Whether the header can be read and names as many bytes as the file has; no weights are read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            return f"expected a header of {length} bytes, found a file of {size}"
        try:
            header = json.loads(file.read(length))
            data = max(
                (entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return "expected safetensors, found a header that cannot be read"
    expected = 8 + length + data
    return None if size == expected else f"expected {expected} bytes, as its header says, found {size}"


def _random_state_fault(folder: Path, processes: int) -> str | None:
    if (folder / "rng_state.pth").is_file():
        return None
    ranks = {int(path.stem.rsplit("_", 1)[1]) for path in folder.glob("rng_state_[0-9]*.pth")}
    needed = max(processes, 2, *(rank + 1 for rank in ranks)) if ranks else 0
    lacking = sorted(set(range(needed)) - ranks)
    name = f"rng_state_{lacking[0]}.pth" if lacking else "rng_state.pth"
    return f"{name}: expected a file, found none" if lacking or not ranks else None
