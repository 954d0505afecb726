"""Malformed files: each error is one line with the place, what was expected, what was found, and a cure."""

import json

import pytest

from pess_hf.data import load_persona_dataset, load_support_dataset
from pess_hf.errors import PessError

GOOD = {"utterances": ["a"], "persona": ["b"]}
TURN = {"id": "bot_0", "text": "a", "agg_persona_list": []}
SPC_HEADER = "user 1 personas,user 2 personas,Best Generated Conversation\n"


def message(load, *args, **kwargs) -> str:
    with pytest.raises(PessError) as caught:
        load(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def persona_error(tmp_path, name: str, content) -> str:
    """Write the content (text, bytes, or a list of JSON lines); return the error's message without its folder."""
    if isinstance(content, list):
        content = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in content)
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return message(load_persona_dataset, path).replace(f"{tmp_path}/", "")


# name of the file, its content, what the message must hold
CASES = {
    "not JSON": ("a.jsonl", [GOOD, '{"utterances": [oops]}'], ["a.jsonl, line 2:", "JSON", "column 17"]),
    "cut JSON": ("a.jsonl", '{"utterances": ["hel', ["line 1:", "column 17", "Unterminated string"]),
    "endless number": ("a.jsonl", "1" * 5000, ["line 1: expected JSON", "digits"]),
    "nested deep": ("a.jsonl", "[" * 99999, ["line 1: expected JSON"]),
    "huge extra": ("a.jsonl", [{**GOOD, "n": 10**30}], ["column 'n'"]),
    "a list": ("a.jsonl", ["[1]"], ["line 1: expected a JSON object, found a list ([1])"]),
    "no utterances": ("a.jsonl", [GOOD, {"persona": []}], ["line 2, column 'utterances'", "the columns 'persona'"]),
    "text for list": (
        "a.jsonl",
        [{"utterances": "hi", "persona": []}],
        ["column 'utterances': expected a list", "Wrap"],
    ),
    "number in list": (
        "a.jsonl",
        [{"utterances": ["a"], "persona": ["b", 3]}],
        ["column 'persona[1]'", "a number (3)"],
    ),
    "null utterances": ("a.jsonl", [{"utterances": None, "persona": []}], ["'utterances'", "nothing (null)"]),
    "no turn": ("a.jsonl", [{"utterances": [], "persona": []}], ["'utterances': expected at least one utterance"]),
    "blank turn": ("a.jsonl", [{"utterances": ["a", " "], "persona": []}], ["column 'utterances[1]'", "a blank one"]),
    "id of bad type": ("a.jsonl", [{**GOOD, "dialogue_id": [1]}], ["column 'dialogue_id': expected a text"]),
    "key twice": ("a.jsonl", ['{"persona": [], "utterances": ["a"], "persona": []}'], ["column 'persona'", "twice"]),
    "surrogate": ("a.jsonl", ['{"utterances": ["\\ud83d"], "persona": []}'], ["'utterances[0]'", "surrogate"]),
    "mixed extra": ("a.jsonl", [{**GOOD, "n": 1}, {**GOOD, "n": "x"}], ["column 'n': expected values of one type"]),
    "empty": ("a.jsonl", "", ["a.jsonl: expected records, found an empty file"]),
    "blank": ("a.jsonl", "\n\n", ["a.jsonl: expected records, found none"]),
    "not UTF-8": ("a.jsonl", b'{"utterances": ["caf\xe9"]}', ["line 1: expected UTF-8", "byte 0xe9 at column 21"]),
    "UTF-16": ("a.txt", "1 hi\thello\n".encode("utf-16"), ["line 1: expected UTF-8"]),
    "JSON object": ("a.json", '{"utterances": ["a"]}', ["a.json: expected a JSON list"]),
    "JSON broken": (
        "a.json",
        '[{"utterances": ["a"],\n "persona" []}]',
        ["a.json, line 2: expected JSON", "column 12"],
    ),
    "JSON record": ("a.json", "[3]", ["a.json, record 1: expected a JSON object"]),
    "unknown extension": ("a.tsv", "x", [".txt, .csv, .jsonl, .json, .parquet", "'.tsv'"]),
    "no extension": ("a", "x", ["found 'none'"]),
    "no Parquet": ("a.parquet", "not that", ["a.parquet: expected a Parquet file"]),
    "number jumps": ("a.txt", "1 your persona: b.\n3 a\tb\n", ["line 2: expected the line number 2", "found 3"]),
    "head is cut": ("a.txt", "4 a\tb\n", ["line 1: expected the line number 1", "found 4"]),
    "no number": ("a.txt", "1 your persona: b.\nhello\n", ["line 2: expected a line number"]),
    "no tab": ("a.txt", "1 your persona: b.\n2 hello the", ["line 2: expected two turns with a tab between"]),
    "cut at tab": ("a.txt", "1 your persona: b.\n2 hello\t", ["line 2, column 'tab column 1'", "a blank one"]),
    "no turns": (
        "a.txt",
        "1 your persona: b.\n1 your persona: c.\n2 a\tb\n",
        ["line 1: expected a dialogue with turns"],
    ),
    "no turns at the end": (
        "a.txt",
        "1 your persona: c.\n2 a\tb\n1 your persona: b.\n",
        ["line 3: expected a dialogue"],
    ),
    "late persona": ("a.txt", "1 a\tb\n2 your persona: c.\n", ["line 2: expected a pair of turns"]),
    "silent": ("a.txt", "1 your persona: c.\n2 a\t__SILENCE__\n", ["line 1:", "'your' persona without a turn"]),
    "blank persona": ("a.txt", "1 your persona:\n2 a\tb\n", ["line 1, column 'your persona'", "a blank one"]),
    "header": (
        "a.csv",
        "a,b\n1,2\n",
        ["a.csv, line 1: expected a header with the columns 'user 1 personas'", "found 'a', 'b'"],
    ),
    "header twice": ("a.csv", "a,b,a\n1,2,3\n", ["line 1, column 'a': expected each column once"]),
    "blank header": ("a.csv", " \n1\n", ["line 1: expected a header"]),
    "header only": ("a.csv", SPC_HEADER, ["a.csv: expected records, found none"]),
    "SPC column": (
        "a.csv",
        "user 1 personas,Best Generated Conversation\na,User 1: a\n",
        ["line 1", "user 2 personas"],
    ),
    "cells": ("a.csv", SPC_HEADER + "a,b\n", ["row 1: expected 3 cells, found 2"]),
    "open quote": ("a.csv", SPC_HEADER + 'a,b,"User 1: hi\n', ["line 2: expected comma-separated cells"]),
    "one user": (
        "a.csv",
        SPC_HEADER + "a,b,User 1: hi\n",
        ["row 1, column 'Best Generated Conversation'", "'User 2:'"],
    ),
    "MSC no text": ("a.jsonl", [{"dialog": [{"id": "bot_0"}]}], ["line 1, column 'text'"]),
    "MSC speaker": ("a.jsonl", [{"dialog": [{**TURN, "id": "bot_7"}]}], ["column 'dialog[0].id'", "bot_7"]),
    "MSC summary": ("a.jsonl", [{"dialog": [{"id": "bot_0", "text": "a"}]}], ["column 'agg_persona_list'"]),
    "MSC id": (
        "a.jsonl",
        [{"dialog": [TURN, {**TURN, "id": "bot_1"}]}],
        ["line 1: expected the key 'initial_data_id'"],
    ),
    "MSC one speaker": ("a.jsonl", [{"dialog": [TURN], "initial_data_id": "x"}], ["turns of 'bot_1'"]),
    "MSC no turn": ("a.jsonl", [{"dialog": [], "initial_data_id": "x"}], ["turns of 'bot_0'"]),
    "MSC turn": ("a.jsonl", [{"dialog": ["a"], "initial_data_id": "x"}], ["column 'dialog[0]'", "an object"]),
}


