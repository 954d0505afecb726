"""Matching generated with reference sentences: hand-worked numbers, conventions, properties, the real encoder."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from pess_hf.errors import PessError
from pess_hf.similarity import (
    DEFAULT_ENCODER,
    PersonaMatch,
    PersonaMatcher,
    load_encoder,
    match_sentences,
    persona_scores,
    resolve_encoder,
)
from pess_hf.text import fold

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Unit vectors in the plane; the cosine between two is that of the difference of their angles.
ANGLES = {"dog": 0, "puppy": 30, "cat": 60, "bird": 90, "rock": 180}
PLANE = {name: (math.cos(math.radians(angle)), math.sin(math.radians(angle))) for name, angle in ANGLES.items()}


def matcher(threshold=0.6, vectors=PLANE, **kwargs):
    return PersonaMatcher(FakeEncoder(vectors), threshold, **kwargs)


# -- hand-worked numbers ------------------------------------------------------------------------------------------


def test_the_similarity_matrix_has_references_in_rows():
    [match] = matcher().match([["puppy", "bird", "rock"]], [["dog", "cat"]])
    half, root = 0.5, math.sqrt(3) / 2
    # dog 0: 30, 90, 180 degrees away; cat 60: 30, 30, 120 degrees away.
    np.testing.assert_allclose(match.similarity, [[root, 0, -1], [root, root, -half]], atol=1e-6)
    assert (match.consistent, match.inconsistent, match.missing) == ([0, 1], [2], [])
    assert match.precision == pytest.approx(2 / 3)
    assert match.recall == 1.0


def test_missing_are_the_references_that_nothing_reaches():
    [match] = matcher(threshold=0.9).match([["bird", "dog"]], [["dog", "puppy", "rock"]])
    assert (match.consistent, match.inconsistent, match.missing) == ([1], [0], [1, 2])
    assert match.precision == 0.5
    assert match.recall == pytest.approx(1 / 3)


def test_a_similarity_equal_to_the_threshold_counts_as_reached():
    similarity = np.array([[0.5, 0.4999]], dtype=np.float32)
    match = match_sentences(similarity, ["a", "b"], 0.5)
    assert (match.consistent, match.inconsistent, match.missing) == ([0], [1], [])


def test_scores_average_dialogues_and_take_f1_from_the_averages():
    one = PersonaMatch(np.ones((2, 2)), consistent=[0], inconsistent=[1], missing=[])  # precision 1/2, recall 1
    other = PersonaMatch(np.ones((4, 1)), consistent=[0], inconsistent=[], missing=[1, 2, 3])  # 1, 1/4
    scores = persona_scores([one, other])
    assert scores == pytest.approx({"precision": 0.75, "recall": 0.625, "f1": 2 * 0.75 * 0.625 / 1.375})
    # The mean of the two dialogues' own F1 would be another number.
    assert scores["f1"] != pytest.approx((2 / 3 + 0.4) / 2)


def test_scores_of_no_dialogue_and_of_nothing_right_are_zero():
    assert persona_scores([]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    wrong = PersonaMatch(np.zeros((1, 1)), consistent=[], inconsistent=[0], missing=[0])
    assert persona_scores([wrong]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


# -- conventions of DESIGN section 7 ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("generated", "reference", "precision", "recall"),
    [
        ([], ["dog", "cat"], 0.0, 0.0),
        (["dog", "cat"], [], 0.0, 1.0),
        ([], [], 1.0, 1.0),
    ],
    ids=["nothing generated", "empty reference", "both empty"],
)
def test_conventions_for_empty_lists(generated, reference, precision, recall):
    [match] = matcher().match([generated], [reference])
    assert match.similarity.shape == (len(reference), len(generated))
    assert (match.precision, match.recall) == (precision, recall)
    assert match.consistent == []
    assert match.inconsistent == list(range(len(generated)))
    assert match.missing == list(range(len(reference)))


def test_an_empty_batch_asks_the_encoder_nothing():
    subject = matcher()
    assert subject.match([], []) == []
    subject.match([[]], [[]])
    assert subject.encoder_calls == 0


def test_a_repeated_sentence_counts_once_the_first():
    vectors = {"I sing.": (1, 0), "i  SING.": (1, 0), "I fly.": (0, 1), "I FLY.": (0, 1)}
    [match] = matcher(vectors=vectors).match([["I sing.", "I fly.", "i  SING.", "I FLY."]], [["I sing."]])
    assert match.similarity.shape == (1, 4)
    assert (match.consistent, match.inconsistent) == ([0], [1])
    assert match.precision == 0.5


def test_threshold_zero_takes_everything_that_is_not_opposite():
    [match] = matcher(threshold=0.0, vectors={"a": (1, 0), "b": (0, 1), "c": (-1, 0)}).match(
        [["a", "b", "c"]], [["a"]]
    )
    assert (match.consistent, match.inconsistent) == ([0, 1], [2])


def test_above_threshold_one_nothing_matches():
    [match] = matcher(threshold=1.01).match([["dog"]], [["dog"]])
    assert (match.consistent, match.inconsistent, match.missing) == ([], [0], [0])


def test_a_threshold_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match=r"threshold.*nan"):
        matcher(threshold=float("nan"))


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="1 != 2"):
        matcher().match([["dog"]], [["dog"], ["cat"]])


# -- calls of the encoder and the cache ---------------------------------------------------------------------------


def test_a_batch_is_one_call_over_its_distinct_sentences():
    subject = matcher()
    subject.match([["dog", "cat"], ["cat", "bird"]], [["dog", "rock"], ["rock"]])
    [sentences] = subject.encoder.calls
    assert sorted(sentences) == ["bird", "cat", "dog", "rock"]
    assert subject.encoder_calls == 1


def test_references_are_embedded_once_and_generated_sentences_anew():
    subject = matcher()
    subject.match([["cat"]], [["dog", "bird"]])
    subject.match([["cat", "dog"]], [["dog", "bird"]])
    assert subject.encoder.calls == [["dog", "bird", "cat"], ["cat"]]
    subject.match([["dog"]], [["bird"]])
    assert subject.encoder_calls == 2


def test_the_cache_drops_the_least_recently_used_reference():
    subject = matcher(cache_size=2)
    for reference in ("dog", "cat", "dog", "bird"):  # dog is used again, so cat goes
        subject.match([[]], [[reference]])
    assert subject.encoder.calls == [["dog"], ["cat"], ["bird"]]
    subject.match([[]], [["dog", "bird"]])
    assert subject.encoder_calls == 3
    subject.match([[]], [["cat"]])
    assert subject.encoder.calls[3:] == [["cat"]]


def test_more_references_than_the_cache_holds_are_matched_all_the_same():
    wanted = [["dog", "puppy", "cat", "bird"]]
    [bounded] = matcher(cache_size=1).match([["dog"]], wanted)
    [unbounded] = matcher().match([["dog"]], wanted)
    np.testing.assert_array_equal(bounded.similarity, unbounded.similarity)


def test_the_cache_does_not_keep_the_batch_alive_that_a_reference_came_from():
    subject = matcher()
    subject.match([["cat", "bird", "rock"]], [["dog"]])
    [kept] = subject._cache.values()
    assert kept.base is None, "a view keeps the embeddings of the whole batch in memory"


def test_one_to_one_takes_one_wording_of_each_thing():
    [match] = matcher(one_to_one=True).match([["cat", "puppy", "rock"]], [["dog", "bird"]])
    assert (match.consistent, match.inconsistent, match.missing) == ([0, 1], [2], [])  # cat goes to bird
    [match] = matcher(one_to_one=True).match([["puppy", "dog", "dog"]], [["dog"]])
    assert (match.consistent, match.inconsistent, match.missing) == ([1], [0], [])  # the more similar one
    assert (match.precision, match.recall) == (0.5, 1.0)
    [match] = matcher(one_to_one=True).match([["puppy"]], [["dog", "cat"]])
    assert (match.consistent, len(match.missing)) == ([0], 1)


def test_one_to_one_of_nothing_is_that_of_any():
    for generated, reference in (([], ["dog"]), (["dog"], []), ([], [])):
        both = [matcher(one_to_one=strict).match([generated], [reference])[0] for strict in (False, True)]
        assert [(one.precision, one.recall) for one in both] == [(both[0].precision, both[0].recall)] * 2


# -- properties ---------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["a", "b", "A", " a", "b ", "c", "żółw", "ŻÓŁW", "犬が好き", "🐕", "ß", "SS", "", "w " * 3000])
SENTENCES = st.lists(st.one_of(WORDS, st.text(max_size=8)), max_size=6)
THRESHOLDS = st.one_of(st.just(0.0), st.just(1.5), st.floats(-1, 1))


@settings(max_examples=150, deadline=None)
@given(SENTENCES, SENTENCES, THRESHOLDS)
def test_consistent_and_inconsistent_partition_the_distinct_sentences(generated, reference, threshold):
    [match] = PersonaMatcher(FakeEncoder(), threshold).match([generated], [reference])
    firsts = [j for j, text in enumerate(generated) if fold(text) not in map(fold, generated[:j])]
    assert sorted(match.consistent + match.inconsistent) == firsts
    for indices in (match.consistent, match.inconsistent, match.missing):
        assert indices == sorted(set(indices))
    for j in firsts:
        best = max((match.similarity[i, j] for i in range(len(reference))), default=-math.inf)
        assert (best >= threshold) == (j in match.consistent)
    for i in range(len(reference)):
        best = max((match.similarity[i, j] for j in range(len(generated))), default=-math.inf)
        assert (best < threshold) == (i in match.missing)
    assert 0 <= match.precision <= 1
    assert 0 <= match.recall <= 1
    if threshold > 1:
        assert match.consistent == []
        assert match.missing == list(range(len(reference)))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 5).flatmap(
        lambda m: st.lists(st.lists(st.floats(-1, 1), min_size=m, max_size=m), min_size=1, max_size=5)
    ),
    st.floats(-1, 1),
)
def test_one_to_one_pairs_are_as_many_as_can_be(columns, threshold):
    similarity = np.array(columns).T  # (m, k)
    match = match_sentences(similarity, [str(j) for j in range(len(columns))], threshold, one_to_one=True)
    assert len(match.consistent) == len(similarity) - len(match.missing)
    most = maximum_bipartite_matching(csr_array(similarity >= threshold))
    assert len(match.consistent) == (most >= 0).sum()
    loose = match_sentences(similarity, [str(j) for j in range(len(columns))], threshold)
    assert set(match.consistent) <= set(loose.consistent) and set(match.missing) >= set(loose.missing)


@settings(max_examples=100, deadline=None)
@given(
    # Distinct when folded, so that which of them is the first does not depend on the order.
    st.lists(st.text(max_size=5), max_size=6, unique_by=fold),
    st.lists(st.text(max_size=5), max_size=6),
    st.floats(-0.9, 0.9),
    st.randoms(use_true_random=False),
)
def test_a_permutation_of_either_list_permutes_the_result(generated, reference, threshold, random):
    rows, columns = list(range(len(reference))), list(range(len(generated)))
    random.shuffle(rows)
    random.shuffle(columns)
    subject = PersonaMatcher(FakeEncoder(), threshold)
    [match] = subject.match([generated], [reference])
    [moved] = subject.match([[generated[j] for j in columns]], [[reference[i] for i in rows]])
    np.testing.assert_allclose(moved.similarity, match.similarity[np.ix_(rows, columns)], atol=1e-6)
    assert sorted(columns[j] for j in moved.consistent) == match.consistent
    assert sorted(columns[j] for j in moved.inconsistent) == match.inconsistent
    assert sorted(rows[i] for i in moved.missing) == match.missing


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(SENTENCES, SENTENCES), max_size=4))
def test_a_batch_gives_what_its_dialogues_give_alone(dialogues):
    generated, reference = [g for g, _ in dialogues], [r for _, r in dialogues]
    together = PersonaMatcher(FakeEncoder(), 0.3, cache_size=3).match(generated, reference)
    for match, written, wanted in zip(together, generated, reference, strict=True):
        [alone] = PersonaMatcher(FakeEncoder(), 0.3).match([written], [wanted])
        np.testing.assert_allclose(match.similarity, alone.similarity, atol=1e-6)
        assert (match.consistent, match.missing) == (alone.consistent, alone.missing)


# -- the real encoder ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm():
    return load_encoder(device="cpu")


def test_the_default_encoder_is_the_published_one():
    weights = Path(resolve_encoder(DEFAULT_ENCODER)) / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == MINILM_SHA256


def test_the_real_encoder_tells_paraphrases_from_other_facts(minilm):
    subject = PersonaMatcher(minilm)
    [match] = subject.match(
        [["I own two dogs.", "I am a nurse.", "i own two  dogs."]],
        [["I have two dogs.", "I play chess.", "我喜欢狗。"]],
    )
    assert (match.consistent, match.inconsistent, match.missing) == ([0], [1], [1, 2])
    assert match.similarity.shape == (3, 3)
    assert np.abs(match.similarity).max() <= 1 + 1e-6
    [same] = subject.match([["I play chess."]], [["I play chess."]])
    assert same.similarity[0, 0] == pytest.approx(1, abs=1e-6)


def test_the_real_encoder_takes_very_long_sentences(minilm):
    long, longer = "I have two dogs. " * 1000, "I have two dogs. " * 2000
    [match] = PersonaMatcher(minilm).match([[long]], [[longer, "My car is red."]])
    assert match.missing == [1]
    assert match.similarity[0, 0] == pytest.approx(1, abs=1e-5), "both are cut to what the encoder reads"


def test_the_real_encoder_is_frozen(minilm):
    assert not minilm.training
    assert not any(parameter.requires_grad for parameter in minilm.parameters())


def test_an_encoder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(PessError, match=r"similarity model.*Check the name") as caught:
        PersonaMatcher(str(tmp_path / "nothing_here"))
    assert "\n" not in str(caught.value)
