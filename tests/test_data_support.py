"""Reading support files: ESConv, PESConv and our own rows, on small files written here."""

import json
from pathlib import Path

import pytest

from pess_hf.data import STRATEGIES, load_support_dataset, normalise_strategy
from pess_hf.errors import PessError

COLUMNS = ["dialogue_id", "situation", "emotion_type", "problem_type", "turns", "persona"]
LABELS = {"emotion_type": "fear", "problem_type": "work", "situation": "Too much\nwork."}


def write_json(path: Path, value) -> Path:
    path.write_text(json.dumps(value))
    return path


def published(*speakers: str, **extra) -> dict:
    """A conversation in the form of the published ESConv list."""
    annotation = {"seeker": {"feedback": "4"}, "supporter": {"strategy": "Other"}}
    dialog = [{"speaker": s, "annotation": annotation[s], "content": f"turn {t}\n"} for t, s in enumerate(speakers)]
    return {**LABELS, "dialog": dialog, **extra}


def test_published_list(tmp_path):
    path = write_json(tmp_path / "ESConv.json", [published("supporter", "seeker", "seeker"), published("seeker")])
    rows = load_support_dataset(path)
    assert rows.column_names == COLUMNS
    assert rows[0] == {
        "dialogue_id": "ESConv-0",
        "situation": "Too much work.",
        "emotion_type": "fear",
        "problem_type": "work",
        "turns": [
            {"speaker": "supporter", "text": "turn 0", "strategy": "Others"},
            {"speaker": "seeker", "text": "turn 1", "strategy": None},
            {"speaker": "seeker", "text": "turn 2", "strategy": None},
        ],
        "persona": [[], [], []],
    }


@pytest.mark.parametrize("extension", ["jsonl", "txt"])
def test_json_lines(tmp_path, extension):
    dialog = [{"speaker": "usr", "text": "Hi."}, {"speaker": "sys", "text": "Hello.", "strategy": "Questions"}]
    rows = load_support_dataset(write_json(tmp_path / f"train.{extension}", {**LABELS, "dialog": dialog, "survey": 1}))
    assert rows.column_names == COLUMNS
    assert rows["turns"][0] == [
        {"speaker": "seeker", "text": "Hi.", "strategy": None},
        {"speaker": "supporter", "text": "Hello.", "strategy": "Question"},
    ]


SPEAKERS = ("seeker", "supporter", "seeker", "seeker", "supporter", "seeker", "supporter")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (
            ["<input> I bake.<persona> I sing.<persona>", "<input>"],
            [[], [], [], [], ["I bake.", "I sing."], ["I bake.", "I sing."], []],
        ),
        ([["I bake."], ["I bake.", "I sing."]], [[], [], [], [], ["I bake."], ["I bake."], ["I bake.", "I sing."]]),
        ([["a"], ["b"], [], ["d"]], [[], ["a"], ["a"], ["b"], [], [], ["d"]]),
    ],
    ids=["text from the third utterance", "lists from the third utterance", "one for each utterance"],
)
def test_persona_list(tmp_path, entries, expected):
    record = published(*SPEAKERS, persona_list=entries, persona="<input> all of it")
    rows = load_support_dataset(write_json(tmp_path / "PESConv.json", [record]))
    assert rows["persona"][0] == expected


def test_persona_list_of_a_short_conversation_is_empty(tmp_path):
    path = write_json(tmp_path / "PESConv.json", [published("seeker", "supporter", "seeker", persona_list=[])])
    assert load_support_dataset(path)["persona"][0] == [[], [], []]


def test_own_rows_survive_a_round_trip(tmp_path):
    sample = load_support_dataset("sample", "test").select(range(5)).add_column("extra", list(range(5)))
    sample.to_json(tmp_path / "own.jsonl")
    sample.to_parquet(tmp_path / "own.parquet")
    for name in ("own.jsonl", "own.parquet"):
        again = load_support_dataset(tmp_path / name)
        assert again.column_names == [*COLUMNS, "extra"]
        assert again.to_list() == sample.to_list()


def test_own_rows_are_completed(tmp_path):
    turns = [{"speaker": "supporter", "text": "Hi | you."}, {"speaker": "seeker", "text": "Hi.", "strategy": None}]
    rows = load_support_dataset(write_json(tmp_path / "own.jsonl", {"turns": turns}))
    assert rows[0]["dialogue_id"] == "own-0"
    assert rows[0]["situation"] == ""
    assert rows[0]["turns"][0] == {"speaker": "supporter", "text": "Hi , you.", "strategy": None}
    assert rows[0]["persona"] == [[], []]


def test_hub_dataset_of_json_texts(monkeypatch):
    import datasets

    dialog = [{"speaker": "usr", "text": "Hi."}]
    rows = datasets.Dataset.from_list([{"text": json.dumps({**LABELS, "dialog": dialog})}])
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split=None: rows)
    assert load_support_dataset("ann/support", "train")[0]["dialogue_id"] == "ann-support-0"


def test_the_eight_strategies():
    assert len(STRATEGIES) == 8
    assert [normalise_strategy(name) for name in STRATEGIES] == list(STRATEGIES)
    assert normalise_strategy(" [providing  Suggestions]") == "Providing Suggestions"
    assert (normalise_strategy("Questions"), normalise_strategy("Other")) == ("Question", "Others")
    with pytest.raises(PessError, match=r"'Joke'.*Question, Restatement or Paraphrasing.*Others"):
        normalise_strategy("Joke")
