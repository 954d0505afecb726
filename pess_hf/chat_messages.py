"""Chat messages (role, content) to the turns of a support dialogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pess_hf.data.strategies import normalise_strategy
from pess_hf.errors import PessError

#: Role of a chat message -> speaker of a turn.
SPEAKERS = {"user": "seeker", "assistant": "supporter"}
Turn = dict[str, str | None]


def check_messages(messages: Any) -> list[Turn]:
    """Check chat messages and turn them into turns.

    Either role may begin or end, and may speak several times in a row. A system message is refused: the generator
    follows no instructions, and to drop one in silence would suggest that it does.

    Args:
        messages: Objects with `role` ("user" for the seeker, "assistant" for the supporter) and `content`, and for
            the assistant optionally `strategy`, oldest first.

    Returns:
        Turns with `speaker`, `text` and `strategy`.

    Raises:
        PessError: There is no message, or one has another role, an empty content or an unknown strategy.

    Example:
        >>> check_messages([{"role": "user", "content": "I lost my dog."}])
        [{'speaker': 'seeker', 'text': 'I lost my dog.', 'strategy': None}]
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise PessError(f"messages: expected a list of chat messages, found {type(messages).__name__}.")
    if not messages:
        raise PessError("messages: expected at least one message, found none. Begin with what the seeker said.")
    return [_turn(message, f"messages[{n}]") for n, message in enumerate(messages)]


def _turn(message: Any, place: str) -> Turn:
    if not isinstance(message, Mapping):
        raise PessError(f"{place}: expected an object with role and content, found {type(message).__name__}.")
    role, content = message.get("role"), message.get("content")
    if role == "system":
        raise PessError(f"{place}: expected no system message, the generator follows no instructions. Remove it.")
    if not isinstance(role, str) or role not in SPEAKERS:
        raise PessError(f"{place}: expected the role 'user' or 'assistant', found {role!r}.")
    if not isinstance(content, str):
        raise PessError(f"{place}: expected content of text, found {type(content).__name__}.")
    if not content.strip():
        raise PessError(f"{place}: expected content with words in it, found an empty message. Leave it out.")
    if not content.isascii() and not _is_unicode(content):
        raise PessError(f"{place}: expected content of valid Unicode, found half of a surrogate pair. Take it out.")
    strategy = message.get("strategy") if role == "assistant" else None
    if strategy is None:
        return {"speaker": SPEAKERS[role], "text": content, "strategy": None}
    try:
        return {"speaker": SPEAKERS[role], "text": content, "strategy": normalise_strategy(strategy)}
    except PessError as error:
        raise PessError(f"{place}: {error}") from None


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_persona(persona: Any) -> list[str]:
    """Check a persona that is given in place of an inferred one.

    Args:
        persona: Sentences; none for no persona.

    Returns:
        The sentences.

    Raises:
        PessError: It is no list of texts with words in them.

    Example:
        >>> check_persona(("I sing.",))
        ['I sing.']
    """
    if not isinstance(persona, Sequence) or isinstance(persona, str | bytes):
        raise PessError(f"persona: expected a list of sentences, found {type(persona).__name__}. Put it in a list.")
    for n, sentence in enumerate(persona):
        if not isinstance(sentence, str) or not _is_unicode(sentence):
            raise PessError(f"persona[{n}]: expected a text of valid Unicode, found {type(sentence).__name__}.")
        if not sentence.strip():
            raise PessError(f"persona[{n}]: expected a sentence, found an empty text. Leave it out.")
    return list(persona)
