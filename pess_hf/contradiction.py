"""Which generated sentences contradict the reference.

Letters: m reference and k generated sentences of one dialogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pess_hf.similarity import PersonaMatcher

Personas = Sequence[Sequence[str]]


def contradicting_sentences(
    scorer: Any, generated: Personas, reference: Personas, threshold: float = 0.5
) -> list[list[int]]:
    """Which generated sentences contradict the reference.

    Args:
        scorer: Anything with `contradiction_matrices`, such as an `NliScorer` or an `EncoderContrast`.
        generated: Sentences written, one list per dialogue.
        reference: Sentences of the reference persona, one list per dialogue.
        threshold: At or above it two sentences exclude each other.

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

    The score is the first encoder's cosine less the tuned one's: near 0 for neutral pairs (both low) and for
    entailments (both high), high for contradictions (high, then low).

    Args:
        before: The off-the-shelf encoder.
        tuned: The encoder that `recipes/train_similarity.py` made of it.

    Example:
        >>> contrast = EncoderContrast(load_encoder(), load_encoder("runs/similarity"))  # doctest: +SKIP
        >>> contradicting_sentences(contrast, [["I have no dogs."]], [["I have dogs."]], 0.3)  # doctest: +SKIP
    """

    def __init__(self, before: Any, tuned: Any) -> None:
        self._matchers = [PersonaMatcher(encoder) for encoder in (before, tuned)]

    def contradiction_matrices(self, reference: Personas, generated: Personas) -> list[np.ndarray]:
        """As `NliScorer.contradiction_matrices`, in [-2, 2]."""
        before, tuned = (matcher.match(generated, reference) for matcher in self._matchers)
        return [one.similarity - other.similarity for one, other in zip(before, tuned, strict=True)]  # (m, k)
