"""Opening what a checkpoint folder holds, with one-line errors where it is broken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pess_hf.errors import PessError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "I have two dogs."


def open_tokenizer(name_or_path: str, **kwargs: Any) -> PreTrainedTokenizerBase:
    """Open a checkpoint's tokenizer and make sure that it can read.

    Without its files some classes come up with an empty vocabulary, under which every text is unknown.

    Args:
        name_or_path: Hub id or folder.
        **kwargs: Passed to `AutoTokenizer.from_pretrained`.

    Raises:
        PessError: If there is no tokenizer, or one without a vocabulary.

    Example:
        >>> open_tokenizer("facebook/bart-base")  # doctest: +SKIP
    """
    from transformers import AutoTokenizer

    cure = "Save the tokenizer into the model's folder."
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **kwargs)
    except ValueError as error:
        reason = " ".join(str(error).split())[:160]
        raise PessError(f"{name_or_path}: expected a tokenizer, found none that opens ({reason}). {cure}") from error
    if not set(tokenizer(_PROBE, add_special_tokens=False)["input_ids"]) - set(tokenizer.all_special_ids):
        raise PessError(f"{name_or_path}: expected a tokenizer, found one without a vocabulary. {cure}")
    return tokenizer


@contextlib.contextmanager
def readable_weights(name_or_path: str) -> Iterator[None]:
    """Turn the error about a weights file that is cut off or no weights file into one line.

    Raises:
        PessError: If the weights cannot be read.

    Example:
        >>> with readable_weights("runs/demo"):
        ...     pass
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise PessError(
            f"{name_or_path}: expected whole weights, found a file that cannot be read ({error}). Fetch it again."
        ) from error
