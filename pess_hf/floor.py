"""The extractive floor: what copying gives, below which no trained extractor is worth publishing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pess_hf.text import split_sentences

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
    return [sentence for sentence in split_sentences(utterances) if _FIRST_PERSON.search(sentence)]
