"""JSON files that are not ours to trust: what is wrong with one is said in one line, with the cure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pess_hf.cli import describe_os_error
from pess_hf.errors import PessError


def read_json(path: str | Path, cure: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        cure: What to do about a broken one, as a sentence.

    Raises:
        PessError: If it cannot be read, or is not JSON.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "messages.json"
        >>> _ = path.write_text('[{"role": "user"}]')
        >>> read_json(path, cure="Write a list.")
        [{'role': 'user'}]
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise PessError(describe_os_error(error, path)) from error
    except (ValueError, RecursionError) as error:
        raise PessError(f"{path}: expected JSON, found what cannot be read ({error}). {cure}") from error


def read_json_object(path: str | Path, cure: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        path: The file.
        cure: What to do about a broken one, as a sentence.

    Raises:
        PessError: If it cannot be read, is not JSON, or holds something else.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "config.json"
        >>> _ = path.write_text('{"rank": 8}')
        >>> read_json_object(path, cure="Save it again.")
        {'rank': 8}
    """
    value = read_json(path, cure)
    if not isinstance(value, dict):
        raise PessError(f"{path}: expected a JSON object, found {type(value).__name__}. {cure}")
    return value
