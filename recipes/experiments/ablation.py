"""Which term does what: the baseline, without completeness, without consistency, and both, over several seeds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pess_hf.cli import run_recipe
from pess_hf.errors import PessError
from pess_hf.experiment import Variant
from pess_hf.experiment_args import ExperimentArguments, read_experiment
from pess_hf.experiment_grid import compare_variants

TRAINING = Path(__file__).parents[1] / "train_extractor.py"
OFF = 0.0
VARIANTS = (
    Variant("baseline", {"completeness_weight": OFF, "consistency_weight": OFF}),
    Variant("no-completeness", {"completeness_weight": OFF}),
    Variant("no-consistency", {"consistency_weight": OFF}),
    Variant("full"),
)


@dataclass
class AblationArguments(ExperimentArguments):
    """Seeds and measuring; every other setting is one of train_extractor.py and passed on to it."""

    variants: list[str] = field(
        default_factory=lambda: [variant.name for variant in VARIANTS],
        metadata={"help": "Which to train; the first is what the others are compared with."},
    )

    def __post_init__(self) -> None:
        """Check the names."""
        super().__post_init__()
        known = {variant.name: variant for variant in VARIANTS}
        unknown = [name for name in self.variants if name not in known]
        if unknown or not self.variants:
            raise PessError(f"variants: expected some of {', '.join(known)}, found {', '.join(unknown) or 'none'}.")
        self.chosen = [known[name] for name in self.variants]


def main(args: list[str] | None = None) -> None:
    """Train the four variants under every seed, then compare them with the baseline."""
    experiment = read_experiment(AblationArguments, args, __doc__)
    compare_variants(experiment, experiment.own.chosen, TRAINING, "Ablation")


if __name__ == "__main__":
    run_recipe(main)
