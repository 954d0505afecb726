"""Checkpoints: what marks a finished one, which one training goes on from, which ones are deleted."""

import json
import shutil
from types import SimpleNamespace

import pytest
from tiny_extractor import make_trainer

from pess_hf.checkpoint_faults import checkpoint_fault
from pess_hf.checkpoint_manifest import MANIFEST, read_manifest, write_manifest
from pess_hf.errors import PessError
from pess_hf.generator_trainer import PessGeneratorTrainer
from pess_hf.run_checkpoints import checkpoints, discard, find_checkpoint, resolve_checkpoint, rotate
from pess_hf.safe_checkpoints import SafeCheckpointsMixin

SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "per_device_train_batch_size": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with checkpoint-2 and checkpoint-4."""
    folder = tmp_path_factory.mktemp("trained")
    make_trainer(folder, **SAVING).train()
    return folder


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def warnings(monkeypatch):
    """What `run_checkpoints` warns of."""
    lines = []
    monkeypatch.setattr("pess_hf.run_checkpoints.logger", SimpleNamespace(warning=lines.append))
    return lines


def args(run, asked=True, **more):
    return SimpleNamespace(
        **{"output_dir": str(run), "resume_from_checkpoint": asked, "world_size": 1, "process_index": 0, **more}
    )


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def delete(path):
    path.unlink()


def test_the_manifest_names_every_file_and_the_processes(run):
    for checkpoint in checkpoints(run):
        manifest = read_manifest(checkpoint)
        there = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()}
        assert set(manifest["files"]) == there - {MANIFEST}
        assert {"model.safetensors", "optimizer.pt", "rollouts_0.safetensors", "rng_state.pth"} <= there
        assert manifest["processes"] == 1
        assert checkpoint_fault(checkpoint) is None
    assert [path.name for path in checkpoints(run)] == ["checkpoint-2", "checkpoint-4"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("optimizer.pt", cut),
        ("trainer_state.json", cut),
        ("model.safetensors", change_a_byte),
        ("rollouts_0.safetensors", delete),
        ("rng_state.pth", delete),
        (MANIFEST, cut),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_it_is_used(run, warnings, name, damage):
    damage(run / "checkpoint-4" / name)
    assert find_checkpoint(args(run)) == str(run / "checkpoint-2")
    [line] = warnings
    assert f"checkpoint-4 ({name}: expected" in line and "\n" not in line
    with pytest.raises(PessError, match=rf"checkpoint-4: expected a whole checkpoint, .*{name}: expected"):
        find_checkpoint(args(run, asked=str(run / "checkpoint-4")))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", cut),
        ("model.safetensors", delete),
        ("rollouts_0.safetensors", cut),
        ("optimizer.pt", cut),
        ("optimizer.pt", delete),
        ("scheduler.pt", cut),
        ("rng_state.pth", delete),
        ("trainer_state.json", cut),
        ("config.json", cut),
    ],
)
def test_without_a_manifest_the_files_are_examined(run, warnings, name, damage):
    for checkpoint in checkpoints(run):
        (checkpoint / MANIFEST).unlink()
        assert checkpoint_fault(checkpoint) is None
    damage(run / "checkpoint-4" / name)
    assert checkpoint_fault(run / "checkpoint-4").startswith(f"{name}: expected ")
    assert resolve_checkpoint(True, args(run)) == str(run / "checkpoint-2")


def test_files_of_another_step_are_no_checkpoint(run):
    (run / "checkpoint-4" / MANIFEST).unlink()
    shutil.copy(run / "checkpoint-2" / "trainer_state.json", run / "checkpoint-4")
    assert checkpoint_fault(run / "checkpoint-4") == "trainer_state.json: expected step 4, found 2"


def test_an_index_that_names_a_missing_shard(run):
    checkpoint = run / "checkpoint-4"
    (checkpoint / MANIFEST).unlink()
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "found no model-00002-of-00002.safetensors" in checkpoint_fault(checkpoint)


def test_without_a_manifest_every_process_needs_its_random_state(run):
    checkpoint = run / "checkpoint-4"
    (checkpoint / MANIFEST).unlink()
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    assert checkpoint_fault(checkpoint, processes=2) == "rng_state_1.pth: expected a file, found none"
    shutil.copy(checkpoint / "rng_state_0.pth", checkpoint / "rng_state_1.pth")
    assert checkpoint_fault(checkpoint, processes=2) is None
    assert checkpoint_fault(checkpoint, processes=3) == "rng_state_2.pth: expected a file, found none"


def test_only_damaged_ones_are_an_error_that_names_each(run, warnings):
    cut(run / "checkpoint-2" / "optimizer.pt")
    delete(run / "checkpoint-4" / "scheduler.pt")
    with pytest.raises(PessError) as caught:
        find_checkpoint(args(run))
    assert "checkpoint-4 (scheduler.pt: expected a file, found none), checkpoint-2 (optimizer.pt: " in str(
        caught.value
    )
    assert "start anew without --resume_from_checkpoint" in str(caught.value) and "\n" not in str(caught.value)


def test_another_number_of_processes_is_warned_of_once(run, warnings):
    write_manifest(run / "checkpoint-4", processes=2)
    assert resolve_checkpoint(True, args(run)) == str(run / "checkpoint-4")
    resolve_checkpoint(True, args(run, process_index=1))
    [line] = warnings
    assert "saved by 2 processes and 1 go on from it" in line


def test_the_trainer_goes_on_from_the_newest_whole_one(run, warnings):
    cut(run / "checkpoint-4" / "model.safetensors")
    trainer = make_trainer(run, **SAVING)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 4 and len(warnings) == 1
    assert checkpoint_fault(run / "checkpoint-4") is None
    with pytest.raises(PessError, match=r"checkpoint-2: expected a whole checkpoint"):
        cut(run / "checkpoint-2" / "model.safetensors")
        trainer.train(resume_from_checkpoint=str(run / "checkpoint-2"))


def test_what_an_earlier_run_left_under_the_same_step_does_not_stay(run):
    (run / "checkpoint-4" / "stale.json").write_text("{}")
    trainer = make_trainer(run, **SAVING, save_total_limit=1)
    trainer.train(resume_from_checkpoint=str(run / "checkpoint-2"))
    assert trainer.args.save_total_limit == 1
    assert [path.name for path in run.iterdir() if path.is_dir()] == ["checkpoint-4"]
    assert not (run / "checkpoint-4" / "stale.json").exists()
    assert checkpoint_fault(run / "checkpoint-4") is None


def names(run):
    return [path.name for path in checkpoints(run)]


def test_a_damaged_checkpoint_is_deleted_before_a_whole_one(run):
    shutil.copytree(run / "checkpoint-4", run / "checkpoint-9")
    delete(run / "checkpoint-9" / "optimizer.pt")
    rotate(run / "checkpoint-4", limit=2, best=None)
    assert names(run) == ["checkpoint-2", "checkpoint-4"]
    rotate(run / "checkpoint-4", limit=1, best=str(run / "checkpoint-2"))
    assert names(run) == ["checkpoint-2", "checkpoint-4"]
    rotate(run / "checkpoint-4", limit=None, best=None)
    assert names(run) == ["checkpoint-2", "checkpoint-4"]
    rotate(run / "checkpoint-4", limit=1, best=None)
    assert names(run) == ["checkpoint-4"]


def test_half_a_deletion_is_no_checkpoint(run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("pess_hf.run_checkpoints.shutil.rmtree", lambda *_, **__: None)  # killed before it began
        discard(run / "checkpoint-4")
    assert names(run) == ["checkpoint-2"] and (run / ".discarded-checkpoint-4").is_dir()
    discard(run / "checkpoint-9")
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == ["checkpoint-2"]


def test_older_ones_are_deleted_when_every_process_has_written_and_the_manifest_is_there(tmp_path):
    """The other process writes its part late, at the barrier."""
    order = []

    class Plain:
        def _save_checkpoint(self, model, trial):
            order.append(("saved", self.args.save_total_limit))
            (tmp_path / "checkpoint-4").mkdir()

    class Trainer(SafeCheckpointsMixin, Plain):
        args = SimpleNamespace(should_save=True, save_total_limit=1, world_size=2)
        state = SimpleNamespace(global_step=4, best_model_checkpoint=None)
        accelerator = SimpleNamespace(wait_for_everyone=lambda: wait())

        def _get_output_dir(self, trial):
            return str(tmp_path)

    def wait():
        order.append(("barrier", names(tmp_path)))
        if (tmp_path / "checkpoint-4").exists():
            (tmp_path / "checkpoint-4" / "rng_state_1.pth").write_bytes(b"late")

    (tmp_path / "checkpoint-2").mkdir()
    Trainer()._save_checkpoint(None, None)
    assert order == [
        ("barrier", ["checkpoint-2"]),
        ("saved", None),
        ("barrier", ["checkpoint-2", "checkpoint-4"]),
    ]
    assert list(read_manifest(tmp_path / "checkpoint-4")["files"]) == ["rng_state_1.pth"]
    assert names(tmp_path) == ["checkpoint-4"]


def test_the_generators_trainer_saves_the_same_way():
    assert issubclass(PessGeneratorTrainer, SafeCheckpointsMixin)
