"""The two public loaders: find the source, tell its format, read it, build the dataset."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pess_hf.data import sample
from pess_hf.data.esconv import parse_esconv
from pess_hf.data.files import Placed, read_csv, read_json, read_json_lines, read_lines, read_parquet
from pess_hf.data.msc import parse_msc
from pess_hf.data.options import Options
from pess_hf.data.parlai import parse_parlai
from pess_hf.data.rows import parse_rows
from pess_hf.data.source import Source, find_file, read_table, stem_of, table_stem
from pess_hf.data.spc import COLUMNS, CONVERSATION_COLUMN, parse_spc
from pess_hf.data.support_rows import parse_support_rows
from pess_hf.data.tables import persona_features, support_features, to_dataset
from pess_hf.errors import PessError
from pess_hf.text import DEFAULT_SEPARATOR

if TYPE_CHECKING:
    import datasets

Rows = Iterator[dict[str, Any]]
_Parser = Callable[[Iterable[Placed], str, Options], Rows]

PERSONA_EXTENSIONS = (".txt", ".csv", ".jsonl", ".json", ".parquet")
SUPPORT_EXTENSIONS = (".json", ".jsonl", ".txt", ".parquet")


def load_persona_dataset(
    source: Source | Sequence[Source],
    split: str | None = None,
    *,
    require_persona: bool = True,
    separator: str | None = DEFAULT_SEPARATOR,
    persona_turns: bool = False,
) -> datasets.Dataset:
    """Load personas and the turns that show them.

    The format is told by extension and content: Persona-Chat in ParlAI's text form (.txt), Synthetic-Persona-Chat
    (.csv), Multi-Session Chat persona summaries (.jsonl, .txt), and rows of our own shape (.jsonl, .json, .parquet).

    Args:
        source: `"sample"` (the embedded corpus), a file, a folder with one file a split, a folder written by
            `save_to_disk`, the id of a Hub dataset, or a list of such sources, which are joined in order.
        split: `"train"`, `"validation"` or `"test"` of the sample (None: train), of a folder, or of a Hub dataset
            (None where it has only one). Must be None for a single file.
        require_persona: Whether a record without `persona` is an error; if False its persona is an empty list.
        separator: The mark of this separator is replaced by a comma inside every text and white space is folded; None
            leaves texts of JSON and Parquet rows as they are.
        persona_turns: Whether to add the column `persona_turns`, for each persona sentence the index of the utterance
            that tells it, where the source says so (Multi-Session Chat); null in the other rows.

    Returns:
        A dataset with the columns `dialogue_id` (str), `utterances` (one speaker's turns, oldest first) and `persona`
        (sentences), and the extra columns of JSON and Parquet rows. A dialogue of two gives two rows.

    Raises:
        PessError: The source cannot be found or read, or a record is malformed: the message says where, what was
            expected, what was found and what to do.

    Example:
        >>> rows = load_persona_dataset("sample", split="validation")
        >>> rows.column_names
        ['dialogue_id', 'utterances', 'persona']
    """
    options = Options(separator, require_persona, persona_turns)
    rows = itertools.chain.from_iterable(_persona_rows(one, split, options) for one in _as_list(source))
    return _build(rows, persona_features(), source)


def iter_persona_rows(
    source: Source | Sequence[Source],
    split: str | None = None,
    *,
    require_persona: bool = True,
    separator: str | None = DEFAULT_SEPARATOR,
) -> Iterator[dict[str, Any]]:
    """The rows of `load_persona_dataset` one after the other, read as they are asked for.

    Args:
        source: As in `load_persona_dataset`.
        split: As in `load_persona_dataset`.
        require_persona: As in `load_persona_dataset`.
        separator: As in `load_persona_dataset`.

    Yields:
        One row, with its record's extra columns.

    Raises:
        PessError: As in `load_persona_dataset`, when the record is reached.

    Example:
        >>> next(iter_persona_rows("sample", "test")).keys()
        dict_keys(['dialogue_id', 'utterances', 'persona'])
    """
    options = Options(separator, require_persona)
    for one in _as_list(source):
        yield from _persona_rows(one, split, options)


def load_support_dataset(
    source: Source | Sequence[Source],
    split: str | None = None,
    *,
    separator: str | None = DEFAULT_SEPARATOR,
    sample_reference: bool = False,
) -> datasets.Dataset:
    """Load emotional-support dialogues.

    The format is told by content: ESConv (a JSON list or JSON lines), PESConv (with `persona_list`), and rows of our
    own shape.

    Args:
        source: `"sample"` (the embedded corpus), a file, a folder with one file a split, a folder written by
            `save_to_disk`, the id of a Hub dataset, or a list of such sources, which are joined in order.
        split: As in `load_persona_dataset`.
        separator: As in `load_persona_dataset`.
        sample_reference: Whether `"sample"` brings its reference personas; by default they are left to be inferred.

    Returns:
        A dataset with the columns `dialogue_id`, `situation`, `emotion_type`, `problem_type` (texts, empty where not
        given), `turns` (list of `{"speaker": "seeker" | "supporter", "text": str, "strategy": one of the eight or
        None}`) and `persona` (for each turn the sentences known before it; empty until inferred).

    Raises:
        PessError: As in `load_persona_dataset`.

    Example:
        >>> row = load_support_dataset("sample", split="test")[0]
        >>> len(row["persona"]) == len(row["turns"])
        True
    """
    options = Options(separator, sample_reference=sample_reference)
    rows = itertools.chain.from_iterable(_support_rows(one, split, options) for one in _as_list(source))
    return _build(rows, support_features(), source)


def _as_list(source: Source | Sequence[Source]) -> list[Source]:
    sources: list[Any] = list(source) if isinstance(source, (list, tuple)) else [source]
    for one in sources:
        if not isinstance(one, (str, os.PathLike)) or not os.fspath(one):
            raise PessError(
                f"expected a source by name or path, found {one!r}. Name a file, a Hub dataset or 'sample'."
            )
    if not sources:
        raise PessError("expected at least one source, found an empty list. Name a file, a Hub dataset or 'sample'.")
    return sources


def _build(rows: Rows, features: dict[str, Any], source: Source | Sequence[Source]) -> datasets.Dataset:
    dataset = to_dataset(rows, features)
    if not len(dataset):
        raise PessError(f"{source}: expected records, found none. Write the file again or name another one.")
    return dataset


def _persona_rows(source: Source, split: str | None, options: Options) -> Rows:
    if source == sample.NAME:
        return iter(sample.make_persona_sample(split or "train"))
    path = find_file(source, split, PERSONA_EXTENSIONS)
    if path is None:
        return _parse(read_table(source, split), table_stem(source), options, _persona_parser)
    if path.suffix.lower() == ".txt" and not _holds_json(path):
        return parse_parlai(read_lines(path), stem_of(path), options)
    return _parse(_read(path), stem_of(path), options, _persona_parser)


def _support_rows(source: Source, split: str | None, options: Options) -> Rows:
    if source == sample.NAME:
        return iter(sample.make_support_sample(split or "train", with_reference=options.sample_reference))
    path = find_file(source, split, SUPPORT_EXTENSIONS)
    if path is None:
        return _parse(read_table(source, split), table_stem(source), options, _support_parser)
    return _parse(_read(path), stem_of(path), options, _support_parser)


def _holds_json(path: Path) -> bool:
    """Whether a .txt file holds JSON lines, as ParlAI's own MSC files do."""
    first = next((line for _, line in read_lines(path) if line.strip()), "")
    return first.lstrip().startswith("{")


def _read(path: Path) -> Iterator[Placed]:
    extension = path.suffix.lower()
    if extension == ".csv":
        return read_csv(path, COLUMNS)
    readers = {".json": read_json, ".parquet": read_parquet}
    return readers.get(extension, read_json_lines)(path)


def _parse(records: Iterator[Placed], stem: str, options: Options, choose: Callable[[Placed], _Parser]) -> Rows:
    first = next(records, None)
    if first is None:
        return iter(())
    return choose(first)(itertools.chain([first], records), stem, options)


def _persona_parser(first: Placed) -> _Parser:
    _, record = first
    if "utterances" in record:
        return parse_rows
    if CONVERSATION_COLUMN in record:
        return parse_spc
    return parse_msc if "dialog" in record else parse_rows


def _support_parser(first: Placed) -> _Parser:
    where, record = first
    if "turns" in record:
        return parse_support_rows
    if "dialog" in record:
        return parse_esconv
    present = ", ".join(repr(name) for name in record) or "none"
    raise where.error(
        "a column 'turns' (our rows) or 'dialog' (ESConv)", f"the columns {present}", "Name a support dataset."
    )
