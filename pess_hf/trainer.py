"""The trainer: three loss terms from one forward pass, rollouts in windows, persona metrics in evaluation.

Letters: B dialogues in a micro-batch, R decoder rows, T target tokens, V vocabulary, N labelled tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import PreTrainedModel, Seq2SeqTrainer
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from pess_hf.data.collator import ID_COLUMN, PERSONA_COLUMNS, PersonaCollator
from pess_hf.decoder_batch import DecoderBatch, Rollout, build_decoder_batch
from pess_hf.errors import PessError
from pess_hf.extraction import max_positions
from pess_hf.finite import FiniteMixin, FiniteWatch
from pess_hf.hub_trainer import PessHubMixin
from pess_hf.length_sampler import EpochLengthSampler
from pess_hf.modeling_extractor import PersonaExtractionMixin
from pess_hf.processes import check_sharding, gather_real, num_real_rows
from pess_hf.rollout import generation_ready, greedy_rollouts
from pess_hf.rollout_window import ROLLOUT_KEY, RolloutWindow, TokenIds, load_pending, save_pending
from pess_hf.safe_checkpoints import SafeCheckpointsMixin
from pess_hf.similarity import PersonaMatcher, persona_scores
from pess_hf.terms import TERMS, PessTerms, TermMeter, consistent_counts, pess_terms
from pess_hf.text import split_pieces, unique_sentences
from pess_hf.training_args import PessTrainingArguments

logger = logging.get_logger(__name__)

Batch = dict[str, Any]
#: Set in an evaluation batch whose rows another process measures.
_REPEATS = "repeats"


class PessTrainer(FiniteMixin, SafeCheckpointsMixin, PessHubMixin, Seq2SeqTrainer):
    """Trains a persona extractor with likelihood, completeness and consistency (PESS, arXiv 2403.04212).

    Used like `Seq2SeqTrainer`, over rows with `utterances` and `persona`. Both weights at 0 give the plain baseline
    under the same normalisation: tokens of the whole global batch, whatever the accumulation steps and processes.

    Args:
        model: A persona extractor, or a PEFT model around one.
        args: The arguments.
        matcher: Matches generated with reference sentences; made from `args` when it is first needed otherwise.
        data_collator: By default a `PersonaCollator` with the model's separators.
        **kwargs: As `Seq2SeqTrainer`.

    Raises:
        PessError: If the model is no extractor or there is no tokenizer.

    Example:
        >>> trainer = PessTrainer(model, args, train_dataset=rows, processing_class=tokenizer)  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    # The loss is a sum over the tokens of the accumulated batch: the Trainer must not divide it again.
    loss_is_scaled_for_ga = True

    args: PessTrainingArguments
    data_collator: PersonaCollator
    model: Any
    processing_class: Any
    _signature_columns: Any

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None = None,
        args: PessTrainingArguments | None = None,
        matcher: PersonaMatcher | None = None,
        data_collator: PersonaCollator | None = None,
        **kwargs: Any,
    ) -> None:
        tokenizer = kwargs.get("processing_class")
        if tokenizer is None:
            raise PessError("PessTrainer: expected the tokenizer as processing_class=, found none.")
        extractor = _extractor(model)
        if data_collator is None:
            separators = (extractor.config.utterance_separator, extractor.config.persona_separator)
            positions = max_positions(extractor)
            data_collator = PersonaCollator(tokenizer, *separators, min(512, positions), min(128, positions))
        for name in ("max_source_length", "max_target_length"):
            if getattr(data_collator, name, 0) > max_positions(extractor):
                raise PessError(
                    f"{name}: expected at most {max_positions(extractor)}, the positions of the model, found "
                    f"{getattr(data_collator, name)}."
                )
        super().__init__(model, args, data_collator, **kwargs)
        if self.args.n_gpu > 1:
            raise PessError(
                f"PessTrainer: expected one process per GPU, found {self.args.n_gpu} GPUs in one process. "
                "Use accelerate launch --multi_gpu, or set CUDA_VISIBLE_DEVICES to one of them."
            )
        check_sharding(self.accelerator, extractor)
        if matcher is not None:
            self.args.check_scorer(matcher)
        self.finite_watch = FiniteWatch(TERMS)
        self._matcher = matcher
        self._window: RolloutWindow | None = None
        self._restored_rollouts: TokenIds = []
        self._train_meter, self._eval_meter = TermMeter(), TermMeter([*TERMS, "rollout_consistent_rate"])
        self._gen_kwargs: dict[str, Any] = {}
        self._writes_only = False

    @property
    def extractor(self) -> Any:
        """The extractor itself, out of a PEFT model where there is one around it."""
        return _extractor(self.model)

    @property
    def matcher(self) -> PersonaMatcher:
        """The matcher, loaded when it is first needed."""
        if self._matcher is None:
            self._matcher = self.args.open_matcher()
        return self._matcher

    def pess_is_active(self) -> bool:
        """Whether training with the PESS terms is on: a weight is above 0 and `pess_start` is reached."""
        has_begun = self.state.global_step >= self.args.pess_start_step(self.state.max_steps)
        return self.args.has_pess_terms and (not self.is_in_train or has_begun)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The weighted sum of the three terms; the signature and the meaning of the arguments are `Trainer`'s."""
        rollouts = self._rollouts(inputs, model.training)
        batch = self._decoder_batch(inputs, rollouts).to(inputs["input_ids"].device)
        outputs = model(**self._model_inputs(inputs, batch))
        num_dialogues = len(inputs["input_ids"])
        terms = pess_terms(
            outputs.logits,
            outputs.decoder_hidden_states,
            batch,
            num_dialogues,
            self.args.consistency_temperature,
            self.args.label_smoothing_factor,
        )
        scaled = self._scale(model, terms, num_items_in_batch)
        loss = (
            scaled.nll_sum
            + self.args.completeness_weight * scaled.completeness
            + self.args.consistency_weight * scaled.consistency
        )
        if model.training:
            self.finite_watch.add(terms.not_finite, inputs.get(ID_COLUMN))
            self._record(self._train_meter, scaled, rollouts, 1 / self.current_gradient_accumulation_steps)
        elif not inputs.get(_REPEATS):
            num_tokens = batch.labels[:num_dialogues].ne(-100).sum()
            self._record(self._eval_meter, terms.times(num_dialogues), rollouts, num_dialogues, num_tokens)
        return (loss, outputs) if return_outputs else loss

    def _scale(self, model: nn.Module, terms: PessTerms, num_items: torch.Tensor | int | None) -> PessTerms:
        """Make the terms add up over accumulation steps and processes to what one big batch gives."""
        if num_items is None:
            raise RuntimeError("PessTrainer: the Trainer counted no tokens, so the loss cannot be normalised.")
        # Before the first training step the Trainer has no accumulation to speak of; evaluation never has.
        steps = self.current_gradient_accumulation_steps if model.training else 1
        world = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        count = torch.as_tensor(num_items, device=terms.nll_sum.device).clamp(min=1)
        means = {"completeness": terms.completeness / steps, "consistency": terms.consistency / steps}
        return replace(terms, nll_sum=terms.nll_sum / count * world, **means)

    def _record(
        self,
        meter: TermMeter,
        terms: PessTerms,
        rollouts: list[Rollout] | None,
        weight: float,
        nll_weight: float | torch.Tensor | None = None,
    ) -> None:
        meter.add({"nll": terms.nll_sum}, weight if nll_weight is None else nll_weight)
        meter.add({"completeness": terms.completeness, "consistency": terms.consistency}, weight)
        consistent, generated = consistent_counts(rollouts or [])
        meter.add({"rollout_consistent_rate": torch.tensor(float(consistent), device=terms.nll_sum.device)}, generated)

    def _rollouts(self, inputs: Batch, training: bool) -> list[Rollout] | None:
        """Those that the window made; in evaluation new ones, also before `pess_start`, so that losses compare."""
        if ROLLOUT_KEY in inputs:
            return inputs[ROLLOUT_KEY]
        is_on = self.pess_is_active() if training else self.args.has_pess_terms
        return self._roll_out([inputs])[0] if is_on else None

    def _decoder_batch(self, inputs: Batch, rollouts: list[Rollout] | None) -> DecoderBatch:
        return build_decoder_batch(
            inputs["persona"],
            rollouts,
            self.data_collator.encode_personas,
            self.matcher.threshold if rollouts is not None else self.args.similarity_threshold,
            use_completeness=self.args.completeness_weight > 0,
            use_consistency=self.args.consistency_weight > 0,
            similarity=self._batch_similarity(inputs, rollouts),
        )

    def _batch_similarity(self, inputs: Batch, rollouts: list[Rollout] | None) -> np.ndarray | None:
        """Cosines (M, K) of all reference and generated sentences of the micro-batch, where negatives come from it."""
        if rollouts is None or not self.args.lends_negatives:
            return None
        generated = [sentence for rollout in rollouts for sentence in rollout.generated]  # K
        reference = [sentence for persona in inputs["persona"] for sentence in persona]  # M
        return self.matcher.similarities([generated], [reference])[0]

    def _model_inputs(self, inputs: Batch, batch: DecoderBatch) -> Batch:
        return {
            "input_ids": inputs["input_ids"],
            "attention_mask": inputs["attention_mask"],
            "decoder_input_ids": _extractor(self.model).prepare_decoder_input_ids_from_labels(labels=batch.target_ids),
            "labels": batch.labels,
            "encoder_rows": batch.encoder_rows,
        }

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor | int | None]:
        """As `Trainer`, through the rollout window of this epoch."""
        if self._window is None or self._window.source is not epoch_iterator:
            self._window = RolloutWindow(
                epoch_iterator, self.args.rollout_steps, self._roll_out, self.pess_is_active, self._restored_rollouts
            )
            self._restored_rollouts = []
        return super().get_batch_samples(self._window, num_batches, device)

    def _roll_out(self, batches: list[Batch], token_ids: TokenIds | None = None) -> list[list[Rollout]]:
        """Generate for several micro-batches at once and match all of it in one call of the sentence encoder."""
        if token_ids is not None and [len(ids) for ids in token_ids] != [len(batch["persona"]) for batch in batches]:
            logger.warning("The checkpoint's rollouts are of other batches than this run's: generating anew.")
            token_ids = None
        if token_ids is None:
            sources = [ids[mask.bool()] for batch in batches for ids, mask in zip(*_source(batch), strict=True)]
            limits = (self.args.rollout_max_new_tokens, self.args.rollout_batch_size)
            with self.accelerator.autocast():
                flat = greedy_rollouts(self.model, sources, *limits, accelerator=self.accelerator)
        else:
            flat = [ids for rollouts in token_ids for ids in rollouts]
        generated = self.decode_personas(flat)
        matches = self.matcher.match(generated, [persona for batch in batches for persona in batch["persona"]])
        rollouts = iter(map(Rollout, generated, matches, flat))
        return [list(islice(rollouts, len(batch["persona"]))) for batch in batches]

    def decode_personas(self, token_ids: Any) -> list[list[str]]:
        """Persona sentences from generated token ids; -100 counts as padding, repeated sentences once.

        Args:
            token_ids: One sequence of ids per dialogue, or batches of them: `trainer.predict(...).predictions`.
        """
        pad = self.processing_class.pad_token_id
        rows = [[pad if token == -100 else int(token) for token in row] for row in _rows(token_ids)]
        texts = self.processing_class.batch_decode(rows, skip_special_tokens=True)
        separator = self.data_collator.persona_separator
        return [unique_sentences(split_pieces(text, separator)) for text in texts]

    def write_personas(self, dialogues: Sequence[Sequence[str]]) -> list[list[str]]:
        """Personas of dialogues without a reference, over all processes: generation alone, no loss, no metrics.

        Dialogues are read as they stand; an extractor that reads in windows is given its windows.

        Args:
            dialogues: One list of utterances per speaker.

        Returns:
            The sentences of each dialogue, in order.

        Raises:
            PessError: If the arguments do not ask for generation.

        Example:
            >>> trainer.write_personas([["My two dogs need a walk."]])  # doctest: +SKIP
            [['I have two dogs.']]
        """
        if not self.args.predict_with_generate or self.args.prediction_loss_only:
            raise PessError("write_personas: expected predict_with_generate=True and prediction_loss_only=False.")
        if not dialogues:
            return []
        rows = Dataset.from_dict({"utterances": dialogues, "persona": [[]] * len(dialogues)})
        compute_metrics, self.compute_metrics, self._writes_only = self.compute_metrics, None, True
        try:
            return self.decode_personas(self.predict(rows).predictions)
        finally:
            self.compute_metrics, self._writes_only = compute_metrics, False

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As `Trainer.log`, with the unweighted terms beside the training loss."""
        if "loss" in logs:
            logs.update(self._train_meter.read(self.accelerator))
        super().log(logs, start_time)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Batch,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: Any,
    ) -> Any:
        """As `Seq2SeqTrainer`, with the loss of `compute_loss`."""
        inputs = self._prepare_inputs(inputs)
        num_real = num_real_rows(self.accelerator, len(inputs["labels"]))
        real: Batch = {name: rows[: max(num_real, 1)] for name, rows in inputs.items()} | {_REPEATS: num_real == 0}
        loss: Any = torch.zeros((), device=self.args.device)
        if not self._writes_only:
            with torch.no_grad():
                loss = self.compute_loss(model, real, num_items_in_batch=real["labels"].ne(-100).sum())
        if prediction_loss_only or not self.args.predict_with_generate:
            return loss.detach(), None, None
        gen_kwargs = {k: v for k, v in {**self._gen_kwargs, **gen_kwargs}.items() if v is not None}
        if (
            not {"max_length", "max_new_tokens"} & set(gen_kwargs)
            and self.model.generation_config.max_new_tokens is None
        ):
            gen_kwargs["max_new_tokens"] = self.args.rollout_max_new_tokens
        input_ids, attention_mask = _source(inputs)
        with generation_ready(self.model, self.accelerator) as ready:
            generated = ready.generate(input_ids=input_ids, attention_mask=attention_mask, **gen_kwargs)
        return loss.detach(), generated, inputs["labels"]

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As `Trainer`, plus the terms and, with generation, persona precision, recall and F1 (full references)."""
        self.gather_function = gather_real(self.accelerator, self.args.eval_use_gather_object)
        self._eval_meter.clear()  # what an evaluation that failed left there
        if self.args.predict_with_generate:  # without compute_metrics the Trainer would ask for the loss alone
            kwargs["prediction_loss_only"] = self.args.prediction_loss_only
        output: Any = super().evaluation_loop(dataloader, *args, **kwargs)
        if self._writes_only:
            return output
        prefix = kwargs.get("metric_key_prefix", "eval")
        terms = self._eval_meter.read(self.accelerator)
        terms["loss"] = (
            terms["nll"]
            + self.args.completeness_weight * terms["completeness"]
            + self.args.consistency_weight * terms["consistency"]
        )
        output.metrics.update({f"{prefix}_{name}": value for name, value in terms.items()})
        if self.args.predict_with_generate and output.predictions is not None:
            personas = self.decode_personas(output.predictions)
            references = [list(row["persona"]) for row in dataloader.dataset][: len(personas)]
            scores = persona_scores(self.matcher.match(personas[: len(references)], references))
            output.metrics.update({f"{prefix}_persona_{name}": value for name, value in scores.items()})
        return output

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """As upstream, but rows grouped by length come in one order for all processes and after a resumption."""
        sampler = super()._get_train_sampler(train_dataset)
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        rows = sampler.batch_size * self.args.world_size
        return EpochLengthSampler(rows, sampler.lengths, seed, lambda: self.state.epoch)

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        """The rows as they stand: `Trainer` would sort them where training groups by length, and scores need order."""
        return SequentialSampler(eval_dataset)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [*PERSONA_COLUMNS, ID_COLUMN, self.args.length_column_name]

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self._window is not None:
            save_pending(self._window.pending(), output_dir, self.args.process_index)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and not self.args.ignore_data_skip:  # else they would meet other dialogues
            self._restored_rollouts = load_pending(checkpoint, self.args.process_index, self.args.device)


def _source(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    return batch["input_ids"], batch["attention_mask"]


def _rows(predictions: Any) -> Iterator[Any]:
    """Rows of predictions, whether the evaluation loop concatenated them or kept batches."""
    in_batches = isinstance(predictions, list) and predictions and getattr(predictions[0], "ndim", 1) == 2
    return chain.from_iterable(predictions) if in_batches else iter(predictions)


def _extractor(model: Any) -> Any:
    """The extractor itself, out of a PEFT model where there is one around it."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not isinstance(base, PersonaExtractionMixin):
        raise PessError(
            f"PessTrainer: expected a persona extractor, found {type(base).__name__}. "
            "Load the model with AutoPessExtractor.from_pretrained."
        )
    return base
