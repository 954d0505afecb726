"""From checked rows to a `datasets.Dataset` in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pess_hf.errors import PessError

if TYPE_CHECKING:
    import datasets


def persona_features() -> dict[str, Any]:
    """Columns of a persona dataset -> feature."""
    from datasets import Value

    return {"dialogue_id": Value("string"), "utterances": [Value("string")], "persona": [Value("string")]}


def support_features() -> dict[str, Any]:
    """Columns of a support dataset -> feature."""
    from datasets import Value

    text = Value("string")
    return {
        "dialogue_id": text,
        "situation": text,
        "emotion_type": text,
        "problem_type": text,
        "turns": [{"speaker": text, "text": text, "strategy": text}],
        "persona": [[text]],
    }


def to_dataset(rows: Iterable[dict[str, Any]], features: dict[str, Any]) -> datasets.Dataset:
    """Put rows into a dataset with our columns first and extra columns behind, null where a row lacks one.

    Args:
        rows: Checked rows.
        features: Our columns, see `persona_features`; the types of extra columns are inferred.

    Returns:
        A dataset held in memory: no cache file is written.

    Raises:
        PessError: An extra column holds values of different types.
    """
    from datasets import Dataset, Features

    columns: dict[str, list[Any]] = {name: [] for name in features}
    count = 0
    for count, row in enumerate(rows, start=1):
        for name in row.keys() - columns.keys():
            columns[name] = [None] * (count - 1)
        for name, values in columns.items():
            values.append(row.get(name))
    extra = {name: _infer(name, columns[name]) for name in sorted(columns.keys() - features.keys())}
    ordered = {name: columns[name] for name in (*features, *extra)}
    return Dataset.from_dict(ordered, features=Features({**features, **extra}))


def _infer(name: str, values: list[Any]) -> Any:
    import pyarrow
    from datasets import Dataset

    try:
        return Dataset.from_dict({name: values}).features[name]
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise PessError(
            f"column {name!r}: expected values of one type in all records, found a mixture ({reason}). "
            "Make them one type or leave the column out."
        ) from None
