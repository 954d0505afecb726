"""Taking typed fields out of one record, with errors that name the column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pess_hf.data.where import Where, describe
from pess_hf.text import clean

#: One record as it was read: column name -> value.
Record = Mapping[str, Any]


def check_text(value: Any, where: Where, column: str, separator: str | None) -> str:
    """Check that `value` is a text that says something, and bring it on one line.

    Args:
        value: What the record holds.
        where: The record's place, for the error.
        column: The column's name, for the error (`"persona[2]"`).
        separator: Its mark is replaced by a comma inside the text; None leaves the text as it is.

    Returns:
        The text.

    Raises:
        PessError: `value` is no text, is blank, or is not valid Unicode.
    """
    if not isinstance(value, str):
        raise where.error("a text", describe(value), "Put the words between quotation marks.", column)
    if not value.strip():
        raise where.error("a text with words in it", "a blank one", "Fill it in or remove it.", column)
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise where.error(
            "valid Unicode", "half of a surrogate pair", "Write the file again as UTF-8 from its original.", column
        )
    return value if separator is None else clean(value, separator)


def take(record: Record, column: str, where: Where) -> Any:
    """Return the value of a column that must be there.

    Raises:
        PessError: The record has no such column; the message lists the columns that it has.
    """
    if column not in record:
        present = ", ".join(repr(name) for name in record) or "none"
        raise where.error(
            f"a column {column!r}",
            f"the columns {present}",
            f"Add {column!r} or rename the column that holds it.",
            column,
        )
    return record[column]


def take_list(record: Record, column: str, where: Where) -> list[Any]:
    """Return the value of a column that must be there and hold a list."""
    value = take(record, column, where)
    if not isinstance(value, list):
        cure = 'Wrap the text in a list: ["..."].' if isinstance(value, str) else "Write a list, empty if need be."
        raise where.error("a list", describe(value), cure, column)
    return value


def take_texts(record: Record, column: str, where: Where, separator: str | None) -> list[str]:
    """Return the value of a column that must be there and hold a list of texts, each checked by `check_text`."""
    values = take_list(record, column, where)
    return [check_text(value, where, f"{column}[{i}]", separator) for i, value in enumerate(values)]


def take_label(record: Record, column: str, where: Where, default: str = "") -> str:
    """Return a short text such as an id or an emotion; `default` where it is missing or null. Numbers become text."""
    value = record.get(column)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise where.error("a text", describe(value), "Put it between quotation marks.", column)
    return " ".join(str(value).split())
