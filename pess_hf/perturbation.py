"""Rules that change persona sentences and dialogues: paraphrase, negation, entity swap, and drift.

Every rule works on the text alone and draws from a generator that the caller seeds. A rule that finds nothing to
change says so by None, so that nobody takes an unchanged sentence for a changed one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from pess_hf.errors import PessError
from pess_hf.perturbation_words import AUXILIARIES, ENTITIES, PARAPHRASES, PAST_VERBS, PRESENT_VERBS

Rule = Callable[[str, random.Random], str | None]

_KIND_OF = {word: kind for kind, words in ENTITIES.items() for word in words}
_ENTITY = re.compile(r"\b(" + "|".join(sorted(_KIND_OF, key=len, reverse=True)) + r")\b", re.IGNORECASE)
_ANY_NOT = re.compile(r"\b(?:do|does|did)(?: not|n'?t) |\b(?:not|never) |(?<=\w)n't\b", re.IGNORECASE)
_SHORT = re.compile(r"\b(?:(ca)n'?t|(wo)n't)\b", re.IGNORECASE)
_SUBJECT = r"\b(i|we|you|they)"
_PRESENT = re.compile(rf"{_SUBJECT} ((?:really |also |often |still )?(?:{'|'.join(PRESENT_VERBS.split())}))\b", re.I)
_PAST = re.compile(rf"{_SUBJECT} ({'|'.join(PAST_VERBS)})\b", re.IGNORECASE)
_AUXILIARY = re.compile(rf"\b({'|'.join(AUXILIARIES.split())})\b", re.IGNORECASE)


def paraphrase(sentence: str, rng: random.Random) -> str | None:
    """Say the same in other words, by the first rule that fits.

    Args:
        sentence: A sentence in the first person.
        rng: Chooses among the ways to say it.

    Returns:
        The new sentence, or None where no rule fits.

    Example:
        >>> paraphrase("I live in Spain.", random.Random(0))
        'I make my home in Spain.'
    """
    for pattern, ways in PARAPHRASES:
        changed, count = re.subn(pattern, rng.choice(ways), sentence, count=1, flags=re.IGNORECASE)
        if count:
            return _as_cased(sentence, changed)
    return None


def negate(sentence: str, rng: random.Random) -> str | None:
    """Say the opposite: take a negation out where there is one, else put one in.

    Args:
        sentence: A sentence.
        rng: Not used; all rules share one signature.

    Returns:
        The new sentence, or None where no rule fits.

    Example:
        >>> negate("I have two dogs.", random.Random(0)), negate("I do not sing.", random.Random(0))
        ('I do not have two dogs.', 'I sing.')
    """
    if _SHORT.search(sentence):
        return _as_cased(sentence, _SHORT.sub(lambda found: "can" if found[1] else "will", sentence, count=1))
    if _ANY_NOT.search(sentence):
        return _as_cased(sentence, _ANY_NOT.sub("", sentence, count=1))
    for pattern, put in (
        (_PRESENT, r"\1 do not \2"),
        (_PAST, lambda found: f"{found[1]} {_denied(found[2])}"),
        (_AUXILIARY, r"\1 not"),
    ):
        changed, count = pattern.subn(put, sentence, count=1)
        if count:
            return _as_cased(sentence, changed)
    return None


def _denied(past: str) -> str:
    bare = PAST_VERBS[past.lower()]
    return bare if " not " in bare else f"did not {bare}"


def swap_entity(sentence: str, rng: random.Random) -> str | None:
    """Replace one animal, relative, place, number, ... by another of its kind.

    Args:
        sentence: A sentence.
        rng: Chooses the word and what stands in its place.

    Returns:
        The new sentence, or None where it holds no word of the lists.

    Example:
        >>> swap_entity("We are in summer.", random.Random(0)) in ("We are in winter.", "We are in autumn.")
        True
    """
    found = list(_ENTITY.finditer(sentence))
    if not found:
        return None
    word = rng.choice(found)
    others = [other for other in ENTITIES[_KIND_OF[word[0].lower()]] if other != word[0].lower()]
    return sentence[: word.start()] + _as_cased(word[0], rng.choice(others)) + sentence[word.end() :]


#: The rules by name.
RULES: dict[str, Rule] = {"paraphrase": paraphrase, "negation": negate, "entity_swap": swap_entity}


def perturb(sentences: Sequence[str], kind: str, seed: int) -> list[str | None]:
    """Apply one rule to each sentence, each with a generator of its own.

    Args:
        sentences: The sentences.
        kind: "paraphrase", "negation" or "entity_swap".
        seed: With the sentence's place and text it decides what is drawn.

    Returns:
        One changed sentence per sentence, None where the rule does not fit.

    Raises:
        PessError: If `kind` is unknown.

    Example:
        >>> perturb(["I have two dogs.", "Hello!"], "negation", seed=0)
        ['I do not have two dogs.', None]
    """
    if kind not in RULES:
        raise PessError(f"perturbation: expected {', '.join(RULES)}, found {kind!r}.")
    rule = RULES[kind]
    # A text seeds the generator, so that a sentence changes alike wherever it stands.
    return [rule(sentence, random.Random(f"{seed} {kind} {sentence}")) for sentence in sentences]


def drift(sentences: Sequence[str], level: float, seed: int) -> list[str]:
    """Let a speaker become somebody else: the last sentences are changed, by an entity swap or else a negation.

    Args:
        sentences: A persona, or the turns of one speaker, oldest first.
        level: Share of the sentences that are to change, in [0, 1], from the end; one that no rule fits stays.
        seed: Decides what is drawn; the sentences that change at one level change alike at every higher one.

    Returns:
        As many sentences.

    Raises:
        PessError: If `level` is outside [0, 1].

    Example:
        >>> drift(["I sing.", "I have a van."], 0.5, seed=0)[0]
        'I sing.'
    """
    if not 0 <= level <= 1:
        raise PessError(f"drift: expected a level in [0, 1], found {level}.")
    start = len(sentences) - round(level * len(sentences))
    late = sentences[start:]
    swapped, negated = (perturb(late, kind, seed) for kind in ("entity_swap", "negation"))
    changed = [new or other or old for old, new, other in zip(late, swapped, negated, strict=True)]
    return [*sentences[:start], *changed]


def _as_cased(old: str, new: str) -> str:
    """`new` with the case of `old`'s first letter, and "I" written as `old` writes it."""
    if re.search(r"\bI\b", old):
        new = re.sub(r"\bi\b", "I", new)
    return new[:1].upper() + new[1:] if old[:1].isupper() else new
