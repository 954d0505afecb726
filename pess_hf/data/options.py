"""The settings that every reader shares."""

from __future__ import annotations

from dataclasses import dataclass

from pess_hf.text import DEFAULT_SEPARATOR


@dataclass(frozen=True)
class Options:
    """Settings of one load.

    Args:
        separator: Its mark is replaced by a comma inside every text, and white space is folded; None leaves texts
            alone.
        require_persona: Whether a persona record without personas is an error; if not, its persona is empty.
        persona_turns: Whether rows whose source says which turn told a sentence bring the column `persona_turns`.
        sample_reference: Whether the embedded support dialogues bring their reference personas.
    """

    separator: str | None = DEFAULT_SEPARATOR
    require_persona: bool = True
    persona_turns: bool = False
    sample_reference: bool = False
