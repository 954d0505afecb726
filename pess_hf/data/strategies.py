"""The eight support strategies of ESConv."""

from __future__ import annotations

from pess_hf.errors import PessError

#: In the order in which PAL numbers them; the order fixes token ids, so it never changes.
STRATEGIES = (
    "Question",
    "Restatement or Paraphrasing",
    "Reflection of feelings",
    "Self-disclosure",
    "Affirmation and Reassurance",
    "Providing Suggestions",
    "Information",
    "Others",
)
_SPELLINGS = {name.casefold(): name for name in STRATEGIES} | {"questions": "Question", "other": "Others"}


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
    folded = " ".join(str(name).split()).strip("[]").casefold()
    if folded not in _SPELLINGS:
        raise PessError(f"unknown strategy {name!r}: expected one of {', '.join(STRATEGIES)}. Correct the spelling.")
    return _SPELLINGS[folded]
