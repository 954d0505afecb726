"""The place of a record in its file, and the one-line error that names it."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Any

from pess_hf.errors import PessError

_KINDS = {dict: "object", list: "list", str: "text", bool: "true/false", int: "number", float: "number"}
_LONGEST_EXCERPT = 48

_excerpt = reprlib.Repr()
_excerpt.maxstring = _excerpt.maxother = _LONGEST_EXCERPT
_excerpt.maxlist = _excerpt.maxdict = 3


def describe(value: Any) -> str:
    """Say in a few words what `value` is, with a short excerpt, on one line.

    Example:
        >>> describe(["tea", 3])
        "a list (['tea', 3])"
        >>> describe(None)
        'nothing (null)'
    """
    if value is None:
        return "nothing (null)"
    kind = _KINDS.get(type(value), type(value).__name__)
    article = "an" if kind[0] in "aeiou" else "a"
    return f"{article} {kind} ({_excerpt.repr(value)})"


@dataclass(frozen=True)
class Where:
    """The place of one record: a file (or dataset) and the number of a line, row or record in it.

    Args:
        file: The path as the caller gave it, or the id of a Hub dataset.
        unit: What `number` counts: "line", "row" or "record".
        number: Counted from 1.

    Example:
        >>> str(Where("chats.jsonl", "line", 3))
        'chats.jsonl, line 3'
    """

    file: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"

    def error(self, expected: str, found: str, cure: str, column: str | None = None) -> PessError:
        """Build the error for this place; the caller raises it.

        Args:
            expected: What should stand here.
            found: What stands here.
            cure: What the user can do about it, as one or two whole sentences.
            column: The column (key) at fault, if it is one.

        Returns:
            A `PessError` whose message is one line.

        Example:
            >>> print(Where("a.jsonl", "line", 1).error("a list", "a number (3)", "Write a list.", "persona"))
            a.jsonl, line 1, column 'persona': expected a list, found a number (3). Write a list.
        """
        place = str(self) if column is None else f"{self}, column {column!r}"
        return PessError(" ".join(f"{place}: expected {expected}, found {found}. {cure}".split()))
