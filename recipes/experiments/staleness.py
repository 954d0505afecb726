"""What stale rollouts cost: persona F1 against the micro-batches that training generates for at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pess_hf.cli import run_recipe
from pess_hf.errors import PessError
from pess_hf.experiment import Variant
from pess_hf.experiment_args import ExperimentArguments, read_experiment
from pess_hf.experiment_grid import compare_variants

TRAINING = Path(__file__).parents[1] / "train_extractor.py"


@dataclass
class StalenessArguments(ExperimentArguments):
    """The windows, seeds and measuring; every other setting is one of train_extractor.py and passed on to it.

    Example:
        >>> StalenessArguments().windows
        [1, 4, 8, 16]
    """

    windows: list[int] = field(
        default_factory=lambda: [1, 4, 8, 16],
        metadata={"help": "Values of rollout_steps; the first, never stale at 1, is what the others compare with."},
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        for window in self.windows:
            if window < 1:
                raise PessError(f"windows: expected 1 or more each, found {window}.")


def main(args: list[str] | None = None) -> None:
    """Train with every window under every seed, then compare the scores."""
    experiment = read_experiment(StalenessArguments, args, __doc__)
    if "rollout_steps" in experiment.settings:
        print("rollout_steps is replaced by each of the windows")
    variants = [Variant(f"rollout-steps-{window}", {"rollout_steps": window}) for window in experiment.own.windows]
    compare_variants(experiment, variants, TRAINING, "Staleness")


if __name__ == "__main__":
    run_recipe(main)
