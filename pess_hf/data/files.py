"""Reading records from files: text lines, JSON lines, a JSON list, CSV and Parquet.

Every reader is a plain generator of `(place, record)` pairs and holds one record (JSON list: one file) in memory.
Blank lines in JSON-lines and ParlAI files hold no record and are passed over; anything else unreadable is an error.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pess_hf.data.where import Where, describe
from pess_hf.errors import PessError

#: A record and its place.
Placed = tuple[Where, dict[str, Any]]

_RESAVE = "Save the file as UTF-8."
_PARQUET_ROWS = 1024
_PARQUET_BUFFER = 1 << 20


class _DuplicateKeyError(ValueError):
    """A JSON object names the same key twice."""


def read_lines(path: Path) -> Iterator[tuple[Where, str]]:
    r"""Yield the lines of a UTF-8 file without line ends, blank ones included.

    A byte order mark is dropped and ``\r\n`` counts as a line end. Lines are split at ``\n`` only, so that the exotic
    line separators of Unicode stay inside a text.

    Raises:
        PessError: The file is empty or not UTF-8 (the message gives the line and the byte).
    """
    last = 0
    with _open(path) as stream:
        for number, raw in enumerate(stream, start=1):
            where = Where(str(path), "line", number)
            yield where, _decode(raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw, where)
            last = number
    if not last:
        raise PessError(f"{path}: expected records, found an empty file. Write the file again or name another one.")


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise PessError(f"{path}: expected a readable file, found: {error.strerror}. Check its permissions.") from None


def _decode(raw: bytes, where: Where) -> str:
    try:
        return raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        found = f"the byte 0x{raw[error.start]:02x} at column {error.start + 1}"
        raise where.error("UTF-8 text", found, _RESAVE) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise _DuplicateKeyError(next(name for name in names if names.count(name) > 1))
    return record


def parse_json(text: str, where: Where) -> Any:
    """Parse one JSON value that starts at `where`; errors give the line and the column of the letter at fault."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except _DuplicateKeyError as error:
        raise where.error("each key once", f"{str(error)!r} twice", "Keep one of the two.", str(error)) from None
    except json.JSONDecodeError as error:
        place = Where(where.file, "line", where.number + error.lineno - 1)
        found = f"at column {error.colno}: {error.msg}"
        raise place.error("JSON", found, "Mend that line, or fetch the file again if it was cut.") from None
    except ValueError as error:  # an integer of thousands of digits
        raise where.error("JSON", str(error), "Write such a number as text.") from None
    except RecursionError:
        raise where.error("JSON", "lists or objects nested too deep", "Write flat records.") from None


def _as_object(value: Any, where: Where) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise where.error("a JSON object", describe(value), 'Write one object a record: {"utterances": [...], ...}.')
    return value


def read_json_lines(path: Path) -> Iterator[Placed]:
    """Yield one object a line."""
    for where, line in read_lines(path):
        if line.strip():
            yield where, _as_object(parse_json(line, where), where)


def read_json(path: Path) -> Iterator[Placed]:
    """Yield the objects of one JSON list."""
    text = "\n".join(line for _, line in read_lines(path))
    value = parse_json(text, Where(str(path), "line", 1))
    if not isinstance(value, list):
        raise PessError(
            f"{path}: expected a JSON list of records, found {describe(value)}. "
            "Put the records between [ and ], or write one a line and name the file .jsonl."
        )
    for number, item in enumerate(value, start=1):
        where = Where(str(path), "record", number)
        yield where, _as_object(item, where)


def read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[Placed]:
    """Yield the rows of a comma-separated file with a header; a row may span several lines.

    Args:
        path: The file.
        columns: The columns that must be there, whatever their case and the white space around them.
    """
    lines = (line + "\n" for _, line in read_lines(path))
    rows = _csv_rows(path, lines)
    spellings = {name.casefold(): name for name in columns}
    header = [spellings.get(name.strip().casefold(), name.strip()) for name in next(rows, [])]
    _check_header(path, header, columns)
    for number, row in enumerate(rows, start=1):
        where = Where(str(path), "row", number)
        if len(row) != len(header):
            raise where.error(
                f"{len(header)} cells", f"{len(row)}", "Quote the cells that hold commas, quotes or line breaks."
            )
        yield where, dict(zip(header, row, strict=True))


def _csv_rows(path: Path, lines: Iterable[str]) -> Iterator[list[str]]:
    reader = csv.reader(lines, strict=True)
    try:
        yield from (row for row in reader if row)
    except csv.Error as error:
        where = Where(str(path), "line", max(reader.line_num, 1))
        raise where.error("comma-separated cells", str(error), "Look for a quotation mark left open.") from None


def _check_header(path: Path, header: list[str], columns: tuple[str, ...]) -> None:
    where = Where(str(path), "line", 1)
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise where.error("each column once", f"{twice[0]!r} twice", "Rename or remove one of the two.", twice[0])
    if not set(columns) <= set(header):
        expected = "a header with the columns " + ", ".join(map(repr, columns))
        raise where.error(expected, ", ".join(map(repr, header)), "Write the column names on the first line.")


def read_parquet(path: Path) -> Iterator[Placed]:
    """Yield the rows of a Parquet file, a batch in memory at a time."""
    import pyarrow
    import pyarrow.parquet

    try:
        # Without a buffer a whole row group is read at once, which is as large as the writer pleased.
        table = pyarrow.parquet.ParquetFile(path, buffer_size=_PARQUET_BUFFER)
        names = table.schema_arrow.names
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise PessError(f"{path}, column {twice[0]!r}: expected each column once, found it twice. Rename one.")
        number = 0
        for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
            for record in batch.to_pylist():
                number += 1
                yield Where(str(path), "row", number), record
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise PessError(f"{path}: expected a Parquet file, found something else ({reason}). Write it again.") from None
