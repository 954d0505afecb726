"""Reading persona files: what every format gives, on small files written here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pess_hf.data import group_of, load_persona_dataset
from pess_hf.errors import PessError

PARLAI = (
    "1 your persona: i bake bread.\n"
    "2 partner's persona: i own a boat.\n"
    "3 ahoy , my ship is wet .\tmy oven is hot .\n"
    "4 __SILENCE__\tso is my day .\tcandidate one|candidate two\n"
    "1 your persona: i sing.\n"
    "2 hello\tla la la\n"
)
MSC_TURNS = [
    {"id": "bot_0", "text": "I fixed my roof.", "convai2_id": "x_3", "agg_persona_list": ["I own a house."]},
    {"id": "bot_1", "text": "Nice.", "convai2_id": "x_3", "agg_persona_list": []},
    {"id": "bot_0", "text": "I am 40.", "convai2_id": "x_3", "agg_persona_list": ["I own a house.", "I am 40."]},
]


def write(path: Path, content: str | list[dict]) -> Path:
    text = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def test_parlai_gives_a_row_for_each_persona(tmp_path):
    rows = load_persona_dataset(write(tmp_path / "chat.txt", PARLAI)).to_list()
    assert rows == [
        {
            "dialogue_id": "personachat/chat/0/partner",
            "utterances": ["ahoy , my ship is wet ."],
            "persona": ["i own a boat."],
        },
        {
            "dialogue_id": "personachat/chat/0/your",
            "utterances": ["my oven is hot .", "so is my day ."],
            "persona": ["i bake bread."],
        },
        {"dialogue_id": "personachat/chat/1/your", "utterances": ["la la la"], "persona": ["i sing."]},
    ]


def test_parlai_without_personas_can_be_read_for_extraction(tmp_path):
    path = write(tmp_path / "chat.txt", "1 hi\thello\n")
    rows = load_persona_dataset(path, require_persona=False)
    assert rows["utterances"][:] == [["hi"], ["hello"]]
    assert rows["persona"][:] == [[], []]
    with pytest.raises(PessError, match="line 1: expected 'your persona:'"):
        load_persona_dataset(path)


def test_csv_splits_the_conversation_by_user(tmp_path):
    conversation = (
        "User 1: Hi!\nUser 2: Hello.\nI am Bo.\n\n* * *\n[They walk.]\n*User 1: Bye.\nAnn: Bye!\nUser 2:\n\n"
    )
    conversation += "later\nUser 2: Bye."
    text = (
        "user 1 personas,user 2 personas,Best Generated Conversation\r\n" + f'"I bake.\nI sing.",,"{conversation}"\r\n'
    )
    rows = load_persona_dataset(write(tmp_path / "spc.csv", text)).to_list()
    assert rows[0] == {
        "dialogue_id": "spc/spc/0/user_1",
        "utterances": ["Hi!", "Bye."],
        "persona": ["I bake.", "I sing."],
    }
    assert rows[1] == {"dialogue_id": "spc/spc/0/user_2", "utterances": ["Hello. I am Bo.", "Bye."], "persona": []}


def test_csv_says_how_many_lines_are_left_out(tmp_path, caplog):
    text = 'user 1 personas,user 2 personas,Best Generated Conversation\n,,"User 1: Hi!\n[secret walk]\nUser 2: Yo."\n'
    load_persona_dataset(write(tmp_path / "spc.csv", text))
    assert "spc: 1 lines belong to neither user" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("name", ["session_2/valid.txt", "session_2_valid.jsonl"])
def test_msc_takes_the_last_summary_of_each_speaker(tmp_path, name):
    path = write(tmp_path / name, [{"dialog": MSC_TURNS, "initial_data_id": "x_3"}])
    assert load_persona_dataset(path).to_list() == [
        {
            "dialogue_id": "msc/session_2_valid/x_3/bot_0",
            "utterances": ["I fixed my roof.", "I am 40."],
            "persona": ["I own a house.", "I am 40."],
        },
        {"dialogue_id": "msc/session_2_valid/x_3/bot_1", "utterances": ["Nice."], "persona": []},
    ]


def test_msc_takes_the_id_from_the_turns_if_need_be(tmp_path):
    path = write(tmp_path / "s.jsonl", [{"dialog": MSC_TURNS}])
    assert load_persona_dataset(path)["dialogue_id"][0] == "msc/s/x_3/bot_0"


def test_group_of_keeps_people_and_dialogues_together():
    assert group_of("msc/session_1_valid/x_3/bot_0") == group_of("msc/session_4_valid/x_3/bot_1") == "msc/x_3"
    assert group_of("spc/train/5/user_1") == group_of("spc/train/5/user_2") != group_of("spc/train/6/user_1")
    assert group_of("anything else") == "anything else"


ROWS = [
    {"utterances": ["I  bake | a lot."], "persona": ["I bake."], "note": 1},
    {"dialogue_id": "b", "utterances": ["Hi."], "persona": [], "topic": "x"},
]


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_rows_keep_extra_columns_and_get_ids(tmp_path, kind):
    path = write(tmp_path / f"my.{kind}", ROWS if kind == "jsonl" else json.dumps(ROWS))
    assert load_persona_dataset(path).to_list() == [
        {"dialogue_id": "my-0", "utterances": ["I bake , a lot."], "persona": ["I bake."], "note": 1, "topic": None},
        {"dialogue_id": "b", "utterances": ["Hi."], "persona": [], "note": None, "topic": "x"},
    ]


def test_rows_in_parquet(tmp_path):
    from datasets import Dataset

    Dataset.from_list(ROWS).to_parquet(tmp_path / "my.parquet")
    rows = load_persona_dataset(tmp_path / "my.parquet")
    assert rows["persona"][:] == [["I bake."], []]
    assert rows["note"][:] == [1, None]


def test_separator_none_leaves_texts_alone(tmp_path):
    path = write(tmp_path / "my.jsonl", ROWS)
    assert load_persona_dataset(path, separator=None)["utterances"][0] == ["I  bake | a lot."]


def test_byte_order_mark_crlf_and_blank_lines_do_no_harm(tmp_path):
    text = "\ufeff" + '{"utterances": ["a\u2028b"], "persona": []}\r\n\r\n{"utterances": ["c"], "persona": []}\r\n'
    assert load_persona_dataset(write(tmp_path / "a.jsonl", text))["utterances"][:] == [["a b"], ["c"]]
    parlai = "\ufeff" + PARLAI.replace("\n", "\r\n")
    assert len(load_persona_dataset(write(tmp_path / "a.txt", parlai))) == 3
    spc = '\ufeffuser 1 personas,user 2 personas,Best Generated Conversation\r\n,,"User 1: a\r\nUser 2: b"\r\n'
    assert len(load_persona_dataset(write(tmp_path / "a.csv", spc))) == 2


def test_rows_without_persona_only_when_asked(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"utterances": ["a"], "keep": [1, 2]}, {"utterances": ["b"], "persona": None}])
    rows = load_persona_dataset(path, require_persona=False)
    assert rows["persona"][:] == [[], []]
    assert rows["keep"][:] == [[1, 2], None]
    with pytest.raises(PessError, match="line 1, column 'persona'"):
        load_persona_dataset(path)


def test_folder_holds_one_file_a_split(tmp_path):
    for name in ("train", "valid", "test"):
        write(tmp_path / f"{name}.jsonl", [{"utterances": [name], "persona": []}])
    for split, stem in (("train", "train"), ("validation", "valid"), ("test", "test")):
        assert load_persona_dataset(tmp_path, split)["utterances"][0] == [stem]


def test_sources_are_joined_in_order(tmp_path):
    parlai, rows = write(tmp_path / "chat.txt", PARLAI), write(tmp_path / "my.jsonl", ROWS)
    joined = load_persona_dataset([str(rows), parlai])
    assert joined["dialogue_id"][0] == "my-0"
    assert len(joined) == 5


def test_hub_rows_and_their_errors(monkeypatch):
    import datasets

    rows = datasets.Dataset.from_list([{"utterances": ["a"], "persona": ["b"]}])
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split=None: asked.append((name, split)) or rows)
    assert load_persona_dataset("ann/chats", "test")["dialogue_id"][:] == ["ann-chats-0"]
    assert asked == [("ann/chats", "test")]
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split=None: datasets.Dataset.from_list([{"x": 1}]))
    with pytest.raises(PessError, match=r"ann/chats, row 1, column 'utterances': .*the columns 'x'"):
        load_persona_dataset("ann/chats")
    both = datasets.DatasetDict(train=rows, test=rows)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split=None: both)
    with pytest.raises(PessError, match="expected one of the splits train, test, found split=None"):
        load_persona_dataset("ann/chats")


def test_dataset_saved_to_disk(tmp_path):
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list(ROWS[::-1])
    rows.save_to_disk(tmp_path / "one")
    DatasetDict(train=rows, test=rows.select([0])).save_to_disk(tmp_path / "both")
    assert load_persona_dataset(tmp_path / "one")["dialogue_id"][:] == ["b", "one-1"]
    assert load_persona_dataset(tmp_path / "both", "test")["dialogue_id"][:] == ["b"]
    with pytest.raises(PessError, match="one of the splits train, test, found split='dev'"):
        load_persona_dataset(tmp_path / "both", "dev")
    with pytest.raises(PessError, match="expected no split"):
        load_persona_dataset(tmp_path / "one", "test")


def test_hub_out_of_reach_is_one_line(hub):
    with pytest.raises(PessError, match="expected a path or the id of a Hub dataset") as caught:
        load_persona_dataset("nobody-here/no-such-data")
    assert "\n" not in str(caught.value)


def test_importing_the_package_stays_light():
    code = "import sys, pess_hf.data; print({'torch', 'transformers', 'datasets', 'pyarrow'} & sys.modules.keys())"
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == "set()"
