"""ESConv and PESConv conversations.

ESConv comes as one JSON list (`dialog` of `{speaker: seeker|supporter, annotation: {strategy}, content}`) or as JSON
lines (`dialog` of `{speaker: usr|sys, strategy, text}`); both spellings are read everywhere.

PESConv adds `persona_list`: one entry for each seeker utterance from the third on, the persona inferred from all
seeker utterances so far, either a list of sentences or one text with `<persona>` between them. A list with one entry
for *each* seeker utterance is read as well. PESConv's `persona` was inferred from the whole conversation and would
tell a model what is said later: it is not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pess_hf.data.fields import check_text, take_label, take_list
from pess_hf.data.files import Placed
from pess_hf.data.options import Options
from pess_hf.data.turns import check_turn
from pess_hf.data.where import Where, describe

#: In PESConv nothing is inferred before the seeker has spoken this often.
FIRST_INFERRED = 3
_PERSONA_MARK = "<persona>"
_OTHER_MARKS = ("<input>", "<s>", "</s>", "<pad>")


def parse_esconv(records: Iterable[Placed], stem: str, options: Options) -> Iterator[dict[str, Any]]:
    """Read ESConv or PESConv conversations.

    Args:
        records: The conversations and their places.
        stem: Used in the id `<stem>-<n>` (n from 0) of a conversation that brings no `dialogue_id`.
        options: See `Options`.

    Yields:
        Support rows; `persona[t]` is empty where no `persona_list` was given.

    Raises:
        PessError: A key is missing, a turn is malformed, or `persona_list` does not fit the seeker's turns.
    """
    for n, (where, record) in enumerate(records):
        dialog = take_list(record, "dialog", where)
        if not dialog:
            raise where.error("at least one turn", "an empty list", "Remove the conversation or fill it in.", "dialog")
        turns = [check_turn(turn, f"dialog[{t}]", where, options.separator) for t, turn in enumerate(dialog)]
        yield {
            "dialogue_id": take_label(record, "dialogue_id", where, default=f"{stem}-{n}"),
            "situation": take_label(record, "situation", where),
            "emotion_type": take_label(record, "emotion_type", where),
            "problem_type": take_label(record, "problem_type", where),
            "turns": turns,
            "persona": _personas(record, turns, where, options.separator),
        }


def _personas(
    record: dict[str, Any], turns: list[dict[str, Any]], where: Where, separator: str | None
) -> list[list[str]]:
    """What was known before each turn, from `persona_list`."""
    if record.get("persona_list") is None:
        return [[] for _ in turns]
    entries = take_list(record, "persona_list", where)
    texts = [turn["text"] for turn in turns if turn["speaker"] == "seeker"]
    first = _first_inferred(entries, texts, where)
    known = [_sentences(entry, f"persona_list[{i}]", where, separator) for i, entry in enumerate(entries)]
    personas: list[list[str]] = []
    spoken = 0
    for turn in turns:
        personas.append(list(known[spoken - first]) if spoken >= first else [])
        spoken += turn["speaker"] == "seeker"
    return personas


def _first_inferred(entries: list[Any], texts: list[str], where: Where) -> int:
    """After how many seeker utterances the first entry was inferred."""
    late = max(len(texts) - FIRST_INFERRED + 1, 0)
    if len(entries) == late:
        return FIRST_INFERRED
    if len(entries) == len(texts) and not _repeats(entries, texts):
        return 1
    found = "the seeker's utterances themselves" if _repeats(entries, texts) else f"{len(entries)} entries"
    raise where.error(
        f"{late} entries (one for each seeker utterance from the third on) or {len(texts)} (one for each)",
        found,
        "Infer the personas again for these turns, or remove the key to start without.",
        "persona_list",
    )


def _repeats(entries: list[Any], texts: list[str]) -> bool:
    return [" ".join(entry.split()) if isinstance(entry, str) else entry for entry in entries] == texts


def _sentences(entry: Any, column: str, where: Where, separator: str | None) -> list[str]:
    if isinstance(entry, list):
        return [check_text(sentence, where, f"{column}[{i}]", separator) for i, sentence in enumerate(entry)]
    if not isinstance(entry, str):
        raise where.error("a list of sentences or a text", describe(entry), "Write a list, empty if need be.", column)
    for mark in _OTHER_MARKS:
        entry = entry.replace(mark, " ")
    pieces = [piece.strip() for piece in entry.split(_PERSONA_MARK)]
    return [check_text(piece, where, column, separator) for piece in pieces if piece]
