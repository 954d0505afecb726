"""Compare two runs, or two settings under several seeds, on the rows that both were measured on.

Usage: compare.py RUN_A RUN_B [--key value ...]; each a run folder, several with commas, or a folder of run folders.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pess_hf.arguments import parse_recipe_args
from pess_hf.cli import check_counts, check_distinct_files, prepare_output_file, run_recipe, write_json
from pess_hf.errors import PessError
from pess_hf.experiment_report import Measured, as_markdown, draw_f1, score_settings, text_scores
from pess_hf.plots import check_picture_path
from pess_hf.run_predictions import check_same_rows, find_runs, read_predictions
from pess_hf.similarity import DEFAULT_ENCODER, DEFAULT_THRESHOLD
from pess_hf.text_metrics import bert_score


@dataclass
class CompareArguments:
    """Which runs to compare, and how they are measured."""

    run_a: list[str] = field(metadata={"help": "What is compared with: run folders, one a seed, or a folder of them."})
    run_b: list[str] = field(metadata={"help": "What is compared: as run_a."})
    encoder: str = field(default=DEFAULT_ENCODER, metadata={"help": "Sentence encoder that matches."})
    threshold: list[float] = field(
        default_factory=lambda: [DEFAULT_THRESHOLD], metadata={"help": "Matching cosines in [-1, 1]."}
    )
    one_to_one: bool = field(
        default=False,
        metadata={"help": "Whether a sentence meets one other at most: several wordings of one thing count once."},
    )
    output: str | None = field(default=None, metadata={"help": "JSON file for the figures."})
    plot: str | None = field(default=None, metadata={"help": "Picture of F1 with its intervals to write."})
    resamples: int = field(default=2000, metadata={"help": "Of each bootstrap and permutation test."})
    bert_score_model: str | None = field(
        default=None, metadata={"help": "Model folder or id; without one BERTScore is left out."}
    )
    bert_score_layers: int = field(default=9, metadata={"help": "Layer that BERTScore compares."})

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_counts(self, "resamples")
        if not self.threshold:
            raise PessError("threshold: expected one or more, found none.")
        for threshold in self.threshold:
            if not -1 <= threshold <= 1:
                raise PessError(f"threshold: expected numbers in [-1, 1], found {threshold}.")


def main(args: list[str] | None = None) -> None:
    """Read what both sides wrote, measure it, test the difference, write."""
    (parsed,) = parse_recipe_args(CompareArguments, with_names(sys.argv[1:] if args is None else args), __doc__)
    check_distinct_files([], output=parsed.output, plot=parsed.plot)
    if parsed.output is not None:
        prepare_output_file(parsed.output)
    if parsed.plot is not None:
        check_picture_path(parsed.plot)
    sides = read_sides(parsed)
    reports = score_settings(sides, parsed.encoder, parsed.threshold, parsed.resamples, parsed.one_to_one)
    text = {side.name: text_scores(side) | bert_scores(parsed, side) for side in sides}
    print(as_markdown(f"{sides[1].name} against {sides[0].name}", reports, text))
    if parsed.output is not None:
        folders = {side.name: [str(run.path) for run in side.predictions] for side in sides}
        write_json(parsed.output, {"runs": folders, "reports": reports, "text": text})
    if parsed.plot is not None:
        draw_f1(parsed.plot, reports[0], "")


def with_names(words: Sequence[str]) -> list[str]:
    """The command line with its two leading runs given by name.

    Example:
        >>> with_names(["runs/a", "runs/b1,runs/b2", "--threshold", "0.5"])[:4]
        ['--run_a', 'runs/a', '--run_b', 'runs/b1,runs/b2']
    """
    leading = next((n for n, word in enumerate(words) if word.startswith("--")), len(words))
    if leading == 2:
        return ["--run_a", words[0], "--run_b", *words[1:]]
    return list(words)


def read_sides(args: CompareArguments) -> list[Measured]:
    """Both sides, each under the name it was given; all on the same rows."""
    names = [",".join(args.run_a), ",".join(args.run_b)]
    if names[0] == names[1]:
        raise PessError(f"run_b: expected other runs than run_a, found {names[1]} twice. Name two.")
    sides = [
        Measured(name, [read_predictions(run) for run in find_runs(given)])
        for name, given in zip(names, (args.run_a, args.run_b), strict=True)
    ]
    check_same_rows([run for side in sides for run in side.predictions])
    return sides


def bert_scores(args: CompareArguments, side: Measured) -> dict[str, Any]:
    """BERTScore F1 averaged over seeds, if a model for it is named."""
    if args.bert_score_model is None:
        return {}
    by_seed = [
        bert_score(run.generated, run.reference, args.bert_score_model, args.bert_score_layers)["bert_score_f1"]
        for run in side.predictions
    ]
    return {"bert_score_f1": sum(by_seed) / len(by_seed)}


if __name__ == "__main__":
    run_recipe(main)
