"""Consensus: what the likeliest answers of an extractor agree on, in place of its single best one.

The best answer to an utterance is often silence, or one wording of several that say nearly the same: each is likely,
none is likeliest. Adding the probabilities of all answers that say a thing recovers it.

Letters: A answers, C distinct sentences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from pess_hf.errors import PessError
from pess_hf.similarity import PersonaMatcher
from pess_hf.text import fold, unique_sentences

#: Shares add up to 1 but for this; a sentence that every answer says has a share of 1.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Consensus:
    """How several answers become one persona.

    Args:
        matcher: Tells which sentences say the same; its own threshold plays no part.
        num_answers: Likeliest answers weighed per reading, and beams of the search that finds them; 2 or more.
        share: A sentence is kept from this share of their probability on, in (0, 1]. A lower one finds more.
        similarity: Similarity from which two sentences count as the same, in [-1, 1].

    Raises:
        PessError: If a number is out of its range.

    Example:
        >>> from pess_hf import PersonaMatcher
        >>> consensus = Consensus(PersonaMatcher())
        >>> consensus.agree([[(["I have dogs."], -1.0), ([], -0.7), (["I have two dogs."], -1.2)]])
        [['I have dogs.']]
    """

    matcher: PersonaMatcher
    num_answers: int = 8
    share: float = 0.1
    similarity: float = 0.8

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_consensus(self.num_answers, self.share, self.similarity)

    def agree(self, readings: Sequence[Sequence[tuple[list[str], float]]]) -> list[list[str]]:
        """What the answers to each reading agree on.

        Args:
            readings: For each reading (a dialogue or a window of it) its answers: sentences and log-probability.

        Returns:
            The sentences kept of each reading, those with the largest share first.
        """
        shares = [answer_shares([log_prob for _, log_prob in answers]) for answers in readings]
        candidates = [self._candidates(answers, weights) for answers, weights in zip(readings, shares, strict=True)]
        alike = self.matcher.similarities(candidates, candidates)
        return [
            agreed_sentences([said for said, _ in answers], weights, sentences, cosines >= self.similarity, self.share)
            for answers, weights, sentences, cosines in zip(readings, shares, candidates, alike, strict=True)
        ]

    def _candidates(self, answers: Sequence[tuple[list[str], float]], shares: np.ndarray) -> list[str]:
        """The distinct sentences; none where silence is so likely that no sentence can reach the share."""
        spoken = sum(share for (said, _), share in zip(answers, shares, strict=True) if said)
        return (
            unique_sentences(chain.from_iterable(said for said, _ in answers))
            if spoken >= self.share - _ROUNDING
            else []
        )


def check_consensus(num_answers: int, share: float, similarity: float, prefix: str = "") -> None:
    """Refuse settings out of range.

    Args:
        num_answers: See `Consensus`.
        share: See `Consensus`.
        similarity: See `Consensus`.
        prefix: Stands before the names in the message.

    Raises:
        PessError: If one is out of its range.

    Example:
        >>> check_consensus(8, 0.1, 0.8)
    """
    if num_answers < 2:
        raise PessError(f"{prefix}answers: expected 2 or more, found {num_answers}. One answer agrees with itself.")
    if not 0 < share <= 1:
        raise PessError(f"{prefix}share: expected a number above 0 and up to 1, found {share}.")
    if not -1 <= similarity <= 1:
        raise PessError(f"{prefix}similarity: expected a number in [-1, 1], found {similarity}.")


def answer_shares(log_probs: Sequence[float]) -> np.ndarray:
    """Probabilities of the answers, (A,), as if there were no others.

    Raises:
        PessError: If there is no answer, or a log-probability is none.

    Example:
        >>> answer_shares([-1.0, -1.0])
        array([0.5, 0.5])
    """
    if not len(log_probs) or not math.isfinite(max(log_probs)) or np.isnan(log_probs).any():
        raise PessError(
            f"consensus: expected log-probabilities of answers, found {list(log_probs)}. Are all weights finite?"
        )
    likelihood = np.exp(np.asarray(log_probs) - max(log_probs))  # (A,)
    return likelihood / likelihood.sum()


def agreed_sentences(
    answers: Sequence[Sequence[str]], shares: np.ndarray, candidates: Sequence[str], same: np.ndarray, least: float
) -> list[str]:
    """Sentences that a large enough share of the answers says, in one wording or another.

    Again and again the candidate that the largest share says is taken, and all that say the same are put aside.

    Args:
        answers: Sentences of each answer.
        shares: Probability of each answer, (A,), adding up to 1.
        candidates: The distinct sentences that may be kept.
        same: Whether two candidates say the same, (C, C).
        least: Share from which a sentence is kept.

    Returns:
        The sentences, the largest share first; of two with the same share the likelier wording.

    Example:
        >>> same = np.array([[True, True, False], [True, True, False], [False, False, True]])
        >>> agreed_sentences([["a"], ["b"], ["c"]], np.array([0.4, 0.3, 0.3]), ["a", "b", "c"], same, least=0.5)
        ['a']
    """
    places = {fold(sentence): place for place, sentence in enumerate(candidates)}
    holds = np.zeros((len(answers), len(candidates)), dtype=bool)  # (A, C)
    for row, sentences in enumerate(answers):
        holds[row, [places[folded] for folded in map(fold, sentences) if folded in places]] = True
    wording = shares @ holds  # (C,)
    same = same | np.eye(len(candidates), dtype=bool)  # rounding may take a sentence for another than itself
    left = np.ones(len(candidates), dtype=bool)  # (C,)
    kept: list[str] = []
    while left.any():
        says = (holds & left) @ same.T  # (A, C)
        support = np.where(left, shares @ says, -1.0)  # (C,)
        best = max(range(len(candidates)), key=lambda place: (round(float(support[place]), 9), wording[place]))
        if support[best] < least - _ROUNDING:
            break
        kept.append(candidates[best])
        left &= ~same[best]
    return kept
