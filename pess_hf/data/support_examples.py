"""From support dialogues to training examples: one for each supporter turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pess_hf.errors import PessError

if TYPE_CHECKING:
    import datasets

#: The columns of an example.
EXAMPLE_COLUMNS = ("dialogue_id", "turn", "context", "persona", "strategy", "response")


def build_support_examples(rows: datasets.Dataset) -> datasets.Dataset:
    """Turn support dialogues into one example for each supporter turn.

    Args:
        rows: Support rows, as `load_support_dataset` gives them.

    Returns:
        A dataset with `dialogue_id`, `turn` (the index of the supporter turn), `context` (the turns before it),
        `persona` (what was known before it), `strategy` and `response`.

    Raises:
        PessError: A supporter turn has no strategy, or there is no supporter turn at all.

    Example:
        >>> from pess_hf.data import load_support_dataset
        >>> build_support_examples(load_support_dataset("sample", "test"))[0]["context"]
        []
    """
    from datasets import Dataset, Features, Value

    examples = [example for row in rows for example in _examples_of(row)]
    if not examples:
        raise PessError("support dialogues: expected at least one supporter turn to learn from, found none.")
    text = Value("string")
    features = Features(
        {
            "dialogue_id": text,
            "turn": Value("int64"),
            "context": [{"speaker": text, "text": text, "strategy": text}],
            "persona": [text],
            "strategy": text,
            "response": text,
        }
    )
    return Dataset.from_list(examples, features=features)


def _examples_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    turns = row["turns"]
    examples = []
    for t, turn in enumerate(turns):
        if turn["speaker"] != "supporter":
            continue
        if turn["strategy"] is None:
            raise PessError(
                f"dialogue {row['dialogue_id']!r}, turn {t}: expected the supporter's strategy, found none. "
                "Label it ('Others' is one of the eight) or leave the dialogue out."
            )
        known = {"persona": list(row["persona"][t]), "strategy": turn["strategy"], "response": turn["text"]}
        examples.append({"dialogue_id": row["dialogue_id"], "turn": t, "context": turns[:t], **known})
    return examples
