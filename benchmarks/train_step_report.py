"""From the times that `train_step.py` took to its table, its JSON and its picture."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pess_hf.text_metrics import require_extra

WINDOWS = (1, 4, 8, 16)
OURS = [f"rollout_{size}" for size in WINDOWS]


@dataclass
class Block:
    """What one step took, on average over a block, in seconds.

    Args:
        wall: On the clock, without matching.
        cpu: Of the CPU, without matching.
        matching: Matching, on the clock.
        rollout: Generating, on the clock, in ours; part of `wall`.
    """

    wall: float
    cpu: float
    matching: float
    rollout: float


def floor(args: argparse.Namespace, source: float, target: float) -> float:
    """Floating-point operations of a PESS step over those of a plain one, as the floor counts them.

    One encoder pass, three decoder sequences and their gradients (twice the forward), and one greedy decoding.

    Args:
        args: The model's shape.
        source: Source tokens of a dialogue.
        target: Its target tokens.
    """
    # In multiples of twice the width squared, for one dialogue.
    encoder = args.layers * source * (12 + 2 * source / args.d_model)
    decoder = args.layers * (target * (14 + 2 * (source + target) / args.d_model) + 2 * source)
    decoder += target * args.vocab_size / args.d_model
    return (3 * encoder + 9 * decoder + decoder) / (3 * encoder + 3 * decoder)


def summarise(
    args: argparse.Namespace, blocks: dict[str, list[Block]], counts: dict[str, Counter[str]]
) -> dict[str, Any]:
    """Medians, ratios, and what the steps were made of."""
    seconds = {name: median(block.wall for block in times) for name, times in blocks.items()}
    cpu = {name: median(block.cpu for block in times) for name, times in blocks.items()}
    matching = {name: median(block.matching for block in times) for name, times in blocks.items()}
    last = counts[f"rollout_{WINDOWS[-1]}"]
    source, target = last["source_tokens"] / last["reference"], last["target_tokens"] / last["reference"]
    return {
        "seconds": seconds,
        "ratio_to_plain": {name: value / seconds["plain"] for name, value in seconds.items()},
        "cpu_ratio_to_plain": {name: value / cpu["plain"] for name, value in cpu.items()},
        "straightforward_over_ours": {name: seconds["straightforward"] / seconds[name] for name in OURS},
        "matching_seconds": matching,
        "matching_share": {name: value / (value + seconds[name]) for name, value in matching.items()},
        "ratio_with_matching": {name: (matching[name] + value) / seconds["plain"] for name, value in seconds.items()},
        "rollout_share": {name: median(block.rollout for block in blocks[name]) / seconds[name] for name in OURS},
        "encoder_calls_a_step": {name: counts[name]["encoder_calls"] / counts[name]["steps"] for name in OURS},
        "floor": floor(args, source, target),
        "per_dialogue": {
            "source_tokens": source,
            "target_tokens": target,
            "new_target_rows": last["new_target"] / last["reference"],
            "generated_rows": last["generated"] / last["reference"],
            "generated_tokens": last["rollout_tokens"] / last["rollouts"],
        },
        "all_seconds": {name: [block.wall for block in times] for name, times in blocks.items()},
    }


def report(args: argparse.Namespace, result: dict[str, Any]) -> None:
    """Print the table."""
    mean = result["per_dialogue"]
    print(f"{args.layers}+{args.layers} layers, {args.d_model} wide, batch {args.batch}, {result['data']}")
    print(
        f"mean tokens: source {mean['source_tokens']:.0f}, target {mean['target_tokens']:.0f}, generated "
        f"{mean['generated_tokens']:.0f}; decoder rows a dialogue: 1 reference, {mean['new_target_rows']:.2f} new "
        f"target, {mean['generated_rows']:.2f} generated"
    )
    print(f"{result['device']}; load before the run {result['load_before']:.2f}; floor {result['floor']:.2f}")
    titles = ("ms a step", "plain steps", "by CPU time", "rollout", "matching ms", "its share", "with it")
    print("\n" + " " * 16 + "".join(f"{title:>13}" for title in titles))
    for name, value in result["seconds"].items():
        cells = [f"{1000 * value:.1f}", f"{result['ratio_to_plain'][name]:.2f}"]
        cells += [f"{result['cpu_ratio_to_plain'][name]:.2f}"]
        cells += [f"{100 * result['rollout_share'][name]:.1f} %" if name in OURS else ""]
        cells += [f"{1000 * result['matching_seconds'][name]:.1f}", f"{100 * result['matching_share'][name]:.1f} %"]
        cells += [f"{result['ratio_with_matching'][name]:.2f}"]
        print(f"{name:<16}" + "".join(f"{cell:>13}" for cell in cells))
    print(f"\nstraightforward / ours at 8 = {result['straightforward_over_ours']['rollout_8']:.2f}")


def plot(path: Path, result: dict[str, Any]) -> None:
    """Draw cost against `rollout_steps`."""
    require_extra("matplotlib").use("Agg")
    plt: Any = require_extra("matplotlib.pyplot")
    ratio = result["ratio_to_plain"]
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axes.plot(WINDOWS, [ratio[f"rollout_{size}"] for size in WINDOWS], marker="o", label="PessTrainer")
    axes.axhline(ratio["straightforward"], color="tab:red", ls="--", label="straightforward")
    axes.axhline(result["floor"], color="tab:green", ls=":", label="floor (operations)")
    axes.axhline(1, color="grey", lw=1, label="plain likelihood")
    axes.set_xticks(WINDOWS)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("rollout_steps")
    axes.set_ylabel("cost of a step, in plain steps")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
