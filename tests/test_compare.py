"""compare.py: what it reads, what it reports, what it refuses."""

import json

import pytest
from fake_encoder import FakeEncoder
from recipe_runs import recipe

from pess_hf import PessError, similarity
from pess_hf.run_predictions import split_names

REFERENCE = ["I have two dogs.", "I sing."]


@pytest.fixture(autouse=True)
def _sentences_cost_nothing(monkeypatch):
    # Two different sentences are never alike: their vectors are nearly at right angles.
    monkeypatch.setattr(similarity, "load_encoder", lambda *_, **__: FakeEncoder(size=500))


def write_run(folder, generated, reference=REFERENCE, ids=None):
    folder.mkdir(parents=True)
    ids = ids or [f"row-{n}" for n in range(len(generated))]
    rows = [
        {"dialogue_id": name, "reference": reference, "generated": persona}
        for name, persona in zip(ids, generated, strict=True)
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def runs(tmp_path):
    half, full = ["I sing.", "I fly."], REFERENCE
    write_run(tmp_path / "a" / "seed-1", [half] * 6)
    write_run(tmp_path / "a" / "seed-2", [half, full, *[half] * 4])
    write_run(tmp_path / "b", [full] * 5 + [half])
    return tmp_path


def compare(*words):
    recipe("compare").main([*map(str, words), "--resamples", "200"])


def test_the_figures_are_those_of_the_texts(runs, capsys):
    compare(runs / "a", runs / "b", "--output", runs / "c.json", "--plot", runs / "c.png")
    found = json.loads((runs / "c.json").read_text())
    first, second = found["reports"][0]["settings"]
    assert first["precision"] == first["recall"] == pytest.approx((11 * 0.5 + 1) / 12)
    assert first["by_seed"]["recall"] == pytest.approx([0.5, 3.5 / 6])
    assert second["f1"] == pytest.approx(5.5 / 6)
    against = second["against_first"]["f1"]
    assert against["difference"] == pytest.approx(second["f1"] - first["f1"])
    assert against["interval"][0] <= against["difference"] <= against["interval"][1]
    assert 0 < against["p_value"] <= 1
    assert found["runs"][str(runs / "a")] == [str(runs / "a" / f"seed-{seed}") for seed in (1, 2)]
    assert (runs / "c.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "6 dialogues, 2 seeds" in out and f"{second['f1']:.3f}" in out


def test_several_wordings_count_once_where_it_is_asked_for(tmp_path, capsys, monkeypatch):
    alike = FakeEncoder({"I sing.": [1, 0], "I do sing.": [1, 0], "I have two dogs.": [0, 1]})
    monkeypatch.setattr(similarity, "load_encoder", lambda *_, **__: alike)
    write_run(tmp_path / "a", [["I sing."]] * 4)
    write_run(tmp_path / "b", [["I sing.", "I do sing."]] * 4)
    for strict, precision in ((False, 1.0), (True, 0.5)):
        compare(tmp_path / "a", tmp_path / "b", "--output", tmp_path / "c.json", "--one_to_one", strict)
        [report] = json.loads((tmp_path / "c.json").read_text())["reports"]
        assert (report["one_to_one"], report["settings"][1]["precision"]) == (strict, precision)
        assert ("one to one" in capsys.readouterr().out) == strict


def test_the_two_results_need_two_files(runs):
    with pytest.raises(PessError, match=r"plot: expected a file of its own, found .*, which is output too"):
        compare(runs / "a", runs / "b", "--output", runs / "c.png", "--plot", runs / "c.png")


def test_runs_are_named_in_every_way(runs):
    one, two = runs / "a" / "seed-1", runs / "a" / "seed-2"
    found = []
    for words in (
        [runs / "a", runs / "b"],
        [f"{one},{two}", runs / "b"],
        ["--run_a", one, two, "--run_b", runs / "b"],
    ):
        compare(*words, "--output", runs / "c.json")
        found.append(json.loads((runs / "c.json").read_text())["reports"][0]["settings"][1]["against_first"])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generated": [["I sing."]] * 5}, "6 and 5 rows"),
        ({"ids": [f"row-{n}" for n in (0, 1, 2, 4, 3, 5)]}, "row 3: dialogue_id 'row-3' and 'row-4'"),
        ({"reference": ["I have two dogs."]}, r"row 0 \('row-0'\): the references differ"),
    ],
)
def test_other_rows_are_refused(runs, changes, message):
    write_run(runs / "c", **{"generated": [["I sing."]] * 6, **changes})
    with pytest.raises(PessError, match=message):
        compare(runs / "b", runs / "c")


def test_what_is_no_run_is_refused(runs, capsys):
    (runs / "empty").mkdir()
    with pytest.raises(PessError, match="empty: expected the folder of a finished run, or of several"):
        compare(runs / "b", runs / "empty")
    with pytest.raises(PessError, match="seed-1: expected each run once, found it twice"):
        compare(f"{runs / 'a'},{runs / 'a' / 'seed-1'}", runs / "b")
    with pytest.raises(PessError, match="run_b: expected other runs than run_a"):
        compare(runs / "b", runs / "b")
    (runs / "b" / "predictions.jsonl").write_text('{"dialogue_id": "x", "reference": []}\n')
    with pytest.raises(PessError, match=r"predictions.jsonl, line 1, column 'generated'"):
        compare(runs / "a", runs / "b")
    for words in ([runs / "a"], [runs / "a", runs / "b", runs / "b"]):
        with pytest.raises(SystemExit) as caught:
            compare(*words)
        assert caught.value.code == 2 and "error: " in capsys.readouterr().err


@pytest.mark.parametrize("text", ["runs/a", "=runs/a", "full=", "full= , "])
def test_names_with_nothing_behind_them(text):
    with pytest.raises(PessError, match="runs: expected NAME=PATH"):
        split_names([text], "runs")
    with pytest.raises(PessError, match="runs: expected each name once"):
        split_names(["a=x", "a=y"], "runs")
