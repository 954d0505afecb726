"""What a recipe writes about its own run, for the model card and for whoever repeats it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from pess_hf.cli import write_json

_PACKAGES = (
    "pess_hf",
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "sentence-transformers",
    "tokenizers",
    "peft",
)
_SECRET = ("token", "password", "secret")


def write_run_record(folder: str | Path, arguments: list[Any], train_rows: int, seconds: float) -> None:
    """Write `run.json`: command, arguments, versions, hardware, rows and time. Tokens are left out.

    Args:
        folder: The run's folder.
        arguments: The argument dataclasses of the recipe.
        train_rows: Rows trained on.
        seconds: Wall-clock time of the training.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> write_run_record(folder, [], train_rows=10, seconds=1.5)
        >>> (Path(folder) / "run.json").is_file()
        True
    """
    record = {
        "recipe": Path(sys.argv[0]).name,
        "command": shlex.join(["accelerate", "launch", *_without_secrets(sys.argv)]),
        "arguments": flat_arguments(arguments),
        "versions": installed_versions(),
        "hardware": hardware(),
        "train_rows": train_rows,
        "seconds": round(seconds, 1),
    }
    write_json(Path(folder) / "run.json", record)


def flat_arguments(arguments: list[Any]) -> dict[str, Any]:
    """All fields of some argument dataclasses that JSON can hold, secrets left out."""
    flat: dict[str, Any] = {}
    for group in arguments:
        values = group.to_dict() if hasattr(group, "to_dict") else vars(group)
        flat.update({name: value for name, value in values.items() if not _is_secret(name) and _is_plain(value)})
    return flat


def installed_versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def hardware() -> str:
    """The accelerators, or the CPU and the threads that torch uses.

    Example:
        >>> isinstance(hardware(), str)
        True
    """
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def _is_secret(name: str) -> bool:
    return any(word in name.lower().split("_") for word in _SECRET)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and value == value)


def _without_secrets(argv: list[str]) -> list[str]:
    """The command line with the value after a secret's option replaced."""
    shown, hide = [], False
    for word in argv:
        name, _, value = word.partition("=")
        is_secret = name.startswith("--") and _is_secret(name.lstrip("-"))
        shown.append("***" if hide else f"{name}=***" if is_secret and value else word)
        hide = is_secret and not value
    return shown
