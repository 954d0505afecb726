"""Trainer callbacks of the recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

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
