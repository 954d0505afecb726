"""What every training experiment takes, beside the settings that it passes on to the training recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pess_hf.arguments import Kind, given_settings, parse_recipe_args
from pess_hf.cli import check_counts, prepare_output_dir
from pess_hf.errors import PessError
from pess_hf.experiment import DECIDED
from pess_hf.extractor_args import ExtractorArguments, PersonaDataArguments
from pess_hf.similarity import DEFAULT_ENCODER, DEFAULT_THRESHOLD
from pess_hf.training_fields import PESS_TRAINING

#: Which rows are held out must not change with the training seed.
_HELD_OUT_SEED = 42
#: A base file may set these for single runs; a grid replaces them.
_REPLACED = ("output_dir", "seed", "save_strategy", "evaluate_before_pess")


@dataclass
class GridArguments:
    """Seeds, processes and resampling: what every grid takes.

    Example:
        >>> GridArguments(seeds=[1, 2]).jobs
        1
    """

    seeds: list[int] = field(
        default_factory=lambda: [1, 2, 3], metadata={"help": "Training seeds; they replace `seed`."}
    )
    jobs: int = field(default=1, metadata={"help": "Runs at the same time."})
    resamples: int = field(default=2000, metadata={"help": "Of each bootstrap and permutation test."})

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_counts(self, "jobs", "resamples")
        if not self.seeds:
            raise PessError("seeds: expected one or more, found none.")


@dataclass
class ExperimentArguments(GridArguments):
    """Seeds, processes, and how the runs are measured.

    Example:
        >>> ExperimentArguments(seeds=[1, 2]).report_thresholds
        [0.6]
    """

    start_from: str | None = field(
        default=None,
        metadata={"help": "A trained extractor that all runs start from, in place of model_name_or_path."},
    )
    report_encoders: list[str] = field(
        default_factory=lambda: [DEFAULT_ENCODER],
        metadata={"help": "Sentence encoders that measure, whatever training matches with; the first makes the plot."},
    )
    report_thresholds: list[float] = field(
        default_factory=lambda: [DEFAULT_THRESHOLD], metadata={"help": "Thresholds that measure; as above."}
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not self.report_encoders or not self.report_thresholds:
            raise PessError("report_encoders, report_thresholds: expected one or more each, found none.")
        for threshold in self.report_thresholds:
            if not -1 <= threshold <= 1:
                raise PessError(f"report_thresholds: expected numbers in [-1, 1], found {threshold}.")


@dataclass(frozen=True)
class Experiment:
    """What an experiment recipe was told.

    Args:
        own: The recipe's own arguments.
        folder: Where runs, table and plot go.
        settings: What every run of the training recipe is told.
        training: The training recipe's own groups of arguments, where `read_experiment_of` was told them.
    """

    own: Any
    folder: Path
    settings: dict[str, Any]
    training: tuple[Any, ...] = ()


def read_experiment(
    own_type: type[ExperimentArguments],
    args: Sequence[str] | None = None,
    description: str | None = None,
    needs_test_rows: bool = True,
) -> Experiment:
    """Read the settings of an experiment recipe: its own, and any of `train_extractor.py`, which are passed on.

    Args:
        own_type: The recipe's own dataclass.
        args: The command line without the program's name; that of this process by default.
        description: What ``--help`` says first.
        needs_test_rows: Whether the training recipe must be told what to measure on.

    Returns:
        The experiment, all settings checked, its folder made.

    Raises:
        PessError: A setting is wrong, or there are no rows to measure on.
        SystemExit: The command line is wrong, or asks for help.

    Example:
        >>> words = ["--model_name_or_path", "m", "--train_data", "sample", "--held_out_fraction", "0.1"]
        >>> read_experiment(ExperimentArguments, [*words, "--output_dir", "runs/x"]).settings["held_out_seed"]
        42
    """
    types: list[Kind] = [own_type, ExtractorArguments, PersonaDataArguments, PESS_TRAINING]
    own, _, data_args, training_args = parse_recipe_args(types, args, description)
    if needs_test_rows and not data_args.test_data and not data_args.held_out_fraction:
        raise PessError("test_data: expected it or held_out_fraction, found neither. There is nothing to measure on.")
    settings = _passed_on(own_type, given_settings(types, args), _REPLACED)
    if data_args.held_out_fraction:
        settings.setdefault("held_out_seed", _HELD_OUT_SEED)
    if own.start_from is not None:
        settings |= {"model_name_or_path": own.start_from, "decoder_layers": None, "encoder_layers": None}
    return Experiment(own, prepare_output_dir(training_args.output_dir), settings)


def read_experiment_of(
    training_types: Sequence[Kind],
    own_type: type[GridArguments],
    args: Sequence[str] | None = None,
    description: str | None = None,
) -> Experiment:
    """As `read_experiment`, for another training recipe, such as `train_generator.py`.

    Its runs save no checkpoints unless the settings ask for them.

    Args:
        training_types: The training recipe's groups of arguments, the last one Trainer's.
        own_type: The recipe's own dataclass.
        args: As in `read_experiment`.
        description: As in `read_experiment`.

    Returns:
        The experiment with `training`, an instance of each training type.

    Raises:
        PessError: A setting is wrong.
        SystemExit: The command line is wrong, or asks for help.

    Example:
        >>> from transformers import TrainingArguments
        >>> words = ["--output_dir", "runs/x", "--max_steps", "5"]
        >>> read_experiment_of([TrainingArguments], GridArguments, words).settings
        {'max_steps': 5, 'save_strategy': 'no'}
    """
    types: list[Kind] = [own_type, *training_types]
    own, *training = parse_recipe_args(types, args, description)
    settings = _passed_on(own_type, given_settings(types, args), ("output_dir", "seed"))
    settings.setdefault("save_strategy", "no")
    return Experiment(own, prepare_output_dir(training[-1].output_dir), settings, tuple(training))


def _passed_on(own_type: type, given: dict[str, Any], replaced: Sequence[str]) -> dict[str, Any]:
    """What is given for the training recipe, without what a grid replaces; what it decides itself is refused."""
    mine = {one.name for one in fields(own_type)}
    settings = {name: value for name, value in given.items() if name not in mine and name not in replaced}
    for name in set(DECIDED) - set(_REPLACED):
        if settings.pop(name, None) not in (None, False):
            raise PessError(f"{name}: expected no such setting, an experiment decides it itself. Leave it out.")
    return settings
