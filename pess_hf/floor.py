"""The extractive floor: what copying gives, below which no trained extractor is worth publishing."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_FIRST_PERSON = re.compile(r"\b(i|me|my|mine|myself|we|us|our|ours)\b", re.IGNORECASE)


def first_person_sentences(utterances: Sequence[str]) -> list[str]:
    """Every sentence of one speaker with a first-person word, taken as the persona.

    Args:
        utterances: The speaker's turns.

    Returns:
        The sentences as they stand, in order.

    Example:
        >>> first_person_sentences(["Nice! I have two dogs.", "Do you?"])
        ['I have two dogs.']
    """
    sentences = [sentence for utterance in utterances for sentence in _SENTENCE_END.split(utterance)]
    return [sentence.strip() for sentence in sentences if _FIRST_PERSON.search(sentence)]
