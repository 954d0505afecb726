"""LoRA through the recipes, end to end on tiny models, and the memory benchmark at toy size."""

import importlib.util
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from fake_encoder import FakeEncoder
from recipe_runs import ROOT, flags, recipe, save_model, train_flags, write_rows
from safetensors.torch import load_file

from pess_hf import AutoPessExtractor, PessError, similarity
from pess_hf.adapter import is_adapter
from pess_hf.extractor_args import ExtractorArguments, load_extractor
from pess_hf.lora_args import LoraArguments
from pess_hf.open_generator import open_generator
from pess_hf.release import ReleaseArguments, prepare_release

pytest.importorskip("peft")

TINY_BACKBONE = {
    "model_type": "bart", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _sentences_cost_nothing(monkeypatch):
    monkeypatch.setattr(similarity, "load_encoder", lambda *_, **__: FakeEncoder())


def test_an_extractors_run(tmp_path, capsys, monkeypatch):
    model, data = save_model(tmp_path / "plain"), write_rows(tmp_path / "rows.jsonl")
    more = {"use_lora": True, "lora_rank": 2, "learning_rate": 0.05, "test_data": data, "utterance_separator": " # "}
    saving = {"save_strategy": "steps", "save_steps": 1}
    run = tmp_path / "run"
    recipe("train_extractor").main(train_flags(model, data, run, **more, **saving))
    assert "LoRA: 384 of" in capsys.readouterr().out
    assert is_adapter(run) and is_adapter(run / "checkpoint-1") and not (run / "base").exists()
    assert json.loads((run / "adapter_config.json").read_text())["base_model_name_or_path"] == model
    assert any(
        tensor.any() for name, tensor in load_file(run / "adapter_model.safetensors").items() if "lora_B" in name
    )
    opened = AutoPessExtractor.from_pretrained(str(run))
    assert opened.config.utterance_separator == " # "

    # The figures of the run are those of the opened adapter.
    command = flags(model=run, data=data, output=tmp_path / "f.json", max_source_length=96, max_new_tokens=32)
    recipe("evaluate_extractor").main(command)
    figures, metrics = (json.loads(path.read_text()) for path in (tmp_path / "f.json", run / "metrics.json"))
    assert figures["persona_f1"] == pytest.approx(metrics["test_persona_f1"], abs=1e-6)

    with pytest.raises(PessError, match="Resume with use_lora: true"):
        recipe("train_extractor").main(train_flags(model, data, run, resume_from_checkpoint=True))
    release = prepare_release(
        ReleaseArguments(str(run), "me/lora", license="mit", base_model="me/base", train_data_license="mine")
    )
    assert {"adapter_model.safetensors", "adapter_config.json", "pess_adapter.json"} <= set(release.files)
    assert "lora_rank" in release.files["README.md"].decode()


@pytest.fixture(scope="module")
def generator_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora-generator")
    settings = {
        "backbone_config": TINY_BACKBONE, "vocab_size": 400, "persona_source": "reference", "learn_guidance": True,
        "train_data": "sample", "test_data": "sample", "test_split": "test", "max_train_dialogues": 4,
        "max_test_dialogues": 2, "max_test_replies": 2, "max_steps": 2, "per_device_train_batch_size": 4,
        "learning_rate": 0.01, "use_lora": True, "lora_rank": 2, "report_to": "none", "save_strategy": "no",
        "use_cpu": True, "disable_tqdm": True, "output_dir": str(folder / "run"),
    }  # fmt: skip
    (folder / "settings.yaml").write_text(json.dumps(settings))
    recipe("train_generator").main(["--config", str(folder / "settings.yaml")])
    # Adapter and base travel together.
    shutil.move(folder / "run", folder / "moved")
    return folder / "moved"


def test_a_generators_run_opens_elsewhere_and_scores_the_same(generator_run, tmp_path):
    assert is_adapter(generator_run) and (generator_run / "base" / "model.safetensors").is_file()
    command = flags(model=generator_run, data="sample", split="test", output=tmp_path / "f.json", max_dialogues=2)
    recipe("evaluate_generator").main([*command, *flags(max_replies=2, persona_source="reference")])
    figures, metrics = (json.loads(path.read_text()) for path in (tmp_path / "f.json", generator_run / "metrics.json"))
    assert figures["loss"] == pytest.approx(metrics["test_loss"], rel=1e-4)


def test_chat_answers_from_an_adapter(generator_run, tmp_path):
    (tmp_path / "messages.json").write_text(json.dumps([{"role": "user", "content": "I lost my job."}]))
    command = flags(model=generator_run, input=tmp_path / "messages.json", output=tmp_path / "answer.json")
    recipe("chat").main([*command, *flags(strategy="Question")])
    assert json.loads((tmp_path / "answer.json").read_text())["strategy"] == "Question"


def test_a_generators_adapter_is_merged_from_the_command_line(generator_run, tmp_path):
    recipe("merge_adapter").main(flags(adapter=generator_run, output=tmp_path / "merged"))
    merged, adapted = open_generator(str(tmp_path / "merged")), open_generator(str(generator_run))
    assert not is_adapter(tmp_path / "merged") and (tmp_path / "merged" / "README.md").is_file()
    weights = adapted.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in merged.state_dict().items())
    base = open_generator(str(generator_run / "base")).state_dict()
    for part in ("fusion.mix_logits", "guidance.weight", "backbone.model.shared.weight"):
        assert not torch.equal(weights[part], base[part]), part


