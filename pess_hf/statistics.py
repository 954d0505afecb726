"""Intervals of persona scores and tests between runs, by scipy (extra `metrics`).

Letters: S seeds of one setting, N dialogues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pess_hf.errors import PessError
from pess_hf.similarity import PersonaMatch
from pess_hf.text_metrics import require_extra

#: Of all intervals.
CONFIDENCE = 0.95
SCORES = ("precision", "recall", "f1")
#: Resamples held in memory at once.
_BATCH = 200


@dataclass(frozen=True)
class DialogueScores:
    """Precision and recall of every dialogue under every seed of one setting.

    Args:
        precision: (S, N), each in [0, 1].
        recall: (S, N), each in [0, 1].
    """

    precision: np.ndarray
    recall: np.ndarray

    @classmethod
    def of(cls, matches_by_seed: Sequence[Sequence[PersonaMatch]]) -> DialogueScores:
        """From the matches of each seed's run, over the same dialogues in the same order."""
        precision = [[match.precision for match in matches] for matches in matches_by_seed]
        recall = [[match.recall for match in matches] for matches in matches_by_seed]
        return cls(np.array(precision, dtype=float), np.array(recall, dtype=float))

    def by_seed(self) -> dict[str, list[float]]:
        """Each score of each seed."""
        precision, recall = self.precision.mean(axis=1), self.recall.mean(axis=1)  # (S,)
        scores = {"precision": precision, "recall": recall, "f1": f1_of(precision, recall)}
        return {name: [float(value) for value in values] for name, values in scores.items()}

    def means(self) -> dict[str, float]:
        """Precision and recall averaged over seeds and dialogues, and F1 from the two averages."""
        precision, recall = float(self.precision.mean()), float(self.recall.mean())
        return {"precision": precision, "recall": recall, "f1": float(f1_of(precision, recall))}

    def over_seeds(self) -> tuple[np.ndarray, np.ndarray]:
        """Precision and recall of each dialogue, averaged over seeds: (N,) and (N,)."""
        return self.precision.mean(axis=0), self.recall.mean(axis=0)


def f1_of(precision: Any, recall: Any) -> Any:
    """F1 of average precision and recall, elementwise; 0 where both are 0.

    Example:
        >>> float(f1_of(0.5, 1.0).round(3)), float(f1_of(0.0, 0.0))
        (0.667, 0.0)
    """
    total = np.asarray(precision + recall, dtype=float)
    return np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)


def _statistic(precision: np.ndarray, recall: np.ndarray, name: str) -> Any:
    """`statistic(rows, axis)` that scipy resamples: a score of some dialogues, from N precisions and recalls."""

    def statistic(rows: np.ndarray, axis: int = -1) -> np.ndarray:
        # (..., N) -> (...)
        means = {"precision": precision[rows].mean(axis=axis), "recall": recall[rows].mean(axis=axis)}
        return f1_of(means["precision"], means["recall"]) if name == "f1" else means[name]

    return statistic


def score_intervals(scores: DialogueScores, resamples: int = 2000, seed: int = 0) -> dict[str, list[float]]:
    """Percentile bootstrap interval of each score over dialogues; a dialogue brings all its seeds along.

    Args:
        scores: S seeds, N dialogues.
        resamples: Bootstrap resamples.
        seed: Of the resampling.

    Returns:
        Score -> [low, high], 95 %; both the score itself where there is one dialogue.

    Example:
        >>> scores = DialogueScores(np.array([[0.0, 1.0, 1.0, 1.0]]), np.array([[1.0, 1.0, 1.0, 1.0]]))
        >>> low, high = score_intervals(scores)["precision"]
        >>> low < 0.75 < high
        True
    """
    precision, recall = scores.over_seeds()
    return {name: _bootstrap(_statistic(precision, recall, name), len(precision), resamples, seed) for name in SCORES}


