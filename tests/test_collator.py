"""Rows to a training batch."""

import pytest
import torch
from datasets import Dataset
from tiny_tokenizers import byte_level_tokenizer, unigram_tokenizer

from pess_hf.data.collator import PersonaCollator, pad_labels
from pess_hf.errors import PessError

ROWS = [
    {"utterances": ["I have two dogs.", "I sing."], "persona": ["I have two dogs.", "I sing in a choir."]},
    {"utterances": ["I play chess."], "persona": []},
    {"utterances": ["My name is Ann."], "persona": ["My name is Ann."]},
]


def test_rows_keep_their_names():
    named = [{**row, "dialogue_id": f"d{n}"} for n, row in enumerate(ROWS)]
    assert PersonaCollator(byte_level_tokenizer())(named)["dialogue_id"] == [f"d{n}" for n in range(len(ROWS))]


@pytest.mark.parametrize("make_tokenizer", [byte_level_tokenizer, unigram_tokenizer])
def test_a_batch_holds_padded_sources_and_targets(make_tokenizer):
    tokenizer = make_tokenizer()
    batch = PersonaCollator(tokenizer)(ROWS)
    sources = [
        tokenizer(text)["input_ids"] for text in ("I have two dogs. | I sing.", "I play chess.", "My name is Ann.")
    ]
    targets = [
        tokenizer(text)["input_ids"] for text in ("I have two dogs. | I sing in a choir.", "", "My name is Ann.")
    ]
    assert set(batch) == {"input_ids", "attention_mask", "labels", "persona"}
    assert batch["persona"] == [row["persona"] for row in ROWS]
    longest = max(map(len, sources))
    assert batch["input_ids"].tolist() == [ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids in sources]
    assert batch["attention_mask"].tolist() == [[1] * len(ids) + [0] * (longest - len(ids)) for ids in sources]
    longest = max(map(len, targets))
    assert batch["labels"].tolist() == [ids + [-100] * (longest - len(ids)) for ids in targets]
    assert all(batch[name].dtype == torch.long for name in ("input_ids", "attention_mask", "labels"))


def test_sources_are_padded_to_a_multiple():
    batch = PersonaCollator(byte_level_tokenizer(), pad_to_multiple_of=16)(ROWS)
    assert batch["input_ids"].shape[1] % 16 == 0
    assert batch["attention_mask"].shape == batch["input_ids"].shape


def test_limits_and_separators_are_those_of_the_collator():
    tokenizer = byte_level_tokenizer()
    collator = PersonaCollator(tokenizer, " ; ", " / ", max_source_length=8, max_target_length=9)
    batch = collator(ROWS[:1])
    assert batch["input_ids"].tolist() == [tokenizer("I sing.")["input_ids"]]
    assert batch["labels"].tolist() == [tokenizer("I have two dogs.")["input_ids"]]
    assert batch["persona"] == [ROWS[0]["persona"]], "the matching reads the whole persona"
    long = PersonaCollator(tokenizer, " ; ", " / ")(ROWS[:1])
    assert tokenizer.decode(long["input_ids"][0], skip_special_tokens=True) == "I have two dogs. ; I sing."
    assert tokenizer.decode(long["labels"][0], skip_special_tokens=True) == "I have two dogs. / I sing in a choir."


@pytest.mark.parametrize("column", ["utterances", "persona"])
def test_a_missing_column_is_one_line(column):
    row = {name: value for name, value in ROWS[0].items() if name != column} | {"text": "x"}
    with pytest.raises(
        PessError, match=f"expected the column '{column}', found .*text.*load_persona_dataset"
    ) as caught:
        PersonaCollator(byte_level_tokenizer())([row])
    assert "\n" not in str(caught.value)


def test_truncation_is_told_once_for_sources_and_once_for_targets(caplog):
    collator = PersonaCollator(byte_level_tokenizer(), max_source_length=8, max_target_length=8)
    rows = Dataset.from_list(ROWS)
    collator.warn_of_truncation(rows)
    messages = [record.getMessage() for record in caplog.records]
    # Sources: "I have two dogs." goes; "I play chess." and "My name is Ann." may be cut. Targets: see the counts.
    assert len(messages) == 2
    assert "oldest utterances" in messages[0] and "max_source_length" in messages[0]
    assert "last sentences" in messages[1] and "max_target_length" in messages[1]


def test_the_counts_of_the_warning(caplog):
    # 8 tokens hold "I sing." alone of the first row, and "I have two dogs." of its persona is cut.
    collator = PersonaCollator(byte_level_tokenizer(), max_source_length=8, max_target_length=5)
    collator.warn_of_truncation(Dataset.from_list(ROWS[:2]))
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "1 oldest utterances in 1 of 2 dialogues are left out or cut: they do not fit max_source_length.",
        "2 last sentences in 1 of 2 dialogues are left out or cut: they do not fit max_target_length.",
    ]


def test_batches_do_not_repeat_the_warning(caplog):
    collator = PersonaCollator(byte_level_tokenizer(), max_source_length=8, max_target_length=5)
    collator(ROWS)
    assert not caplog.records


def test_what_fits_is_not_worth_a_word(caplog):
    PersonaCollator(byte_level_tokenizer()).warn_of_truncation(Dataset.from_list(ROWS))
    assert not caplog.records


def test_labels_are_padded_on_the_right_and_stay_integers():
    labels = pad_labels([[], [5, 2]])
    assert labels.dtype == torch.long
    assert labels.tolist() == [[-100, -100], [5, 2]]
