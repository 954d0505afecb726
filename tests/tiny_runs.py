"""The run folders that the tests of cards, releases and pushes share; their numbers are made up, to be found again."""

import json

import pytest
from tiny_generator import tiny_backbone, tiny_tokenizer
from tiny_published import bart_tokenizer, tiny_extractor

from pess_hf.modeling_extractor import AutoPessExtractor
from pess_hf.modeling_generator import PessGenerator
from pess_hf.strategies import add_strategy_tokens

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"
ARGUMENTS = {
    "completeness_weight": 1.0,
    "consistency_weight": 0.1,
    "consistency_temperature": 0.1,
    "similarity_model": "sentence-transformers/all-MiniLM-L6-v2",
    "similarity_threshold": 0.6,
    "pess_start": 0.3,
    "rollout_steps": 8,
    "learning_rate": 5e-05,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 3.0,
    "max_steps": -1,
    "seed": 42,
    "model_name_or_path": "facebook/bart-base",
    "train_data": "sample",
    "output_dir": "/srv/somebody/runs/fake",
    "hub_token": TOKEN,
}
RUN = {
    "recipe": "train_extractor.py",
    "command": f"accelerate launch recipes/train_extractor.py --output_dir /srv/somebody/fake --hub_token {TOKEN}",
    "arguments": ARGUMENTS,
    "versions": {"pess_hf": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
    "hardware": "2 CPU cores",
    "train_rows": 120,
    "seconds": 312.4,
}
METRICS = {
    "test_persona_precision": 0.71234,
    "test_persona_recall": 0.6,
    "test_persona_f1": 0.65139,
    "test_loss": 1.25,
    "test_runtime": 3.0,
    "before_pess_persona_f1": 0.5,
}
GENERATOR_METRICS = {"test_perplexity": 21.5, "test_strategy_accuracy": 0.25, "test_distinct_1": 0.03}
DIALOGUE_TEXT = "My aunt Philomena keeps eleven geese."


def run_with(**arguments):
    """The record of a run with some other arguments."""
    return RUN | {"arguments": ARGUMENTS | arguments}


def make_records(folder, **files):
    """The small files of a run, without model and tokenizer; None leaves one of them out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in ({"metrics": METRICS, "run": RUN} | files).items():
        if value is not None:
            (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def make_run(folder, model=None, tokenizer=None, **files):
    """A folder as train_extractor.py leaves it, with what must never be published."""
    make_records(folder, **{"trainer_state": {"global_step": 1}} | files)
    if model is not False:
        (model or tiny_extractor()).save_pretrained(folder)
    (tokenizer or bart_tokenizer()).save_pretrained(folder)
    row = {"dialogue_id": "1", "reference": [DIALOGUE_TEXT], "generated": [DIALOGUE_TEXT]}
    (folder / "predictions.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "training_args.bin").write_bytes(b"pickle")
    (folder / "checkpoint-1").mkdir(exist_ok=True)
    (folder / "checkpoint-1" / "optimizer.pt").write_bytes(b"pickle")
    (folder / "checkpoint-1" / "rollouts_0.safetensors").write_bytes(b"ids")
    return folder


def make_generator_run(folder):
    """The same of train_generator.py."""
    tokenizer = tiny_tokenizer()
    add_strategy_tokens(tokenizer)
    model = PessGenerator.from_backbone(tiny_backbone("bart"), tokenizer=tokenizer)
    return make_run(folder, model, tokenizer, run=RUN | {"recipe": "train_generator.py"}, metrics=GENERATOR_METRICS)


def make_adapter_run(folder, base):
    """The same of a run that trained a LoRA adapter for `base`, a folder or an id on the Hub."""
    make_run(folder, adapted(base), run=run_with(model_name_or_path=str(base)))
    return folder


def adapted(base):
    """An extractor with a fresh adapter."""
    peft = pytest.importorskip("peft")
    model = AutoPessExtractor.from_pretrained(base)
    return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
