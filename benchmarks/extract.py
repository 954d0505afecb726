"""Extraction, our way and CTranslate2's against the way the published baseline runs, on the same dialogues.

The baseline is plain `generate` in fp32 on batches of 8 in the order of arrival. Ours are `PessExtractor.extract`, the
same through `recipes/extract.py` (opening the model and both files included), and the engine CTranslate2 in float32
and int8. First each way runs once, which warms it up, and its personas are compared with the baseline's row by row;
then all are timed in turn, and the ratios are those of the medians of this one run. With int8, persona precision,
recall and F1 are shown beside float32's.

    python benchmarks/extract.py --shape base --rows 64 --beams 10 4 --json runs/extract-base.json
    python benchmarks/extract.py --shape large --rows 32 --repeats 3 --json runs/extract-large.json
    python benchmarks/extract.py --shape small --rows 0 --scaling 1000 10000 50000 --json runs/extract-scaling.json

Without --model a BART is taught first, some minutes on two cores, and kept under runs/taught for the next time (see
`taught_bart.py`). Rows come from `PESS_DATA` where it is there, else from the embedded corpus.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from accelerate import PartialState
from public_data import DATA
from taught_bart import SHAPES, enlarge, save, taught_rows, teach
from transformers import BartForConditionalGeneration

from pess_hf import PersonaMatcher
from pess_hf.checkpoint import open_tokenizer
from pess_hf.data import load_persona_dataset
from pess_hf.encoding import encode_sources
from pess_hf.extraction import max_positions, open_engine
from pess_hf.modeling_extractor import PessExtractor
from pess_hf.similarity import persona_scores
from pess_hf.text import split_pieces, unique_sentences

ROOT = Path(__file__).resolve().parent.parent
WAYS = ("baseline", "extract", "recipe", "ctranslate2-float32", "ctranslate2-int8")
#: These must write what the baseline writes, in every row.
SAME_TEXT = ("extract", "recipe", "ctranslate2-float32")
Personas = list[list[str]]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a BART extractor to measure in place of a taught one")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="base", help="of the taught model")
    parser.add_argument("--taught", type=Path, default=Path("runs/taught"), help="where taught models are kept")
    parser.add_argument("--steps", type=int, default=800, help="training steps, where one has to be taught")
    parser.add_argument("--data", help="persona rows; by default Persona-Chat, or the embedded corpus")
    parser.add_argument("--rows", type=int, default=64, help="dialogues; 0 leaves the comparison out")
    parser.add_argument("--beams", type=int, nargs="+", default=[10, 4])
    parser.add_argument("--batch", type=int, default=16, help="dialogues generated for at once, our ways")
    parser.add_argument("--baseline-batch", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=80)
    parser.add_argument("--max-source-length", type=int, default=512)
    parser.add_argument("--ways", nargs="+", choices=WAYS[1:], default=list(WAYS[1:]), help="besides the baseline")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scaling", type=int, nargs="*", default=[], help="row counts for recipes/extract.py")
    parser.add_argument("--scaling-beams", type=int, default=1)
    parser.add_argument("--scaling-way", choices=("torch", "float32", "int8"), default="torch")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's choice")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    return parser.parse_args()


def model_folder(args: argparse.Namespace) -> Path:
    """The folder of the model to measure; teaches, enlarges and saves one where there is none yet."""
    if args.model:
        return args.model
    folder, small = args.taught / args.shape, args.taught / "small"
    if not (small / "config.json").exists():
        save(*teach(taught_rows(), args.steps), small)
    if not (folder / "config.json").exists():
        tokenizer = open_tokenizer(str(small))
        save(*enlarge(PessExtractor.from_pretrained(small), tokenizer, *SHAPES[args.shape]), folder)
    return folder


def read_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows to extract from, in the order of arrival."""
    real = DATA / "personachat" / "valid_both_original_no_cands.txt"
    source = args.data or (real if real.exists() else "sample")
    split = "test" if source == "sample" else None
    return [dict(row) for row in load_persona_dataset(source, split)]


def baseline(model: Any, tokenizer: Any, rows: list[dict[str, Any]], args: argparse.Namespace, beams: int) -> Personas:
    """Plain `generate`, batch by batch, in the order of arrival."""
    length = min(args.max_source_length, max_positions(model))
    dialogues = [row["utterances"] for row in rows]
    sources = encode_sources(tokenizer, dialogues, model.config.utterance_separator, length)
    personas = []
    for start in range(0, len(sources), args.baseline_batch):
        ids = [source.input_ids for source in sources[start : start + args.baseline_batch]]
        batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(model.device)
        with torch.no_grad():
            written = model.generate(**batch, num_beams=beams, max_new_tokens=args.max_new_tokens)
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        personas += [unique_sentences(split_pieces(text, model.config.persona_separator)) for text in texts]
    return personas


def run_recipe_on(folder: Path, rows: list[dict[str, Any]], args: argparse.Namespace, **settings: Any) -> Personas:
    """`recipes/extract.py` from a file to a file."""
    spec = importlib.util.spec_from_file_location("recipe_extract", ROOT / "recipes" / "extract.py")
    assert spec is not None and spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = recipe  # dataclasses look their module up
    spec.loader.exec_module(recipe)
    with tempfile.TemporaryDirectory() as scratch:
        source, output = Path(scratch) / "rows.jsonl", Path(scratch) / "personas.jsonl"
        with source.open("w", encoding="utf-8") as file:
            file.writelines(
                json.dumps({"dialogue_id": f"row-{n}", "utterances": row["utterances"]}) + "\n"
                for n, row in enumerate(rows)
            )
        common = {"batch_size": args.batch, "max_source_length": args.max_source_length, "disable_tqdm": True}
        flags = {"model": folder, "input": source, "output": output, **common, **settings}
        recipe.main([word for name, value in flags.items() for word in (f"--{name}", str(value))])
        with output.open(encoding="utf-8") as file:
            return [json.loads(line)["persona"] for line in file]


