"""Rows of our own support shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pess_hf.data.fields import check_text, take_label, take_list
from pess_hf.data.files import Placed
from pess_hf.data.options import Options
from pess_hf.data.turns import check_turn
from pess_hf.data.where import Where, describe


def parse_support_rows(records: Iterable[Placed], stem: str, options: Options) -> Iterator[dict[str, Any]]:
    """Check support rows and complete them.

    Args:
        records: The records and their places.
        stem: Used in the id `<stem>-<n>` (n from 0) of a row that brings no `dialogue_id`.
        options: See `Options`.

    Yields:
        The row with its other columns; a missing `persona` becomes one empty list a turn, a missing label an empty
        text.

    Raises:
        PessError: A turn is malformed, or `persona` has not one list for each turn.
    """
    for n, (where, record) in enumerate(records):
        found = take_list(record, "turns", where)
        if not found:
            raise where.error("at least one turn", "an empty list", "Remove the record or fill it in.", "turns")
        turns = [check_turn(turn, f"turns[{t}]", where, options.separator) for t, turn in enumerate(found)]
        labels = {name: take_label(record, name, where) for name in ("situation", "emotion_type", "problem_type")}
        yield {
            **record,
            "dialogue_id": take_label(record, "dialogue_id", where, default=f"{stem}-{n}"),
            **labels,
            "turns": turns,
            "persona": _personas(record, len(turns), where, options.separator),
        }


def _personas(record: dict[str, Any], turns: int, where: Where, separator: str | None) -> list[list[str]]:
    if record.get("persona") is None:
        return [[] for _ in range(turns)]
    personas = take_list(record, "persona", where)
    if len(personas) != turns:
        raise where.error(
            f"{turns} lists, one for each turn",
            f"{len(personas)}",
            "Add empty lists where nothing was known.",
            "persona",
        )
    return [_known(known, f"persona[{t}]", where, separator) for t, known in enumerate(personas)]


def _known(known: Any, column: str, where: Where, separator: str | None) -> list[str]:
    if not isinstance(known, list):
        raise where.error("a list of sentences", describe(known), "Write a list, empty if need be.", column)
    return [check_text(sentence, where, f"{column}[{i}]", separator) for i, sentence in enumerate(known)]
