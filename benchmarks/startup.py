"""What it costs to import the library and to ask a recipe for help.

    python benchmarks/startup.py --json runs/startup.json

`import pess_hf` is compared with `import transformers`, first alone and then with the same names used: for each pair a
fresh process imports one side, the sides taking turns, and the ratio is that of the medians. Which names of
transformers stand for ours is in `PAIRS`: the classes that ours derive from or replace. Then `--help` of every recipe
is timed. Wall-clock time and CPU time of the process; the first round warms the file cache and is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: What is compared: ours, and transformers with the same names.
PAIRS = {
    "nothing": ("import pess_hf", "import transformers"),
    "extractor": (
        "from pess_hf import PessExtractor, PessT5Extractor, PessEncoderDecoderExtractor",
        "from transformers import BartForConditionalGeneration, T5ForConditionalGeneration, EncoderDecoderModel",
    ),
    "trainer": (
        "from pess_hf import PessTrainer, PessTrainingArguments, PessExtractor",
        "from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, BartForConditionalGeneration",
    ),
    "generator": (
        "from pess_hf import PessGenerator, PessGeneratorConfig",
        "from transformers import BlenderbotSmallForConditionalGeneration, BlenderbotSmallConfig",
    ),
}


def recipes() -> list[str]:
    """All recipes, those of experiments last, without `.py`."""
    found = [*(ROOT / "recipes").glob("*.py"), *(ROOT / "recipes" / "experiments").glob("*.py")]
    names = [path.relative_to(ROOT / "recipes").with_suffix("").as_posix() for path in found]
    return sorted(names, key=lambda name: ("/" in name, name))


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", nargs="*", choices=sorted(PAIRS), default=list(PAIRS))
    parser.add_argument("--recipes", nargs="*", default=recipes(), help="as in train_extractor, experiments/ablation")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    return parser.parse_args(argv)


def seconds(command: list[str]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of a Python process of its own."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, env=environment)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, dict[str, float]]:
    """Run each command in turn; medians over the rounds after the first."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            measured = seconds(command)
            if number:
                times[name].append(measured)
        print(f"round {number} of {rounds} done", file=sys.stderr)
    return {
        name: {"seconds": median(wall for wall, _ in pairs), "cpu_seconds": median(cpu for _, cpu in pairs)}
        for name, pairs in times.items()
    }


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    args = parse(argv)
    load = os.getloadavg()[0]
    commands = {
        f"{side} {name}": ["-c", code]
        for name in args.pairs
        for side, code in zip(("ours", "theirs"), PAIRS[name], strict=True)
    }
    commands |= {f"{name} --help": [str(ROOT / "recipes" / f"{name}.py"), "--help"] for name in args.recipes}
    times = measure(commands, args.rounds)
    ratios = {
        name: {
            kind: times[f"ours {name}"][kind] / times[f"theirs {name}"][kind] for kind in ("seconds", "cpu_seconds")
        }
        for name in args.pairs
    }
    print(f"{os.cpu_count()} cores, load before the run {load:.2f}; medians of {args.rounds}")
    for name, value in times.items():
        print(f"{name:<32}{value['seconds']:8.2f} s{value['cpu_seconds']:8.2f} s CPU")
    for name, value in ratios.items():
        print(f"ours / theirs, {name:<14}{value['seconds']:8.2f}  {value['cpu_seconds']:8.2f} CPU")
    if args.json:
        result: dict[str, Any] = {"times": times, "ratios": ratios, "cores": os.cpu_count(), "load_before": load}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
