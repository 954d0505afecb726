"""The benchmarks of the training step and of start-up, run tiny: what they check, and what they write."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_extractor import LetterEncoder

ROOT = Path(__file__).resolve().parent.parent
WAYS = {"plain", "straightforward", "rollout_1", "rollout_4", "rollout_8", "rollout_16"}
TINY = ["--d_model", "16", "--layers", "1", "--vocab_size", "800", "--batch", "1", "--source_tokens", "24",
        "--target_tokens", "24", "--rounds", "1", "--data", "sample", "--threshold", "0.97"]  # fmt: skip


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def test_the_step_benchmark_writes_times_and_ratios(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    import train_step

    json_path, picture = tmp_path / "out" / "step.json", tmp_path / "step.png"
    assert train_step.main([*TINY, "--json", str(json_path), "--plot", str(picture)], encoder=LetterEncoder()) == 0
    result = json.loads(json_path.read_text(encoding="utf-8"))
    assert set(result["seconds"]) == set(result["ratio_to_plain"]) == WAYS
    assert all(seconds > 0 for seconds in result["seconds"].values())
    for name, ratio in result["ratio_to_plain"].items():
        assert ratio == pytest.approx(result["seconds"][name] / result["seconds"]["plain"])
    # One call of the sentence encoder a window; all three sequences are there.
    assert result["encoder_calls_a_step"] == {f"rollout_{size}": 1 / size for size in (1, 4, 8, 16)}
    assert result["per_dialogue"]["new_target_rows"] > 0.9
    assert result["per_dialogue"]["generated_rows"] > 0.9
    assert result["per_dialogue"]["generated_tokens"] == 24
    assert max(result["differences"].values()) < 1e-5
    assert min(result["terms"].values()) > 0
    assert picture.stat().st_size > 1000
    assert "straightforward / ours at 8" in capsys.readouterr().out


def test_the_step_benchmark_finds_a_difference(tmp_path):
    import bench_model
    import train_step

    args = train_step.parse(TINY)
    rows, tokenizer, _ = bench_model.load_rows(args, 16)
    trainers = train_step.build_trainers(args, rows, tokenizer, str(tmp_path), LetterEncoder())
    _, straightforward, ours = trainers
    same, values = train_step.check(straightforward, ours)
    assert max(same.values()) < 1e-5
    assert min(values.values()) > 0
    straightforward.args = copy.copy(straightforward.args)
    straightforward.args.consistency_temperature = 0.5
    found, _ = train_step.check(straightforward, ours)
    assert found["consistency"] > 1e-3 and found["gradient"] > 1e-4
    assert found["nll"] < 1e-5


def test_the_floor_of_the_default_shape_is_that_of_the_issue():
    import train_step
    import train_step_report

    assert train_step_report.floor(train_step.parse([]), source=160, target=48) == pytest.approx(1.9, abs=0.05)


def test_the_startup_benchmark_times_imports_and_help(tmp_path, capsys):
    import startup

    path = tmp_path / "startup.json"
    assert startup.main(["--rounds", "1", "--pairs", "--recipes", "chat", "--json", str(path)]) == 0
    times = json.loads(path.read_text(encoding="utf-8"))["times"]
    assert set(times) == {"chat --help"} and times["chat --help"]["seconds"] > 0.1
    assert "chat --help" in capsys.readouterr().out


def test_help_of_every_recipe_loads_no_torch():
    code = (
        "import runpy, sys\n"
        "slow = {'torch', 'transformers.trainer_utils', 'sentence_transformers', 'datasets', 'peft', 'evaluate'}\n"
        "for name in sys.argv[1:]:\n"
        "    sys.argv = [name, '--help']\n"
        "    try:\n"
        "        runpy.run_path(name, run_name='__main__')\n"
        "    except SystemExit as done:\n"
        "        assert not done.code\n"
        "    assert not slow & set(sys.modules), (name, slow & set(sys.modules))\n"
    )
    recipes = sorted(map(str, [*(ROOT / "recipes").glob("*.py"), *(ROOT / "recipes" / "experiments").glob("*.py")]))
    assert len(recipes) > 15
    done = subprocess.run([sys.executable, "-c", code, *recipes], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("--config FILE.yaml]") == len(recipes)
    assert done.stdout.count("--help_all lists them") == 8  # those that train
