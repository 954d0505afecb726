"""Arguments of PESS training, on top of `Seq2SeqTrainingArguments`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from transformers import Seq2SeqTrainingArguments

from pess_hf.calibration import resolve_threshold
from pess_hf.errors import PessError
from pess_hf.similarity import PersonaMatcher
from pess_hf.training_fields import PessTrainingFields

#: Settings that count something, and are None or 1 at least.
_COUNTS = (
    "rollout_steps",
    "rollout_max_new_tokens",
    "rollout_batch_size",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "generation_num_beams",
    "generation_max_length",
)


@dataclass
class PessTrainingArguments(PessTrainingFields, Seq2SeqTrainingArguments):
    """Everything `Seq2SeqTrainingArguments` takes, the weights of the PESS terms and the settings of rollouts.

    With both weights at 0 training is the plain baseline: no rollout is made and no sentence embedded. Other than
    upstream, a push waits for the end of training and makes a private repository.

    Raises:
        PessError: For a value outside its range, naming the argument, the range and the value.

    Example:
        >>> args = PessTrainingArguments(output_dir="runs/x", completeness_weight=0.5)
        >>> args.consistency_weight
        0.1
    """

    def __post_init__(self) -> None:
        """Check the ranges, then do what the parent does."""
        self.similarity_threshold = resolve_threshold(self.similarity_model, self.similarity_threshold)
        strategy = getattr(self.hub_strategy, "value", self.hub_strategy)
        if strategy not in ("end", "every_save"):
            raise PessError(f"hub_strategy: expected end or every_save, found {strategy}. Checkpoints stay here.")
        _require(
            0 <= self.completeness_weight < math.inf, "completeness_weight", "0 or more", self.completeness_weight
        )
        _require(0 <= self.consistency_weight < math.inf, "consistency_weight", "0 or more", self.consistency_weight)
        _require(
            0 < self.consistency_temperature < math.inf,
            "consistency_temperature",
            "above 0",
            self.consistency_temperature,
        )
        _require(-1 <= self.similarity_threshold <= 1, "similarity_threshold", "in [-1, 1]", self.similarity_threshold)
        _require(0 <= self.pess_start <= 1, "pess_start", "in [0, 1]", self.pess_start)
        for name in _COUNTS:
            _require(getattr(self, name) is None or getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        _require(0 <= self.learning_rate < math.inf, "learning_rate", "0 or more", self.learning_rate)
        super().__post_init__()

    @property
    def has_pess_terms(self) -> bool:
        """Whether a weight of a PESS term is above 0."""
        return bool(self.completeness_weight or self.consistency_weight)

    @property
    def lends_negatives(self) -> bool:
        """Whether the consistency term takes negatives from the whole micro-batch."""
        return self.in_batch_negatives and self.consistency_weight > 0

    def open_matcher(self) -> PersonaMatcher:
        """What matches personas in training and in its evaluations; loads the sentence encoder.

        Raises:
            PessError: It cannot be loaded, or `check_scorer` refuses it.
        """
        matcher = PersonaMatcher(self.similarity_model, self.similarity_threshold, one_to_one=self.one_to_one_matching)
        self.check_scorer(matcher)
        return matcher

    def check_scorer(self, matcher: PersonaMatcher) -> None:
        """Refuse a scorer of pairs where negatives come from the whole micro-batch: it would score every pair.

        Raises:
            PessError: If it is one.
        """
        if self.lends_negatives and hasattr(matcher.encoder, "similarity_matrices"):
            raise PessError(
                f"in_batch_negatives: expected a sentence encoder, found {type(matcher.encoder).__name__}, which "
                "would score all pairs of sentences of a micro-batch. Leave it out, or name an encoder."
            )

    def pess_start_step(self, max_steps: int) -> int:
        """The optimiser step, of `max_steps`, before which the PESS terms switch on."""
        return math.ceil(self.pess_start * max_steps)


def _require(is_right: bool, name: str, expected: str, found: float) -> None:
    if not is_right:
        raise PessError(f"{name}: expected a number {expected}, found {found}.")
