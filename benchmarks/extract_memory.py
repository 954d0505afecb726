"""Peak resident memory of `recipes/extract.py` against the length of its input: it must not grow.

Generated rows (four utterances each), a tiny BART with random weights and one new token, so that reading and writing
are what is measured. Every length is a process of its own, whose peak the kernel reports. The status is 1 if the
largest input's peak exceeds the smallest one's by more than a tenth.

    python benchmarks/extract_memory.py --rows 2000 20000 200000 --json runs/extract_memory.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pess_hf.cli import write_json

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "extract.py"
#: By how much of the smallest input's peak the largest input's may exceed it.
ALLOWED = 0.1
_WORDS = "i we you two dogs cats sing play chess drive an old car live in a small town work as nurse".split()  # noqa: SIM905


def make_rows(number: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows of four utterances of 4 to 8 words, and what an own column holds."""
    draw = random.Random(seed)
    for n in range(number):
        yield {
            "dialogue_id": f"row-{n}",
            "utterances": [" ".join(draw.choices(_WORDS, k=draw.randint(4, 8))) for _ in range(4)],
            "source": {"page": n, "note": "generated"},
        }


def write_input(path: Path, number: int) -> None:
    """Write so many rows as JSONL or Parquet, a batch in memory at a time."""
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in make_rows(number))
        return
    import itertools

    import pyarrow
    import pyarrow.parquet

    rows, writer = make_rows(number), None
    while batch := list(itertools.islice(rows, 10_000)):
        table = pyarrow.Table.from_pylist(batch)
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def save_model(folder: Path) -> None:
    """A BART of width 8 and its tokenizer."""
    from transformers import BartConfig

    from pess_hf import PessExtractor
    from pess_hf.small_tokenizer import train_tokenizer

    tokenizer = train_tokenizer([" ".join(_WORDS)] * 20, vocab_size=400)
    layers: dict[str, Any] = {
        f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in (("layers", 1), ("ffn_dim", 8))
    }
    heads: dict[str, Any] = {
        "encoder_attention_heads": 1,
        "decoder_attention_heads": 1,
        "max_position_embeddings": 128,
    }
    tokens: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = BartConfig(vocab_size=len(tokenizer), d_model=8, forced_eos_token_id=None, **layers, **heads, **tokens)
    PessExtractor(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(model: Path, source: Path, output: Path) -> dict[str, float]:
    """Run the recipe once: its peak resident memory in MiB, its seconds, and the speed that it states."""
    settings = ["--max_new_tokens", "1", "--max_source_length", "128", "--batch_size", "256", "--disable_tqdm", "true"]
    command = [sys.executable, str(RECIPE), "--model", str(model), "--input", str(source), "--output", str(output)]
    start = time.perf_counter()
    process = subprocess.Popen([*command, *settings], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: {RECIPE.name} ended with status {process.returncode}.")
    seconds = time.perf_counter() - start
    speed = float(said.rsplit(": ", 1)[1].split()[0])
    return {"peak_mib": usage.ru_maxrss / 1024, "seconds": seconds, "rows_per_second": speed}  # kilobytes on Linux


def main(args: list[str] | None = None) -> None:
    """Measure every length and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 20_000, 200_000], help="lengths of the input")
    parser.add_argument("--format", choices=["jsonl", "parquet"], default="jsonl", help="of input and output")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parsed = parser.parse_args(args)
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "model")
        print("| rows | input, MiB | peak memory, MiB | rows per second |\n| --- | --- | --- | --- |", flush=True)
        for number in sorted(parsed.rows):
            source, output = (folder / f"{side}-{number}.{parsed.format}" for side in ("in", "out"))
            write_input(source, number)
            found = measure(folder / "model", source, output)
            size = source.stat().st_size / 2**20
            results.append({"rows": number, "input_mib": size, **found})
            print(f"| {number} | {size:.1f} | {found['peak_mib']:.0f} | {found['rows_per_second']:.0f} |", flush=True)
            source.unlink()
            output.unlink()
    growth = results[-1]["peak_mib"] / results[0]["peak_mib"] - 1
    verdict = "constant" if growth <= ALLOWED else "NOT constant"
    print(
        f"\nfrom {results[0]['rows']} to {results[-1]['rows']} rows the peak grows by {100 * growth:.1f} %: {verdict}"
    )
    if parsed.json:
        parsed.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(parsed.json, {"format": parsed.format, "results": results})
    if growth > ALLOWED:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
