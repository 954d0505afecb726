"""Finding sentences of dialogues in files that are about to be published, in every spelling that such files use."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

# Shorter ones ("I like it.") may stand anywhere by chance.
_LENGTH = 20
# Pieces of words, seldom of two; a generator's strategy tokens have up to four words.
_SENTENCE_WORDS = 5
#: Columns that hold names out of a list, which nobody said.
_LABELS = ("dialogue_id", "speaker", "strategy", "emotion_type", "problem_type")
_VOCABULARIES = (
    "tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json", "spiece.model",
    "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip
_ESCAPED = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\[\"\\/ntr]")


class KnownSentences:
    """Sentences that must not be published, and a search that takes a time linear in the text.

    Args:
        texts: Utterances and persona sentences; those of fewer than 20 characters are left out, as they may stand
            anywhere by chance.
        allowed: A text whose sentences may be published: the template of the card.

    Example:
        >>> known = KnownSentences(["My aunt keeps eleven geese."])
        >>> known.are_in("config.json", '{"note": "My aunt keeps eleven geese."}')
        True
    """

    def __init__(self, texts: Iterable[str], allowed: str = "") -> None:
        self._by_start: dict[str, set[str]] = defaultdict(set)
        for text in texts:
            sentence = text.strip()
            if len(sentence) >= _LENGTH and sentence not in allowed:
                self._by_start[sentence[:_LENGTH]].add(sentence)

    def __len__(self) -> int:
        return sum(map(len, self._by_start.values()))

    def are_in(self, name: str, text: str) -> bool:
        """Whether a file holds one of the sentences; in a vocabulary, one of at least three words.

        Args:
            name: The file's name: vocabularies spell white space and other letters in their own way.
            text: What it holds.

        Returns:
            Whether there is one.
        """
        words = 3 if name in _VOCABULARIES else 1
        return bool(self._by_start) and any(self._are_in(spelling, words) for spelling in spellings(name, text))

    def _are_in(self, text: str, words: int) -> bool:
        for start in range(len(text) - _LENGTH + 1):
            for sentence in self._by_start.get(text[start : start + _LENGTH], ()):
                if text.startswith(sentence, start) and len(sentence.split()) >= words:
                    return True
        return False


def spellings(name: str, text: str) -> Iterator[str]:
    r"""Give a file's text as it stands, without the escapes of JSON and, of a vocabulary, with plain white space.

    Args:
        name: The file's name.
        text: What it holds.

    Yields:
        The spellings that differ.

    Example:
        >>> list(spellings("tokenizer.json", '"\\u2581my\\u2581aunt"'))[1:]
        ['"▁my▁aunt"', '" my aunt"']
    """
    plain = _ESCAPED.sub(lambda match: _unescaped(match[0]), text) if "\\" in text else text
    yield from dict.fromkeys([text, plain])
    if name in _VOCABULARIES:
        if "▁" in plain:
            yield plain.replace("▁", " ")
        if "Ġ" in plain:
            yield _from_byte_level(plain)


def _unescaped(escape: str) -> str:
    if escape.startswith("\\u"):
        codes = bytes.fromhex("".join(escape.split("\\u")))
        return codes.decode("utf-16-be", errors="replace")
    return {"n": "\n", "t": "\t", "r": "\r"}.get(escape[1], escape[1])


def _from_byte_level(text: str) -> str:
    """Undo GPT-2's alphabet, in which every byte is a printable character; all else stays as it is."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
    encoded = b"".join(bytes([table[letter]]) if letter in table else letter.encode() for letter in text)
    return encoded.decode(errors="replace")


def sentence_token(name: str, text: str) -> str | None:
    """Look for a token that is a whole sentence: a tokenizer that was trained on dialogues may hold some.

    Args:
        name: The file's name; only vocabularies that list their tokens are looked into.
        text: What it holds.

    Returns:
        The first token of five words or more, None where there is none.

    Example:
        >>> sentence_token("vocab.json", '{"my": 0, "▁my▁aunt▁keeps▁eleven▁geese": 1}')
        ' my aunt keeps eleven geese'
    """
    for token in _tokens(name, text):
        plain = token.replace("▁", " ").replace("Ġ", " ")
        if sum(any(map(str.isalpha, word)) for word in plain.split()) >= _SENTENCE_WORDS:
            return plain
    return None


def _tokens(name: str, text: str) -> Iterator[str]:
    """The entries of a vocabulary that can be read without its library."""
    if name == "vocab.txt":
        yield from text.splitlines()
    elif name in ("vocab.json", "added_tokens.json"):
        yield from json.loads(text)
    elif name == "tokenizer.json":
        found = json.loads(text)
        added = found.get("added_tokens") or []
        yield from _strings([found.get("model", {}).get("vocab"), [token.get("content") for token in added]])


def _strings(value: Any) -> Iterator[str]:
    """Every string of a vocabulary: the keys of an object, the pieces of a list of (piece, score)."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value:
            yield from _strings(item)


def strings_in(value: Any) -> Iterator[str]:
    """Every string inside a JSON value but keys and labels: a model's own config lists the strategies too.

    Example:
        >>> list(strings_in({"id": 1, "strategy": "Providing Suggestions", "persona": ["I sing."]}))
        ['I sing.']
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        items = [value[key] for key in value if key not in _LABELS] if isinstance(value, dict) else value
        for item in items:
            yield from strings_in(item)
