"""From the name of a source to its records: a file, a split of a folder, a dataset of the Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pess_hf.data.files import Placed, parse_json
from pess_hf.data.where import Where
from pess_hf.errors import PessError

#: What a caller may name: "sample", a path, or a Hub dataset id.
Source = str | os.PathLike[str]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
#: A folder with one of these was written by `datasets`' `save_to_disk`.
_SAVED = ("state.json", "dataset_dict.json")
#: Names under which files of the validation split go about.
_VALIDATION = ("validation", "valid", "val", "dev")


def find_file(source: Source, split: str | None, extensions: tuple[str, ...]) -> Path | None:
    """Find the file that `source` and `split` name.

    Args:
        source: A file, or a folder with one file a split (`train.jsonl`, `validation.jsonl`, ...).
        split: The split in a folder; must be None for a file.
        extensions: The file extensions that can be read, with their dot.

    Returns:
        The file, or None where `source` is for `read_table`: a folder written by `save_to_disk`, or no path on this
        machine but possibly the id of a Hub dataset.

    Raises:
        PessError: No such file, an extension that cannot be read, or a split that does not fit.
    """
    path = Path(source).expanduser()
    if path.is_dir() and any((path / name).is_file() for name in _SAVED):
        return None
    if path.is_dir():
        path = _file_of_split(path, split, extensions)
    elif path.is_file():
        if split is not None:
            raise PessError(
                f"{path}: expected no split for a single file, found split={split!r}. "
                "Leave the split out, or name a folder that holds one file a split."
            )
    elif _may_be_hub_id(source, path, extensions):
        return None
    else:
        raise PessError(
            f'{path}: expected a file, a folder, the id of a Hub dataset ("owner/name") or "sample", '
            f"found no such file in {path.absolute().parent}. Check the spelling and the folder."
        )
    if path.suffix.lower() not in extensions:
        raise PessError(
            f"{path}: expected one of the extensions {', '.join(extensions)}, found {path.suffix or 'none'!r}. "
            "Rename or convert the file."
        )
    return path


def _file_of_split(folder: Path, split: str | None, extensions: tuple[str, ...]) -> Path:
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in extensions)
    names = ", ".join(path.name for path in files) or f"none with one of the extensions {', '.join(extensions)}"
    if split is None:
        raise PessError(
            f"{folder}: expected a file, found a folder with the files {names}. Name a file, or a split of the folder."
        )
    wanted = [path for path in files if path.stem in (_VALIDATION if split in _VALIDATION else (split,))]
    if len(wanted) != 1:
        raise PessError(
            f"{folder}: expected one file for split={split!r}, found {len(wanted)} among the files {names}. "
            "Name the file itself, or rename it after its split."
        )
    return wanted[0]


def _may_be_hub_id(source: Source, path: Path, extensions: tuple[str, ...]) -> bool:
    return isinstance(source, str) and bool(_HUB_ID.fullmatch(source)) and path.suffix.lower() not in extensions


def stem_of(path: Path) -> str:
    """The name of a file in ids: its stem, with its folder before it where that is an MSC session's.

    Example:
        >>> stem_of(Path("msc_personasummary/session_2/valid.txt"))
        'session_2_valid'
    """
    folder = path.absolute().parent.name
    return f"{folder}_{path.stem}" if re.fullmatch(r"session_\d+", folder) else path.stem


def table_stem(source: Source) -> str:
    """The name of a Hub dataset or a saved one in ids.

    Example:
        >>> table_stem("ann/chats")
        'ann-chats'
    """
    return Path(source).name if Path(source).is_dir() else str(source).replace("/", "-")


def read_table(source: Source, split: str | None) -> Iterator[Placed]:
    """Yield the rows of a Hub or saved dataset; a dataset of JSON texts (one column `text`) is parsed.

    Args:
        source: The id, `owner/name`, or a folder written by `save_to_disk`.
        split: The split; None where the dataset has only one.

    Raises:
        PessError: The dataset cannot be fetched, has no such split, or has several and none was named.
    """
    import datasets

    saved = Path(source).is_dir()
    loaded = datasets.load_from_disk(str(source)) if saved else _fetch(str(source), split)
    if isinstance(loaded, datasets.DatasetDict):
        loaded = _one_split(source, loaded, split)
    elif saved and split is not None:
        found = f"found split={split!r} for a dataset without splits"
        raise PessError(f"{source}: expected no split, {found}. Leave it out.")
    for number, row in enumerate(loaded, start=1):
        where = Where(str(source) if split is None else f"{source} ({split})", "row", number)
        yield where, _from_text(dict(row), where)


def _fetch(source: str, split: str | None) -> Any:
    import datasets

    try:
        return datasets.load_dataset(source, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise PessError(
            f"{source}: expected a path or the id of a Hub dataset, found no such path, and the Hub says: {reason}. "
            "Check the spelling, the split and the network."
        ) from None


def _one_split(source: Source, splits: Any, split: str | None) -> Any:
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if split not in splits:
        names = ", ".join(splits)
        raise PessError(f"{source}: expected one of the splits {names}, found split={split!r}. Name one of these.")
    return splits[split]


def _from_text(row: dict[str, Any], where: Where) -> dict[str, Any]:
    text = row.get("text")
    if len(row) == 1 and isinstance(text, str) and text.startswith("{"):
        return dict(parse_json(text, where))
    return row
