"""The text form of utterances and personas: one line, pieces joined by a separator."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")

#: Ordinary text and one token in the BART, T5 and BERT vocabularies, so no embedding is resized.
DEFAULT_SEPARATOR = " | "


def clean(text: str, separator: str = DEFAULT_SEPARATOR) -> str:
    r"""Fold white space to single blanks and replace the separator's mark inside `text` by a comma.

    A mark that is a comma itself is replaced by a semicolon.

    Args:
        text: One utterance or persona sentence.
        separator: The separator that joins such texts.

    Returns:
        The text on one line, free of the separator's mark.

    Example:
        >>> clean("tea | coffee\n")
        'tea , coffee'
    """
    text, mark = " ".join(text.split()), separator.strip()
    return text.replace(mark, ";" if "," in mark else ",") if mark else text


def join_pieces(pieces: Iterable[str], separator: str = DEFAULT_SEPARATOR) -> str:
    """Join `pieces` by `separator`, cleaning each and dropping the empty ones.

    Example:
        >>> join_pieces(["I have two dogs.", " ", "I sing."])
        'I have two dogs. | I sing.'
    """
    cleaned = (clean(piece, separator) for piece in pieces)
    return separator.join(piece for piece in cleaned if piece)


def split_pieces(text: str, separator: str = DEFAULT_SEPARATOR) -> list[str]:
    """Split a generated text at the separator's mark; empty pieces are dropped.

    Example:
        >>> split_pieces("I have two dogs. | | I sing.")
        ['I have two dogs.', 'I sing.']
    """
    mark = separator.strip() or separator
    return [" ".join(piece.split()) for piece in text.split(mark) if piece.strip()]


def split_sentences(utterances: Iterable[str]) -> list[str]:
    """The sentences of some utterances, split after full stops, question and exclamation marks.

    Example:
        >>> split_sentences(["Nice! I have two dogs.", "Do you?"])
        ['Nice!', 'I have two dogs.', 'Do you?']
    """
    pieces = (piece.strip() for utterance in utterances for piece in _SENTENCE_END.split(utterance))
    return [piece for piece in pieces if piece]


def fold(sentence: str) -> str:
    """Case- and white-space-folded form under which two sentences count as the same.

    Example:
        >>> fold("I  Sing.") == fold("i sing.")
        True
    """
    return " ".join(sentence.casefold().split())


def unique_sentences(sentences: Iterable[str]) -> list[str]:
    """Each sentence once, the first time it comes, case and white space folded.

    Example:
        >>> unique_sentences(["I sing.", "i  sing."])
        ['I sing.']
    """
    seen: dict[str, str] = {}
    for sentence in sentences:
        seen.setdefault(fold(sentence), sentence)
    return list(seen.values())
