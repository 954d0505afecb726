"""What training and test rows have in common: people, dialogues, whole personas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pess_hf.data.groups import row_groups
from pess_hf.text import fold

if TYPE_CHECKING:
    import datasets

#: A persona of fewer sentences ("i like dogs .") is shared by chance.
_PERSONA_SENTENCES = 2


@dataclass(frozen=True)
class Overlap:
    """Rows of one set that another set already shows, by what is shared.

    Args:
        groups: Rows that share a dialogue or a speaker: by id, or because they hold the same turns.
        personas: Rows whose whole persona, of two sentences or more, is a persona of the other set too.

    Example:
        >>> Overlap(groups=[0, 2], personas=[2, 5]).rows
        [0, 2, 5]
    """

    groups: list[int]
    personas: list[int]

    @property
    def rows(self) -> list[int]:
        """Every such row once, ascending."""
        return sorted({*self.groups, *self.personas})


def find_overlap(rows: datasets.Dataset, others: datasets.Dataset) -> Overlap:
    """Find the rows that share a speaker, a dialogue or a whole persona with other rows.

    Args:
        rows: Persona rows, looked at one by one.
        others: Persona rows, what they are compared with.

    Returns:
        Indices into `rows`.

    Example:
        >>> from pess_hf.data import load_persona_dataset
        >>> find_overlap(load_persona_dataset("sample", "test"), load_persona_dataset("sample", "train")).rows
        []
    """
    ids = [*rows["dialogue_id"], *others["dialogue_id"]]
    groups = row_groups(ids, [*rows["utterances"], *others["utterances"]])
    other_groups = set(groups[len(rows) :])
    other_personas = {_persona_key(persona) for persona in others["persona"]} - {None}
    return Overlap(
        groups=[row for row, group in enumerate(groups[: len(rows)]) if group in other_groups],
        personas=[row for row, persona in enumerate(rows["persona"]) if _persona_key(persona) in other_personas],
    )


def without_overlap(rows: datasets.Dataset, others: datasets.Dataset) -> datasets.Dataset:
    """The rows that share nothing with other rows; see `find_overlap`.

    Example:
        >>> from pess_hf.data import load_persona_dataset
        >>> rows = load_persona_dataset("sample")
        >>> len(without_overlap(rows, rows.select(range(10)))) <= len(rows) - 10
        True
    """
    found = set(find_overlap(rows, others).rows)
    return rows.select([row for row in range(len(rows)) if row not in found])


def _persona_key(persona: Sequence[str]) -> frozenset[str] | None:
    sentences = frozenset(map(fold, persona))
    return sentences if len(sentences) >= _PERSONA_SENTENCES else None
