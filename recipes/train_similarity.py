"""Fine-tune the sentence encoder on labelled persona pairs, measure it on held-out premises, calibrate and save it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pess_hf.arguments import Kind, parse_recipe_args
from pess_hf.calibration import calibrate, pair_aucs, write_calibration
from pess_hf.cli import check_counts, prepare_output_dir, run_recipe, write_json
from pess_hf.data.sentence_pairs import PairSplit, load_sentence_pairs, premise_folds, split_by_premise
from pess_hf.data.subset import first_rows
from pess_hf.errors import PessError
from pess_hf.late_arguments import LateArguments
from pess_hf.plots import check_picture_path
from pess_hf.score_plots import plot_pair_cosines
from pess_hf.similarity import DEFAULT_ENCODER, load_encoder
from pess_hf.similarity_args import SimilarityLossArguments
from pess_hf.similarity_card import write_similarity_card

if TYPE_CHECKING:
    import datasets

TRAINING = LateArguments(
    "sentence_transformers:SentenceTransformerTrainingArguments",
    "sentence-transformers' SentenceTransformerTrainingArguments",
)


@dataclass
class SimilarityDataArguments:
    """Where to start from, on which pairs, and what is held out."""

    data: str = field(metadata={"help": "Labelled pairs: a .jsonl or .json file."})
    model_name_or_path: str = field(
        default=DEFAULT_ENCODER, metadata={"help": "Encoder to start from: Hub id or folder."}
    )
    held_out_fraction: float = field(default=0.15, metadata={"help": "Share of the premises held out for measuring."})
    folds: int = field(
        default=0, metadata={"help": "First train and measure once per fold of the premises, 2 or more; 0 does not."}
    )
    max_pairs: int | None = field(default=None, metadata={"help": "Use only so many pairs."})

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_counts(self, "max_pairs")
        if not 0 < self.held_out_fraction < 1:
            raise PessError(f"held_out_fraction: expected a number in (0, 1), found {self.held_out_fraction}.")
        if self.folds < 0 or self.folds == 1:
            raise PessError(f"folds: expected 0, or 2 or more, found {self.folds}.")


def main(args: list[str] | None = None) -> None:
    """Read the settings, train, measure, save."""
    kinds: list[Kind] = [SimilarityDataArguments, SimilarityLossArguments, TRAINING]
    parsed = parse_recipe_args(kinds, args, __doc__)
    data_args, loss_args, training_args = parsed
    folder = prepare_output_dir(training_args.output_dir)
    check_picture_path(folder / "cosines.png")
    pairs = first_rows(load_sentence_pairs(data_args.data), data_args.max_pairs)
    split = split_by_premise(pairs, data_args.held_out_fraction, training_args.seed)
    encoder = load_encoder(data_args.model_name_or_path)

    from pess_hf.similarity_training import pair_cosines, train_encoder

    metrics = cross_validate(encoder, pairs, loss_args, training_args, data_args.folds)
    start = time.perf_counter()
    tuned = train_encoder(encoder, split.train, loss_args, training_args)
    seconds = time.perf_counter() - start
    before, after = (pair_cosines(one, split.test) for one in (encoder, tuned))
    metrics |= measure("before", before, split) | measure("test", after, split)
    metrics |= {"train_pairs": len(split.train), "test_pairs": len(split.test), "dropped_pairs": split.dropped}

    tuned.save_pretrained(str(folder), create_model_card=False)
    metrics |= save_calibration(folder, after, split.test)
    plot_pair_cosines(folder / "cosines.png", {"before": before, "after": after}, split.test["label"])
    record(folder, list(parsed), metrics, len(split.train), seconds)
    report(metrics)


def cross_validate(
    encoder: Any, pairs: datasets.Dataset, loss_args: Any, training_args: Any, folds: int
) -> dict[str, float]:
    """Mean and standard deviation over the folds of what `measure` says, each before and after training."""
    from pess_hf.similarity_training import pair_cosines, train_encoder

    found: list[dict[str, float]] = []
    for number, split in enumerate(premise_folds(pairs, folds, training_args.seed) if folds else [], start=1):
        tuned = train_encoder(encoder, split.train, loss_args, training_args)
        scores = {f"{when}": pair_cosines(one, split.test) for when, one in (("before", encoder), ("test", tuned))}
        found.append({key: value for when, one in scores.items() for key, value in measure(when, one, split).items()})
        print(f"fold {number} of {folds}: " + ", ".join(f"{name} {value:.4f}" for name, value in found[-1].items()))
    summary: dict[str, float] = {"folds": folds} if folds else {}
    for name in found[0] if found else []:
        values = [fold[name] for fold in found if name in fold]
        summary[f"folds_{name}_mean"] = float(np.mean(values))
        summary[f"folds_{name}_std"] = float(np.std(values, ddof=1))
    return summary


def measure(when: str, cosines: np.ndarray, split: PairSplit) -> dict[str, float]:
    """AUCs on the held-out pairs; under `unseen`, on those whose hypothesis was not trained on either."""
    labels = np.asarray(split.test["label"])
    unseen = np.asarray(split.is_unseen)
    scores = {f"{when}_{name}": value for name, value in pair_aucs(cosines, labels).items()}
    if len(set(labels[unseen])) == len(set(labels)):
        aucs = pair_aucs(cosines[unseen], labels[unseen])
        scores |= {f"{when}_unseen_{name}": value for name, value in aucs.items()}
    return scores


def save_calibration(folder: Path, cosines: np.ndarray, pairs: datasets.Dataset) -> dict[str, float]:
    """Write the threshold that suits the encoder beside its weights."""
    chosen = calibrate(cosines, list(pairs["label"]), list(pairs["premise"]))
    write_calibration(folder, chosen)
    return {"threshold": chosen.threshold, "threshold_precision": chosen.precision, "threshold_recall": chosen.recall}


def record(folder: Path, arguments: list[Any], metrics: dict[str, float], rows: int, seconds: float) -> None:
    """Write metrics.json, run.json and the model card."""
    from pess_hf.run_record import write_run_record

    write_json(folder / "metrics.json", metrics)
    write_run_record(folder, arguments, rows, seconds)
    write_similarity_card(folder)


def report(metrics: dict[str, float]) -> None:
    """Print the figures."""
    for name, value in metrics.items():
        print(f"{name:<52} {value:.4f}" if isinstance(value, float) else f"{name:<52} {value}")


if __name__ == "__main__":
    run_recipe(main)
