"""Scores of a generator's runs over some conversations, with intervals and paired tests over conversations.

Letters: N conversations, R replies, S seeds of one setting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pess_hf.data.strategies import normalise_strategy
from pess_hf.reply_metrics import bleu_counts, bleu_of, rouge_l_each
from pess_hf.reply_runs import ReplyRun
from pess_hf.similarity import PersonaMatcher
from pess_hf.statistics import Sums, compare_sums, seed_interval
from pess_hf.text_metrics import distinct

#: Depend on how much text there is, so that a bootstrap, which repeats conversations, would move them.
DISTINCT = ("distinct_1", "distinct_2")


def ratio(sums: np.ndarray) -> np.ndarray:
    """First by second sum, (2, ...) -> (...); 0 where there is nothing to count.

    Example:
        >>> ratio(np.array([[3.0, 0.0], [2.0, 0.0]])).tolist()
        [1.5, 0.0]
    """
    return np.divide(sums[0], sums[1], out=np.zeros(sums.shape[1:]), where=sums[1] > 0)


def perplexity(sums: np.ndarray) -> np.ndarray:
    """Of summed losses and tokens, (2, ...) -> (...); as in `measure_generator` no more than a float can say.

    Example:
        >>> perplexity(np.array([0.0, 3.0])).item()
        1.0
    """
    return np.exp(np.minimum(ratio(sums), 700.0))


#: How each score is made of the sums of its parts.
FORMULAS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "perplexity": perplexity,
    "strategy_accuracy": ratio,
    "bleu_2": partial(bleu_of, n=2),
    "bleu_4": partial(bleu_of, n=4),
    "rouge_l": ratio,
}


@dataclass(frozen=True)
class MeasuredRun:
    """One run, measured reply by reply.

    Args:
        texts: R replies.
        parts: Score -> what it is made of, (F, R).
    """

    texts: list[str]
    parts: dict[str, np.ndarray]


def measure_run(
    run: ReplyRun,
    likelihood: tuple[np.ndarray, np.ndarray],
    personas: dict[str, list[list[list[str]]]],
    matcher: PersonaMatcher,
) -> MeasuredRun:
    """Measure the replies of one run.

    Args:
        run: The run.
        likelihood: From `reply_likelihood`.
        personas: From `persona_sources`: every run is compared with the same ones, whatever it saw itself.
        matcher: Its encoder gives the cosines.

    Returns:
        Parts of perplexity, strategy accuracy, BLEU, ROUGE-L, and one cosine for each name in `personas`.

    Example:
        >>> measure_run(run, likelihood, {}, PersonaMatcher()).parts["rouge_l"].shape  # doctest: +SKIP
        (2, 24)
    """
    texts, wanted = [reply.text for reply in run.generated], [reply.text for reply in run.reference]
    pairs = zip(run.generated, run.reference, strict=True)
    hits = [one.strategy == normalise_strategy(other.strategy or "") for one, other in pairs]
    ones = np.ones(len(texts))
    counts = bleu_counts(texts, wanted)
    parts = {
        "perplexity": np.stack(likelihood),
        "strategy_accuracy": np.stack([np.array(hits, dtype=float), ones]),
        "bleu_2": counts,
        "bleu_4": counts,
        "rouge_l": np.stack([np.array(rouge_l_each(texts, wanted)), ones]),
    }
    for name, sources in personas.items():
        cosines = [_persona_cosines(texts, of_turns, matcher) for of_turns in sources]
        parts[cosine_name(name)] = np.sum(cosines, axis=0)
    return MeasuredRun(texts, parts)


def cosine_name(source: str) -> str:
    """The score that compares replies with the personas of a source."""
    return f"persona_cosine ({source})"


def _persona_cosines(texts: list[str], personas: list[list[str]], matcher: PersonaMatcher) -> np.ndarray:
    """Cosine of each reply with its persona, 0 where there is none, and whether there is one: (2, R)."""
    joined = [[" ".join(persona)] if persona else [] for persona in personas]
    matches = matcher.match([[text] for text in texts], joined)
    return np.array([[match.similarity.sum() for match in matches], [len(one) for one in joined]], dtype=float)


def persona_sources(settings: dict[str, list[ReplyRun]]) -> dict[str, list[list[list[str]]]]:
    """The different personas that the settings' runs had, by the setting that had them first.

    Settings whose model saw them come first; one that was trained without may have some all the same, which it is only
    measured against.

    Args:
        settings: Setting -> its runs, all on the same turns.

    Returns:
        Setting -> the different lists of R personas among its seeds; settings without personas have no entry.

    Example:
        >>> persona_sources({})
        {}
    """
    sources: dict[str, list[list[list[str]]]] = {}
    known: list[list[list[str]]] = []
    for name, runs in sorted(settings.items(), key=lambda item: not item[1][0].sees_personas):
        for run in runs:
            if any(run.personas) and run.personas not in known:
                known.append(run.personas)
                sources.setdefault(name, []).append(run.personas)
    return sources


def score_group(
    settings: dict[str, list[MeasuredRun]], conversations: Sequence[Sequence[int]], resamples: int
) -> list[dict[str, Any]]:
    """Scores of all settings over some conversations, each compared with the first setting.

    Args:
        settings: Setting -> its S runs, all on the same R replies.
        conversations: The rows of each of N conversations.
        resamples: Of each bootstrap and permutation test.

    Returns:
        One entry a setting: `name`, `seeds` and `scores`, score -> `value`, `interval` (over conversations),
        `by_seed`, `seed_interval` and, from the second setting on, `against_first`. Distinct-1 and Distinct-2 have
        `value` and `by_seed` alone; a cosine is left out where none of these replies has a persona.

    Example:
        >>> score_group({"none": [measured]}, [[0, 1], [2]], 200)[0]["scores"]["bleu_2"]["value"]  # doctest: +SKIP
        0.07
    """
    entries: list[dict[str, Any]] = []
    first: dict[str, Sums] = {}
    for name, runs in settings.items():
        sums = {score: of_seeds for score, of_seeds in _sums(runs, conversations).items() if _is_countable(of_seeds)}
        scores = {score: _score(by_seed, first.get(score), resamples) for score, by_seed in sums.items()}
        first = first or {score: _over_seeds(by_seed) for score, by_seed in sums.items()}
        cosines = {score: scores.pop(score) for score in list(scores) if score not in FORMULAS}
        scores |= _distinct(runs, conversations) | cosines
        entries.append({"name": name, "seeds": len(runs), "scores": scores})
    return entries


def _sums(runs: Sequence[MeasuredRun], conversations: Sequence[Sequence[int]]) -> dict[str, list[Sums]]:
    """Score -> for each seed, its parts summed within each conversation: (F, R) -> (F, N)."""
    return {
        score: [
            Sums(
                np.stack([run.parts[score][:, list(rows)].sum(axis=1) for rows in conversations], axis=1),
                FORMULAS.get(score, ratio),
            )
            for run in runs
        ]
        for score in runs[0].parts
    }


def _is_countable(by_seed: Sequence[Sums]) -> bool:
    """Whether there is something to divide by: all scores but BLEU are a ratio with the count in the second row."""
    return all(len(one.parts) != 2 or one.parts[1].sum() > 0 for one in by_seed)


def _over_seeds(by_seed: Sequence[Sums]) -> Sums:
    """A conversation brings all its seeds along."""
    return Sums(np.sum([one.parts for one in by_seed], axis=0), by_seed[0].score)


def _score(by_seed: Sequence[Sums], first: Sums | None, resamples: int) -> dict[str, Any]:
    pooled, values = _over_seeds(by_seed), [one.value for one in by_seed]
    entry: dict[str, Any] = {
        "value": pooled.value,
        "interval": pooled.interval(resamples),
        "by_seed": values,
        "seed_interval": seed_interval(values),
    }
    if first is not None:
        entry["against_first"] = compare_sums(first, pooled, resamples)
    return entry


def _distinct(runs: Sequence[MeasuredRun], conversations: Sequence[Sequence[int]]) -> dict[str, dict[str, Any]]:
    by_seed = [distinct([[run.texts[row]] for rows in conversations for row in rows]) for run in runs]
    values = {name: [scores[name] for scores in by_seed] for name in DISTINCT}
    return {name: {"value": float(np.mean(of_seeds)), "by_seed": of_seeds} for name, of_seeds in values.items()}
