"""LoRA on top of an adapter, and an adapter whose base model is gone."""

import json
import shutil

import pytest
import torch
from fake_encoder import FakeEncoder
from recipe_runs import flags, recipe, save_model, train_flags, write_rows
from tiny_tokenizers import byte_level_tokenizer
from transformers import BartForConditionalGeneration

from pess_hf import AutoPessExtractor, PessError, similarity
from pess_hf.cli import run_recipe

peft = pytest.importorskip("peft")

LORA = {"use_lora": True, "lora_rank": 2, "learning_rate": 0.05}


@pytest.fixture(autouse=True)
def _sentences_cost_nothing(monkeypatch):
    monkeypatch.setattr(similarity, "load_encoder", lambda *_, **__: FakeEncoder())


@pytest.fixture
def start(tmp_path):
    """A tiny model, and an adapter for it that changes what it writes."""
    model = save_model(tmp_path / "plain")
    torch.manual_seed(0)
    adapter = peft.get_peft_model(
        AutoPessExtractor.from_pretrained(model), peft.LoraConfig(r=2, target_modules=["k_proj"])
    )
    for name, tensor in adapter.named_parameters():
        if "lora_B" in name:
            tensor.data.normal_()
    adapter.save_pretrained(tmp_path / "first")
    byte_level_tokenizer().save_pretrained(tmp_path / "first")
    return tmp_path / "first"


def same(ours, theirs):
    theirs = theirs.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in ours.state_dict().items())


def train(start, data, run, **more):
    saving = {"save_strategy": "steps", "save_steps": 1}
    recipe("train_extractor").main(train_flags(str(start), data, run, **(LORA | saving | more)))


def test_lora_on_an_adapter_starts_from_the_merged_model_and_saves_it(start, tmp_path, capsys):
    data, merged = write_rows(tmp_path / "rows.jsonl"), AutoPessExtractor.from_pretrained(str(start))
    assert not same(merged, AutoPessExtractor.from_pretrained(str(tmp_path / "plain")))
    train(start, data, tmp_path / "second")
    assert "that adapter is merged; the merged model is saved in" in capsys.readouterr().out
    assert same(merged, AutoPessExtractor.from_pretrained(str(tmp_path / "second" / "base")))
    assert str(tmp_path) not in (tmp_path / "second" / "pess_adapter.json").read_text()
    trained = AutoPessExtractor.from_pretrained(str(tmp_path / "second"))
    assert not same(trained, merged)

    # Going on from a checkpoint finds the same base, and nothing of the first adapter is needed to open the second.
    shutil.rmtree(tmp_path / "second" / "checkpoint-2")
    train(start, data, tmp_path / "second", resume_from_checkpoint=True)
    shutil.rmtree(start)
    shutil.move(tmp_path / "second", tmp_path / "moved")
    assert same(AutoPessExtractor.from_pretrained(str(tmp_path / "moved")), trained)

    # With peft alone, on plain BART.
    plain = BartForConditionalGeneration.from_pretrained(tmp_path / "moved" / "base")
    assert same(trained, peft.PeftModel.from_pretrained(plain, tmp_path / "moved").merge_and_unload())


def test_full_training_starts_from_an_adapter_too(start, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl")
    train(start, data, tmp_path / "whole", use_lora=False, learning_rate=0.0, save_strategy="no")
    opened = AutoPessExtractor.from_pretrained(str(tmp_path / "whole"))
    assert same(opened, AutoPessExtractor.from_pretrained(str(start)))


@pytest.mark.parametrize("folder", ["first", "first/kept"])
def test_the_adapter_that_a_run_starts_from_is_not_written_over(start, tmp_path, folder):
    data, before = write_rows(tmp_path / "rows.jsonl"), {path.name: path.read_bytes() for path in start.iterdir()}
    if folder != "first":
        shutil.copytree(start, tmp_path / folder)
    with pytest.raises(PessError, match="output_dir: expected another folder than that of the adapter"):
        train(tmp_path / folder, data, start)
    assert {path.name: path.read_bytes() for path in start.iterdir() if path.is_file()} == before


def test_an_adapter_is_not_merged_into_weights_of_few_bits(start, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl")
    with pytest.raises(PessError, match="load_in_4bit: expected a whole model to start from, found the adapter"):
        train(start, data, tmp_path / "second", load_in_4bit=True)


def without_base(adapter, base):
    """The adapter's folder, its base model said to be elsewhere."""
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))
    return str(adapter)


def error_of_extract(adapter, tmp_path, capsys):
    rows = write_rows(tmp_path / "rows.jsonl")
    with pytest.raises(SystemExit) as left:
        run_recipe(lambda: recipe("extract").main(flags(model=adapter, input=rows, output=tmp_path / "out.jsonl")))
    assert left.value.code == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_a_base_folder_that_is_gone_is_one_line(start, tmp_path, capsys):
    shutil.rmtree(tmp_path / "plain")
    line = error_of_extract(str(start), tmp_path, capsys)
    assert line.startswith(f"error: {start}: expected its base model in {tmp_path / 'plain'}, found no model there. ")
    assert "base_model_name_or_path" in line


def test_a_base_folder_without_its_files_is_one_line(start, tmp_path):
    (tmp_path / "plain" / "model.safetensors").unlink()
    with pytest.raises(PessError, match=f"^{start}: expected its base model {tmp_path / 'plain'}, found none that"):
        AutoPessExtractor.from_pretrained(str(start))
    (tmp_path / "plain" / "config.json").unlink()
    with pytest.raises(PessError, match=f"^{start}: expected its base model in {tmp_path / 'plain'}, found no model"):
        AutoPessExtractor.from_pretrained(str(start))


def test_a_base_on_the_hub_is_named_without_a_network(start, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    line = error_of_extract(without_base(start, "tester/base"), tmp_path, capsys)
    assert line.startswith(f"error: {start}: expected its base model tester/base, found none that opens (")
    assert "without HF_HUB_OFFLINE=1" in line and "base_model_name_or_path" in line


def test_a_base_that_is_not_on_the_hub_is_named(hub, start):
    with pytest.raises(PessError, match=f"^{start}: expected its base model tester/base, found none that opens"):
        AutoPessExtractor.from_pretrained(without_base(start, "tester/base"))
