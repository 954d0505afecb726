"""Labelled sentence pairs: formats, errors, and splits that share no premise."""

import json

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pess_hf import PessError
from pess_hf.data.sentence_pairs import load_sentence_pairs, premise_folds, split_by_premise, split_held_out

PAIR = {"premise": "I  sing.", "hypothesis": "I sang.", "label": "neutral"}


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_our_rows_and_those_of_dialogue_nli_read_alike(tmp_path):
    theirs = {"sentence1": "I sing.", "sentence2": "I sang.", "label": "negative", "id": 3}
    rows = list(load_sentence_pairs(write(tmp_path / "pairs.jsonl", PAIR, theirs)))
    assert rows == [PAIR | {"premise": "I sing."}, PAIR | {"premise": "I sing.", "label": "contradiction"}]
    (tmp_path / "pairs.json").write_text(json.dumps([PAIR, theirs]))
    assert list(load_sentence_pairs(tmp_path / "pairs.json")) == rows


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**PAIR, "label": "maybe"}, "line 2, column 'label': expected entailment or neutral or contradiction, found"),
        ({**PAIR, "label": 1}, r"line 2, column 'label': expected a text, found a number \(1\)"),
        ({**PAIR, "premise": " "}, "line 2, column 'premise': expected a text"),
        ({"premise": "a", "label": "neutral"}, r"line 2, column 'hypothesis': expected a text, found nothing"),
        ([1], "line 2: expected a JSON object"),
    ],
)
def test_a_malformed_pair_is_named(tmp_path, record, message):
    with pytest.raises(PessError, match=message):
        load_sentence_pairs(write(tmp_path / "pairs.jsonl", PAIR, record))


def test_no_file_and_no_pairs_are_errors(tmp_path):
    with pytest.raises(PessError, match="file of sentence pairs, found no file"):
        load_sentence_pairs(tmp_path / "none.jsonl")
    (tmp_path / "blank.jsonl").write_text("\n\n")
    with pytest.raises(PessError, match="expected sentence pairs, found none"):
        load_sentence_pairs(tmp_path / "blank.jsonl")


def dataset(pairs):
    rows = [{"premise": f"p{a}", "hypothesis": f"p{b}", "label": "neutral"} for a, b in pairs]
    return datasets.Dataset.from_list(rows)


def test_a_pair_whose_hypothesis_is_held_out_is_on_neither_side():
    split = split_held_out(dataset([(0, 5), (1, 0), (2, 5), (3, 4)]), {"p0"})
    assert list(split.test["premise"]) == ["p0"] and list(split.train["premise"]) == ["p2", "p3"]
    assert split.dropped == 1
    assert split.is_unseen == [False], "its hypothesis p5 is trained on"
    assert split_held_out(dataset([(0, 5), (3, 4)]), {"p0"}).is_unseen == [True]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(10, 19)), min_size=8, max_size=30), st.integers(0, 5))
def test_no_premise_is_on_both_sides_and_every_fold_is_held_out_once(pairs, seed):
    rows = dataset(pairs)
    if len(set(rows["premise"])) < 3:
        return
    folds = premise_folds(rows, 3, seed)
    for fold in folds:
        assert not set(fold.test["premise"]) & {*fold.train["premise"], *fold.train["hypothesis"]}
        assert len(fold.train) + len(fold.test) + fold.dropped == len(rows)
    assert sum(len(fold.test) for fold in folds) == len(rows)


def test_the_seed_decides_and_both_sides_are_needed():
    rows = dataset([(n, n + 100) for n in range(20)])
    first, again, other = (split_by_premise(rows, 0.25, seed).test["premise"] for seed in (1, 1, 2))
    assert list(first) == list(again) != list(other)
    for fraction in (0.001, 0.999):
        with pytest.raises(PessError, match="held-out premises: expected pairs on both sides"):
            split_by_premise(rows, fraction)