def build_ways(
    args: argparse.Namespace, folder: Path, rows: list[dict[str, Any]], beams: int
) -> dict[str, Callable[[], Personas]]:
    """The baseline and the ways asked for, ready to run."""
    device = PartialState().device
    tokenizer = open_tokenizer(str(folder))
    plain = BartForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    ours = PessExtractor.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    dialogues = [row["utterances"] for row in rows]
    generation = {"num_beams": beams, "max_new_tokens": args.max_new_tokens}

    def extract(engine: str, compute_type: str | None) -> Callable[[], Personas]:
        opened = open_engine(ours, tokenizer, engine, compute_type)
        return lambda: ours.extract(
            dialogues,
            tokenizer,
            args.batch,
            max_source_length=args.max_source_length,
            disable_tqdm=True,
            engine=opened,
            **generation,
        )

    ways = {"baseline": lambda: baseline(plain, tokenizer, rows, args, beams)}
    for name in args.ways:
        if name == "recipe":
            ways[name] = lambda: run_recipe_on(folder, rows, args, **generation)
        else:
            engine, _, compute_type = name.partition("-")
            ways[name] = extract("torch" if engine == "extract" else engine, compute_type or None)
    return ways


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall-clock seconds of one call, and what it returns."""
    start = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def compare(args: argparse.Namespace, folder: Path, rows: list[dict[str, Any]], beams: int) -> dict[str, Any]:
    """Compare the personas of all ways, then time them in turn."""
    ways = build_ways(args, folder, rows, beams)
    written: dict[str, Personas] = {}
    for name, work in ways.items():
        spent, written[name] = timed(work)
        same = sum(map(list.__eq__, written[name], written["baseline"]))
        print(f"beam {beams}, {name}: {same} of {len(rows)} rows as the baseline's, {spent:.1f} s", flush=True)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat, (name, work) in itertools.product(range(args.repeats), ways.items()):
        times[name].append(timed(work)[0])
        print(f"beam {beams}, run {repeat + 1} of {args.repeats}, {name}: {times[name][-1]:.1f} s", flush=True)
    seconds = {name: median(values) for name, values in times.items()}
    return {
        "rows_equal": {name: sum(map(list.__eq__, written[name], written["baseline"])) for name in ways},
        "seconds": seconds,
        "all_seconds": times,
        "times_the_baseline": {name: seconds["baseline"] / value for name, value in seconds.items()},
        "sentences_per_row": sum(map(len, written["baseline"])) / len(rows),
        "scores": scores(written, rows),
    }


def scores(written: dict[str, Personas], rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Persona precision, recall and F1 of int8 and of float32 against the references, and of int8 against float32."""
    if "ctranslate2-int8" not in written:
        return {}
    matcher = PersonaMatcher()
    int8, float32 = written["ctranslate2-int8"], written["baseline"]
    reference = [list(row["persona"]) for row in rows]
    pairs = {"float32": (float32, reference), "int8": (int8, reference), "int8 against float32": (int8, float32)}
    return {name: persona_scores(matcher.match(*pair)) for name, pair in pairs.items()}


def numbered(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows over and over, from the second time on with the number of the round: what reads alike is read once."""
    yield from rows
    for lap in itertools.count(2):
        yield from ({**row, "utterances": [*row["utterances"], f"{lap}."]} for row in rows)


def scale(args: argparse.Namespace, folder: Path, rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Rows per second of `recipes/extract.py` at growing numbers of rows; short of rows they come again, numbered."""
    engine = {} if args.scaling_way == "torch" else {"engine": "ctranslate2", "compute_type": args.scaling_way}
    results = {}
    for number in args.scaling:
        many = list(itertools.islice(numbered(rows), number))
        settings = {"num_beams": args.scaling_beams, "max_new_tokens": args.max_new_tokens, **engine}
        spent, _ = timed(partial(run_recipe_on, folder, many, args, **settings))
        results[str(number)] = {"seconds": spent, "rows_per_second": number / spent}
        print(f"{number} rows in {spent:.1f} s: {number / spent:.1f} rows a second", flush=True)
    return results


def report(beams: int, result: dict[str, Any], rows: int) -> None:
    """Print one comparison."""
    print(f"\nbeam {beams}: way, seconds (median), rows a second, times the baseline, rows equal")
    for name, value in result["seconds"].items():
        times, equal = result["times_the_baseline"][name], result["rows_equal"][name]
        print(f"{name:<20} {value:8.1f} {rows / value:8.2f} {times:6.2f} {equal:5d}/{rows}")
    for name, values in result["scores"].items():
        print(f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in values.items()))


def main() -> int:
    """Compare, time, scale, print; 1 if a way that must write the baseline's text does not."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    load = os.getloadavg()[0]
    folder = model_folder(args)
    everything = read_rows(args)
    rows = everything[: args.rows]
    results = {str(beams): compare(args, folder, rows, beams) for beams in args.beams if rows}
    for beams, result in results.items():
        report(int(beams), result, len(rows))
    scaling = scale(args, folder, everything)
    if args.json:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        machine = {"device": device, "threads": torch.get_num_threads(), "load_before": load, **versions}
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        found = {"beams": results, "scaling": scaling, "settings": settings, **machine}
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    different = [
        f"{name} at beam {beams}"
        for beams, result in results.items()
        for name, equal in result["rows_equal"].items()
        if name in SAME_TEXT and equal < len(rows)
    ]
    if different:
        print(f"error: not the baseline's text in every row: {', '.join(different)}", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
