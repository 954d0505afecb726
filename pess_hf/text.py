"""The text form of utterances and personas: one line, pieces joined by a separator."""

from __future__ import annotations

from collections.abc import Iterable

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


def fold(sentence: str) -> str:
    """Case- and white-space-folded form under which two sentences count as the same.

    Example:
        >>> fold("I  Sing.") == fold("i sing.")
        True
    """
    return " ".join(sentence.casefold().split())
