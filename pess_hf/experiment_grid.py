"""An experiment of settings times seeds: train all of them, then measure and compare them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pess_hf.experiment import Variant, launcher, plan_runs, run_grid
from pess_hf.experiment_args import Experiment
from pess_hf.experiment_report import write_report


def compare_variants(experiment: Experiment, variants: Sequence[Variant], training: Path, title: str) -> None:
    """Train every variant under every seed, and write the report into the experiment's folder.

    Args:
        experiment: What the recipe was told.
        variants: The settings; the first is what the others are compared with.
        training: The training recipe.
        title: Stands above table and plot.

    Raises:
        PessError: If a name or a seed comes twice, a run fails, or a folder holds a run with other settings.

    Example:
        >>> experiment = read_experiment(AblationArguments, args)  # doctest: +SKIP
        >>> compare_variants(experiment, VARIANTS, TRAINING, "Ablation")  # doctest: +SKIP
    """
    own = experiment.own
    runs = plan_runs(variants, own.seeds, experiment.settings, experiment.folder)
    run_grid(runs, launcher(training, own.jobs), own.jobs)
    write_report(experiment.folder, title, runs, own.report_encoders, own.report_thresholds, own.resamples)
