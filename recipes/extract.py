"""Write the persona of every row: rows with `utterances` in, the same rows with `persona` out, restartable."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from pess_hf.arguments import parse_recipe_args
from pess_hf.batch_extraction import Plan, ShardedOutput, Survey, format_of, look_through, write_shards
from pess_hf.cli import check_counts, run_recipe
from pess_hf.data import iter_persona_rows
from pess_hf.errors import PessError
from pess_hf.reading_args import DECISIVE, ReadingArguments


@dataclass
class ExtractionArguments:
    """What reads what, and where the personas go."""

    model: str = field(metadata={"help": "Extractor: Hub id or folder."})
    input: list[str] = field(metadata={"help": "JSONL or Parquet files with `utterances`, or any persona sources."})
    output: str = field(
        metadata={"help": "File for the rows with `persona`, .jsonl or .parquet; NAME/ for a folder of shards."}
    )
    split: str | None = field(default=None, metadata={"help": "Split of a source that has splits."})
    output_format: Literal["jsonl", "parquet"] | None = field(
        default=None,
        metadata={"help": "jsonl or parquet; by default what the output's extension says, jsonl if it has none."},
    )
    chunk_rows: int = field(default=1024, metadata={"help": "Rows read and sorted by length at a time."})
    shard_rows: int = field(default=1024, metadata={"help": "Rows written at a time: what a kill costs at most."})
    engine: Literal["torch", "ctranslate2"] = field(
        default="torch", metadata={"help": "What writes: PyTorch, or CTranslate2 (extra `fast`)."}
    )
    compute_type: str | None = field(
        default=None, metadata={"help": "How CTranslate2 computes, such as float32 or int8; by default as saved."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace an output that is there already."})
    disable_tqdm: bool = field(default=False, metadata={"help": "No progress bar."})

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_counts(self, "chunk_rows", "shard_rows")
        format_of(self.output, self.output_format)


def main(args: list[str] | None = None) -> None:
    """Look through the input, let every process write its share of the shards, join them at the end."""
    parsed, reading = parse_recipe_args((ExtractionArguments, ReadingArguments), args, __doc__)
    from pess_hf.main_process import join_processes
    from pess_hf.output_lock import sole_writer

    state = join_processes()
    with sole_writer(parsed.output, state):
        run(parsed, reading, state)


def run(args: ExtractionArguments, reading: ReadingArguments, state: Any) -> None:
    """This process' part of an extraction that has its output for itself."""
    from pess_hf.main_process import on_main_process

    output, survey = on_main_process(state, lambda: prepare(args))
    extractor = Extractor(args, reading, state)
    settings, names = extractor.fingerprint(), {"model": args.model, "input": args.input}
    begin = partial(output.begin, settings, survey, names, args.shard_rows, state.num_processes)
    plan = on_main_process(state, begin)

    # Extract
    start = time.perf_counter()
    share = plan.share(state.process_index, state.num_processes)
    with extractor.progress(plan, share):
        rows = (row for _, rows in read_sources(args) for row in rows)
        try:
            write_shards(output, rows, plan, share, extractor.extract, args.chunk_rows)
        except PessError:
            output.drop_if_empty()
            raise
    state.wait_for_everyone()
    seconds = time.perf_counter() - start

    # Join
    on_main_process(state, lambda: output.finish(plan))
    if state.is_main_process:
        report(plan, seconds, state.num_processes, args.output)


def prepare(args: ExtractionArguments) -> tuple[ShardedOutput, Survey]:
    """Check the output and every row of the input before anything slow starts."""
    output = ShardedOutput(args.output, args.output_format, args.overwrite)
    return output, look_through(read_sources(args), output.file_format, args.chunk_rows)


def read_sources(args: ExtractionArguments) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    """Each source and its rows, read as they are asked for, their texts as they stand."""
    for source in args.input:
        yield source, iter_persona_rows(source, args.split, require_persona=False, separator=None)


def report(plan: Plan, seconds: float, processes: int, output: str) -> None:
    """Print how many rows there are and how fast they were written."""
    written = sum(map(plan.size, plan.unfinished))
    speed = f"{written} written in {seconds:.1f} s by {processes} process{'es' * (processes > 1)}"
    print(f"{plan.rows} rows: {output} ({speed}: {written / max(seconds, 1e-9):.1f} rows per second)")


class Extractor:
    """The model and tokenizer of this process."""

    def __init__(self, args: ExtractionArguments, reading: ReadingArguments, state: Any) -> None:
        from pess_hf.checkpoint import open_tokenizer
        from pess_hf.extraction import open_engine
        from pess_hf.modeling_extractor import AutoPessExtractor

        self.args, self.reading, self.state = args, reading, state
        self.model: Any = AutoPessExtractor.from_pretrained(args.model).to(state.device)
        self.tokenizer = open_tokenizer(args.model)
        self.engine = open_engine(self.model, self.tokenizer, args.engine, args.compute_type)
        self.settings = reading.extraction()
        self.bar: Any = None

    def fingerprint(self) -> dict[str, Any]:
        """What decides the personas: the model's weights and configuration, the tokenizer, the settings."""
        settings = {name: getattr(self.args, name) for name in ("split", "engine", "compute_type")}
        settings |= {name: getattr(self.reading, name) for name in DECISIVE}
        texts = (self.model.config.to_json_string(), self.model.generation_config.to_json_string())
        crc = zlib.crc32("".join((*texts, str(sorted(self.tokenizer.get_vocab().items())))).encode())
        for tensor in self.model.state_dict().values():
            flat = tensor.flatten()  # (N,)
            some = flat[:: max(1, len(flat) // 1024)].float().cpu()  # (1024 or so,)
            crc = zlib.crc32(some.numpy().tobytes(), crc)
        return {"model_crc32": crc, **settings}

    def progress(self, plan: Plan, share: list[int]) -> Any:
        """The progress bar of this process' share; only the main process shows one."""
        from tqdm.auto import tqdm

        total = sum(map(plan.size, share))
        hidden = self.args.disable_tqdm or not self.state.is_main_process
        self.bar = tqdm(total=total, desc="extract", unit="row", disable=hidden)
        return self.bar

    def extract(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows with their personas, in order."""
        personas = self.model.extract(
            [row["utterances"] for row in rows],
            self.tokenizer,
            progress=self.bar,
            engine=self.engine,
            **self.settings,
        )
        return [{**row, "persona": persona} for row, persona in zip(rows, personas, strict=True)]


if __name__ == "__main__":
    run_recipe(main)
