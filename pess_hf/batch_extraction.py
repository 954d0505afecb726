"""Batch extraction at scale: rows in shards, each written whole or not at all, so that a killed run goes on.

A run first looks through its input. Then every process takes its share of the unfinished shards and writes each one
under its number into `OUTPUT.partial`. At the end the shards are joined, or the folder gets its name. Memory holds a
chunk of rows per process, however long the input is.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pess_hf.cli import prepare_output_dir, prepare_output_file, write_json
from pess_hf.errors import PessError
from pess_hf.shard_files import JsonLines, ParquetFiles, Row

#: In the folder of shards: what the run read, with which settings.
RECORD = "extraction.json"
FORMATS: dict[str, Any] = {"jsonl": JsonLines, "parquet": ParquetFiles}


def format_of(path: str, asked: str | None = None) -> str:
    """The format that an output is written in.

    Args:
        path: The output; one with a slash at its end is a folder, whose name may be any.
        asked: One of `FORMATS`, or None for what the extension says, JSONL where there is none.

    Returns:
        One of `FORMATS`.

    Raises:
        PessError: If a file's extension is that of another format, or of none that is written and no format is
            asked for.

    Example:
        >>> format_of("personas.parquet"), format_of("personas"), format_of("personas/", "parquet")
        ('parquet', 'jsonl', 'parquet')
    """
    extension = Path(path).suffix
    named = extension.lower().removeprefix(".")
    is_known, is_file = named in FORMATS, not path.endswith("/")
    if is_file and (asked not in (None, named) if is_known else extension and asked is None):
        wanted = f".{asked}" if asked else " or ".join(f".{name}" for name in FORMATS)
        cure = "Name another --output" + ("." if asked else ", or say what to write: --output_format jsonl")
        raise PessError(f"{path}: expected an output that ends in {wanted}, found {extension}. {cure}")
    return asked or (named if is_known else "jsonl")


@dataclass(frozen=True)
class Survey:
    """What a first reading of the input tells.

    Args:
        rows: How many there are.
        crc32: Of all of them, to tell inputs apart.
    """

    rows: int
    crc32: int


def look_through(sources: Iterable[tuple[str, Iterable[Row]]], file_format: Any, chunk_rows: int = 1024) -> Survey:
    """Read every row once: a mistake in the last one shows before anything slow starts.

    Args:
        sources: The name of each source and its rows.
        file_format: One of `FORMATS`, made; it learns the columns.
        chunk_rows: Rows in memory at a time.

    Returns:
        Number and checksum of the rows.

    Raises:
        PessError: If a row is malformed or cannot be written, or there is none.

    Example:
        >>> look_through([("rows.jsonl", iter([{"dialogue_id": "a"}]))], JsonLines()).rows
        1
    """
    number, crc = 0, 0
    names = []
    for name, rows in sources:
        names.append(name)
        read, rows = 0, iter(rows)
        while chunk := list(itertools.islice(rows, chunk_rows)):
            for n, row in enumerate(chunk, start=read + 1):
                crc = zlib.crc32(file_format.encode(row, f"{name}, row {n}").encode("utf-8", "surrogatepass"), crc)
            file_format.note(chunk, f"{name}, rows {read + 1} to {read + len(chunk)}")
            read += len(chunk)
        number += read
    if not number:
        raise PessError(f"{', '.join(names)}: expected rows, found none. Write the file again or name another one.")
    return Survey(number, crc)


@dataclass(frozen=True)
class Plan:
    """How the rows are cut, and what is left to do.

    Args:
        rows: All rows.
        shard_rows: Rows of a shard; the last one may have fewer.
        unfinished: The numbers of the shards that are still to be written, ascending.
    """

    rows: int
    shard_rows: int
    unfinished: tuple[int, ...]

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.rows // self.shard_rows)

    def size(self, shard: int) -> int:
        """Rows of one shard.

        Example:
            >>> plan = Plan(rows=7, shard_rows=3, unfinished=(0, 1, 2))
            >>> [plan.size(shard) for shard in range(plan.shards)]
            [3, 3, 1]
        """
        return min(self.shard_rows, self.rows - shard * self.shard_rows)

    def share(self, process: int, processes: int) -> list[int]:
        """The unfinished shards of one process.

        Example:
            >>> Plan(rows=7, shard_rows=3, unfinished=(0, 1, 2)).share(process=1, processes=2)
            [1]
        """
        return list(self.unfinished[process::processes])


class ShardedOutput:
    """The output while it grows, `OUTPUT.partial`, and the settings it was begun with.

    Args:
        path: A file, or with a slash at its end a folder that keeps the shards.
        file_format: "jsonl" or "parquet"; None for what the path's extension says, JSONL where it has none.
        overwrite: Whether an output that is there is replaced.

    Raises:
        PessError: If the output is there or cannot be written, or its extension is that of another format.

    Example:
        >>> ShardedOutput("runs/personas.jsonl").folder.name
        'personas.jsonl.partial'
    """

    def __init__(self, path: str, file_format: str | None = None, overwrite: bool = False) -> None:
        self.path, self.is_folder, self.overwrite = Path(path), path.endswith("/"), overwrite
        self.file_format = FORMATS[format_of(path, file_format)]()
        self.folder = self.path.with_name(self.path.name + ".partial")
        prepare = self._prepare_folder if self.is_folder else prepare_output_file
        prepare(self.path)
        is_there = self.path.exists() and not (self.is_folder and not any(self.path.iterdir()))
        if is_there and not overwrite:
            kind = "folder" if self.is_folder else "file"
            raise PessError(
                f"{path}: expected no such {kind}, found one. Name another --output or pass --overwrite true."
            )

    def _prepare_folder(self, path: Path) -> None:
        if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / RECORD).is_file()):
            raise PessError(f"{path}: expected a folder that an extraction wrote or none, found something else.")
        prepare_output_dir(path.absolute().parent)

    def begin(
        self, settings: dict[str, Any], survey: Survey, names: dict[str, Any], shard_rows: int, processes: int = 1
    ) -> Plan:
        """Start, or go on with what an interrupted run left.

        Args:
            settings: What decides the output besides the rows.
            survey: The input.
            names: What model and input are called, for the record; only what they hold is compared.
            shard_rows: Rows of a shard at most; an interrupted run's shards keep their size.
            processes: Processes that share the work; a short input is cut so that each has some.

        Returns:
            What is to be done.

        Raises:
            PessError: If the interrupted run had another input or other settings.
        """
        ours = {"rows": survey.rows, "rows_crc32": survey.crc32, "format": self.file_format.extension, **settings}
        record = self._recorded()
        if record is None:
            record = {**names, **ours, "shard_rows": min(shard_rows, -(-survey.rows // processes))}
            self.folder.mkdir(exist_ok=True)
            write_json(self.folder / RECORD, record)
        self._must_match(ours, record)
        plan = Plan(survey.rows, record["shard_rows"], ())
        there = {path.name for path in self.folder.iterdir()}
        unfinished = tuple(shard for shard in range(plan.shards) if self.shard(shard).name not in there)
        if len(unfinished) < plan.shards:
            done = sum(plan.size(shard) for shard in range(plan.shards) if shard not in set(unfinished))
            print(f"going on after {done} rows of an interrupted run")
        return Plan(plan.rows, plan.shard_rows, unfinished)

    def _recorded(self) -> Any:
        path = self.folder / RECORD
        if path.is_file():
            with contextlib.suppress(ValueError):
                record = json.loads(path.read_text(encoding="utf-8"))
                if isinstance(record, dict) and isinstance(record.get("shard_rows"), int):
                    return record
            raise PessError(
                f"{path}: expected what an extraction wrote, found what cannot be read. Delete {self.folder}."
            )
        if self.folder.exists() and any(self.folder.iterdir()):
            raise PessError(f"{self.folder}: expected what an extraction left, found no {RECORD}. Delete it.")
        return None

    def _must_match(self, ours: dict[str, Any], record: dict[str, Any]) -> None:
        differing = [name for name, value in ours.items() if name not in record or record[name] != value]
        if differing:
            raise PessError(
                f"{self.folder}: expected what an interrupted run with the same model, input and settings wrote, "
                f"found another run's (they differ in {', '.join(differing)}). Delete it to start anew."
            )

    def drop_if_empty(self) -> None:
        """Remove the record of a run that failed before it had written a shard."""
        if self.folder.is_dir() and not any(self.folder.glob("shard-*")):
            shutil.rmtree(self.folder)

    def shard(self, number: int) -> Path:
        """The file of one shard."""
        return self.folder / f"shard-{number:05d}.{self.file_format.extension}"

    def finish(self, plan: Plan) -> None:
        """Join the shards into the output, or give the folder its name.

        Raises:
            PessError: If a shard is missing or has other than its rows.
        """
        shards = [self.shard(number) for number in range(plan.shards)]
        for number, shard in enumerate(shards):
            found = self.file_format.count(shard) if shard.is_file() else 0
            if found != plan.size(number):
                raise PessError(f"{shard}: expected {plan.size(number)} rows, found {found}. Delete it and run again.")
        if not self.is_folder:
            self.file_format.join(shards, self.path)
            shutil.rmtree(self.folder)
            return
        for leftover in self.folder.glob(".*.tmp"):  # of processes that were killed while writing
            leftover.unlink()
        if self.overwrite:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self.path)
        os.replace(self.folder, self.path)  # over an empty folder at most: another run may have been faster


def write_shards(
    output: ShardedOutput,
    rows: Iterable[Row],
    plan: Plan,
    share: list[int],
    extract: Callable[[list[Row]], list[Row]],
    chunk_rows: int,
) -> None:
    """Extract and write some of the shards.

    Args:
        output: Where they go.
        rows: All rows of the input.
        plan: How they are cut.
        share: The shards to write.
        extract: Gives rows their personas, in order.
        chunk_rows: Rows that `extract` gets at a time; they are what is sorted by length and held in memory.

    Raises:
        PessError: If there are fewer rows than planned.
    """
    rows, wanted = iter(rows), set(share)
    for number in range(max(share, default=-1) + 1):
        block = itertools.islice(rows, plan.size(number))
        if number not in wanted:
            for _ in block:
                pass
            continue
        output.file_format.write(output.shard(number), _extracted(block, extract, chunk_rows, plan.size(number)))


def _extracted(
    rows: Iterator[Row], extract: Callable[[list[Row]], list[Row]], chunk_rows: int, expected: int
) -> Iterator[Row]:
    written = 0
    while chunk := list(itertools.islice(rows, chunk_rows)):
        yield from extract(chunk)
        written += len(chunk)
    if written != expected:
        raise PessError(f"input: expected {expected} rows more, found {written}: it was changed while it was read.")
