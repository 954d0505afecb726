"""What PESS training adds to `Seq2SeqTrainingArguments`, quick to import: help shows it without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from pess_hf.late_arguments import LateArguments
from pess_hf.similarity import DEFAULT_ENCODER


@dataclass
class PessTrainingFields:
    """The weights of the PESS terms, the settings of rollouts and the defaults of pushing.

    Fields only: `PessTrainingArguments` checks them and is what training takes.

    Example:
        >>> PessTrainingFields().rollout_steps
        8
    """

    completeness_weight: float = field(
        default=1.0, metadata={"help": "Weight of the completeness term, 0 or more; 0 switches it off."}
    )
    consistency_weight: float = field(
        default=0.1, metadata={"help": "Weight of the consistency term, 0 or more; 0 switches it off."}
    )
    consistency_temperature: float = field(
        default=0.1, metadata={"help": "Temperature of the consistency term, above 0; lower is sharper."}
    )
    similarity_model: str = field(
        default=DEFAULT_ENCODER, metadata={"help": "Sentence encoder that matches personas: Hub id or folder."}
    )
    similarity_threshold: float = field(
        default=None,  # type: ignore[assignment]  # `PessTrainingArguments` puts a number there
        metadata={
            "help": "Similarity, in [-1, 1], from which two persona sentences say the same; by default what the "
            "encoder was calibrated for, 0.6 for the default one."
        },
    )
    one_to_one_matching: bool = field(
        default=False,
        metadata={"help": "Whether a sentence meets one other at most: of several wordings one is consistent."},
    )
    in_batch_negatives: bool = field(
        default=False,
        metadata={
            "help": "Whether the consistency term also holds a reference sentence against what was generated for the "
            "other dialogues of the micro-batch, unless it reaches the threshold."
        },
    )
    pess_start: float = field(
        default=0.3, metadata={"help": "Fraction of training, in [0, 1], before the PESS terms switch on."}
    )
    rollout_steps: int = field(
        default=8, metadata={"help": "Micro-batches generated for at once, 1 or more; more is faster and staler."}
    )
    rollout_max_new_tokens: int = field(
        default=64, metadata={"help": "Tokens written at most for one dialogue in a rollout, 1 or more."}
    )
    rollout_batch_size: int = field(
        default=64, metadata={"help": "Dialogues generated for at a time within a rollout, 1 or more."}
    )

    hub_strategy: str = field(
        default="end",
        metadata={"help": "When to push: end, or every_save; checkpoints hold dialogue text and are never pushed."},
    )
    hub_private_repo: bool | None = field(
        default=True, metadata={"help": "Whether a repository that is made is private; personas are personal data."}
    )


#: `PessTrainingArguments`, for the recipes that take them.
PESS_TRAINING = LateArguments(
    "pess_hf.training_args:PessTrainingArguments", "transformers' Seq2SeqTrainingArguments", PessTrainingFields
)
