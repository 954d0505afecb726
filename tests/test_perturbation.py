"""Perturbation rules: what they write, what they leave, and that a seed decides."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pess_hf import PessError
from pess_hf.perturbation import RULES, drift, negate, paraphrase, perturb, swap_entity
from pess_hf.perturbation_words import ENTITIES, PARAPHRASES


@pytest.mark.parametrize(
    ("sentence", "opposite"),
    [
        ("i have two dogs .", "i do not have two dogs ."),
        ("I really like tea.", "I do not really like tea."),
        ("i went to yale .", "i did not go to yale ."),
        ("My car is red.", "My car is not red."),
        ("I was born in Ohio.", "I was not born in Ohio."),
        ("i do not eat meat .", "i eat meat ."),
        ("I don't eat meat.", "I eat meat."),
        ("I can't swim.", "I can swim."),
        ("i won't go .", "i will go ."),
        ("I have never seen snow.", "I have seen snow."),
        ("Hello there!", None),
    ],
)
def test_negation(sentence, opposite):
    assert negate(sentence, random.Random(0)) == opposite


def test_every_paraphrase_rule_is_reached_and_leaves_the_rest_of_the_sentence():
    examples = {
        "I love to sing.", "i like to sing .", "I love tea.", "I like tea.", "I enjoy tea.", "I hate tea.",
        "I want to sing.", "I work as a nurse.", "I work at a bank.", "I work in a bank.", "I work for a bank.",
        "I live in Spain.", "I am from Spain.", "I have a dog.", "I own a dog.", "I drive a van.",
        "My favorite food is rice.", "My name is Ann.", "I am married.", "I do not sing.", "I am tall.",
    }  # fmt: skip
    assert len(examples) == len(PARAPHRASES)
    for sentence in examples:
        changed = paraphrase(sentence, random.Random(1))
        assert changed is not None and changed.lower() != sentence.lower(), sentence
        assert sentence == "I am married." or changed.split()[-1] == sentence.split()[-1]
        assert changed[0].isupper() == sentence[0].isupper()
    assert paraphrase("Hello!", random.Random(0)) is None


def test_an_entity_is_swapped_for_another_of_its_kind():
    kinds = {word: kind for kind, words in ENTITIES.items() for word in words}
    for seed in range(20):
        changed = swap_entity("My Dog eats.", random.Random(seed))
        word = changed.split()[1]
        assert word.istitle() and kinds[word.lower()] == "animal" and word != "Dog"
    assert swap_entity("I sing.", random.Random(0)) is None
    assert swap_entity("A doghouse.", random.Random(0)) is None, "whole words only"


def test_no_word_is_of_two_kinds():
    words = [word for group in ENTITIES.values() for word in group]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("kind", RULES)
def test_the_seed_decides_and_place_does_not(kind):
    sentences = ["I love my dog.", "We like blue cars and two cats.", "Oh."]
    first, again = (perturb(sentences, kind, seed=3) for _ in range(2))
    assert first == again and first[2] is None
    assert perturb(sentences[::-1], kind, seed=3) == first[::-1]


def test_an_unknown_kind_is_refused():
    with pytest.raises(PessError, match="expected paraphrase, negation, entity_swap, found 'typos'"):
        perturb(["I sing."], "typos", 0)


SENTENCES = st.lists(st.sampled_from(["I have a dog.", "I own two cats.", "I sing.", "Hello!", "My car is red."]))


@settings(max_examples=50, deadline=None)
@given(SENTENCES, st.floats(0, 1), st.integers(0, 3))
def test_drift_grows_from_the_end_and_keeps_what_it_changed(sentences, level, seed):
    drifted, full = drift(sentences, level, seed), drift(sentences, 1.0, seed)
    start = len(sentences) - round(level * len(sentences))
    assert drifted == sentences[:start] + full[start:]
    assert all(new != old or old in ("I sing.", "Hello!") for old, new in zip(sentences, full, strict=True))


def test_drift_has_levels_from_0_to_1():
    assert drift(["I sing."], 0, 0) == ["I sing."]
    with pytest.raises(PessError, match=r"drift: expected a level in \[0, 1\], found 1.5"):
        drift(["I sing."], 1.5, 0)
