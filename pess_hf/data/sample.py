"""The embedded corpus: dialogues made by a seeded grammar, all sentences written for this project.

A turn tells no fact, one, or two; turns without one greet, chat, come back to an earlier fact, or speak of somebody
else. The same split, size and seed give the same rows on every machine, and a smaller size gives the first rows of a
larger one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from pess_hf.data.sample_grammar import GREETINGS, LEADS, LINKS, OTHERS, QUESTIONS, SMALL_TALK, TOPICS
from pess_hf.data.sample_support import Told, support_dialogue
from pess_hf.data.sample_values import VALUES
from pess_hf.errors import PessError

#: The source name under which the loaders give this corpus.
NAME = "sample"
PERSONA_SIZES = {"train": 1600, "validation": 120, "test": 160}
SUPPORT_SIZES = {"train": 600, "validation": 60, "test": 80}
MIN_TURNS, MAX_TURNS = 5, 9
#: How often a fact shares the turn of the one before it.
_IN_ONE_TURN = 0.45


@dataclass(frozen=True)
class Fact:
    """One fact of a speaker: its topic, its value, and the index of the utterance that tells it."""

    topic: str
    value: str
    telling: int

    @property
    def utterance(self) -> str:
        """The first mention in a dialogue."""
        return fill(TOPICS[self.topic].utterances[self.telling][0], self.value)

    @property
    def persona(self) -> str:
        """The persona sentence that belongs to the utterance."""
        topic = TOPICS[self.topic]
        return fill(topic.personas[topic.utterances[self.telling][1]], self.value)


def fill(template: str, value: str) -> str:
    """Put a value into a template's `{v}` or, with its article, `{a}`.

    Example:
        >>> fill("I have {a}.", "otter")
        'I have an otter.'
    """
    # A long u at the start sounds like a consonant: a ukulele.
    vowel = value[0].lower() in "aeiou" and not value.startswith("uk")
    return template.replace("{a}", f"{'an' if vowel else 'a'} {value}").replace("{v}", value)


def make_persona_sample(split: str, size: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """Make persona rows.

    Args:
        split: "train", "validation" or "test"; no slot value of one occurs in another.
        size: Number of rows; None takes the default of the split (1,600, 120, 160).
        seed: Another seed gives other rows of the same grammar and values.

    Returns:
        Rows `{"dialogue_id", "utterances", "persona"}` with 5 to 9 utterances and 3 to 5 persona sentences.

    Raises:
        PessError: Unknown split or negative size.

    Example:
        >>> len(make_persona_sample("test", size=3))
        3
    """
    size = _checked_size(split, size, PERSONA_SIZES)
    random = Random(f"persona/{split}/{seed}")
    return [{"dialogue_id": f"sample-{split}-{n}", **_persona_dialogue(split, random)} for n in range(size)]


def make_support_sample(
    split: str, size: int | None = None, seed: int = 0, *, with_reference: bool = False
) -> list[dict[str, Any]]:
    """Make support rows.

    Args:
        split: "train", "validation" or "test"; no slot value of one occurs in another.
        size: Number of rows; None takes the default of the split (600, 60, 80).
        seed: Another seed gives other rows of the same grammar and values.
        with_reference: Whether `persona[t]` holds the facts that the seeker told before turn t; otherwise it is empty.

    Returns:
        Support rows with 6 to 12 turns.

    Raises:
        PessError: Unknown split or negative size.

    Example:
        >>> make_support_sample("test", size=1)[0]["persona"][0]
        []
    """
    size = _checked_size(split, size, SUPPORT_SIZES)
    random = Random(f"support/{split}/{seed}")
    rows = []
    for n in range(size):
        row = support_dialogue([_told(fact) for fact in _facts(split, random.randint(2, 4), random)], random)
        if not with_reference:
            row["persona"] = [[] for _ in row["turns"]]
        rows.append({"dialogue_id": f"sample-support-{split}-{n}", **row})
    return rows


def _checked_size(split: str, size: int | None, sizes: dict[str, int]) -> int:
    if split not in sizes:
        raise PessError(f"sample: expected one of the splits {', '.join(sizes)}, found {split!r}. Name one of these.")
    if size is not None and size < 0:
        raise PessError(f"sample: expected a size of 0 or more, found {size}. Leave it out for the default.")
    return sizes[split] if size is None else size


def _facts(split: str, count: int, random: Random) -> list[Fact]:
    topics = random.sample(sorted(TOPICS), count)
    return [
        Fact(topic, random.choice(VALUES[topic][split]), random.randrange(len(TOPICS[topic].utterances)))
        for topic in topics
    ]


def _told(fact: Fact) -> Told:
    return Told(fact.utterance, fact.persona, fill(TOPICS[fact.topic].activity, fact.value))


def _persona_dialogue(split: str, random: Random) -> dict[str, list[str]]:
    facts = _facts(split, random.randint(3, 5), random)
    tellings = _pair_up(facts, random)
    fillers = random.randint(max(MIN_TURNS - len(tellings), 1), min(MAX_TURNS - len(tellings), 4))
    greets = random.random() < 0.6
    slots: list[list[Fact]] = [*tellings, *[[] for _ in range(fillers - greets)]]
    random.shuffle(slots)
    greeting = [random.choice(GREETINGS)] if greets else []
    utterances = [*greeting, *_tell(slots, split, random)]
    return {"utterances": utterances, "persona": [fact.persona for told in slots for fact in told]}


def _pair_up(facts: list[Fact], random: Random) -> list[list[Fact]]:
    """Group the facts by turn: one or two in each."""
    tellings: list[list[Fact]] = []
    for fact in facts:
        if tellings and len(tellings[-1]) == 1 and random.random() < _IN_ONE_TURN:
            tellings[-1].append(fact)
        else:
            tellings.append([fact])
    return tellings


def _tell(slots: list[list[Fact]], split: str, random: Random) -> Iterator[str]:
    told: list[Fact] = []
    small_talk = random.sample(SMALL_TALK, len(slots))
    taken = {fact.topic for facts in slots for fact in facts}
    others = [pair for pair in OTHERS if pair[0] not in taken]
    random.shuffle(others)
    for facts in slots:
        told += facts
        yield _fact_turn(facts, random) if facts else _filler(told, others, small_talk, split, random)


def _fact_turn(facts: list[Fact], random: Random) -> str:
    text = facts[0].utterance
    if random.random() < 0.3:
        text = random.choice(LEADS) + _inside(text)
    for fact in facts[1:]:
        text = text.rstrip(".") + random.choice(LINKS) + _inside(fact.utterance)
    return f"{text} {random.choice(QUESTIONS)}" if random.random() < 0.2 else text


def _inside(sentence: str) -> str:
    """The sentence as it is written inside another one."""
    return sentence if sentence.startswith("I ") else sentence[0].lower() + sentence[1:]


def _filler(told: list[Fact], others: list[tuple[str, str]], small_talk: list[str], split: str, random: Random) -> str:
    """A turn without a new fact: about somebody else, an echo of a fact already told, or small talk."""
    draw = random.random()
    if draw < 0.45 and others:
        topic, template = others.pop()
        return fill(template, random.choice(VALUES[topic][split]))
    if draw < 0.6 and told:
        fact = random.choice(told)
        return fill(TOPICS[fact.topic].echo, fact.value)
    return small_talk.pop()
