"""Dialogues and personas to token ids: joining, truncation by whole utterances, token spans of sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from transformers.utils import logging

from pess_hf.errors import PessError
from pess_hf.text import DEFAULT_SEPARATOR, clean, join_pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class EncodedSource:
    """Token ids of one dialogue and what truncation cost.

    Args:
        input_ids: Token ids with the special tokens, (S,).
        num_dropped: Utterances left out or cut, the oldest ones.
    """

    input_ids: list[int]
    num_dropped: int


@dataclass(frozen=True)
class EncodedTarget:
    """Token ids of one persona and where its sentences lie.

    Args:
        input_ids: Token ids with the special tokens, (T,).
        spans: Half-open token range [start, end) of each sentence kept.
        num_dropped: Sentences left out at the end, or cut, for lack of room.
    """

    input_ids: list[int]
    spans: list[tuple[int, int]]
    num_dropped: int


def encode_sources(
    tokenizer: PreTrainedTokenizerBase,
    dialogues: Sequence[Sequence[str]],
    separator: str = DEFAULT_SEPARATOR,
    max_length: int = 512,
) -> list[EncodedSource]:
    """Tokenise dialogues; too long a dialogue loses its oldest utterances, whole ones first.

    Args:
        tokenizer: A fast tokenizer.
        dialogues: One list of utterances per speaker, oldest first.
        separator: Stands between utterances.
        max_length: Tokens at most, special ones included.

    Returns:
        One `EncodedSource` per dialogue.

    Raises:
        PessError: If a dialogue has no text at all.

    Example:
        >>> encode_sources(tokenizer, [["Hi.", "My dogs bark."]], max_length=64)  # doctest: +SKIP
        [EncodedSource(input_ids=[101, ...], num_dropped=0)]
    """
    num_special = tokenizer.num_special_tokens_to_add()
    if max_length <= num_special:
        raise PessError(f"max_source_length: expected {num_special + 1} or more, found {max_length}.")
    texts = []
    for row, utterances in enumerate(dialogues):
        texts.append(join_pieces(utterances, separator))
        if not texts[-1]:
            raise PessError(f"dialogue {row}: expected at least one utterance with text, found none.")
    encoded = tokenizer(texts, verbose=False)["input_ids"] if texts else []
    return [
        EncodedSource(ids, 0)
        if len(ids) <= max_length
        else _truncate(tokenizer, [clean(utterance, separator) for utterance in utterances], separator, max_length)
        for ids, utterances in zip(encoded, dialogues, strict=True)
    ]


def _truncate(
    tokenizer: PreTrainedTokenizerBase, utterances: list[str], separator: str, max_length: int
) -> EncodedSource:
    utterances = [utterance for utterance in utterances if utterance]
    text = separator.join(utterances)
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    room = max_length - tokenizer.num_special_tokens_to_add()
    fitting = [first_char for first_char, _ in offsets[len(offsets) - room :]]  # where the newest tokens begin
    starts = [(start, dropped) for dropped, start in enumerate(_starts(utterances, separator)) if start >= fitting[0]]
    # Where not even the newest utterance fits whole, its end is kept.
    cuts = [(first_char, len(utterances)) for first_char in fitting]
    for start, dropped in starts + cuts:
        ids = tokenizer(text[start:], verbose=False)["input_ids"]
        if len(ids) <= max_length:  # a text cut before a word can have a token or two more than it had inside
            return EncodedSource(ids, dropped)
    # Not even the last character fits, which is several tokens.
    return EncodedSource(tokenizer(text[fitting[-1] :], truncation=True, max_length=max_length)["input_ids"], dropped)


def _starts(pieces: list[str], separator: str) -> list[int]:
    """Where each piece begins in the joined text."""
    return list(accumulate((len(piece) + len(separator) for piece in pieces[:-1]), initial=0))


def encode_targets(
    tokenizer: PreTrainedTokenizerBase,
    personas: Sequence[Sequence[str]],
    separator: str = DEFAULT_SEPARATOR,
    max_length: int = 128,
) -> list[EncodedTarget]:
    """Tokenise personas and find each sentence's tokens; sentences that do not fit are left out at the end.

    Args:
        tokenizer: A fast tokenizer.
        personas: One list of sentences per dialogue; an empty one gives only special tokens.
        separator: Stands between sentences.
        max_length: Tokens at most, special ones included.

    Returns:
        One `EncodedTarget` per persona; its spans belong to the first sentences in order.

    Example:
        >>> encode_targets(tokenizer, [["I sing.", "I ski."]])[0].spans  # doctest: +SKIP
        [(1, 4), (5, 8)]
    """
    if not personas:
        return []
    cleaned = [[clean(sentence, separator) for sentence in persona] for persona in personas]
    texts = [separator.join(persona) for persona in cleaned]
    encoded = tokenizer(text_target=texts, return_offsets_mapping=True, verbose=False)
    targets = []
    for persona, ids, offsets in zip(cleaned, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        if len(ids) <= max_length:
            targets.append(EncodedTarget(ids, _spans(persona, offsets, separator), 0))
        else:
            targets.append(_shorten(tokenizer, persona, _spans(persona, offsets, separator), separator, max_length))
    return targets


def _shorten(
    tokenizer: PreTrainedTokenizerBase,
    persona: list[str],
    spans: list[tuple[int, int]],
    separator: str,
    max_length: int,
) -> EncodedTarget:
    num_closing = 1  # the end-of-sequence token after the last sentence
    kept = max(sum(end + num_closing <= max_length for _, end in spans), 1)
    encoded = tokenizer(
        text_target=separator.join(persona[:kept]), truncation=True, max_length=max_length, return_offsets_mapping=True
    )
    kept_spans = _spans(persona[:kept], encoded["offset_mapping"], separator)
    was_cut = spans[0][1] + num_closing > max_length
    return EncodedTarget(encoded["input_ids"], kept_spans, len(persona) - kept + was_cut)


def _spans(persona: list[str], offsets: list[tuple[int, int]], separator: str) -> list[tuple[int, int]]:
    """Token range of each sentence: the tokens whose last character lies inside it."""
    spans, first_char, token = [], 0, 0
    for sentence in persona:
        last_char = first_char + len(sentence)
        while token < len(offsets) and offsets[token][1] <= first_char:
            token += 1
        start = token
        while token < len(offsets) and first_char < offsets[token][1] <= last_char:
            token += 1
        spans.append((start, token))
        first_char = last_char + len(separator)
    return spans


def warn_of_truncation(dropped: Sequence[int], what: str, limit: str) -> None:
    """Log once what truncation leaves out; nothing where nothing is.

    Args:
        dropped: Pieces left out or cut, per dialogue.
        what: The pieces, such as "oldest utterances".
        limit: The setting that decides.
    """
    if any(dropped):
        logger.warning(
            f"{sum(dropped)} {what} in {sum(map(bool, dropped))} of {len(dropped)} dialogues are left out or cut: "
            f"they do not fit {limit}."
        )
