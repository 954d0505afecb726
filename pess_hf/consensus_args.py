"""What recipes that extract take to weigh several answers against each other."""

from __future__ import annotations

from dataclasses import dataclass, field

from pess_hf.consensus import Consensus, check_consensus
from pess_hf.errors import PessError
from pess_hf.similarity import DEFAULT_ENCODER, PersonaMatcher


@dataclass(kw_only=True)
class ConsensusArguments:
    """Whether and how the personas are what several answers agree on.

    Example:
        >>> ConsensusArguments().open_consensus() is None
        True
    """

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

    def check_consensus(self, num_beams: int | None) -> None:
        """Check the ranges, and that no other number of beams was asked for.

        Raises:
            PessError: If something does not fit.
        """
        if self.consensus_answers is None:
            return
        check_consensus(self.consensus_answers, self.consensus_share, self.consensus_similarity, "consensus_")
        if num_beams is not None:
            raise PessError(
                f"num_beams: expected none with consensus_answers={self.consensus_answers}, which are as many beams, "
                f"found {num_beams}. Drop one of them."
            )

    def open_consensus(self) -> Consensus | None:
        """The consensus with its encoder loaded; None where one answer is wanted."""
        if self.consensus_answers is None:
            return None
        matcher = PersonaMatcher(self.consensus_model)
        return Consensus(matcher, self.consensus_answers, self.consensus_share, self.consensus_similarity)
