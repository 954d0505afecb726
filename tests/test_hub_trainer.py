"""Cards and pushes of the trainer, through the loopback Hub."""

import json
import logging
import math
import runpy
import time
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi
from tiny_published import bart_tokenizer, same_weights, tiny_extractor
from tiny_runs import DIALOGUE_TEXT, METRICS, TOKEN, adapted, make_run

from pess_hf.errors import PessError
from pess_hf.modeling_extractor import PessExtractor
from pess_hf.release import ReleaseArguments, prepare_release, publish
from pess_hf.trainer import PessTrainer
from pess_hf.training_args import PessTrainingArguments

ROOT = Path(__file__).resolve().parent.parent
ROWS = [{"utterances": [DIALOGUE_TEXT], "persona": ["I sing."], "dialogue_id": str(row)} for row in range(4)]
PUBLIC = {
    ".gitattributes", "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    "tokenizer_config.json",
}  # fmt: skip


@pytest.fixture
def make_trainer(tmp_path):
    def make(model=None, **arguments):
        settings = {"output_dir": str(tmp_path / "run"), "report_to": "none", "use_cpu": True, "max_steps": 1}
        settings |= {"completeness_weight": 0, "consistency_weight": 0, "save_strategy": "no", "disable_tqdm": True}
        args = PessTrainingArguments(**{**settings, **arguments})
        rows = {"train_dataset": ROWS, "eval_dataset": ROWS}
        return PessTrainer(model or tiny_extractor(), args, processing_class=bart_tokenizer(), **rows)

    return make


