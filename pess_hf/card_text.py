"""How values are written in a model card: table cells, Python strings, numbers, times."""

from __future__ import annotations

import json
import sys

from pess_hf.redaction import without_paths


def cell(value: object) -> str:
    """Write a value on one line, safe inside a Markdown table and without folders of a machine.

    Example:
        >>> cell("`a` /srv/b")
        "'a' b"
    """
    text = "" if value is None else str(value)
    return without_paths(" ".join(text.split())).replace("|", "\\|").replace("`", "'")


def literal(text: str) -> str:
    """Write a text as a Python string in double quotes.

    Example:
        >>> literal(" | ")
        '" | "'
    """
    return json.dumps(text, ensure_ascii=False)


def number(value: float | None) -> str:
    """Write a measured number; nothing for one that was not measured.

    Example:
        >>> number(0.5), number(None)
        ('0.5000', '')
    """
    return "" if value is None else f"{value:.4f}"


def duration(seconds: object) -> str:
    """Write seconds as people say them.

    Example:
        >>> duration(312.4), duration(None)
        ('5 min', '')
    """
    if not isinstance(seconds, int | float) or not 0 <= seconds <= sys.float_info.max:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