def _bootstrap(statistic: Any, num_rows: int, resamples: int, seed: int) -> list[float]:
    rows = np.arange(num_rows)
    if num_rows < 2:  # nothing to resample
        return [float(statistic(rows))] * 2
    found = require_extra("scipy.stats").bootstrap(
        (rows,),
        statistic,
        n_resamples=resamples,
        batch=_BATCH,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return [float(found.confidence_interval.low), float(found.confidence_interval.high)]


def paired_comparison(
    first: DialogueScores, second: DialogueScores, resamples: int = 2000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Second minus first, for each score, over the dialogues that both were measured on.

    The interval is a percentile bootstrap over dialogues, the p value that of a two-sided paired permutation test,
    which swaps the two sides of a dialogue with all their seeds. Both speak of new dialogues for these trained models;
    how much new training seeds would change is what `seed_interval` tells.

    Args:
        first: The setting compared with, such as the baseline.
        second: The other one; the seeds may be others and more or fewer, the dialogues must be the same.
        resamples: Resamples of the bootstrap and of the permutation test.
        seed: Of the resampling.

    Returns:
        Score -> `{"difference": float, "interval": [low, high], "p_value": float}`.

    Raises:
        PessError: The numbers of dialogues differ.

    Example:
        >>> low, high = (DialogueScores(np.full((1, 50), v), np.full((1, 50), v)) for v in (0.25, 0.5))
        >>> found = paired_comparison(low, high, resamples=200)["f1"]
        >>> round(found["difference"], 2), found["p_value"] < 0.05
        (0.25, True)
    """
    sides = [*first.over_seeds(), *second.over_seeds()]
    num_rows = len(sides[0])
    if len(sides[2]) != num_rows:
        raise PessError(f"comparison: expected the same dialogues, found {num_rows} and {len(sides[2])}.")
    # Row n is dialogue n of the first setting, row N + n the same dialogue of the second.
    precision, recall = np.concatenate([sides[0], sides[2]]), np.concatenate([sides[1], sides[3]])  # (2 N,)
    compared = {}
    for name in SCORES:
        statistic = _statistic(precision, recall, name)
        compared[name] = _compare(statistic, num_rows, resamples, seed)
    return compared


def _compare(statistic: Any, num_rows: int, resamples: int, seed: int) -> dict[str, Any]:
    rows = np.arange(num_rows)

    def difference(ours: np.ndarray, theirs: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic(ours, axis) - statistic(theirs, axis)

    found = require_extra("scipy.stats").permutation_test(
        (num_rows + rows, rows),
        difference,
        permutation_type="samples",
        n_resamples=resamples,
        batch=_BATCH,
        vectorized=True,
        alternative="two-sided",
        rng=np.random.default_rng(seed),
    )
    return {
        "difference": float(found.statistic),
        "interval": _bootstrap(lambda of, axis=-1: difference(num_rows + of, of, axis), num_rows, resamples, seed),
        "p_value": float(found.pvalue),
    }


@dataclass(frozen=True)
class Shares:
    """Of how many things of each dialogue something holds; the share is that of all things of all dialogues.

    Args:
        hits: (N,), at most `counts`.
        counts: (N,), 0 where a dialogue has none.
    """

    hits: np.ndarray
    counts: np.ndarray

    @property
    def share(self) -> float | None:
        """Sum of hits by sum of counts; None where there is nothing to count."""
        total = float(self.counts.sum())
        return float(self.hits.sum()) / total if total else None

    def interval(self, resamples: int = 2000, seed: int = 0) -> list[float] | None:
        """Percentile bootstrap interval (95 %) over dialogues.

        Example:
            >>> Shares(np.array([1, 1]), np.array([1, 1])).interval(resamples=10)
            [1.0, 1.0]
        """
        if self.share is None:
            return None
        return _bootstrap(_share_statistic(self.hits, self.counts), len(self.counts), resamples, seed)


def compare_shares(first: Shares, second: Shares, resamples: int = 2000, seed: int = 0) -> dict[str, Any] | None:
    """Second minus first over the same dialogues, tested as in `paired_comparison`; None where either has no share.

    Example:
        >>> one, two = Shares(np.zeros(40), np.ones(40)), Shares(np.ones(40), np.ones(40))
        >>> compare_shares(one, two, resamples=100)["difference"]
        1.0
    """
    if first.share is None or second.share is None:
        return None
    hits, counts = np.concatenate([first.hits, second.hits]), np.concatenate([first.counts, second.counts])
    return _compare(_share_statistic(hits, counts), len(first.counts), resamples, seed)


def _share_statistic(hits: np.ndarray, counts: np.ndarray) -> Any:
    def statistic(rows: np.ndarray, axis: int = -1) -> np.ndarray:
        some, total = hits[rows].sum(axis=axis), np.asarray(counts[rows].sum(axis=axis), dtype=float)
        # A resample without anything to count says nothing: 0, the same for both sides.
        return np.divide(some, total, out=np.zeros_like(total), where=total > 0)

    return statistic


@dataclass(frozen=True)
class Sums:
    """A score of some dialogues that is made of sums over them, such as perplexity or corpus BLEU.

    Args:
        parts: (F, N), F figures of each dialogue.
        score: The score of their sums, (F, ...) -> (...).

    Example:
        >>> mean = Sums(np.array([[1.0, 3.0], [1.0, 1.0]]), lambda sums: sums[0] / sums[1])
        >>> mean.value, mean.interval(resamples=50)
        (2.0, [1.0, 3.0])
    """

    parts: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        """The score of all dialogues."""
        return float(self.score(self.parts.sum(axis=1)))

    def of_rows(self, rows: np.ndarray, axis: int = -1) -> np.ndarray:
        """The score of some dialogues, as scipy resamples them: (..., N) -> (...); `axis` counts from the end."""
        return self.score(self.parts[:, rows].sum(axis=axis))

    def interval(self, resamples: int = 2000, seed: int = 0) -> list[float]:
        """Percentile bootstrap interval (95 %) over dialogues."""
        return _bootstrap(self.of_rows, self.parts.shape[1], resamples, seed)


def compare_sums(first: Sums, second: Sums, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Second minus first over the same dialogues, tested as in `paired_comparison`.

    Example:
        >>> one, two = (Sums(np.full((1, 40), each), lambda sums: sums[0] / 40) for each in (1.0, 2.0))
        >>> compare_sums(one, two, resamples=100)["difference"]
        1.0
    """
    both = Sums(np.concatenate([first.parts, second.parts], axis=1), first.score)
    return _compare(both.of_rows, first.parts.shape[1], resamples, seed)


def seed_interval(values: Sequence[float]) -> list[float] | None:
    """Student's t interval (95 %) of the mean over training seeds; None for one seed.

    Example:
        >>> [round(bound, 3) for bound in seed_interval([0.4, 0.5, 0.6])]
        [0.252, 0.748]
    """
    if len(values) < 2:
        return None
    stats = require_extra("scipy.stats")
    error = float(stats.sem(values))
    if error == 0:
        return [float(np.mean(values))] * 2
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, loc=float(np.mean(values)), scale=error)
    return [float(low), float(high)]
