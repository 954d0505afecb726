"""A cross-encoder for natural language inference as a scorer of persona sentences.

Letters: m reference and k generated sentences of one dialogue, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pess_hf.errors import PessError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

_LABELS = ("entailment", "neutral", "contradiction")
Personas = Sequence[Sequence[str]]


def label_columns(id2label: dict[int, str]) -> dict[str, int]:
    """Which column of the logits holds which label, by the names in the model's config.

    Args:
        id2label: The config's names; case does not matter.

    Returns:
        The column of entailment, neutral and contradiction.

    Raises:
        PessError: If the names are not these three.

    Example:
        >>> label_columns({0: "CONTRADICTION", 1: "entailment", 2: "neutral"})["entailment"]
        1
    """
    columns = {str(label).strip().lower(): int(number) for number, label in id2label.items()}
    if set(columns) != set(_LABELS):
        raise PessError(
            f"NLI model: expected the labels {', '.join(_LABELS)} in its config's id2label, found "
            f"{', '.join(map(repr, id2label.values()))}. Name another model or mend its config.json."
        )
    return columns


class NliScorer:
    """Scores sentence pairs with a cross-encoder: probabilities of entailment and contradiction, both ways averaged.

    It stands where `PersonaMatcher` takes an encoder; the threshold is then one of a probability, such as 0.5.

    Args:
        model: A `CrossEncoder` with three labels, or the id or folder of one.
        batch_size: Pairs at a time.
        device: Where a model that is loaded runs; by default the library decides.

    Raises:
        PessError: If the model cannot be loaded or its labels are not those of NLI.

    Example:
        >>> scorer = NliScorer("cross-encoder/nli-deberta-v3-small")  # doctest: +SKIP
        >>> PersonaMatcher(scorer, threshold=0.5).match([["I own a dog."]], [["I have a dog."]])  # doctest: +SKIP
    """

    def __init__(self, model: CrossEncoder | str, batch_size: int = 64, device: str | None = None) -> None:
        self.model = _load(model, device) if isinstance(model, str) else model
        self.batch_size = batch_size
        config: Any = self.model.config
        self._columns = label_columns(config.id2label)

    def similarity_matrices(self, reference: Personas, generated: Personas) -> list[np.ndarray]:
        """Probability that two sentences say the same.

        Args:
            reference: Sentences of the reference persona, one list per dialogue.
            generated: Sentences written, one list per dialogue.

        Returns:
            One matrix (m, k) per dialogue.
        """
        return self._matrices(reference, generated, "entailment")

    def contradiction_matrices(self, reference: Personas, generated: Personas) -> list[np.ndarray]:
        """Probability that two sentences exclude each other; as `similarity_matrices`."""
        return self._matrices(reference, generated, "contradiction")

    def _matrices(self, reference: Personas, generated: Personas, label: str) -> list[np.ndarray]:
        pairs = {(r, g) for wanted, written in zip(reference, generated, strict=True) for r in wanted for g in written}
        both = sorted(pairs | {(g, r) for r, g in pairs})
        known = dict(zip(both, self._probabilities(both)[:, self._columns[label]], strict=True))
        return [
            np.array([[(known[r, g] + known[g, r]) / 2 for g in written] for r in wanted], dtype=np.float32).reshape(
                len(wanted), len(written)
            )  # (m, k)
            for wanted, written in zip(reference, generated, strict=True)
        ]

    def _probabilities(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        if not pairs:
            return np.zeros((0, len(_LABELS)), dtype=np.float32)
        return self.model.predict(
            pairs, batch_size=self.batch_size, apply_softmax=True, convert_to_numpy=True, show_progress_bar=False
        )  # (P, 3)


def _load(name_or_path: str, device: str | None) -> CrossEncoder:
    from sentence_transformers import CrossEncoder

    try:
        return CrossEncoder(name_or_path, device=device)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PessError(
            f"NLI model {name_or_path!r}: expected a cross-encoder's id or folder, it could not be loaded ({reason}). "
            "Check the name."
        ) from error
