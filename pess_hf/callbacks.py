"""Trainer callbacks of the recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pess_hf.training_args import PessTrainingArguments

if TYPE_CHECKING:
    import datasets

    from pess_hf.trainer import PessTrainer


class EvaluateBeforePess(TrainerCallback):
    """Measures once at the step at which the PESS terms switch on; the figures are logged as `before_pess_*`.

    Args:
        trainer: The trainer.
        rows: The rows to measure on.
    """

    def __init__(self, trainer: PessTrainer, rows: datasets.Dataset) -> None:
        self.trainer = trainer
        self.rows = rows

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Where the terms are on from the start."""
        if state.global_step == 0 and self.trainer.args.pess_start == 0:
            self._evaluate()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Where they switch on after this step."""
        if state.global_step == self.trainer.args.pess_start_step(state.max_steps):
            self._evaluate()

    def _evaluate(self) -> None:
        if self.trainer.args.has_pess_terms:
            self.trainer.evaluate(self.rows, metric_key_prefix="before_pess")


class SaveBeforePess(TrainerCallback):
    """Saves a checkpoint at the step at which the PESS terms switch on, or would with weights above 0.

    Up to there runs of one seed are the same whatever their PESS settings: others can go on from this checkpoint.
    """

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for the checkpoint."""
        if isinstance(args, PessTrainingArguments) and state.global_step == args.pess_start_step(state.max_steps):
            control.should_save = True
        return control
