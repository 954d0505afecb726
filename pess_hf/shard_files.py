"""The file formats of batch extraction: checking that rows fit, writing shards, joining them; a shard in memory."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pess_hf.cli import atomic_write, write_jsonl
from pess_hf.errors import PessError

Row = dict[str, Any]
#: Rows of a row group of a Parquet file.
_ROW_GROUP = 4096


class JsonLines:
    """One JSON object a line.

    Example:
        >>> JsonLines().encode({"dialogue_id": "a"}, "rows.jsonl, row 1")
        '{"dialogue_id": "a"}'
    """

    extension = "jsonl"

    def encode(self, row: Row, place: str) -> str:
        """The row as it will be written.

        Args:
            row: The row.
            place: Where it comes from, for the error.

        Raises:
            PessError: If JSON cannot hold a value; the message names the column.
        """
        try:
            return json.dumps(row, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError):
            column, value = next((name, value) for name, value in row.items() if not _fits_json(value))
        raise PessError(
            f"{place}, column {column!r}: expected what JSON can hold, found {type(value).__name__}. "
            "Make it a text or a number, or drop the column."
        )

    def note(self, rows: list[Row], place: str) -> None:
        """Nothing to note: every line stands for itself."""

    def write(self, path: Path, rows: Iterable[Row]) -> None:
        """Write a shard, whole or not at all."""
        write_jsonl(path, rows)

    def join(self, shards: Iterable[Path], path: Path) -> None:
        """Write shards one after the other into one file, whole or not at all."""
        with atomic_write(path, binary=True) as joined:
            for shard in shards:
                with shard.open("rb") as file:
                    shutil.copyfileobj(file, joined)

    def count(self, path: Path) -> int:
        """Rows of a shard."""
        with path.open("rb") as file:
            return sum(1 for _ in file)


class ParquetFiles:
    """Parquet with one schema for all shards: the columns of all rows in the order in which they first come.

    Example:
        >>> ParquetFiles().extension
        'parquet'
    """

    extension = "parquet"

    def __init__(self) -> None:
        self._types: dict[str, Any] = {}

    def encode(self, row: Row, place: str) -> str:
        """The row as a text, to tell inputs apart; `note` tells what fits."""
        return json.dumps(row, ensure_ascii=False, default=str)

    def note(self, rows: list[Row], place: str) -> None:
        """Learn the columns' types from some rows.

        Args:
            rows: The rows.
            place: Where they come from, for the error.

        Raises:
            PessError: If a column holds values of types that do not go together.
        """
        import pyarrow

        texts = pyarrow.list_(pyarrow.string())
        fixed = {"dialogue_id": pyarrow.string(), "utterances": texts, "persona": texts}
        for name in dict.fromkeys(itertools.chain.from_iterable(rows)):
            try:
                found = fixed.get(name) or pyarrow.array([row.get(name) for row in rows]).type
                known = self._types.get(name, found)
                fields = [pyarrow.schema([(name, kind)]) for kind in (known, found)]
                self._types[name] = pyarrow.unify_schemas(fields, promote_options="permissive").field(0).type
            except (pyarrow.ArrowException, OverflowError) as error:
                reason = " ".join(str(error).split())
                raise PessError(
                    f"{place}, column {name!r}: expected values of one type for Parquet, found others ({reason}). "
                    "Write JSONL, or drop the column."
                ) from None

    def write(self, path: Path, rows: Iterable[Row]) -> None:
        """Write a shard, whole or not at all."""
        self._write(path, _pieces(iter(rows)))

    def join(self, shards: Iterable[Path], path: Path) -> None:
        """Write shards one after the other into one file, whole or not at all."""
        self._write(path, _pieces(row for shard in shards for row in _read(shard)))

    def _write(self, path: Path, pieces: Iterator[list[Row]]) -> None:
        import pyarrow
        import pyarrow.parquet

        schema = pyarrow.schema(list(self._types.items()))
        with atomic_write(path, binary=True) as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
            for piece in pieces:
                writer.write_table(pyarrow.Table.from_pylist(piece, schema))

    def count(self, path: Path) -> int:
        """Rows of a shard."""
        import pyarrow.parquet

        return pyarrow.parquet.read_metadata(path).num_rows


def _fits_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _pieces(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while piece := list(itertools.islice(rows, _ROW_GROUP)):
        yield piece


def _read(path: Path) -> Iterator[Row]:
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=_ROW_GROUP):
        yield from batch.to_pylist()
