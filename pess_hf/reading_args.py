"""What recipes that extract take: how an extractor reads dialogues and makes personas of its answers."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from pess_hf.cli import check_counts
from pess_hf.consensus import Consensus, check_consensus
from pess_hf.errors import PessError
from pess_hf.similarity import DEFAULT_ENCODER, PersonaMatcher

#: The settings that decide what is written; how many dialogues are read at once does not.
DECISIVE = (
    "num_beams",
    "max_new_tokens",
    "max_source_length",
    "utterance_window",
    "consensus_answers",
    "consensus_share",
    "consensus_similarity",
    "consensus_model",
)


@dataclass
class ReadingArguments:
    """Lengths, beams and windows, and whether the personas are what several answers agree on.

    Example:
        >>> ReadingArguments(num_beams=4).extraction()["num_beams"]
        4
    """

    batch_size: int = field(default=32, metadata={"help": "Dialogues generated for at once."})
    num_beams: int | None = field(default=None, metadata={"help": "Beams; by default what the model was saved with."})
    max_new_tokens: int | None = field(default=None, metadata={"help": "Tokens written at most per persona."})
    max_source_length: int = field(default=512, metadata={"help": "Source tokens; the oldest utterances go first."})
    utterance_window: int | None = field(
        default=None,
        metadata={
            "help": "Utterances read at a time, 0 for whole dialogues; by default what the model's config says."
        },
    )
    consensus_answers: int | None = field(
        default=None,
        metadata={
            "help": "Keep what so many of the likeliest answers agree on (8 is a good number) in place of the best "
            "one; they are as many beams."
        },
    )
    consensus_share: float = field(
        default=Consensus.share,
        metadata={"help": "Share of their probability from which a sentence is kept; lower finds more."},
    )
    consensus_similarity: float = field(
        default=Consensus.similarity, metadata={"help": "Similarity from which two sentences count as the same."}
    )
    consensus_model: str = field(
        default=DEFAULT_ENCODER, metadata={"help": "Sentence encoder that tells which sentences say the same."}
    )

    def __post_init__(self) -> None:
        """Check the ranges, and that a consensus and a number of beams are not both asked for."""
        check_counts(self, "batch_size", "num_beams", "max_new_tokens", "max_source_length")
        if self.consensus_answers is None:
            self._refuse_settings_of_a_consensus()
            return
        check_consensus(self.consensus_answers, self.consensus_share, self.consensus_similarity, "consensus_")
        if self.num_beams is not None:
            raise PessError(
                f"num_beams: expected none with consensus_answers={self.consensus_answers}, which are as many beams, "
                f"found {self.num_beams}. Drop one of them."
            )

    def _refuse_settings_of_a_consensus(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name.startswith("consensus_") and value != one.default:
                raise PessError(
                    f"{one.name}: expected none without consensus_answers, found {value}. Say how many answers: "
                    "--consensus_answers 8"
                )

    def extraction(self) -> dict[str, Any]:
        """What is passed to `extract`; loads the sentence encoder of a consensus."""
        generation = {"num_beams": self.num_beams, "max_new_tokens": self.max_new_tokens}
        return {
            "batch_size": self.batch_size,
            "max_source_length": self.max_source_length,
            "utterance_window": self.utterance_window,
            "consensus": self._open_consensus(),
            **{name: value for name, value in generation.items() if value is not None},
        }

    def _open_consensus(self) -> Consensus | None:
        if self.consensus_answers is None:
            return None
        matcher = PersonaMatcher(self.consensus_model)
        return Consensus(matcher, self.consensus_answers, self.consensus_share, self.consensus_similarity)
