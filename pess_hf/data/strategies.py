"""The eight support strategies of ESConv."""

from __future__ import annotations

from pess_hf.errors import PessError
from pess_hf.strategy_names import STRATEGIES as TOKENS
from pess_hf.strategy_names import bare_name

#: The names in PAL's order.
STRATEGIES = tuple(bare_name(token) for token in TOKENS)
_SPELLINGS = {name.casefold(): name for name in STRATEGIES}


def normalise_strategy(name: str) -> str:
    """Map a strategy's name to its one spelling here.

    Case and white space are folded; "Questions" and "Other", which some releases write, are mapped.

    Args:
        name: A strategy as a data file or a user writes it, with or without square brackets around it.

    Returns:
        One of `STRATEGIES`.

    Raises:
        PessError: The name is none of the eight; the message lists them.

    Example:
        >>> normalise_strategy("Questions")
        'Question'
    """
    folded = bare_name(str(name)).casefold()
    if folded not in _SPELLINGS:
        raise PessError(f"unknown strategy {name!r}: expected one of {', '.join(STRATEGIES)}. Correct the spelling.")
    return _SPELLINGS[folded]
