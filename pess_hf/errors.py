"""The one error a user can mend, and how a recipe shows it."""

from __future__ import annotations


class PessError(ValueError):
    """Something the user can mend: a file, a column, a setting.

    The message is one line that says what was expected, what was found, where, and what to do.
    Recipes print it as ``error: ...`` and exit with status 1; library callers catch it as a `ValueError`.

    Example:
        >>> raise PessError("dialogues.jsonl, line 3: expected a JSON object, found a list.")
        Traceback (most recent call last):
        ...
        pess_hf.errors.PessError: dialogues.jsonl, line 3: expected a JSON object, found a list.
    """
