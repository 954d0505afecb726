"""Reader of labelled sentence pairs: Dialogue NLI and rows of our own shape; splits that share no premise."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pess_hf.data.files import Placed, read_json, read_json_lines
from pess_hf.data.where import describe
from pess_hf.errors import PessError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import datasets

#: What a premise may say about a hypothesis.
ENTAILMENT, NEUTRAL, CONTRADICTION = LABELS = ("entailment", "neutral", "contradiction")
#: Dialogue NLI as published (arXiv 1811.00671) writes its labels and columns in these words.
_LABEL_NAMES = {label: label for label in LABELS} | {"positive": ENTAILMENT, "negative": CONTRADICTION}
_COLUMNS = {"premise": ("premise", "sentence1"), "hypothesis": ("hypothesis", "sentence2"), "label": ("label",)}


def load_sentence_pairs(source: str | os.PathLike[str]) -> datasets.Dataset:
    """Load sentence pairs with the labels entailment, neutral and contradiction.

    Args:
        source: A `.jsonl` file, one pair a line, or a `.json` list of pairs. A pair has `premise`, `hypothesis` and
            `label`; Dialogue NLI's `sentence1`, `sentence2` and its labels positive and negative are read as well.

    Returns:
        A dataset with the text columns `premise`, `hypothesis` and `label`, white space folded, in the file's order.

    Raises:
        PessError: If the file is missing, holds no pair, or a pair is malformed; the message names the place.

    Example:
        >>> _ = Path("pairs.jsonl").write_text('{"sentence1": "I sing.", "sentence2": "I sang.", "label": "positive"}')
        >>> load_sentence_pairs("pairs.jsonl")[0]["label"]
        'entailment'
    """
    import datasets

    path = Path(source)
    if not path.is_file():
        raise PessError(f"{path}: expected a .jsonl or .json file of sentence pairs, found no file. Check the path.")
    rows = [_as_pair(placed) for placed in _records(path)]
    if not rows:
        raise PessError(f"{path}: expected sentence pairs, found none. Write the file again or name another one.")
    return datasets.Dataset.from_list(rows)


def _records(path: Path) -> Iterator[Placed]:
    return read_json(path) if path.suffix.lower() == ".json" else read_json_lines(path)


def _as_pair(placed: Placed) -> dict[str, str]:
    where, record = placed
    pair = {}
    for column, names in _COLUMNS.items():
        value = next((record[name] for name in names if name in record), None)
        if not isinstance(value, str) or not value.strip():
            raise where.error("a text", describe(value), "Give every pair premise, hypothesis and label.", column)
        pair[column] = " ".join(value.split())
    if pair["label"] not in _LABEL_NAMES:
        raise where.error(" or ".join(LABELS), repr(pair["label"]), "Rename or remove such pairs.", "label")
    return pair | {"label": _LABEL_NAMES[pair["label"]]}


@dataclass(frozen=True)
class PairSplit:
    """Pairs to train on and pairs held out.

    Args:
        train: No premise of `test` occurs here, neither as a premise nor as a hypothesis.
        test: The pairs with a held-out premise.
        dropped: How many pairs are on neither side, because their hypothesis is a held-out premise.
        is_unseen: For each pair of `test`, whether its hypothesis does not occur in `train` either.
    """

    train: datasets.Dataset
    test: datasets.Dataset
    dropped: int
    is_unseen: list[bool]


def split_by_premise(pairs: datasets.Dataset, fraction: float, seed: int = 42) -> PairSplit:
    """Hold out about `fraction` of the premises, with all their pairs.

    Args:
        pairs: What `load_sentence_pairs` returns.
        fraction: Share of the premises, in (0, 1).
        seed: Decides which.

    Returns:
        The two sides; see `PairSplit`.

    Raises:
        PessError: If one side would be empty.

    Example:
        >>> import datasets
        >>> rows = [{"premise": f"I own {n} cats.", "hypothesis": "I own cats.", "label": "neutral"} for n in "1234"]
        >>> split = split_by_premise(datasets.Dataset.from_list(rows), 0.25)
        >>> len(split.train), len(split.test), split.is_unseen
        (3, 1, [False])
    """
    return split_held_out(pairs, set(_shuffled_premises(pairs, seed)[: round(fraction * _count_premises(pairs))]))


def premise_folds(pairs: datasets.Dataset, num_folds: int, seed: int = 42) -> list[PairSplit]:
    """Divide the premises into `num_folds` parts and hold each out once.

    Args:
        pairs: What `load_sentence_pairs` returns.
        num_folds: 2 or more.
        seed: Decides the division.

    Returns:
        One split per fold.

    Raises:
        PessError: If there are fewer premises than folds, or a fold leaves nothing to train on.

    Example:
        >>> import datasets
        >>> rows = [{"premise": f"I own {n} cats.", "hypothesis": "I own cats.", "label": "neutral"} for n in "1234"]
        >>> [len(fold.test) for fold in premise_folds(datasets.Dataset.from_list(rows), 2)]
        [2, 2]
    """
    premises = _shuffled_premises(pairs, seed)
    return [split_held_out(pairs, set(premises[fold::num_folds])) for fold in range(num_folds)]


def split_held_out(pairs: datasets.Dataset, held_out: set[str]) -> PairSplit:
    """Split pairs by a set of held-out premises; see `PairSplit`.

    Raises:
        PessError: If one side would be empty.
    """
    premises, hypotheses = list(pairs["premise"]), list(pairs["hypothesis"])
    test = [row for row, premise in enumerate(premises) if premise in held_out]
    rest = [row for row, premise in enumerate(premises) if premise not in held_out]
    train = [row for row in rest if hypotheses[row] not in held_out]
    if not test or not train:
        raise PessError(
            f"held-out premises: expected pairs on both sides, found {len(train)} to train on and {len(test)} held "
            "out. Choose another fraction or number of folds, or bring more pairs."
        )
    seen = {premises[row] for row in train} | {hypotheses[row] for row in train}
    is_unseen = [hypotheses[row] not in seen for row in test]
    return PairSplit(pairs.select(train), pairs.select(test), len(rest) - len(train), is_unseen)


def _shuffled_premises(pairs: datasets.Dataset, seed: int) -> list[str]:
    premises = sorted(set(pairs["premise"]))
    random.Random(seed).shuffle(premises)
    return premises


def _count_premises(pairs: datasets.Dataset) -> int:
    return len(set(pairs["premise"]))