def head(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_a_push_holds_what_may_be_published_and_nothing_else(hub, make_trainer, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    trainer = make_trainer(hub_model_id="tester/mine", hub_token=hub.tokens["write"], push_to_hub=True)
    trainer.train()
    trainer.evaluate()
    make_run(tmp_path / "run", model=False)
    trainer.push_to_hub(license="mit")
    repo = hub.repo("tester/mine")
    assert repo.private and len(repo.history()) == 2
    assert set(repo.at().files) == PUBLIC | {"metrics.json"}
    published = b"".join(blob.data for blob in repo.at().files.values())
    assert DIALOGUE_TEXT.encode() not in published and hub.tokens["write"].encode() not in published
    assert (tmp_path / "run" / "training_args.bin").exists()
    loaded = PessExtractor.from_pretrained("tester/mine", token=hub.tokens["read"])
    assert same_weights(loaded, trainer.model.cpu())
    card = repo.file("main", "README.md").data.decode()
    assert 'model_id = "tester/mine"' in card and head(card)["license"] == "mit"
    assert "| Persona F1 | 0.5000 | 0.6514 |" in card
    trainer.push_to_hub(license="mit")
    assert len(repo.history()) == 2
    assert hub.tokens["write"] not in caplog.text + "".join(capfd.readouterr())


def test_a_card_without_a_recipe_says_what_the_trainer_knows(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.train()
    loss = trainer.evaluate()["eval_loss"]
    trainer.create_model_card(
        "en", "mit", "one", "Name", finetuned_from="facebook/bart-base", dataset_tags=["me/data"]
    )
    card = (tmp_path / "run" / "README.md").read_text()
    data = head(card)
    assert (data["language"], data["license"], data["base_model"]) == ("en", "mit", "facebook/bart-base")
    assert data["datasets"] == ["me/data"] and "one" in data["tags"] and "# Name\n" in card
    assert f"| Loss | {loss:.4f} |" in card and "| Persona F1 |  |" in card
    assert "Training rows: 4." in card and "| steps done | 1 |" in card and str(tmp_path) not in card


def test_before_anything_is_measured_the_card_has_blanks(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.create_model_card(finetuned_from=str(tmp_path))
    card = (tmp_path / "run" / "README.md").read_text()
    assert "| Persona F1 |  |" in card and "model-index" not in card and "base_model" not in head(card)


def test_a_recipes_numbers_win(make_trainer, tmp_path):
    make_run(tmp_path / "run", metrics=METRICS | {"test_loss": 7.0})
    make_trainer().create_model_card()
    assert "| Loss |  | 7.0000 |" in (tmp_path / "run" / "README.md").read_text()


def test_pushes_during_training_hold_no_pickle_and_no_checkpoint(hub, make_trainer):
    settings = {"hub_model_id": "tester/mine", "hub_token": hub.tokens["write"], "push_to_hub": True}
    trainer = make_trainer(save_strategy="steps", save_steps=1, hub_strategy="every_save", **settings)
    trainer.train()
    files = set(hub.repo("tester/mine").at().files)
    assert files == PUBLIC - {"README.md"}


def test_a_push_deletes_what_an_earlier_one_left(hub, make_trainer, tmp_path):
    api = HfApi(token=hub.tokens["write"])
    api.create_repo("tester/mine")
    stale = ("pytorch_model.bin", "training_args.bin", "model-00001-of-00002.safetensors")
    for name in (*stale, "notes.md"):
        api.upload_file(repo_id="tester/mine", path_or_fileobj=b"old", path_in_repo=name)
    settings = {"hub_model_id": "tester/mine", "hub_token": hub.tokens["write"], "push_to_hub": True}
    trainer = make_trainer(save_strategy="steps", save_steps=1, hub_strategy="every_save", **settings)
    trainer.train()
    repo = hub.repo("tester/mine")
    assert set(repo.at().files) == PUBLIC - {"README.md"} | {"notes.md"}
    api.upload_file(repo_id="tester/mine", path_or_fileobj=b"old", path_in_repo="optimizer.bin")
    trainer.push_to_hub()
    assert set(repo.at().files) == PUBLIC | {"notes.md"}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda trainer: setattr(trainer.model.generation_config, "note", DIALOGUE_TEXT), "no dialogue text"),
        (lambda trainer: setattr(trainer.model.generation_config, "note", TOKEN), "no token"),
        (lambda trainer: trainer.model.model.encoder.layers[0].fc1.bias.data.fill_(math.nan), "finite weights"),
    ],
)
def test_a_push_that_would_publish_what_it_must_not_is_refused(hub, make_trainer, spoil, words):
    trainer = make_trainer(hub_model_id="tester/mine", hub_token=hub.tokens["write"])
    spoil(trainer)
    with pytest.raises(PessError, match=words):
        trainer.push_to_hub()
    assert not hub.calls("commit") and not hub.calls("lfs-put")


def test_a_save_that_must_not_be_pushed_does_not_end_the_training(hub, make_trainer, caplog):
    settings = {"hub_model_id": "tester/mine", "hub_token": hub.tokens["write"], "push_to_hub": True}
    trainer = make_trainer(save_strategy="steps", save_steps=1, hub_strategy="every_save", **settings)
    trainer.model.generation_config.note = TOKEN
    trainer.train()
    assert "Step 1 is not pushed" in caplog.text and TOKEN not in caplog.text
    assert trainer.state.global_step == 1 and len(hub.repo("tester/mine").history()) == 1


def test_a_push_in_the_background_that_fails_is_a_warning(hub, make_trainer, caplog):
    settings = {"hub_model_id": "tester/mine", "hub_token": hub.tokens["write"], "push_to_hub": True}
    trainer = make_trainer(save_strategy="steps", save_steps=1, hub_strategy="every_save", **settings)
    hub.fail_next("commit", status=403)
    trainer.train()
    until = time.monotonic() + 10  # the thread that pushed is done a moment before it says how it went
    while "failed" not in caplog.text and time.monotonic() < until:
        time.sleep(0.01)
    assert "A push during training failed: tester/mine" in caplog.text and "may not write" in caplog.text
    trainer.push_to_hub()
    assert set(hub.repo("tester/mine").at().files) == PUBLIC


def test_defaults_are_private_and_at_the_end(tmp_path):
    args = PessTrainingArguments(output_dir=str(tmp_path))
    assert args.hub_strategy == "end" and args.hub_private_repo is True
    with pytest.raises(PessError, match="hub_strategy: expected end or every_save, found all_checkpoints"):
        PessTrainingArguments(output_dir=str(tmp_path), hub_strategy="all_checkpoints")


def test_an_adapters_config_and_card_name_no_path_of_this_machine(hub, make_trainer, tmp_path):
    tiny_extractor().save_pretrained(tmp_path / "base")
    trainer = make_trainer(adapted(tmp_path / "base"), hub_model_id="tester/adapter", hub_token=hub.tokens["write"])
    trainer.train()
    trainer.push_to_hub(finetuned_from="tester/base")
    repo = hub.repo("tester/adapter")
    published = {name: blob.data for name, blob in repo.at().files.items()}
    assert not [name for name, data in published.items() if str(tmp_path).encode() in data]
    assert json.loads(published["adapter_config.json"])["base_model_name_or_path"] == "tester/base"
    assert head(published["README.md"].decode())["library_name"] == "peft"


def test_a_recipe_pushes_once_privately_and_its_run_can_be_released(hub, tmp_path, capfd):
    make_run(tmp_path / "base")
    token = hub.tokens["write"]
    options = {"model_name_or_path": tmp_path / "base", "output_dir": tmp_path / "run", "hub_token": token}
    options |= {"train_data": "sample", "test_data": "sample", "max_train_rows": 4, "max_test_rows": 2}
    options |= {"max_steps": 1, "completeness_weight": 0, "consistency_weight": 0, "report_to": "none"}
    options |= {"push_to_hub": "true", "hub_model_id": "tester/demo", "use_cpu": "true", "save_strategy": "no"}
    options |= {"max_source_length": 48, "max_target_length": 16, "rollout_max_new_tokens": 8}
    main = runpy.run_path(str(ROOT / "recipes" / "train_extractor.py"))["main"]
    main([word for name, value in options.items() for word in (f"--{name}", str(value))])
    repo = hub.repo("tester/demo")
    assert repo.private and len(repo.history()) == 2
    assert set(repo.at().files) == PUBLIC | {"metrics.json"}
    card = repo.file("main", "README.md").data.decode()
    assert "seeded grammar" in card and 'model_id = "tester/demo"' in card and "base_model" not in head(card)
    release = prepare_release(ReleaseArguments(str(tmp_path / "run"), "tester/demo", license="mit"))
    assert publish(release, "tester/demo", private=True, token=token).is_new
    assert len(repo.history()) == 3
    for name, blob in repo.at().files.items():
        assert token.encode() not in blob.data and str(tmp_path).encode() not in blob.data, name
    assert token not in "".join(capfd.readouterr())
