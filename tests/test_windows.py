"""Windows of dialogues: how they are cut, which sentences they tell, and extractors that read in windows."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from fake_encoder import FakeEncoder
from recipe_runs import recipe, save_model, train_flags, write_rows
from test_extraction import lively
from tiny_tokenizers import byte_level_tokenizer

from pess_hf.data import load_persona_dataset
from pess_hf.data.windows import window_rows
from pess_hf.errors import PessError
from pess_hf.extraction import window_of
from pess_hf.extractor_args import PersonaSplits
from pess_hf.grounding import ground_personas, persona_turns
from pess_hf.similarity import DEFAULT_ENCODER, PersonaMatcher
from pess_hf.window_args import WindowArguments

SAID = ["My dogs bark.", "It rains.", "I sing in a choir.", "I sing, and I walk."]
KNOWN = ["I have dogs.", "I sing.", "I am tall."]


def _rows(**columns: Any) -> Dataset:
    return Dataset.from_dict({"dialogue_id": ["d"], "utterances": [SAID], "persona": [KNOWN], **columns})


def test_a_window_has_the_sentences_that_its_utterances_tell() -> None:
    found = window_rows(_rows(), [[0, 2, None]], sizes=[2], passes=1)
    assert {row["dialogue_id"]: row["persona"] for row in found} == {
        "d#0-3": ["I have dogs.", "I sing."],
        "d#0-1": ["I have dogs."],
        "d#2-3": ["I sing."],
    }
    assert {row["dialogue_id"]: row["utterances"] for row in found}["d#2-3"] == SAID[2:]


def test_sentences_come_in_the_order_of_telling() -> None:
    found = window_rows(_rows(), [[3, 0, 2]], sizes=[4], passes=1)
    assert found["persona"][0] == ["I sing.", "I am tall.", "I have dogs."]


def test_every_pass_covers_every_utterance_and_windows_come_once() -> None:
    found = window_rows(_rows(), [[0, 2, None]], sizes=[1, 2, 3], passes=6, seed=1)
    ids = found["dialogue_id"]
    assert len(set(ids)) == len(ids)
    sizes = {len(row["utterances"]) for row in found}
    assert {1, 2, 3, 4} == sizes


def test_silent_windows_are_kept_as_often_as_asked() -> None:
    def silent(share: float) -> int:
        rows = Dataset.from_dict({"dialogue_id": ["d"], "utterances": [[*"abcdefghij"] * 20], "persona": [[]]})
        return sum(len(row["utterances"]) == 1 for row in window_rows(rows, [[]], [1], 1, [share]))

    assert silent(0.0) == 0
    assert silent(1.0) == 200
    assert 60 < silent(0.5) < 140


def test_the_seed_decides() -> None:
    one, same, other = (
        window_rows(_rows(), [[0, 2, None]], [1, 2], 2, [0.5], seed=seed)["dialogue_id"] for seed in (1, 1, 5)
    )
    assert list(one) == list(same) != list(other)


def test_similarity_finds_the_turn() -> None:
    matcher = PersonaMatcher(DEFAULT_ENCODER)
    assert ground_personas([KNOWN, []], [SAID, ["Hi."]], matcher, 0.5)[1] == []
    turns = ground_personas([["I own dogs that bark.", "I am a member of a choir."]], [SAID], matcher, 0.4)
    assert turns == [[0, 2]]
    assert ground_personas([["I own dogs that bark."]], [SAID], matcher, 1.01) == [[None]]


def test_known_turns_are_not_guessed() -> None:
    rows = Dataset.from_dict(
        {"utterances": [SAID, SAID], "persona": [["I own dogs."], ["I own dogs."]], "persona_turns": [[3], None]}
    )
    turns, is_unsure = persona_turns(rows, PersonaMatcher(DEFAULT_ENCODER), 0.3)
    assert turns == [[3], [0]]
    assert is_unsure == [False, True]


def test_turns_are_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    rows = Dataset.from_dict({"utterances": [SAID, ["Hi."]], "persona": [["I own dogs.", "Taxes are due."], []]})
    calls = []
    for least in (0.3, 0.3, 0.9):
        matcher = PersonaMatcher(DEFAULT_ENCODER)
        found = persona_turns(rows, matcher, least)
        assert found == ([[0 if least == 0.3 else None, None], []], [True, True])
        calls.append(matcher.encoder_calls)
    assert calls == [1, 0, 1], "read again for the same settings only"
    assert len(list((tmp_path / "pess_hf-grounding").iterdir())) == 2
    unknown = PersonaMatcher(FakeEncoder())
    for _ in range(2):
        persona_turns(rows, unknown, 0.3)
    assert unknown.encoder_calls == 2, "nothing tells such encoders apart"


def _episode(folder: Path) -> Path:
    says = [("bot_0", "Hi, it rains.", []), ("bot_1", "My dogs bark.", ["I have dogs."]), ("bot_0", "Oh.", [])]
    says += [("bot_1", "I sing.", ["I have dogs.", "I sing."])]
    dialog = [{"id": who, "text": text, "agg_persona_list": known} for who, text, known in says]
    path = folder / "session_2_valid.jsonl"
    path.write_text(json.dumps({"dialog": dialog, "initial_data_id": "valid_7"}) + "\n")
    return path


def test_multi_session_chat_knows_the_turns(tmp_path: Path) -> None:
    path = _episode(tmp_path)
    assert load_persona_dataset(path).column_names == ["dialogue_id", "utterances", "persona"]
    rows = load_persona_dataset(path, persona_turns=True)
    assert list(rows["persona_turns"]) == [[], [0, 1]]


def test_sources_that_do_not_know_the_turns_join(tmp_path: Path) -> None:
    rows = load_persona_dataset([_episode(tmp_path), "sample"], persona_turns=True)
    assert rows["persona_turns"][1] == [0, 1]
    assert rows["persona_turns"][2] is None
    cut = WindowArguments(window_sizes=[1, 2]).cut(rows.select(range(12)), PersonaMatcher(DEFAULT_ENCODER), 42)
    assert cut.column_names == ["dialogue_id", "utterances", "persona"]
    assert len(cut) > 30


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"window_sizes": []}, "window_sizes"),
        ({"window_sizes": [2, 0]}, "window_sizes"),
        ({"window_passes": 0}, "window_passes"),
        ({"window_silent_share": 1.5}, "window_silent_share"),
        ({"grounding_similarity": 2.0}, "grounding_similarity"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(PessError, match=told):
        WindowArguments(**settings)


def test_an_extractor_reads_in_windows() -> None:
    model, tokenizer = lively("bart"), byte_level_tokenizer()
    dialogues = [["my dogs bark .", "i sing .", "i sing ."], ["it rains ."]]
    settings: dict[str, Any] = {"disable_tqdm": True, "max_new_tokens": 6}
    parts = model.extract([["my dogs bark .", "i sing ."], ["i sing ."], ["it rains ."]], tokenizer, **settings)
    joined = list(dict.fromkeys([*parts[0], *parts[1]]))
    assert model.extract(dialogues, tokenizer, utterance_window=2, **settings) == [joined, parts[2]]
    whole = model.extract(dialogues, tokenizer, **settings)
    model.config.utterance_window = 2
    assert model.extract(dialogues, tokenizer, **settings) == [joined, parts[2]]
    assert model.extract(dialogues, tokenizer, utterance_window=0, **settings) == whole


def test_the_window_is_saved_with_the_model(tmp_path: Path) -> None:
    from pess_hf import AutoPessExtractor

    model = lively("bart")
    model.config.utterance_window = 3
    model.save_pretrained(tmp_path)
    assert window_of(AutoPessExtractor.from_pretrained(tmp_path)) == 3
    with pytest.raises(PessError, match="utterance_window"):
        window_of(model, -1)


def test_the_progress_bar_counts_dialogues() -> None:
    class Bar:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def update(self, number: int) -> None:
            self.seen.append(number)

    model, tokenizer, bar = lively("bart"), byte_level_tokenizer(), Bar()
    dialogues = [["my dogs bark .", "i sing .", "i walk ."], ["it rains ."]]
    model.extract(dialogues, tokenizer, batch_size=1, utterance_window=1, progress=bar, max_new_tokens=3)
    assert sum(bar.seen) == 2
    assert len(bar.seen) == 4


def test_the_recipe_trains_on_windows_and_measures_both_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, folder = save_model(tmp_path / "model"), write_rows(tmp_path / "rows.jsonl"), tmp_path / "run"
    settings = {"test_data": data, "window_sizes": [1, 2], "utterance_window": 2, "grounding_similarity": 0.3}
    recipe("train_extractor").main(train_flags(model, data, folder, **settings))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"test_persona_f1", "test_whole_persona_f1", "test_nll"} <= set(metrics)
    assert json.loads((folder / "config.json").read_text())["utterance_window"] == 2
    assert json.loads((folder / "run.json").read_text())["train_rows"] > 8
    written = [json.loads(line)["generated"] for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(written) == 8
    output = tmp_path / "scores.json"
    flags = ["--model", str(folder), "--data", data, "--output", str(output), "--max_new_tokens", "32"]
    recipe("evaluate_extractor").main(flags)
    assert json.loads(output.read_text())["persona_f1"] == pytest.approx(metrics["test_persona_f1"])
    assert "in windows" in capsys.readouterr().out
    assert "2 utterances at a time" in (folder / "README.md").read_text()


def test_an_adapter_keeps_the_window(tmp_path: Path) -> None:
    from pess_hf import AutoPessExtractor

    model, data, folder = save_model(tmp_path / "model"), write_rows(tmp_path / "rows.jsonl"), tmp_path / "run"
    recipe("train_extractor").main(train_flags(model, data, folder, use_lora=True, utterance_window=3))
    assert window_of(AutoPessExtractor.from_pretrained(folder)) == 3


@pytest.mark.parametrize("seeds, decides", [({"seed": 7}, 7), ({"seed": 7, "data_seed": 0}, 0)])
def test_the_data_seed_decides_the_cuts_where_it_is_given(seeds: dict[str, int], decides: int) -> None:
    rows, asked = _rows(), []
    data_args: Any = SimpleNamespace(cut=lambda train, _, seed: asked.append(seed) or train)
    settings = {"data_seed": None, "disable_tqdm": False, "main_process_first": lambda desc: nullcontext()}
    training_args: Any = SimpleNamespace(**settings | seeds)
    splits = PersonaSplits(rows, None, None)
    assert recipe("train_extractor").cut_training_rows(splits, data_args, training_args, None).train is rows
    assert asked == [decides]
