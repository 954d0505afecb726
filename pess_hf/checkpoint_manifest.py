"""The manifest of a checkpoint: size and checksum of every file, written last, so that it marks a finished one."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from pess_hf.cli import write_json

#: Its name in a checkpoint's folder.
MANIFEST = "checkpoint_manifest.json"
_BLOCK = 1 << 20
#: Blocks of a file that its checksum covers; a file of at most 64 MiB is covered whole.
_BLOCKS = 64


def write_manifest(folder: str | Path, processes: int) -> None:
    """Bring every file of a checkpoint to the disk, then write the manifest, whole or not at all.

    Args:
        folder: The checkpoint, with everything that all processes write into it.
        processes: How many processes train.

    Raises:
        PessError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "model.safetensors").write_bytes(b"weights")
        >>> write_manifest(folder, processes=1)
        >>> manifest_fault(folder, read_manifest(folder)) is None
        True
    """
    folder = Path(folder)
    files: dict[str, dict[str, int]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        _flush(path)
        name = path.relative_to(folder).as_posix()
        files[name] = {"bytes": path.stat().st_size, "crc32": checksum(path)}
    write_json(folder / MANIFEST, {"processes": processes, "files": files})


def read_manifest(folder: str | Path) -> dict[str, Any] | None:
    """The manifest of a checkpoint, None where there is none.

    Raises:
        ValueError: If it is no manifest.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return None
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ValueError("no manifest")
    return manifest


def manifest_fault(folder: str | Path, manifest: dict[str, Any]) -> str | None:
    """Say in which file a checkpoint differs from its manifest; None where it does not.

    Args:
        folder: The checkpoint.
        manifest: What `read_manifest` gave.

    Returns:
        ``file: expected ..., found ...``; files that the manifest does not name are no fault.
    """
    for name, expected in manifest["files"].items():
        path = Path(folder) / name
        if not path.is_file():
            return f"{name}: expected a file, found none"
        size = path.stat().st_size
        if size != expected["bytes"]:
            return f"{name}: expected {expected['bytes']} bytes, found {size}"
        if checksum(path) != expected["crc32"]:
            return f"{name}: expected what the checkpoint was saved with, found other bytes"
    return None


def checksum(path: Path) -> int:
    """CRC-32 of a file; of a large one of 64 blocks spread over it, the first and the last among them.

    A cut shows in the size. The checksum is for what keeps the size, and must not take minutes.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "hello"
        >>> _ = path.write_bytes(b"hello")
        >>> hex(checksum(path))
        '0x3610a686'
    """
    size, crc = path.stat().st_size, 0
    blocks = min(_BLOCKS, -(-size // _BLOCK))
    last = max(0, size - _BLOCK)
    with path.open("rb") as file:
        for block in range(blocks):
            file.seek(block * _BLOCK if size <= _BLOCKS * _BLOCK else block * last // (blocks - 1))
            crc = zlib.crc32(file.read(_BLOCK), crc)
    return crc


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
