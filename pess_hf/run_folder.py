"""What a finished run left behind: the files that a model card is made from, read and checked."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pess_hf.errors import PessError
from pess_hf.json_files import read_json_object

_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")
# "runs/first" has the shape of a Hub id; nobody publishes under these names, and recipes write to them.
_LOCAL_FOLDERS = {"checkpoint", "checkpoints", "data", "model", "models", "output", "outputs", "runs", "tmp"}


@dataclass(frozen=True)
class RunFolder:
    """The contents of a run folder.

    Attributes:
        path: The folder.
        config: ``config.json``, or what ``pess_adapter.json`` says; empty for an adapter that peft alone saved.
        adapter: ``adapter_config.json``; empty unless an adapter was trained.
        metrics: ``metrics.json``, the measured numbers only.
        run: ``run.json``, what the recipe wrote about itself.
        state: ``trainer_state.json``; empty where there is none.
    """

    path: Path
    config: dict[str, Any]
    adapter: dict[str, Any]
    metrics: dict[str, float]
    run: dict[str, Any]
    state: dict[str, Any]

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the run, flat."""
        return self.run.get("arguments") or {}

    @property
    def train_data(self) -> list[str]:
        """The training sources."""
        return self.sources("train_data")

    def sources(self, name: str) -> list[str]:
        """An argument that names sources of data; a recipe may take one or several."""
        data = self.arguments.get(name) or []
        return [str(source) for source in data] if isinstance(data, list) else [str(data)]


def read_run_folder(path: str | Path) -> RunFolder:
    """Read the files of a finished run.

    Args:
        path: The recipe's output folder.

    Returns:
        What the files say; numbers that are null, NaN or infinite are left out of `metrics`.

    Raises:
        PessError: If the folder or one of its files is missing or is not what a recipe writes.

    Example:
        >>> import json, tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, value in {"config": {}, "metrics": {"test_loss": 0.5}, "run": {}}.items():
        ...     _ = (folder / f"{name}.json").write_text(json.dumps(value))
        >>> read_run_folder(folder).metrics
        {'test_loss': 0.5}
    """
    path = Path(path)
    if not path.is_dir():
        found = "a file" if path.exists() else "no folder"
        raise PessError(f"{path}: expected the output folder of a finished run, found {found}. Check the path.")
    _refuse_checkpoint(path)
    adapter = read_object(path / "adapter_config.json", needed=False)
    settings = read_object(path / "pess_adapter.json", needed=False)
    config = read_object(path / "config.json", needed=not adapter) or settings.get("config", {})
    return RunFolder(
        path=path,
        config=config,
        adapter=adapter,
        metrics=_numbers(path / "metrics.json"),
        run=_record(path / "run.json"),
        state=read_object(path / "trainer_state.json", needed=False),
    )


def _refuse_checkpoint(path: Path) -> None:
    """A checkpoint holds a model, but neither the numbers nor the record of its run."""
    name = path.resolve().name
    if name.startswith("checkpoint-") and not (path / "run.json").exists():
        raise PessError(
            f"{path}: expected the output folder of a finished run, found one of its checkpoints. "
            f"Name the folder that holds {name}."
        )


def read_object(path: Path, needed: bool = True, cure: str = "Run the recipe again.") -> dict[str, Any]:
    """Read the JSON object in a file.

    Args:
        path: The file.
        needed: Whether a missing file is an error.
        cure: What to do about a broken file.

    Returns:
        The object; empty where a file that is not needed is missing.

    Raises:
        PessError: If the file is missing or broken.

    Example:
        >>> read_object(Path("nowhere.json"), needed=False)
        {}
    """
    if path.exists():
        return read_json_object(path, cure)
    if needed:
        raise PessError(f"{path}: no such file. A recipe writes it when its run ends; let the run finish.")
    return {}


def _record(path: Path) -> dict[str, Any]:
    """`run.json`; those of its fields that a card goes through are of their kind."""
    record = read_object(path)
    for name in ("arguments", "versions"):
        if not isinstance(record.get(name) or {}, dict):
            kind = type(record[name]).__name__
            raise PessError(f"{path}: expected a JSON object for {name!r}, found {kind}. Run the recipe again.")
    return record


def _numbers(path: Path) -> dict[str, float]:
    """The finite numbers of a metrics file; a value of another kind is an error, null means not measured."""
    found: dict[str, float] = {}
    for name, value in read_object(path).items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise PessError(f"{path}: expected a number for {name!r}, found {value!r}. Run the recipe again.")
        if abs(value) <= sys.float_info.max:  # False for NaN; unlike isfinite it takes an integer of any size
            found[name] = value
    return found


def as_hub_id(name: object, near: Path | None = None, bare: bool = False) -> str | None:
    """`name` if it can be the id of a repository on the Hub, else None; nothing is looked up on the network.

    Args:
        name: What a run was given as its model or data: a Hub id, a path, or nothing.
        near: A folder; paths relative to it or to one of its parents count as local.
        bare: Accept an id without a namespace ("gpt2").

    Returns:
        The id, or None for a path, a URL or anything else.

    Example:
        >>> as_hub_id("facebook/bart-base"), as_hub_id("/tmp/run"), as_hub_id("runs/first")
        ('facebook/bart-base', None, None)
    """
    if not isinstance(name, str) or not _HUB_ID.fullmatch(name) or not (bare or "/" in name):
        return None
    if name.split("/")[0].lower() in _LOCAL_FOLDERS:
        return None
    places = [Path(), *([near.resolve(), *near.resolve().parents] if near else [])]
    return None if any((place / name).exists() for place in places) else name
