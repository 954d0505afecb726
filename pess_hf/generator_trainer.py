"""The generator's trainer: `Seq2SeqTrainer`, which its loss suits as it is, with our cards, pushes and guards."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Seq2SeqTrainer
from transformers.trainer_utils import EvalLoopOutput

from pess_hf.data.collator import ID_COLUMN
from pess_hf.finite import FiniteMixin, FiniteWatch
from pess_hf.hub_trainer import PessHubMixin
from pess_hf.processes import check_sharding, gather_real, num_real_rows
from pess_hf.safe_checkpoints import SafeCheckpointsMixin
from pess_hf.terms import TermMeter


class PessGeneratorTrainer(FiniteMixin, SafeCheckpointsMixin, PessHubMixin, Seq2SeqTrainer):
    """Trains a `PessGenerator`; publishes model, tokenizer, card and metrics and nothing else.

    The evaluation loss is the mean over the target tokens of all rows, whatever the batch size and the processes.
    With `with_ids=True` in its collator a number that is not finite is an error that names the rows.

    Example:
        >>> trainer = PessGeneratorTrainer(model, args, train_dataset=examples)  # doctest: +SKIP
    """

    model: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_sharding(self.accelerator, self.model)
        self.finite_watch = FiniteWatch(["nll"])
        self._eval_meter = TermMeter(["loss"])

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """As `Trainer.compute_loss`, with an eye on numbers that are not finite."""
        ids = inputs.pop(ID_COLUMN, None)
        result: Any = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if model.training:
            loss = result[0] if return_outputs else result
            self.finite_watch.add(~loss.isfinite().expand(1, len(inputs["input_ids"])), ids)
        return result

    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: Any,
    ) -> Any:
        """As `Seq2SeqTrainer`; what it adds to the evaluation loss are the tokens of the rows that are real."""
        inputs = self._prepare_inputs({name: value for name, value in inputs.items() if name != ID_COLUMN})
        num_real = num_real_rows(self.accelerator, len(inputs["labels"]))
        real = {name: value[: max(num_real, 1)] for name, value in inputs.items()}
        count = real["labels"].ne(-100).sum()
        with torch.no_grad(), self.compute_loss_context_manager():
            total = model(**real, num_items_in_batch=1).loss
        if num_real:
            self._eval_meter.add({"loss": total}, count)
        if prediction_loss_only or not self.args.predict_with_generate:
            return (total / count.clamp(min=1)).detach(), None, None
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys, **gen_kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As `Trainer`, with the loss over all tokens."""
        self.gather_function = gather_real(self.accelerator, self.args.eval_use_gather_object)
        self._eval_meter.clear()
        output: Any = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        measured = self._eval_meter.read(self.accelerator)
        output.metrics.update({f"{prefix}_{name}": value for name, value in measured.items()})
        return output
