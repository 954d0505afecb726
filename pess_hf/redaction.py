"""Taking tokens and folders of a machine out of texts that are published, and finding them in files."""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub import get_token

_SECRET = re.compile(r"\b(?:hf_|api_org_|sk-|ghp_|gho_|github_pat_|glpat-|xox[abp]-|AKIA)[\w-]{8,}")
_SECRET_OPTION = re.compile(r"(--[\w-]*(?:token|secret|password|api[_-]?key))(\s+|=)(\S+)", re.IGNORECASE)
# Stricter than what is redacted: a tokenizer's vocabulary holds many a word that begins like a token.
_CERTAIN_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:hf_|api_org_)[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}"
    r"|glpat-[\w-]{20,}|sk-[\w-]{32,}|xox[abp]-[\w-]{20,}|AKIA[A-Z0-9]{16})"
)
#: A value that is a place on a machine and nothing else; "/" and "/s" may be tokens.
_PLACE = re.compile(r"(?:/[^/\s]+/|~/|[A-Za-z]:[\\/]|\\\\\w)[^\n]+")
_ABSOLUTE_PATH = re.compile(r"(?<![\w:/.~\\])(?:~|/|[A-Za-z]:[\\/])[^\s'\"=]*")


def without_paths(text: str) -> str:
    """Cut every absolute path down to its last part: folders of a machine are nobody's business.

    Args:
        text: Any text.

    Returns:
        The text without folders.

    Example:
        >>> without_paths("python /srv/somebody/train.py")
        'python train.py'
    """

    def last_part(match: re.Match[str]) -> str:
        return re.split(r"[\\/]", match[0].rstrip("\\/"))[-1] or "."

    return _ABSOLUTE_PATH.sub(last_part, text)


def place_of_machine(value: Any) -> str | None:
    """Where in nested dicts and lists the first text stands that is an absolute path.

    Args:
        value: What a JSON file holds.

    Returns:
        Its keys, joined by dots, or None.

    Example:
        >>> place_of_machine({"encoder": {"layers": 6, "vocab_file": "/srv/somebody/vocab.txt"}})
        'encoder.vocab_file'
    """
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, str) and _PLACE.fullmatch(item):
            return str(key)
        inner = place_of_machine(item)
        if inner is not None:
            return f"{key}.{inner}"
    return None


def without_secrets(text: str, *known: str | None) -> str:
    """Replace anything that looks like a token, and the token of this machine, by ``***``.

    Args:
        text: Any text.
        *known: Further tokens.

    Returns:
        The text without them.

    Example:
        >>> without_secrets("train --hub_token abc")
        'train --hub_token ***'
    """
    for token in (get_token(), *known):
        if token:
            text = text.replace(token, "***")
    return _SECRET.sub("***", _SECRET_OPTION.sub(r"\1\2***", text))


def holds_secret(text: str, *known: str | None) -> bool:
    """Whether a text holds the token of this machine, one of `known`, or what can be nothing but a token.

    Args:
        text: Any text.
        *known: Further tokens.

    Returns:
        Whether there is one.

    Example:
        >>> holds_secret("fine"), holds_secret("key: abc", "abc")
        (False, True)
    """
    return any(token and token in text for token in (get_token(), *known)) or bool(_CERTAIN_SECRET.search(text))
