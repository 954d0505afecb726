"""Which rows must stay on one side of a split."""

from __future__ import annotations


def group_of(dialogue_id: str) -> str:
    """Name the group of a persona row; rows of one group belong on one side of a split.

    A group shares a dialogue or a person: rows of Persona-Chat and Synthetic-Persona-Chat go by dialogue, those of
    Multi-Session Chat by the pair of people, whom the session files share. Any other id is a group of its own.

    Args:
        dialogue_id: The id that `load_persona_dataset` gave the row.

    Returns:
        The group's name.

    Example:
        >>> group_of("msc/session_2_valid/valid_7/bot_0") == group_of("msc/session_1_valid/valid_7/bot_1")
        True
        >>> group_of("personachat/valid/12/your")
        'personachat/valid/12'
    """
    parts = dialogue_id.split("/")
    if len(parts) != 4 or parts[0] not in ("msc", "personachat", "spc"):
        return dialogue_id
    return f"msc/{parts[2]}" if parts[0] == "msc" else "/".join(parts[:3])
