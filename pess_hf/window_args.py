"""What the extractor recipe takes to train on windows of dialogues, and the rows made from it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pess_hf.data.windows import window_rows
from pess_hf.errors import PessError

if TYPE_CHECKING:
    import datasets

    from pess_hf.similarity import PersonaMatcher

logger = logging.getLogger(__name__)


@dataclass
class WindowArguments:
    """Whether and how training dialogues are cut into windows.

    Example:
        >>> WindowArguments(window_sizes=[1, 2]).window_passes
        4
    """

    window_sizes: list[int] | None = field(
        default=None,
        metadata={
            "help": "Train also on windows of so many consecutive utterances, each with the sentences that they tell; "
            "a size named twice is drawn twice as often."
        },
    )
    window_passes: int = field(default=4, metadata={"help": "How often each dialogue is cut into windows."})
    window_silent_share: float = field(
        default=0.4, metadata={"help": "Share kept of the windows that tell nothing, where people labelled the turns."}
    )
    window_unsure_share: float = field(
        default=0.15, metadata={"help": "The same where similarity found the turns: such a window may tell something."}
    )
    grounding_similarity: float = field(
        default=0.42, metadata={"help": "Cosine from which an utterance counts as telling a persona sentence."}
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.window_sizes is not None and (not self.window_sizes or min(self.window_sizes) < 1):
            raise PessError(f"window_sizes: expected numbers of utterances, 1 or more, found {self.window_sizes}.")
        if self.window_passes < 1:
            raise PessError(f"window_passes: expected 1 or more, found {self.window_passes}.")
        for name in ("window_silent_share", "window_unsure_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise PessError(f"{name}: expected a number in [0, 1], found {getattr(self, name)}.")
        if not -1 <= self.grounding_similarity <= 1:
            raise PessError(f"grounding_similarity: expected a number in [-1, 1], found {self.grounding_similarity}.")

    def cut(self, rows: datasets.Dataset, matcher: PersonaMatcher, seed: int) -> datasets.Dataset:
        """The rows to train on: the windows and the whole dialogues; the rows as they are without `window_sizes`.

        How many sentences no utterance tells, and which are therefore left out, is said in a warning.

        Args:
            rows: Persona rows, with the column `persona_turns` where it is known.
            matcher: Grounds the sentences of rows for which it is not.
            seed: Decides the cuts.

        Example:
            >>> rows = WindowArguments(window_sizes=[1, 2, 3]).cut(rows, matcher, seed=42)  # doctest: +SKIP
        """
        from pess_hf.grounding import persona_turns

        if self.window_sizes is None:
            return rows
        turns, is_unsure = persona_turns(rows, matcher, self.grounding_similarity)
        untold = sum(turn is None for row in turns for turn in row)
        if untold:
            logger.warning(
                "window_sizes: %d of %d persona sentences are left out of the training targets: no utterance is as "
                "similar as grounding_similarity=%s.",
                *(untold, sum(map(len, turns)), self.grounding_similarity),
            )
        shares = [self.window_unsure_share if unsure else self.window_silent_share for unsure in is_unsure]
        return window_rows(rows, turns, self.window_sizes, self.window_passes, shares, seed)