@pytest.mark.parametrize("name", ["load_in_4bit", "load_in_8bit"])
def test_quantized_weights_without_bitsandbytes_are_one_line(name, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == "bitsandbytes" else find(wanted))
    with pytest.raises(
        PessError, match=f"^{name}: expected bitsandbytes to be installed, found no such package"
    ) as it:
        LoraArguments(use_lora=True, **{name: True}).loading_kwargs()
    assert "\n" not in str(it.value)


def test_a_warm_start_from_quantized_weights_is_refused():
    args = ExtractorArguments("sentence-transformers/all-MiniLM-L6-v2", decoder_layers=2)
    with pytest.raises(PessError, match="decoder_layers: expected none with quantization_config"):
        load_extractor(args, max_new_tokens=8, quantization_config=object())


def test_without_peft_it_is_one_line(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == "peft" else find(wanted))
    model, data = save_model(tmp_path / "plain"), write_rows(tmp_path / "rows.jsonl")
    with pytest.raises(PessError, match="use_lora: expected peft to be installed"):
        recipe("train_extractor").main(train_flags(model, data, tmp_path / "run", use_lora=True))


def memory_benchmark():
    spec = importlib.util.spec_from_file_location("memory", ROOT / "benchmarks" / "memory.py")
    module = sys.modules["memory"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_memory_benchmark_counts_every_byte(tmp_path, monkeypatch, capsys):
    memory = memory_benchmark()

    def in_this_process(command, **_):
        return SimpleNamespace(returncode=0, stdout=json.dumps(memory.measure(memory.parse_args(command[2:]))))

    monkeypatch.setattr(memory.subprocess, "run", in_this_process)
    sizes = {"d_model": 16, "layers": 1, "heads": 2, "ffn_dim": 32, "vocab_size": 60, "lora_rank": 2}
    shape = {"batch_size": 2, "source_length": 8, "target_length": 6, "steps": 2}
    assert memory.main(flags(**sizes, **shape, json=tmp_path / "memory.json")) == 0
    result = json.loads((tmp_path / "memory.json").read_text())
    full, lora = result["variants"]["full"], result["variants"]["lora"]
    assert full["parameters"] == full["trained_parameters"] and full["weights"] == 4 * full["parameters"]
    assert lora["trained_parameters"] == 3 * 2 * 2 * (16 + 16)  # attentions, projections, rank, both sides
    for one in (full, lora):
        assert one["gradients"] == 4 * one["trained_parameters"] and not one["trained_tensors_without_gradient"]
        steps = one["optimizer"] - 2 * one["gradients"]  # AdamW: two moments, and a step counter for each tensor
        assert 0 < steps <= 4 * 60
    assert result["saved"]["gradients_and_optimizer"] > 0.9
    assert "LoRA saves" in capsys.readouterr().out


def test_a_variant_that_dies_is_reported(monkeypatch, capsys):
    memory = memory_benchmark()
    monkeypatch.setattr(memory.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 137, ""))
    assert memory.main([]) == 1
    assert "variant full ended with status 137" in capsys.readouterr().err


def test_a_data_type_that_there_is_not_is_wrong_usage(tmp_path, capsys):
    with pytest.raises(SystemExit) as it:
        recipe("merge_adapter").main(flags(adapter=tmp_path, output=tmp_path / "merged", dtype="float99"))
    assert it.value.code == 2 and "float99" in capsys.readouterr().err
