"""The loopback Hub under `evaluate`, `datasets` and `peft`, each in a fresh process with an empty cache."""

import pytest
from huggingface_hub import HfApi

METRIC = """
import datasets
import evaluate


class Same(evaluate.Metric):
    def _info(self):
        columns = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
        return evaluate.MetricInfo(description="", citation="", features=datasets.Features(columns))

    def _compute(self, predictions, references):
        return {"same": sum(a == b for a, b in zip(predictions, references)) / len(references)}
"""


def test_a_metric_published_as_a_space_loads(hub, fresh_process, tmp_path):
    (tmp_path / "same").mkdir()
    (tmp_path / "same" / "same.py").write_text(METRIC)
    api = HfApi(token=hub.tokens["write"])
    api.create_repo("tester/same", repo_type="space", space_sdk="gradio")
    api.upload_folder(repo_id="tester/same", repo_type="space", folder_path=tmp_path / "same")
    code = (
        "import evaluate; print(evaluate.load('tester/same').compute(predictions=['a', 'b'], references=['a', 'c']))"
    )
    done = fresh_process(code)
    assert done.stdout.strip() == "{'same': 0.5}", done.stderr


def test_a_data_set_loads(hub, fresh_process, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"utterances": ["hello"], "persona": ["I sing."]}\n')
    api = HfApi(token=hub.tokens["write"])
    api.create_repo("tester/talk", repo_type="dataset", private=True)
    api.upload_file(
        repo_id="tester/talk",
        repo_type="dataset",
        path_or_fileobj=tmp_path / "train.jsonl",
        path_in_repo="train.jsonl",
    )
    code = "import datasets; print(datasets.load_dataset('tester/talk', split='train')[0]['persona'])"
    done = fresh_process(code, HF_TOKEN=hub.tokens["read"])
    assert done.stdout.strip() == "['I sing.']", done.stderr


def test_an_adapter_loads(hub, fresh_process):
    peft = pytest.importorskip("peft")
    from test_loopback_hub import tiny_bart

    token = hub.tokens["write"]
    tiny_bart().push_to_hub("tester/base", token=token)
    adapted = peft.get_peft_model(tiny_bart(), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.peft_config["default"].base_model_name_or_path = "tester/base"
    adapted.push_to_hub("tester/adapter", token=token)
    code = """
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM
base = AutoModelForSeq2SeqLM.from_pretrained("tester/base")
print(type(PeftModel.from_pretrained(base, "tester/adapter")).__name__)
"""
    done = fresh_process(code)
    assert done.stdout.strip() == "PeftModel", done.stderr
    assert "adapter_model.safetensors" in hub.repo("tester/adapter").at("main").files
