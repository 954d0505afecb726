"""Synthetic-Persona-Chat: one conversation a row, both personas beside it.

Inside a conversation, `User 1:` or `User 2:` (a `*` before it does no harm) starts a turn, and an unlabelled line
right below a turn continues it. What belongs to neither speaker is left out and counted once in the log: stage
directions and scene breaks (in brackets, round or square, or between asterisks), an unlabelled line after a blank one
or before the first turn, a line labelled with another name, a label with nothing behind it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pess_hf.data.fields import check_text, take
from pess_hf.data.files import Placed
from pess_hf.data.options import Options
from pess_hf.data.where import Where, describe

PERSONA_COLUMNS = ("user 1 personas", "user 2 personas")
CONVERSATION_COLUMN = "Best Generated Conversation"
COLUMNS = (*PERSONA_COLUMNS, CONVERSATION_COLUMN)
_TURN = re.compile(r"\W*user\s*([12])\s*:\s*(.*)", re.IGNORECASE)
_ASIDE = re.compile(r"[\[(*]")
_OTHER_SPEAKER = re.compile(r"[A-Z][\w.'-]*( \w+)?: ")

logger = logging.getLogger(__name__)


def parse_spc(records: Iterable[Placed], stem: str, options: Options) -> Iterator[dict[str, Any]]:
    """Read Synthetic-Persona-Chat rows.

    Args:
        records: The records and their places.
        stem: The file's name without extension, part of the ids.
        options: See `Options`.

    Yields:
        Two rows a conversation, ids `spc/<stem>/<conversation, from 0>/user_1` and `.../user_2`.

    Raises:
        PessError: A column is missing or holds no text, or a user has no turn.
    """
    left_out = 0
    for n, (where, record) in enumerate(records):
        turns, aside = _split_turns(_take_cell(record, CONVERSATION_COLUMN, where))
        left_out += aside
        for user, column in enumerate(PERSONA_COLUMNS, start=1):
            utterances = [check_text(text, where, CONVERSATION_COLUMN, options.separator) for text in turns[user]]
            if not utterances:
                raise where.error(
                    f"turns that start with 'User {user}:'",
                    "none",
                    "Remove the row, or fetch the file again.",
                    CONVERSATION_COLUMN,
                )
            sentences = filter(str.strip, _take_cell(record, column, where).splitlines())
            persona = [check_text(sentence.strip(), where, column, options.separator) for sentence in sentences]
            yield {"dialogue_id": f"spc/{stem}/{n}/user_{user}", "utterances": utterances, "persona": persona}
    if left_out:
        logger.warning(
            "%s: %d lines belong to neither user (stage directions and the like) and are left out", stem, left_out
        )


def _take_cell(record: dict[str, Any], column: str, where: Where) -> str:
    cell = take(record, column, where)
    if not isinstance(cell, str):
        raise where.error("a text", describe(cell), "Write the cell as text.", column)
    return cell


def _split_turns(conversation: str) -> tuple[dict[int, list[str]], int]:
    turns: dict[int, list[str]] = {1: [], 2: []}
    user = 0
    left_out = 0
    for line in map(str.strip, conversation.splitlines()):
        match = _TURN.match(line)
        if match and match[2]:
            user = int(match[1])
            turns[user].append(match[2])
        elif not line:
            user = 0
        elif match or not user or _ASIDE.match(line) or _OTHER_SPEAKER.match(line):
            user = 0
            left_out += 1
        else:
            turns[user][-1] += " " + line
    return turns, left_out
