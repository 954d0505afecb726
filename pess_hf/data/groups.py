"""Which rows must stay on one side of a split, told by their ids and by their words."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

#: How ParlAI numbers a Persona-Chat dialogue: `valid_7` is dialogue 7 of the validation file.
_CONVAI2_ID = re.compile(r"(train|valid|test)_(\d+)")
#: A Persona-Chat file as ParlAI names it: `valid_both_original_no_cands` holds the dialogues `valid_0`, `valid_1`, ...
_CONVAI2_FILE = re.compile(r"(train|valid|test)_(?:self|other|both|none)_\w+")
#: Shorter utterances ("hi , how are you ?") are said in many dialogues.
_LONG_WORDS = 5
#: An utterance of more rows than this is a stock phrase and tells nothing about where it comes from.
_STOCK_ROWS = 20
#: Two rows with so many long utterances in common, more than half of the shorter row's, are one speaker's same turns.
_SHARED_UTTERANCES = 3


def group_of(dialogue_id: str) -> str:
    """Name the group of a persona row; rows of one group belong on one side of a split.

    A group shares a dialogue or a person: rows of Persona-Chat and Synthetic-Persona-Chat go by dialogue, those of
    Multi-Session Chat by the pair of people, whom the session files share. Session 1 continues Persona-Chat: its
    episode `valid_7` and dialogue 7 of ParlAI's file `valid_both_original.txt` (or another kind of that split) are one
    group. Any other id is a group of its own.

    Args:
        dialogue_id: The id that `load_persona_dataset` gave the row.

    Returns:
        The group's name.

    Example:
        >>> group_of("msc/session_2_valid/valid_7/bot_0") == group_of("msc/session_1_valid/valid_7/bot_1")
        True
        >>> group_of("personachat/valid_both_original/7/your"), group_of("msc/session_1_valid/valid_7/bot_0")
        ('convai2/valid_7', 'convai2/valid_7')
        >>> group_of("personachat/mine/12/your")
        'personachat/mine/12'
    """
    parts = dialogue_id.split("/")
    if len(parts) != 4 or parts[0] not in ("msc", "personachat", "spc"):
        return dialogue_id
    kind, stem, number, _ = parts
    if kind == "msc":
        return f"convai2/{number}" if _CONVAI2_ID.fullmatch(number) else f"msc/{number}"
    file = _CONVAI2_FILE.fullmatch(stem) if kind == "personachat" else None
    return f"convai2/{file[1]}_{number}" if file else "/".join(parts[:3])


def row_groups(dialogue_ids: Sequence[str], utterances: Sequence[Sequence[str]]) -> list[str]:
    """Group of each row: by id (`group_of`), joined where two rows hold the same turns under different ids.

    Args:
        dialogue_ids: N ids.
        utterances: N lists of turns.

    Returns:
        N names; rows of one name belong on one side of a split.

    Example:
        >>> said = ["I walk my two dogs daily.", "We moved to the sea in May.", "My son plays the old organ."]
        >>> row_groups(["a", "b", "c"], [said, ["Hi!", *said], ["I sing."]])
        ['a', 'a', 'c']
    """
    names = [group_of(dialogue_id) for dialogue_id in dialogue_ids]
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for one, other in same_turns(utterances):
        low, high = sorted((root(names[one]), root(names[other])))
        parent[high] = low
    return [root(name) for name in names]


def same_turns(utterances: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Pairs of rows that hold the same speaker's same turns, whatever their ids, letter case and punctuation.

    Two rows do if they share at least three utterances of five words or more, more than half of the shorter row's.

    Args:
        utterances: N lists of turns.

    Returns:
        Index pairs, the smaller first, ascending.

    Example:
        >>> said = ["I walk my two dogs daily.", "We moved to the sea in May.", "My son plays the old organ."]
        >>> same_turns([said, [turn.upper() for turn in said], ["I sing."]])
        [(0, 1)]
    """
    keys = [_long_keys(turns) for turns in utterances]
    rows_of: defaultdict[str, list[int]] = defaultdict(list)
    for row, row_keys in enumerate(keys):
        for key in row_keys:
            rows_of[key].append(row)
    shared = Counter(pair for rows in rows_of.values() if len(rows) <= _STOCK_ROWS for pair in combinations(rows, 2))
    return sorted(
        (one, other)
        for (one, other), number in shared.items()
        if number >= _SHARED_UTTERANCES and 2 * number > min(len(keys[one]), len(keys[other]))
    )


def _long_keys(turns: Iterable[str]) -> set[str]:
    """The long utterances of a row without case, white space and punctuation."""
    words = (re.findall(r"\w+", turn.casefold()) for turn in turns)
    return {"".join(of_turn) for of_turn in words if len(of_turn) >= _LONG_WORDS}
