"""Rows of our own persona shape: dialogue_id, utterances, persona, and whatever else the row carries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pess_hf.data.fields import take_label, take_texts
from pess_hf.data.files import Placed
from pess_hf.data.options import Options


def parse_rows(records: Iterable[Placed], stem: str, options: Options) -> Iterator[dict[str, Any]]:
    """Check persona rows and complete them.

    Args:
        records: The records and their places.
        stem: Used in the id `<stem>-<n>` (n from 0) of a row that brings no `dialogue_id`.
        options: See `Options`.

    Yields:
        `{"dialogue_id": str, "utterances": list[str], "persona": list[str]}` and the record's other columns.

    Raises:
        PessError: A column is missing, of the wrong type, or `utterances` is empty.
    """
    for n, (where, record) in enumerate(records):
        utterances = take_texts(record, "utterances", where, options.separator)
        if not utterances:
            raise where.error(
                "at least one utterance", "an empty list", "Remove the record or give its dialogue.", "utterances"
            )
        persona: list[str] = []
        if options.require_persona or record.get("persona") is not None:
            persona = take_texts(record, "persona", where, options.separator)
        dialogue_id = take_label(record, "dialogue_id", where, default=f"{stem}-{n}")
        yield {**record, "dialogue_id": dialogue_id, "utterances": utterances, "persona": persona}
