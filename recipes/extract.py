"""Write the persona of every row: rows with `utterances` in, the same rows with `persona` out, restartable."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pess_hf.arguments import parse_recipe_args
from pess_hf.cli import check_counts, prepare_output_file, run_recipe, write_json
from pess_hf.data import iter_persona_rows
from pess_hf.errors import PessError


@dataclass
class ExtractionArguments:
    """What reads what, and where the personas go."""

    model: str = field(metadata={"help": "Extractor: Hub id or folder."})
    input: str = field(metadata={"help": "JSONL or Parquet rows with `utterances`, or any persona source."})
    output: str = field(metadata={"help": "JSONL file for the rows with `persona`."})
    split: str | None = field(default=None, metadata={"help": "Split of a source that has splits."})
    batch_size: int = field(default=32, metadata={"help": "Dialogues generated for at once."})
    chunk_rows: int = field(default=1024, metadata={"help": "Rows read, sorted by length and written at a time."})
    num_beams: int | None = field(default=None, metadata={"help": "Beams; by default what the model was saved with."})
    max_new_tokens: int | None = field(default=None, metadata={"help": "Tokens written at most per persona."})
    max_source_length: int = field(default=512, metadata={"help": "Source tokens; the oldest utterances go first."})
    engine: Literal["torch", "ctranslate2"] = field(
        default="torch", metadata={"help": "What writes: PyTorch, or CTranslate2 (extra `fast`)."}
    )
    compute_type: str | None = field(
        default=None, metadata={"help": "How CTranslate2 computes, such as float32 or int8; by default as saved."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace an output file that is there already."})
    disable_tqdm: bool = field(default=False, metadata={"help": "No progress bar."})

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_counts(self, "batch_size", "chunk_rows", "num_beams", "max_new_tokens", "max_source_length")

    def generation(self) -> dict[str, Any]:
        """What is passed to `generate`."""
        chosen = {"num_beams": self.num_beams, "max_new_tokens": self.max_new_tokens}
        return {name: value for name, value in chosen.items() if value is not None}


def main(args: list[str] | None = None) -> None:
    """Read a chunk, extract it over all processes, append it; move the file into place at the end."""
    from accelerate import PartialState

    (parsed,) = parse_recipe_args(ExtractionArguments, args, __doc__)
    output = prepare_output_file(parsed.output)
    if output.exists() and not parsed.overwrite:
        raise PessError(f"{output}: expected no such file, found one. Name another --output or pass --overwrite true.")
    # One reading for its errors alone: a mistake in the last row shows before anything slow starts.
    if not sum(1 for row in read_rows(parsed) if check_writable(row, parsed.input)):
        raise PessError(f"{parsed.input}: expected rows, found none. Write the file again or name another one.")

    state = PartialState()
    extractor = Extractor(parsed, state)
    partial = Partial(output, parsed)
    done = _from_main(partial.resume() if state.is_main_process else 0)
    total = 0
    for chunk in _chunks(read_rows(parsed), parsed.chunk_rows):
        total += len(chunk)
        if total <= done:
            continue
        fresh = chunk[max(0, done - (total - len(chunk))) :]
        written = extractor.extract(fresh)
        if state.is_main_process:
            partial.append(written)
    if state.is_main_process:
        partial.finish()
        print(f"{total} rows: {output}")


def read_rows(args: ExtractionArguments) -> Iterator[dict[str, Any]]:
    """The rows one after the other, their texts as they stand."""
    return iter_persona_rows(args.input, args.split, require_persona=False, separator=None)


def check_writable(row: dict[str, Any], source: str) -> bool:
    """Whether JSON can hold the row, extra columns and all; a value that it cannot is an error."""
    for column, value in row.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise PessError(
                f"{source}: row {row['dialogue_id']}, column {column!r}: expected what JSON can hold, found "
                f"{type(value).__name__}. Make it a text or a number, or drop the column."
            ) from error
    return True


def _chunks(rows: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    while chunk := list(islice(rows, size)):
        yield chunk


def _from_main(value: int) -> int:
    from accelerate.utils import broadcast_object_list

    values = [value]
    broadcast_object_list(values)
    return values[0]


class Extractor:
    """The model and tokenizer of this process; each process extracts its share of a chunk."""

    def __init__(self, args: ExtractionArguments, state: Any) -> None:
        from pess_hf.checkpoint import open_tokenizer
        from pess_hf.extraction import open_engine
        from pess_hf.modeling_extractor import AutoPessExtractor

        self.args, self.state = args, state
        self.model: Any = AutoPessExtractor.from_pretrained(args.model).to(state.device)
        self.tokenizer = open_tokenizer(args.model)
        self.engine = open_engine(self.model, self.tokenizer, args.engine, args.compute_type)

    def extract(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows with their personas, in order, on every process."""
        from accelerate.utils import gather_object

        mine = rows[self.state.process_index :: self.state.num_processes]
        personas = self.model.extract(
            [row["utterances"] for row in mine],
            self.tokenizer,
            batch_size=self.args.batch_size,
            max_source_length=self.args.max_source_length,
            disable_tqdm=self.args.disable_tqdm or not self.state.is_main_process,
            engine=self.engine,
            **self.args.generation(),
        )
        shares = gather_object([personas])
        step = self.state.num_processes
        return [{**row, "persona": shares[n % step][n // step]} for n, row in enumerate(rows)]


class Partial:
    """The output while it grows, `OUTPUT.partial`, and the settings it was begun with, so that a rerun goes on."""

    def __init__(self, output: Path, args: ExtractionArguments) -> None:
        self.output = output
        self.path = output.with_name(output.name + ".partial")
        self.settings_path = output.with_name(output.name + ".partial.json")
        size = os.path.getsize(args.input) if os.path.isfile(args.input) else None
        names = (
            "model",
            "input",
            "split",
            "num_beams",
            "max_new_tokens",
            "max_source_length",
            "engine",
            "compute_type",
        )
        self.settings = {**{name: getattr(args, name) for name in names}, "input_bytes": size}

    def resume(self) -> int:
        """How many rows an earlier, interrupted run has written; a row cut in the middle is taken off."""
        if not self.path.exists():
            return 0
        if not self.settings_path.exists() or json.loads(self.settings_path.read_text("utf-8")) != self.settings:
            raise PessError(
                f"{self.path}: expected what an interrupted run with the same settings wrote, found another run's. "
                f"Delete it and {self.settings_path.name} to start anew."
            )
        whole, rows = 0, 0
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    whole, rows = whole + len(line), rows + 1
        os.truncate(self.path, whole)
        print(f"going on after {rows} rows of an interrupted run")
        return rows

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Write rows and make sure they are on the disk."""
        if not self.path.exists():
            write_json(self.settings_path, self.settings)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Move the finished file into place."""
        os.replace(self.path, self.output)
        self.settings_path.unlink(missing_ok=True)


if __name__ == "__main__":
    run_recipe(main)
