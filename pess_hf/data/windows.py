"""Windows of a dialogue: a few consecutive utterances, and what they tell of the speaker."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets

#: The column that names, for each persona sentence, the utterance that tells it (an index, or None).
TURNS_COLUMN = "persona_turns"


def cut_windows(utterances: Sequence[str], size: int) -> list[list[str]]:
    """Cut a dialogue into consecutive windows; the last one may be shorter.

    Args:
        utterances: One speaker's turns.
        size: Utterances in a window, 1 or more.

    Example:
        >>> cut_windows(["a", "b", "c"], 2)
        [['a', 'b'], ['c']]
    """
    return [list(utterances[start : start + size]) for start in range(0, len(utterances), size)]


def window_rows(
    rows: datasets.Dataset,
    persona_turns: Sequence[Sequence[int | None]],
    sizes: Sequence[int],
    passes: int = 4,
    silent_shares: Sequence[float] | None = None,
    seed: int = 42,
) -> datasets.Dataset:
    """Training rows of windows, beside the whole dialogues.

    Each dialogue is cut `passes` times into consecutive windows of sizes drawn at random. A window's persona are the
    sentences that its utterances tell, in the order of telling. Sentences that no utterance tells are left out, of the
    whole dialogue too: a reader cannot find them. Windows that repeat are kept once.

    Args:
        rows: N persona rows.
        persona_turns: For each row the index of the utterance that tells each of its persona sentences, or None.
        sizes: Utterances in a window; one that stands twice is drawn twice as often.
        passes: How often a dialogue is cut.
        silent_shares: For each row the share, in [0, 1], of its windows that tell nothing which is kept; all by
            default. They teach when to stay silent, and are many.
        seed: Decides the cuts, what is kept, and the order of the rows.

    Returns:
        Shuffled rows with `dialogue_id`, `utterances` and `persona`; an id is `<id>#<first>-<last>` with the window's
        utterances, counted from 0.

    Example:
        >>> from datasets import Dataset
        >>> rows = Dataset.from_dict({"dialogue_id": ["d"], "utterances": [["My dogs bark.", "I sing."]],
        ...     "persona": [["I have dogs.", "I sing."]]})
        >>> sorted(window_rows(rows, [[0, 1]], sizes=[1])["dialogue_id"])
        ['d#0-0', 'd#0-1', 'd#1-1']
    """
    from datasets import Dataset, Features

    generator = random.Random(seed)
    shares = [1.0] * len(rows) if silent_shares is None else silent_shares
    kept: dict[str, dict[str, Any]] = {}
    for row, turns, share in zip(rows, persona_turns, shares, strict=True):
        for start, end in _bounds(len(row["utterances"]), sizes, passes, generator):
            window = _window(row, turns, start, end)
            if window["persona"] or generator.random() < share:
                kept.setdefault(window["dialogue_id"], window)
    windows = list(kept.values())
    generator.shuffle(windows)
    names = ("dialogue_id", "utterances", "persona")
    columns = {name: [window[name] for window in windows] for name in names}
    return Dataset.from_dict(columns, features=Features({name: rows.features[name] for name in names}))


def _bounds(number: int, sizes: Sequence[int], passes: int, generator: random.Random) -> list[tuple[int, int]]:
    """Half-open ranges of utterances: `passes` cuts of the whole, and the whole itself."""
    bounds = [(0, number)]
    for _ in range(passes):
        start = 0
        while start < number:
            end = min(number, start + generator.choice(sizes))
            bounds.append((start, end))
            start = end
    return bounds


def _window(row: dict[str, Any], turns: Sequence[int | None], start: int, end: int) -> dict[str, Any]:
    told = sorted((turn, i) for i, turn in enumerate(turns) if turn is not None and start <= turn < end)
    return {
        "dialogue_id": f"{row['dialogue_id']}#{start}-{end - 1}",
        "utterances": list(row["utterances"][start:end]),
        "persona": [row["persona"][i] for _, i in told],
    }
