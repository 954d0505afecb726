"""What fine-tuning the sentence encoder takes; quick to import, so that help needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from pess_hf.data.sentence_pairs import CONTRADICTION, ENTAILMENT, NEUTRAL
from pess_hf.errors import PessError


@dataclass
class SimilarityLossArguments:
    """What the encoder is taught, and how far it may move.

    Example:
        >>> SimilarityLossArguments().entailment_target
        1.0
    """

    entailment_target: float = field(
        default=1.0, metadata={"help": "Rank of entailments; a higher rank, a higher cosine."}
    )
    neutral_target: float = field(default=0.0, metadata={"help": "Rank of neutral pairs."})
    contradiction_target: float = field(default=0.0, metadata={"help": "Rank of contradictions."})
    ranking_weight: float = field(
        default=0.0, metadata={"help": "Weight of ranking the entailed sentence above all others of the batch."}
    )
    retention_weight: float = field(
        default=0.0, metadata={"help": "Weight of keeping the cosines of pairs that are no contradictions."}
    )
    frozen_layers: int = field(
        default=0, metadata={"help": "First layers left as they are, and with them the embeddings; 0 trains all."}
    )
    interpolation: float = field(
        default=1.0, metadata={"help": "Share, in (0, 1], of the tuned weights; the rest is the encoder before."}
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("ranking_weight", "retention_weight", "frozen_layers"):
            if not getattr(self, name) >= 0:
                raise PessError(f"{name}: expected 0 or more, found {getattr(self, name)}.")
        if not 0 < self.interpolation <= 1:
            raise PessError(f"interpolation: expected a number in (0, 1], found {self.interpolation}.")
        if not self.entailment_target > max(self.neutral_target, self.contradiction_target):
            raise PessError(
                "entailment_target: expected it above neutral_target and contradiction_target, found "
                f"{self.entailment_target}, {self.neutral_target} and {self.contradiction_target}."
            )

    def targets(self) -> dict[str, float]:
        """The rank of each label."""
        ranks = (self.entailment_target, self.neutral_target, self.contradiction_target)
        return dict(zip((ENTAILMENT, NEUTRAL, CONTRADICTION), ranks, strict=True))