@pytest.mark.parametrize("case", CASES)
def test_persona_file(tmp_path, case):
    name, content, parts = CASES[case]
    text = persona_error(tmp_path, name, content)
    for part in parts:
        assert part in text


SEEKER, SUPPORTER = {"speaker": "seeker", "text": "a"}, {"speaker": "supporter", "text": "b", "strategy": "Question"}
SUPPORT_CASES = {
    "other data": ({"utterances": []}, ["column 'turns' (our rows) or 'dialog' (ESConv)"]),
    "speaker": ({"dialog": [SEEKER, {**SEEKER, "speaker": "bot"}]}, ["line 1, column 'dialog[1].speaker'", "bot"]),
    "no speaker": ({"turns": [{"text": "a"}]}, ["column 'turns[0].speaker'", "nothing"]),
    "blank text": ({"turns": [SEEKER, {**SUPPORTER, "text": " "}]}, ["line 1, column 'turns[1].text'", "blank"]),
    "no text": ({"turns": [{"speaker": "seeker"}]}, ["column 'turns[0].text'"]),
    "no object": ({"turns": ["a"]}, ["column 'turns[0]'"]),
    "strategy": (
        {"dialog": [{**SUPPORTER, "strategy": "Joke"}]},
        ["column 'dialog[0].strategy'", "Joke", "Self-disclosure"],
    ),
    "no turns": ({"turns": []}, ["column 'turns': expected at least one turn"]),
    "no dialog": ({"dialog": []}, ["column 'dialog': expected at least one turn"]),
    "personas": ({"turns": [SEEKER], "persona": []}, ["column 'persona': expected 1 lists"]),
    "flat persona": ({"turns": [SEEKER], "persona": ["a"]}, ["column 'persona[0]': expected a list of sentences"]),
    "persona_list": ({"dialog": [SEEKER], "persona_list": ["a", "b"]}, ["column 'persona_list'", "found 2 entries"]),
    "no personas": ({"dialog": [SEEKER], "persona_list": ["a"]}, ["'persona_list'", "utterances themselves"]),
}


