"""Intervals and tests of persona scores against what is known of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pess_hf import PessError
from pess_hf.statistics import (
    DialogueScores,
    Shares,
    compare_shares,
    f1_of,
    paired_comparison,
    score_intervals,
    seed_interval,
)


def scores(precision, recall=None):
    precision = np.atleast_2d(np.asarray(precision, dtype=float))
    return DialogueScores(precision, precision if recall is None else np.atleast_2d(np.asarray(recall, dtype=float)))


def noisy(mean, seeds=1, number=200, seed=0):
    return np.clip(np.random.default_rng(seed).normal(mean, 0.2, (seeds, number)), 0, 1)


def test_f1_is_that_of_the_average_precision_and_recall():
    found = scores([[0.0, 1.0]], [[1.0, 1.0]]).means()
    assert found == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3)}
    assert scores([[0.0]]).means()["f1"] == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5))
def test_f1_elementwise(pairs):
    precision, recall = map(np.array, zip(*pairs, strict=True))
    for p, r, f1 in zip(precision, recall, f1_of(precision, recall), strict=True):
        assert f1 == pytest.approx(2 * p * r / (p + r) if p + r else 0)


def test_an_interval_is_as_wide_as_theory_says():
    precision = noisy(0.5)
    low, high = score_intervals(scores(precision))["precision"]
    error = stats.sem(precision[0])
    assert low == pytest.approx(precision.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(precision.mean() + 1.96 * error, abs=0.3 * error)


def test_more_seeds_of_the_same_dialogues_make_no_interval_narrower():
    once = noisy(0.5)
    one, five = (score_intervals(scores(np.repeat(once, number, axis=0)))["f1"] for number in (1, 5))
    assert five == pytest.approx(one)


def test_a_paired_difference_is_seen_that_an_unpaired_one_would_hide():
    before = noisy(0.5, number=100)
    after = np.clip(before + 0.03, 0, 1)
    found = paired_comparison(scores(before), scores(after))["f1"]
    assert 0 < found["interval"][0] <= found["difference"] <= found["interval"][1] < 0.06
    assert found["p_value"] < 0.01
    assert stats.ttest_ind(before[0], after[0]).pvalue > 0.05
    back = paired_comparison(scores(after), scores(before))["f1"]
    assert back["difference"] == pytest.approx(-found["difference"])


def test_no_difference_is_none():
    same = scores(noisy(0.5))
    found = paired_comparison(same, same, resamples=100)["f1"]
    assert found == {"difference": 0.0, "interval": [0.0, 0.0], "p_value": 1.0}


@settings(max_examples=5, deadline=None, derandomize=True)
@given(st.integers(0, 1000))
def test_chance_is_seldom_taken_for_an_effect(seed):
    one, two = noisy(0.5, number=60, seed=seed), noisy(0.5, number=60, seed=seed + 5000)
    found = paired_comparison(scores(one), scores(two), resamples=300)["precision"]
    # The permutation test of a mean is close to the paired t test.
    assert found["p_value"] == pytest.approx(stats.ttest_rel(one[0], two[0]).pvalue, abs=0.1)


def test_seeds_may_differ_in_number_but_dialogues_may_not():
    found = paired_comparison(scores(noisy(0.4, seeds=2)), scores(noisy(0.6, seeds=3)), resamples=50)
    assert found["f1"]["difference"] > 0.1
    with pytest.raises(PessError, match="expected the same dialogues, found 200 and 20"):
        paired_comparison(scores(noisy(0.4)), scores(noisy(0.4, number=20)))


def test_the_interval_over_seeds_is_students():
    values = [0.41, 0.44, 0.40]
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert seed_interval(values) == pytest.approx(list(expected))
    assert seed_interval([0.4]) is None and seed_interval([0.4, 0.4]) == [0.4, 0.4]


class TestShares:
    def test_the_share_is_of_all_things_of_all_dialogues(self):
        assert Shares(np.array([1, 0, 0]), np.array([1, 3, 0])).share == 0.25
        assert Shares(np.zeros(2), np.zeros(2)).share is None
        assert Shares(np.zeros(2), np.zeros(2)).interval() is None

    def test_a_difference_has_an_interval_and_a_p_value(self):
        rng = np.random.default_rng(0)
        counts = rng.integers(1, 6, 100)
        few, many = (Shares(rng.binomial(counts, p), counts) for p in (0.3, 0.6))
        found = compare_shares(few, many, resamples=500)
        assert found["interval"][0] < many.share - few.share == pytest.approx(found["difference"])
        assert found["interval"][0] > 0.1 and found["p_value"] < 0.01
        assert compare_shares(few, Shares(np.zeros(100), np.zeros(100))) is None
