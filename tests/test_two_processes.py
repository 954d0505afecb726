"""Two processes against one: gradients, weights, rollouts, metrics, errors, sharding, saving; two launches in all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recipe_runs import RECIPES, ROOT, recipe, save_model, train_flags, write_rows
from runs_to_compare import evaluated, generator_measured, grouped_by_length, rollouts_by_row, trained
from safetensors.torch import load_file

from pess_hf.extractor_args import PersonaDataArguments, load_splits

CONFIG = ROOT / "recipes" / "accelerate" / "cpu-2.yaml"
CASES = [f"{terms}-{steps}" for terms in ("plain", "pess") for steps in (1, 2, 4)]


def launch(script, *arguments, cwd):
    """Run a script as the README says, on a free port."""
    command = [Path(sys.executable).with_name("accelerate"), "launch", "--config_file", CONFIG]
    command += ["--main_process_port", "0", "--num_cpu_threads_per_process", "1", script, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def done(folder):
    write_rows(folder / "rows.jsonl", 12)
    return launch(ROOT / "tests" / "two_processes" / "checks.py", folder, cwd=folder)


@pytest.fixture(scope="module")
def found(folder, done):
    assert (folder / "found.json").is_file(), done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process finds at the same global batch."""
    return {terms: trained(tmp_path_factory.mktemp("one"), terms, 1, 1) for terms in ("plain", "pess")}


def test_the_launcher_starts_two_processes(found):
    assert (found["world"], found["ranks"]) == (2, [0, 1])


@pytest.mark.parametrize("case", CASES)
def test_gradients_and_logs_are_those_of_one_process(found, alone, case):
    expected = alone[case.split("-")[0]].logged
    assert len(found["logs"][case]) == len(expected) == 2
    for ours, theirs in zip(found["logs"][case], expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    assert expected[0]["grad_norm"] > 0
    assert (expected[0]["consistency"] > 0 and expected[0]["completeness"] > 0) == case.startswith("pess")


@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_one_process(found, alone, folder, case):
    weights = load_file(folder / f"{case}.safetensors")
    for name, weight in alone[case.split("-")[0]].model.state_dict().items():
        assert torch.allclose(weight, weights[name], rtol=0, atol=1e-5), name


def test_each_process_writes_rollouts_for_its_own_rows(found, tmp_path):
    first, second = found["rollouts"]
    assert len(first) == len(second) == 4 and not set(first) & set(second)
    assert first | second == rollouts_by_row(tmp_path, 1)


@pytest.mark.parametrize("case", ["9-2", "3-4"])
def test_metrics_are_those_of_one_process_with_an_uneven_last_batch(found, tmp_path, case):
    expected = evaluated(tmp_path, *case.split("-"))
    assert found["evaluated"][case] == {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()}
    assert expected["predictions"] == int(case.split("-")[0])
    assert {"test_nll", "test_completeness", "test_loss", "test_persona_f1"} <= set(expected)


def test_rows_grouped_by_length_are_trained_on_once_an_epoch_as_by_one_process(found, folder, tmp_path):
    first, second = found["grouped"]
    for epoch in (slice(0, 8), slice(8, 16)):
        assert sorted(first[epoch] + second[epoch]) == sorted(f"row-{n}" for n in range(16))
    assert first[:8] != first[8:]
    expected = grouped_by_length(tmp_path, 1)
    steps = [set(expected.seen[start : start + 8]) for start in (0, 8, 16, 24)]
    assert steps == [set(first[n : n + 4] + second[n : n + 4]) for n in (0, 4, 8, 12)]
    weights = load_file(folder / "grouped.safetensors")
    for name, weight in expected.model.state_dict().items():
        assert torch.allclose(weight, weights[name], rtol=0, atol=1e-5), name


def test_rows_grouped_by_length_come_in_the_same_order_after_a_resumption(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 1}
    whole = grouped_by_length(tmp_path, 1, dropout=0.1, **saving)
    again = grouped_by_length(tmp_path, 1, dropout=0.1, resume=str(tmp_path / "checkpoint-3"), **saving)
    assert again.seen == whole.seen[24:]
    for name, weight in again.model.state_dict().items():
        assert torch.allclose(weight, whole.model.state_dict()[name], rtol=0, atol=1e-6), name


def test_the_generator_is_measured_as_by_one_process(found, tmp_path):
    expected = generator_measured(tmp_path, 1)
    ours = found["generator"]
    assert ours.pop("replies") == expected.pop("replies")
    assert ours == {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()}
    assert expected["eval_loss"] == pytest.approx(expected["loss"], rel=1e-5)  # one mean over all tokens


def test_all_processes_hold_out_the_rows_that_one_holds_out(folder, found):
    splits = load_splits(PersonaDataArguments(train_data=[str(folder / "rows.jsonl")], held_out_fraction=0.3))
    assert found["held_out"] == list(splits.test["dialogue_id"]) and found["held_out"]


def test_a_row_that_is_not_finite_stops_both_processes_in_the_same_words(found):
    of_row, of_gradient = found["poisoned"]["row"], found["poisoned"]["gradient"]
    for stopped in (of_row, of_gradient):
        assert stopped["weights are as before"] and stopped["step"] == 0
    assert "in nll of row-5; completeness of row-5" in of_row["error"]
    assert "in the gradient norm of" in of_gradient["error"]
    assert sum(f"row-{n}" in of_gradient["error"] for n in range(8)) == 8


def test_generation_and_gradients_under_fsdp2_are_those_of_the_whole_model(found):
    for process in found["sharded"]:
        assert process["same rollouts"] and process["same again"]
        assert process["left behind"] == {"training": True, "sharded": True, "use_cache": False}
        assert process["gradient difference"] < 1e-5
    assert max(found["sharded"][0]["lengths"]) > max(found["sharded"][1]["lengths"])


def test_an_error_of_one_process_ends_the_launch_with_one_line(found, done):
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert lines == ["error: the second process: expected a file, found none."]
    assert done.returncode != 0
    assert "Connection" not in done.stderr


def test_a_recipe_saves_prints_and_pushes_once(hub, tmp_path, capsys):
    model, data = save_model(tmp_path / "start"), write_rows(tmp_path / "rows.jsonl", 9)
    settings = {"test_data": data, "per_device_eval_batch_size": 2}
    one = train_flags(model, data, tmp_path / "one", per_device_train_batch_size=4, **settings)
    recipe("train_extractor").main([str(word) for word in one])
    pushed = {"push_to_hub": True, "hub_model_id": "tester/two", "hub_token": hub.tokens["write"]}
    two = train_flags(model, data, tmp_path / "two", per_device_train_batch_size=2, **settings, **pushed)
    done = launch(RECIPES / "train_extractor.py", *two, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("One dialogue:") == capsys.readouterr().out.count("One dialogue:") == 1
    ours, theirs = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("two", "one"))
    for name in ("test_loss", "test_nll", "test_completeness", "test_consistency", "test_persona_f1", "train_loss"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name
    predictions = [(tmp_path / name / "predictions.jsonl").read_text() for name in ("two", "one")]
    assert predictions[0] == predictions[1] and predictions[0].count("\n") == 9
    commits = [line.path for line in hub.log if line.method == "POST" and "/commit/" in line.path]
    assert len(commits) == 1
