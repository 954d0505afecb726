"""The embedded corpus: sizes, determinism, disjoint values, and facts that the dialogue gives away."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pess_hf.data import STRATEGIES, load_persona_dataset, load_support_dataset
from pess_hf.data.sample import Fact, fill, make_persona_sample, make_support_sample
from pess_hf.data.sample_grammar import OTHERS, TOPICS
from pess_hf.data.sample_values import VALUES
from pess_hf.errors import PessError

SPLITS = ("train", "validation", "test")


def words(rows) -> set[str]:
    """All words of the rows' texts, lower-cased."""
    found: set[str] = set()
    for row in rows:
        texts = [*row["utterances"], *row["persona"]] if "utterances" in row else [t["text"] for t in row["turns"]]
        texts += [row.get(label, "") for label in ("situation", "emotion_type", "problem_type")]
        for text in texts:
            found.update(re.findall(r"[a-z]+", text.lower()))
    return found


def values_of(split: str) -> set[str]:
    return {value.lower() for topic in VALUES.values() for value in topic[split]}


def test_default_sizes_and_splits():
    assert [len(load_persona_dataset("sample", split)) for split in (None, *SPLITS)] == [1600, 1600, 120, 160]
    assert [len(load_support_dataset("sample", split)) for split in (None, *SPLITS)] == [600, 600, 60, 80]


def test_enough_topics_and_values():
    assert TOPICS.keys() == VALUES.keys()
    assert len(TOPICS) >= 14
    for topic in VALUES.values():
        assert [len(topic[split]) >= least for split, least in zip(SPLITS, (24, 8, 8), strict=True)] == [True] * 3
    every = [value.lower() for topic in VALUES.values() for split in SPLITS for value in topic[split]]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(("held_out", "other"), [(a, b) for a in SPLITS[1:] for b in SPLITS if a != b])
def test_no_value_of_one_split_in_the_texts_of_another(held_out, other):
    texts = words(make_persona_sample(other, 1600)) | words(make_support_sample(other, 600, with_reference=True))
    assert not values_of(held_out) & texts


def test_no_template_holds_a_value():
    templates = [text for _, text in OTHERS]
    for topic in TOPICS.values():
        templates += [*topic.personas, topic.echo, topic.activity, *(text for text, _ in topic.utterances)]
    found = {word for text in templates for word in re.findall(r"[a-z]+", text.lower())}
    assert not found & (values_of("validation") | values_of("test"))


def test_deterministic_across_processes_and_sizes():
    code = "from pess_hf.data.sample import *; print(make_persona_sample('test', 9), make_support_sample('test', 9))"
    root = Path(__file__).parent.parent
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, env={"PYTHONHASHSEED": "7"}
    )
    assert other.stdout.strip() == f"{make_persona_sample('test', 9)} {make_support_sample('test', 9)}"
    assert make_persona_sample("train", 20)[:7] == make_persona_sample("train", 7)
    assert make_persona_sample("train", 7, seed=1) != make_persona_sample("train", 7)


def first_mentions(row) -> list[int]:
    """For each persona sentence, where in the dialogue its value comes first."""
    slots = {value for topic in VALUES.values() for split in topic.values() for value in split}
    places = []
    for sentence in row["persona"]:
        (value,) = slots & set(re.findall(r"\w+", sentence))
        places.append(re.search(rf"\b{value}\b", " | ".join(row["utterances"])).start())
    return places


def test_personas_follow_the_dialogue_and_say_it_in_other_words():
    for row in make_persona_sample("train", 400) + make_persona_sample("test", 100):
        assert 5 <= len(row["utterances"]) <= 9
        assert 3 <= len(row["persona"]) <= 5
        assert not set(row["persona"]) & set(row["utterances"])
        places = first_mentions(row)
        assert places == sorted(set(places))


def test_every_topic_says_its_facts_in_several_ways():
    for name, topic in TOPICS.items():
        assert len(topic.utterances) >= 4
        assert {index for _, index in topic.utterances} == set(range(len(topic.personas)))
        for telling in range(len(topic.utterances)):
            fact = Fact(name, "otter", telling)
            assert "otter" in fact.persona
            assert "otter" in fact.utterance
            assert fact.persona.rstrip(".") not in fact.utterance


def test_rows_stay_short():
    lengths = [len(" | ".join(row["utterances"]).split()) for row in make_persona_sample("train", 400)]
    assert 45 < sum(lengths) / len(lengths) < 75
    assert max(lengths) < 120


def test_articles():
    assert [fill("{a}", word) for word in ("dog", "otter", "ukulele")] == ["a dog", "an otter", "a ukulele"]


def test_support_rows_carry_strategies_and_references():
    rows = make_support_sample("train", 300, with_reference=True)
    assert {turn["strategy"] for row in rows for turn in row["turns"]} == {*STRATEGIES, None}
    for row in rows:
        assert 6 <= len(row["turns"]) <= 12
        assert len(row["persona"]) == len(row["turns"])
        assert row["persona"][0] == []
        assert 2 <= len(row["persona"][-1]) <= 4
        for turn in row["turns"]:
            assert (turn["strategy"] is None) == (turn["speaker"] == "seeker")
            assert "{" not in turn["text"]


def test_support_reference_is_what_was_said_before():
    for row in make_support_sample("test", with_reference=True):
        for t, known in enumerate(row["persona"]):
            before = " ".join(turn["text"] for turn in row["turns"][:t] if turn["speaker"] == "seeker")
            slots = {value for topic in VALUES.values() for value in topic["test"]}
            told = slots & set(re.findall(r"\w+", before))
            assert {slot for sentence in known for slot in slots & set(re.findall(r"\w+", sentence))} == told


def test_support_without_reference_waits_for_the_extractor():
    plain, reference = make_support_sample("test", 5), make_support_sample("test", 5, with_reference=True)
    assert not any(known for row in plain for known in row["persona"])
    assert [row["turns"] for row in plain] == [row["turns"] for row in reference]


@pytest.mark.parametrize("make", [make_persona_sample, make_support_sample])
def test_errors(make):
    with pytest.raises(PessError, match="splits train, validation, test, found 'dev'"):
        make("dev")
    with pytest.raises(PessError, match="size of 0 or more, found -1"):
        make("train", -1)
    assert make("train", 0) == []
