"""What raters said of two systems: wins, ties and losses, a sign test, and how far the raters agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pess_hf.errors import PessError
from pess_hf.human_eval import ASPECTS, CHOICES
from pess_hf.json_files import read_json
from pess_hf.text_metrics import require_extra

#: aspect -> item -> rater -> "a", "b" or "tie"
Judgements = dict[str, dict[str, dict[str, str]]]


def read_judgements(key_file: str | Path, answer_files: Sequence[str | Path]) -> Judgements:
    """Read the raters' files and undo the blinding.

    Args:
        key_file: The key that `human_eval.py make` wrote.
        answer_files: One downloaded file per rater.

    Returns:
        For each aspect, item and rater the system that was preferred, "a" or "b", or "tie"; no entry where a rater
        gave no answer.

    Raises:
        PessError: If a file is not what the pages write, belongs to another study, or repeats a rater.
    """
    key = _read(key_file, ("study", "left", "items"))
    judgements: Judgements = {aspect: {item: {} for item in key["items"]} for aspect in ASPECTS}
    seen: dict[str, str | Path] = {}
    for path in answer_files:
        given = _read(path, ("study", "rater", "answers"))
        rater = given["rater"]
        if given["study"] != key["study"]:
            raise PessError(
                f"{path}: expected answers of study {key['study']}, found {given['study']!r}. Check --key."
            )
        if rater not in key["left"]:
            raise PessError(f"{path}: expected a rater of {', '.join(key['left'])}, found {rater!r}.")
        if rater in seen:
            raise PessError(f"{path}: expected each rater once, found {rater} in {seen[rater]} too. Drop one file.")
        seen[rater] = path
        _add(judgements, key["left"][rater], given, path)
    return judgements


def _add(judgements: Judgements, left: dict[str, str], given: dict[str, Any], path: str | Path) -> None:
    for item, chosen in given["answers"].items():
        for aspect, choice in chosen.items():
            if item not in left or aspect not in ASPECTS or choice not in CHOICES:
                raise PessError(f"{path}: expected answers as the page writes them, found {item}/{aspect}={choice!r}.")
            other = {"a": "b", "b": "a"}[left[item]]
            judgements[aspect][item][given["rater"]] = {"left": left[item], "right": other, "tie": "tie"}[choice]


def _read(path: str | Path, wanted: tuple[str, ...]) -> dict[str, Any]:
    value = read_json(path, "Download it again.")
    if not isinstance(value, dict) or not set(wanted) <= set(value):
        raise PessError(f"{path}: expected a JSON object with {', '.join(wanted)}, found something else.")
    return value


def score_judgements(judgements: Judgements) -> dict[str, dict[str, float | None]]:
    """Wins, ties and losses of system a, a sign test over items, and Fleiss' kappa, for each aspect.

    Raters of one item are not independent, so the test is over items: an item is won by the system that more of its
    raters prefer. Items without a majority are ties, which the sign test leaves out.

    Args:
        judgements: What `read_judgements` returns.

    Returns:
        For each aspect `win`, `tie`, `lose` (judgements), `items_won`, `items_tied`, `items_lost`, `p_value` (of the
        two-sided sign test; None without a won or lost item), `fleiss_kappa` (None where it is not defined), and
        `kappa_items`, the items that all raters judged, over which it is computed.

    Raises:
        PessError: If nobody judged anything.

    Example:
        >>> said = {"overall": {"item_1": {"r1": "a", "r2": "a"}, "item_2": {"r1": "b", "r2": "b"}}}
        >>> scores = score_judgements(said)["overall"]
        >>> scores["win"], scores["items_won"], scores["p_value"], scores["fleiss_kappa"]
        (2, 1, 1.0, 1.0)
    """
    if not any(said for items in judgements.values() for said in items.values()):
        raise PessError("answers: expected at least one judgement, found none. Collect the raters' files.")
    return {aspect: _score(list(items.values())) for aspect, items in judgements.items()}


def _score(items: list[dict[str, str]]) -> dict[str, float | None]:
    said = Counter(choice for item in items for choice in item.values())
    counts = [Counter(item.values()) for item in items if item]
    won = sum(count["a"] > count["b"] for count in counts)
    lost = sum(count["a"] < count["b"] for count in counts)
    test = require_extra("scipy.stats").binomtest(won, won + lost) if won + lost else None
    raters = {rater for item in items for rater in item}
    full = [[item[rater] for rater in sorted(raters)] for item in items if len(item) == len(raters) and item]
    return {
        "win": said["a"],
        "tie": said["tie"],
        "lose": said["b"],
        "items_won": won,
        "items_tied": len(counts) - won - lost,
        "items_lost": lost,
        "p_value": None if test is None else float(test.pvalue),
        "fleiss_kappa": fleiss_kappa(full),
        "kappa_items": len(full),
    }


def fleiss_kappa(ratings: Sequence[Sequence[str]]) -> float | None:
    """Agreement of several raters beyond chance (Fleiss 1971), by nltk, which calls it multi-pi.

    Args:
        ratings: For each item one label per rater, as many for each item.

    Returns:
        The coefficient, at most 1; None for fewer than two raters, or where only one label was used at all.

    Example:
        >>> fleiss_kappa([["a", "a"], ["b", "b"]])
        1.0
    """
    labels = {label for item in ratings for label in item}
    if not ratings or len(ratings[0]) < 2 or len(labels) < 2:
        return None
    rows = [(f"r{rater}", f"i{item}", label) for item, said in enumerate(ratings) for rater, label in enumerate(said)]
    return float(require_extra("nltk.metrics.agreement").AnnotationTask(data=rows).pi())
