"""Checking the turns of a support dialogue, whatever file they came from."""

from __future__ import annotations

from typing import Any

from pess_hf.data.fields import Record, check_text
from pess_hf.data.strategies import STRATEGIES, normalise_strategy
from pess_hf.data.where import Where, describe
from pess_hf.errors import PessError

#: The names that files give the two speakers -> ours.
_SPEAKERS = {"seeker": "seeker", "usr": "seeker", "supporter": "supporter", "sys": "supporter"}


def check_turn(turn: Any, column: str, where: Where, separator: str | None) -> dict[str, str | None]:
    """Check one turn of a support dialogue.

    Args:
        turn: The turn as read: `speaker`, then `text` or `content`, and for a supporter optionally `strategy`, plain
            or under `annotation`.
        column: The turn's place in the record, `"dialog[3]"`.
        where: The record's place.
        separator: See `Options`.

    Returns:
        `{"speaker": "seeker" | "supporter", "text": str, "strategy": str | None}`

    Raises:
        PessError: Unknown speaker or strategy, no text, a blank text.
    """
    if not isinstance(turn, dict):
        raise where.error("an object for each turn", describe(turn), 'Write {"speaker": ..., "text": ...}.', column)
    speaker = _speaker(turn, column, where)
    key = "content" if "content" in turn else "text"
    text = check_text(turn.get(key), where, f"{column}.{key}", separator)
    strategy = _strategy(turn, column, where) if speaker == "supporter" else None
    return {"speaker": speaker, "text": text, "strategy": strategy}


def _speaker(turn: Record, column: str, where: Where) -> str:
    name = turn.get("speaker")
    if not isinstance(name, str) or name not in _SPEAKERS:
        expected = "one of the speakers " + ", ".join(repr(known) for known in _SPEAKERS)
        raise where.error(expected, describe(name), "Correct the speaker of this turn.", f"{column}.speaker")
    return _SPEAKERS[name]


def _strategy(turn: Record, column: str, where: Where) -> str | None:
    annotation = turn.get("annotation")
    holder = annotation if isinstance(annotation, dict) and "strategy" not in turn else turn
    name = holder.get("strategy")
    if name is None:
        return None
    try:
        return normalise_strategy(name)
    except PessError:
        expected = f"one of the strategies {', '.join(STRATEGIES)}"
        raise where.error(expected, describe(name), "Correct the spelling.", f"{column}.strategy") from None
