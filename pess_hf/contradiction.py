"""Which generated sentences contradict the reference.

Letters: m reference and k generated sentences of one dialogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pess_hf.calibration import resolve_threshold
from pess_hf.errors import PessError
from pess_hf.similarity import DEFAULT_THRESHOLD, PersonaMatcher

Personas = Sequence[Sequence[str]]
#: From this probability on an NLI model says that two sentences exclude each other.
NLI_THRESHOLD = 0.5


def contradicting_sentences(
    scorer: Any, generated: Personas, reference: Personas, threshold: float = NLI_THRESHOLD
) -> list[list[int]]:
    """Which generated sentences contradict the reference.

    Args:
        scorer: Anything with `contradiction_matrices`, such as an `NliScorer` or an `EncoderContrast`.
        generated: Sentences written, one list per dialogue.
        reference: Sentences of the reference persona, one list per dialogue.
        threshold: At or above it two sentences exclude each other; a probability for an `NliScorer`, anything in
            (0, 1] for an `EncoderContrast`, which has thresholds of its own.

    Returns:
        For each dialogue the indices of the generated sentences that contradict at least one reference sentence.

    Example:
        >>> class Fixed:
        ...     def contradiction_matrices(self, reference, generated):
        ...         return [np.array([[0.1, 0.9]])]
        >>> contradicting_sentences(Fixed(), [["I sing.", "I am mute."]], [["I sing."]])
        [[1]]
    """
    matrices = scorer.contradiction_matrices(reference, generated)
    return [np.flatnonzero((matrix >= threshold).any(axis=0)).tolist() for matrix in matrices]


class EncoderContrast:
    """Finds contradictions with two sentence encoders: alike for the first, not alike for the one tuned against them.

    Each encoder has the threshold that it was calibrated for. A sentence that the tuned encoder finds anywhere in the
    reference contradicts nothing. Pairs that are neutral and look alike to the first encoder are found as well.

    Args:
        before: The off-the-shelf encoder.
        tuned: The encoder that `recipes/train_similarity.py` made of it.
        before_threshold: At or above this cosine of the first encoder two sentences are alike.
        tuned_threshold: The same of the tuned one; see `resolve_threshold`.

    Example:
        >>> contrast = EncoderContrast(load_encoder(), load_encoder("runs/similarity"))  # doctest: +SKIP
        >>> contradicting_sentences(contrast, [["I have no dogs."]], [["I have dogs."]])  # doctest: +SKIP
        [[0]]
    """

    def __init__(
        self,
        before: Any,
        tuned: Any,
        before_threshold: float = DEFAULT_THRESHOLD,
        tuned_threshold: float = DEFAULT_THRESHOLD,
    ) -> None:
        self._before = PersonaMatcher(before, before_threshold)
        self._tuned = PersonaMatcher(tuned, tuned_threshold)

    def contradiction_matrices(self, reference: Personas, generated: Personas) -> list[np.ndarray]:
        """As `NliScorer.contradiction_matrices`: 1 where two sentences exclude each other, else 0."""
        pairs = zip(self._before.match(generated, reference), self._tuned.match(generated, reference), strict=True)
        return [self._excluded(before.similarity, tuned.similarity) for before, tuned in pairs]

    def _excluded(self, before: np.ndarray, tuned: np.ndarray) -> np.ndarray:
        is_found = (tuned >= self._tuned.threshold).any(axis=0)  # (k,)
        return ((before >= self._before.threshold) & ~is_found).astype(np.float32)  # (m, k)


def contradiction_scorer(name: str, threshold: float | None, matcher: PersonaMatcher) -> tuple[Any, float]:
    """What finds contradictions, and the threshold that goes with it.

    Args:
        name: Hub id or folder of an NLI cross-encoder or of a sentence encoder tuned on labelled pairs.
        threshold: Of an NLI model: the probability of contradiction, 0.5 by default. Of an encoder: the cosine below
            which two sentences differ, by default what it was calibrated for.
        matcher: The encoder that takes contradictions for agreement, with its threshold.

    Returns:
        Scorer and threshold, as `contradicting_sentences` takes them.

    Raises:
        PessError: The model cannot be loaded, or the threshold is out of its range.

    Example:
        >>> scorer, threshold = contradiction_scorer("runs/similarity", None, PersonaMatcher())  # doctest: +SKIP
    """
    scorer = PersonaMatcher(name).encoder
    is_nli = hasattr(scorer, "contradiction_matrices")
    low, what = (0, "a probability") if is_nli else (-1, "a cosine")
    if threshold is not None and not low <= threshold <= 1:
        raise PessError(f"scorer_threshold: expected {what} in [{low}, 1] for {name}, found {threshold}.")
    if is_nli:
        return scorer, NLI_THRESHOLD if threshold is None else threshold
    tuned_threshold = resolve_threshold(name, threshold)
    return EncoderContrast(matcher.encoder, scorer, matcher.threshold, tuned_threshold), NLI_THRESHOLD
