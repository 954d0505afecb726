"""The share of embedding and matching in a PESS step, with a model of BART-base's shape.

    python benchmarks/matching.py --json runs/matching.json

The trainer, rows and rollouts are those of `train_step.py`, of which only `PessTrainer` runs, with rollouts for 8
micro-batches at once. Each round starts with an empty sentence cache, as a first epoch does: the most it can cost.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from statistics import median
from typing import Any

from bench_model import load_rows, machine
from train_step import BLOCK, build_trainers, parse, prepare, run_block

SHAPE = ["--d_model", "768", "--layers", "6", "--vocab_size", "50265", "--rounds", "1"]
WINDOW = 8


def main(argv: list[str] | None = None) -> int:
    """Time and print."""
    args = parse([*SHAPE, *(sys.argv[1:] if argv is None else argv)])
    load = os.getloadavg()[0]
    rows, tokenizer, data = load_rows(args, BLOCK * args.batch)
    _, _, ours = build_trainers(args, rows, tokenizer, "runs")
    ours.args.rollout_steps, ours.count = WINDOW, Counter()
    prepare(ours)
    blocks = []
    for number in range(args.rounds):
        blocks.append(run_block(ours, WINDOW))
        print(f"round {number + 1} of {args.rounds}: {blocks[-1]}", file=sys.stderr)
    step, matching = (median(getattr(block, name) for block in blocks) for name in ("wall", "matching"))
    result: dict[str, Any] = {
        "step_seconds": step,
        "matching_seconds": matching,
        "share": matching / (step + matching),
        "encoder_calls": ours.matcher.encoder_calls,
        "parameters": sum(parameter.numel() for parameter in ours.model.parameters()),
        "data": data,
        "device": machine(args),
        "load_before": load,
    }
    print(f"step {step:.2f} s without matching; matching {matching:.3f} s, {100 * result['share']:.1f} % of both")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
