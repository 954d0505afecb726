"""What stands between a person in distress and the generator: a check of every message and every reply, and a notice.

The default check is a short list of English phrases. It is a last resort, not a risk assessment: it misses what is
said in other words, in other languages or between the lines, and it answers to some messages that mean no harm.
"""

from __future__ import annotations

import re
from collections.abc import Callable

#: For the README, the model card and the start of a chat.
NOTICE = (
    "This is research software, not a substitute for professional help. It does not understand what it reads, and its "
    "replies can be wrong, generic or hurtful. It must not be used for crisis support, for diagnosis or treatment, to "
    "decide about a person, or with people in distress unless a trained person reads along. If you or somebody else "
    "is in danger, call the emergency services or a crisis line where you are."
)
#: The fixed answer of the default check. It names no number: numbers differ between countries and change.
POINTER_TO_HELP = (
    "I am a computer program and cannot help with this, but people can, and you deserve their help now. If you are in "
    "immediate danger, please call your local emergency services. You can also call or text a crisis line where you "
    "live, or tell someone you trust how you feel and ask them to stay with you."
)

#: A check: text and role ("user" for the seeker, "assistant" for a reply) -> None if it may pass, else what is
#: answered instead.
SafetyCheck = Callable[[str, str], str | None]

_SELF_HARM = re.compile(
    r"""\b(?:
    (?:kill|killing|hang|hanging|shoot|shooting|drown|drowning|poison|poisoning|unalive)\ (?:my|your)self
    | (?:hurt|hurting|harm|harming|cut|cutting|burn|burning|starve|starving)\ (?:my|your)self
    | (?:end|ending|take|taking|took)\ (?:my|your)\ (?:own\ )?life
    | suicid(?:e|al|ality) | self[-\ ]harm(?:ing)?
    | (?:want|wanna|plan|planning|wish|ready)\ (?:to\ )?die
    | wish\ (?:that\ )?i\ (?:was|were)\ (?:dead|never\ born)
    | (?:better\ off|rather\ be)\ dead
    | (?:not|\w+n't|dont|no\ longer)\ want\ to\ (?:be\ alive|wake\ up|exist|live(?!\ (?:in|at|with|near|here|there)\b))
    | (?:no|not\ a)\ reason\ (?:to\ live|to\ go\ on\ living) | nothing\ to\ live\ for
    | end\ it\ all | overdose
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)


def default_safety_check(text: str, role: str) -> str | None:
    """Answer explicit wording of self-harm or suicide with a fixed pointer to human help.

    Seeker messages and replies are checked for the same English phrases, such as "kill myself", "end my life",
    "suicidal" or "want to die". Negations and quotations count too: a needless pointer is the smaller harm.

    Args:
        text: The message or reply.
        role: "user" or "assistant"; this check treats them alike.

    Returns:
        `POINTER_TO_HELP`, or None if nothing was found.

    Example:
        >>> default_safety_check("I want to kill myself.", "user") == POINTER_TO_HELP
        True
        >>> default_safety_check("This job is killing me.", "user") is None
        True
    """
    plain = " ".join(text.replace("\u2019", "'").split())
    return POINTER_TO_HELP if _SELF_HARM.search(plain) else None


def no_safety_check(text: str, role: str) -> str | None:
    """Let everything pass: for measuring on public test data, never for people.

    Example:
        >>> no_safety_check("anything", "user") is None
        True
    """
    return None
