"""What the matching threshold of training does: a sweep, and none at all, measured at one reporting threshold."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pess_hf.cli import run_recipe
from pess_hf.errors import PessError
from pess_hf.experiment import Variant
from pess_hf.experiment_args import ExperimentArguments, read_experiment
from pess_hf.experiment_grid import compare_variants

TRAINING = Path(__file__).parents[1] / "train_extractor.py"
#: At this cosine every generated sentence is consistent, and nothing is missing once one is written.
NO_THRESHOLD = -1.0


@dataclass
class ThresholdArguments(ExperimentArguments):
    """The thresholds, seeds and measuring; every other setting is one of train_extractor.py and passed on to it.

    Example:
        >>> ThresholdArguments(thresholds=[0.5]).report_thresholds
        [0.6]
    """

    thresholds: list[float] = field(
        default_factory=lambda: [0.4, 0.5, 0.6, 0.7, 0.8], metadata={"help": "Training thresholds, in [-1, 1]."}
    )
    without_threshold: bool = field(
        default=True, metadata={"help": "Also train with every generated sentence taken as consistent."}
    )
    baseline: bool = field(default=True, metadata={"help": "Also train without the PESS terms, to compare with."})

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        for threshold in self.thresholds:
            if not -1 <= threshold <= 1:
                raise PessError(f"thresholds: expected numbers in [-1, 1], found {threshold}.")

    def variants(self) -> list[Variant]:
        """The settings of the grid, the baseline first."""
        off = {"completeness_weight": 0.0, "consistency_weight": 0.0}
        found = [Variant("baseline", off)] if self.baseline else []
        found += [Variant(f"threshold-{one:g}", {"similarity_threshold": one}) for one in self.thresholds]
        none = Variant("no-threshold", {"similarity_threshold": NO_THRESHOLD})
        return [*found, none] if self.without_threshold else found


def main(args: list[str] | None = None) -> None:
    """Train with every threshold under every seed, then measure all alike."""
    experiment = read_experiment(ThresholdArguments, args, __doc__)
    if "similarity_threshold" in experiment.settings:
        print("similarity_threshold is replaced by each of the thresholds")
    compare_variants(experiment, experiment.own.variants(), TRAINING, "Training with other thresholds")


if __name__ == "__main__":
    run_recipe(main)