@pytest.mark.parametrize("case", SUPPORT_CASES)
def test_support_file(tmp_path, case):
    record, parts = SUPPORT_CASES[case]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record))
    text = message(load_support_dataset, path)
    for part in parts:
        assert part in text


def test_missing_file(tmp_path):
    text = message(load_persona_dataset, tmp_path / "chats.jsonl")
    assert text.startswith(f"{tmp_path}/chats.jsonl: expected a file")
    assert "found no such file" in message(load_persona_dataset, "smaple")
    assert "found no such file" in message(load_persona_dataset, "data/chats.jsonl")


def test_folder_for_a_file_and_split_for_a_file(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps(GOOD))
    assert "found a folder with the files train.jsonl" in message(load_persona_dataset, tmp_path)
    assert "found 0 among the files train.jsonl" in message(load_persona_dataset, tmp_path, "test")
    assert "no split for a single file, found split='train'" in message(
        load_persona_dataset, tmp_path / "train.jsonl", "train"
    )


@pytest.mark.parametrize("source", [[], "", None, 3, ["sample", 3]])
def test_source_of_wrong_type(source):
    assert "source" in message(load_persona_dataset, source)


def test_unknown_split_of_the_sample():
    assert "one of the splits train, validation, test, found 'dev'" in message(load_persona_dataset, "sample", "dev")


def test_parquet_columns_twice(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table([[["a"]], [["b"]]], names=["utterances", "utterances"])
    parquet.write_table(table, tmp_path / "a.parquet")
    assert "column 'utterances': expected each column once" in message(load_persona_dataset, tmp_path / "a.parquet")
