"""The first rows of a dataset, where a setting limits how many are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datasets


def first_rows(rows: datasets.Dataset, number: int | None) -> datasets.Dataset:
    """The first `number` rows; all of them where there are no more, or where it is None.

    Example:
        >>> from pess_hf.data import load_persona_dataset
        >>> len(first_rows(load_persona_dataset("sample", "test"), 3))
        3
    """
    return rows if number is None else rows.select(range(min(number, len(rows))))
