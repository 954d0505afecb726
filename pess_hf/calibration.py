"""How well a scorer tells sentence pairs apart, and the threshold that it should be used with.

Letters: N labelled sentence pairs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pess_hf.cli import describe_os_error, write_json
from pess_hf.data.sentence_pairs import CONTRADICTION, ENTAILMENT, NEUTRAL
from pess_hf.errors import PessError
from pess_hf.similarity import DEFAULT_THRESHOLD

#: Lies beside the weights of an encoder that `recipes/train_similarity.py` trained.
CALIBRATION_FILE = "similarity_calibration.json"


@dataclass(frozen=True)
class Calibration:
    """The threshold that suits a scorer, and why.

    Args:
        threshold: At or above this similarity two sentences say the same.
        precision: Share of the pairs at or above it that are entailments, on pairs that did not choose it.
        recall: Share of the entailments at or above it, on the same pairs.
        pairs: How many pairs chose it.
        reason: How it was chosen, in words.
    """

    threshold: float
    precision: float
    recall: float
    pairs: int
    reason: str


def pair_aucs(scores: Sequence[float] | np.ndarray, labels: Sequence[str] | np.ndarray) -> dict[str, float]:
    """Areas under the ROC curve: how often an entailment scores above a neutral pair, and above a contradiction.

    Args:
        scores: N similarities.
        labels: N labels.

    Returns:
        `auc_entailment_neutral`, `auc_entailment_contradiction` and `auc_entailment_rest`, each in [0, 1].

    Raises:
        PessError: If a label does not occur.

    Example:
        >>> pair_aucs([0.9, 0.1, 0.8], ["entailment", "neutral", "contradiction"])["auc_entailment_neutral"]
        1.0
    """
    from sklearn.metrics import roc_auc_score

    values, names = np.asarray(scores, dtype=float), np.asarray(labels)
    for label in (ENTAILMENT, NEUTRAL, CONTRADICTION):
        if not (names == label).any():
            raise PessError(f"sentence pairs: expected some with the label {label!r}, found none. Bring such pairs.")
    others = {"neutral": [NEUTRAL], "contradiction": [CONTRADICTION], "rest": [NEUTRAL, CONTRADICTION]}
    aucs = {}
    for name, other in others.items():
        chosen = np.isin(names, [ENTAILMENT, *other])  # (N,)
        aucs[f"auc_entailment_{name}"] = float(roc_auc_score(names[chosen] == ENTAILMENT, values[chosen]))
    return aucs


def threshold_sweep(
    scores: Sequence[float] | np.ndarray, labels: Sequence[str] | np.ndarray, thresholds: Sequence[float] | np.ndarray
) -> list[dict[str, float]]:
    """Precision, recall and F1 of "these two say the same" at some thresholds; entailment is what should pass.

    Args:
        scores: N similarities.
        labels: N labels.
        thresholds: The thresholds, in the order of the answer.

    Returns:
        One row per threshold: `threshold`, `precision` (0 where nothing passes), `recall`, `f1`, and the shares of the
        neutral pairs and of the contradictions that pass, `neutral_passed` and `contradiction_passed`.

    Example:
        >>> [row] = threshold_sweep([0.9, 0.7, 0.1], ["entailment", "contradiction", "neutral"], [0.6])
        >>> row["precision"], row["recall"], row["contradiction_passed"]
        (0.5, 1.0, 1.0)
    """
    from sklearn.metrics import precision_recall_fscore_support

    values, names = np.asarray(scores, dtype=float), np.asarray(labels)
    rows = []
    for threshold in thresholds:
        passed = values >= threshold  # (N,)
        precision, recall, f1, _ = precision_recall_fscore_support(
            names == ENTAILMENT, passed, average="binary", pos_label=True, zero_division=0.0
        )
        shares = {f"{label}_passed": _share(passed[names == label]) for label in (NEUTRAL, CONTRADICTION)}
        measured = {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
        rows.append({"threshold": float(threshold), **measured, **shares})
    return rows


def _share(passed: np.ndarray) -> float:
    return float(passed.mean()) if passed.size else 0.0


def best_threshold(
    scores: Sequence[float] | np.ndarray, labels: Sequence[str] | np.ndarray, step: float = 0.01
) -> float:
    """The threshold, on a grid, with the highest F1; of equal ones the middle one.

    Args:
        scores: N similarities.
        labels: N labels.
        step: Width of the grid; thresholds are given with so many digits as it has.

    Returns:
        The threshold.

    Example:
        >>> best_threshold([0.9, 0.8, 0.2], ["entailment", "entailment", "neutral"])
        0.51
    """
    values = np.asarray(scores, dtype=float)
    grid = np.arange(np.floor(values.min() / step), np.ceil(values.max() / step) + 1) * step
    rows = threshold_sweep(values, labels, np.round(grid, 6))
    highest = max(row["f1"] for row in rows)
    best = [row["threshold"] for row in rows if row["f1"] == highest]
    return best[len(best) // 2]


def calibrate(
    scores: Sequence[float] | np.ndarray, labels: Sequence[str] | np.ndarray, groups: Sequence[str]
) -> Calibration:
    """Choose the threshold with the highest F1 on one half of the pairs and measure it on the other.

    Args:
        scores: N similarities.
        labels: N labels.
        groups: N names; pairs of one name, such as a premise, stay in one half.

    Returns:
        The threshold with its precision and recall on the second half.

    Raises:
        PessError: If a half is empty.

    Example:
        >>> calibrate([0.9, 0.1] * 2, ["entailment", "neutral"] * 2, ["a", "a", "b", "b"]).threshold
        0.51
    """
    names = sorted(set(groups))
    order = np.random.default_rng(0).permutation(len(names))
    first = {names[index] for index in order[: len(names) // 2]}
    chooses = np.array([group in first for group in groups])  # (N,)
    if not chooses.any() or chooses.all():
        raise PessError("calibration: expected pairs with two different premises or more. Bring more pairs.")
    values, kinds = np.asarray(scores, dtype=float), np.asarray(labels)
    threshold = best_threshold(values[chooses], kinds[chooses])
    [row] = threshold_sweep(values[~chooses], kinds[~chooses], [threshold])
    number = int(chooses.sum())
    reason = f"highest F1 of entailment against neutral and contradiction on {number} labelled pairs"
    return Calibration(threshold, row["precision"], row["recall"], number, reason)


def write_calibration(folder: str | Path, calibration: Calibration) -> None:
    """Write an encoder's calibration beside its weights.

    Example:
        >>> write_calibration(".", Calibration(0.5, 0.9, 0.8, 100, "highest F1"))
        >>> read_calibration(".").threshold
        0.5
    """
    write_json(Path(folder) / CALIBRATION_FILE, asdict(calibration))


def read_calibration(folder: str | Path) -> Calibration | None:
    """The calibration beside an encoder's weights, or None where there is none.

    Raises:
        PessError: If the file is not what `write_calibration` writes.
    """
    path = Path(folder) / CALIBRATION_FILE
    if not path.is_file():
        return None
    try:
        calibration = Calibration(**_read_object(path))
    except (TypeError, ValueError) as error:
        raise PessError(f"{path}: expected what train_similarity.py writes, found {error}. Train it again.") from error
    if not isinstance(calibration.threshold, int | float) or not -1 <= calibration.threshold <= 1:
        raise PessError(f"{path}: expected a threshold in [-1, 1], found {calibration.threshold!r}. Train it again.")
    return calibration


def resolve_threshold(similarity_model: str, given: float | None) -> float:
    """The threshold to match with: the one given, else the one that the encoder was calibrated for.

    Args:
        similarity_model: Hub id or folder of the encoder; only a folder is looked into.
        given: What the user asked for, or None.

    Returns:
        `given`, or what lies beside the encoder's weights, or `DEFAULT_THRESHOLD`.

    Raises:
        PessError: If the encoder's calibration is broken.

    Example:
        >>> resolve_threshold("sentence-transformers/all-MiniLM-L6-v2", None)
        0.6
    """
    if given is not None:
        return given
    calibration = read_calibration(similarity_model)
    return DEFAULT_THRESHOLD if calibration is None else calibration.threshold


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PessError(describe_os_error(error, path)) from error
    if not isinstance(value, dict):
        raise TypeError(f"a {type(value).__name__}")
    return value
