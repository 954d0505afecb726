"""How well scorers match labelled sentence pairs at each threshold, and which suits each scorer: table and plot."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pess_hf.arguments import parse_recipe_args
from pess_hf.calibration import calibrate, pair_aucs, threshold_sweep
from pess_hf.cli import check_counts, prepare_output_dir, run_recipe, write_json
from pess_hf.data.sentence_pairs import load_sentence_pairs, split_by_premise
from pess_hf.data.subset import first_rows
from pess_hf.errors import PessError
from pess_hf.plots import check_picture_path
from pess_hf.score_plots import plot_lines, plot_pair_cosines
from pess_hf.similarity import DEFAULT_ENCODER, PersonaMatcher


@dataclass
class CalibrationArguments:
    """Which scorers on which pairs."""

    data: str = field(metadata={"help": "Labelled pairs: a .jsonl or .json file."})
    output_dir: str = field(metadata={"help": "Folder for calibration.json, table.md and the plots."})
    similarity_models: list[str] = field(
        default_factory=lambda: [DEFAULT_ENCODER], metadata={"help": "Encoders or NLI models: Hub ids or folders."}
    )
    held_out_fraction: float | None = field(
        default=None, metadata={"help": "Only what train_similarity.py holds out with this fraction and seed."}
    )
    seed: int = field(default=42, metadata={"help": "Seed of the held-out split."})
    thresholds: int = field(default=19, metadata={"help": "Thresholds of the sweep, evenly from 0.05 to 0.95."})
    persona_size: int = field(
        default=5, metadata={"help": "Reference sentences that a generated one is compared with."}
    )
    max_pairs: int | None = field(default=None, metadata={"help": "Use only so many pairs."})

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_counts(self, "thresholds", "persona_size", "max_pairs")
        if self.held_out_fraction is not None and not 0 < self.held_out_fraction < 1:
            raise PessError(f"held_out_fraction: expected a number in (0, 1), found {self.held_out_fraction}.")


def main(args: list[str] | None = None) -> None:
    """Read, score, sweep, write."""
    (parsed,) = parse_recipe_args(CalibrationArguments, args, __doc__)
    folder = prepare_output_dir(parsed.output_dir)
    check_picture_path(folder / "sweep.png")
    pairs = load_sentence_pairs(parsed.data)
    if parsed.held_out_fraction is not None:
        pairs = split_by_premise(pairs, parsed.held_out_fraction, parsed.seed).test
    pairs = first_rows(pairs, parsed.max_pairs)
    labels, premises = list(pairs["label"]), list(pairs["premise"])
    scores: dict[str, np.ndarray] = {}
    results: dict[str, Any] = {"pairs": len(pairs)}
    for name in parsed.similarity_models:
        scores[name] = pair_scores(name, premises, list(pairs["hypothesis"]))
        results[name] = judge(scores[name], labels, premises, parsed)
        print(f"{name}: threshold {results[name]['calibration']['threshold']:g}, {results[name]['aucs']}")
    write_json(folder / "calibration.json", results)
    (folder / "table.md").write_text(table(results, parsed.similarity_models), encoding="utf-8")
    plot_pair_cosines(folder / "scores.png", {Path(name).name: values for name, values in scores.items()}, labels)
    draw_sweep(folder / "sweep.png", results, parsed.similarity_models)


def pair_scores(name: str, premises: list[str], hypotheses: list[str]) -> np.ndarray:
    """The similarity of each pair, by the matching that training and evaluation use."""
    found = PersonaMatcher(name).similarities([[text] for text in hypotheses], [[text] for text in premises])
    return np.array([cosines[0, 0] for cosines in found])


def judge(scores: np.ndarray, labels: list[str], premises: list[str], args: CalibrationArguments) -> dict[str, Any]:
    """AUCs, the sweep and the calibrated threshold of one scorer.

    `unrelated_matched` is the chance that a sentence which is neutral to all of a persona's sentences is matched,
    if they passed independently.
    """
    sweep = threshold_sweep(scores, labels, np.linspace(0.05, 0.95, args.thresholds))
    for row in sweep:
        row["unrelated_matched"] = 1 - (1 - row["neutral_passed"]) ** args.persona_size
    calibration = asdict(calibrate(scores, labels, premises))
    return {"aucs": pair_aucs(scores, labels), "calibration": calibration, "sweep": sweep}


def table(results: dict[str, Any], names: list[str]) -> str:
    """The sweeps as Markdown."""
    columns = ("threshold", "precision", "recall", "f1", "neutral_passed", "contradiction_passed", "unrelated_matched")
    lines = []
    for name in names:
        lines += [f"{Path(name).name}, {results['pairs']} pairs", "", "| " + " | ".join(columns) + " |"]
        lines.append("|" + " ---: |" * len(columns))
        lines += ["| " + " | ".join(f"{row[c]:.3f}" for c in columns) + " |" for row in results[name]["sweep"]] + [""]
    return "\n".join(lines)


def draw_sweep(path: Path, results: dict[str, Any], names: list[str]) -> None:
    """Precision and recall of each scorer against the threshold."""
    lines = {
        f"{Path(name).name}, {share}": (
            [row["threshold"] for row in results[name]["sweep"]],
            [row[share] for row in results[name]["sweep"]],
        )
        for name in names
        for share in ("precision", "recall", "unrelated_matched")
    }
    plot_lines(path, lines, "threshold", "share")


if __name__ == "__main__":
    run_recipe(main)
