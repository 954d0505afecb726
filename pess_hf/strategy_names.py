"""The names of the eight support strategies: the one list, free of imports so that every part can read it."""

#: ESConv's strategies as PAL's special tokens, in PAL's order; the order fixes token ids, so it never changes.
STRATEGIES = (
    "[Question]",
    "[Restatement or Paraphrasing]",
    "[Reflection of feelings]",
    "[Self-disclosure]",
    "[Affirmation and Reassurance]",
    "[Providing Suggestions]",
    "[Information]",
    "[Others]",
)
#: Other spellings in releases of ESConv -> the name here.
ALIASES = {"questions": "Question", "other": "Others"}


def bare_name(strategy: str) -> str:
    """A strategy's name without brackets and with single blanks; another spelling becomes the one used here.

    Args:
        strategy: A name or a token, in any case.

    Returns:
        The name, in the case it was given unless it was another spelling.

    Example:
        >>> bare_name("[Providing  Suggestions]"), bare_name("Questions")
        ('Providing Suggestions', 'Question')
    """
    name = " ".join(" ".join(strategy.split()).strip("[]").split())
    return ALIASES.get(name.casefold(), name)
