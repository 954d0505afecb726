"""The usage blocks of published cards, run as they are printed, from the loopback Hub, in fresh processes."""

import json
import re

import pytest
from tiny_generator import tiny_backbone, tiny_tokenizer
from tiny_published import (
    ARGUMENTS,
    RUN,
    bart_tokenizer,
    make_run,
    tiny_encoder_decoder_extractor,
    tiny_extractor,
    tiny_t5_extractor,
)
from tiny_tokenizers import unigram_tokenizer

from pess_hf.modeling_extractor import PessExtractor
from pess_hf.modeling_generator import PessGenerator
from pess_hf.release import ReleaseArguments, prepare_release, publish
from pess_hf.strategies import add_strategy_tokens

# Each block in a namespace of its own; what it prints follows its name.
RUN_BLOCKS = """
import json, os
for name, block in json.loads(os.environ["BLOCKS"]):
    print("==", name)
    exec(block, {})
"""


def make_generator_run(folder):
    tokenizer = tiny_tokenizer()
    add_strategy_tokens(tokenizer)
    model = PessGenerator.from_backbone(tiny_backbone("bart"), tokenizer=tokenizer)
    run = RUN | {"recipe": "train_generator.py"}
    return make_run(folder, model, tokenizer, run=run, metrics={"test_perplexity": 21.5})


def make_adapter_run(folder, token):
    peft = pytest.importorskip("peft")
    tiny_extractor().push_to_hub("tester/base", token=token)
    base = PessExtractor.from_pretrained("tester/base")
    make_run(folder, run=RUN | {"arguments": ARGUMENTS | {"model_name_or_path": "tester/base"}})
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        (folder / name).unlink()
    peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder)


def bert_like_tokenizer():
    tokenizer = bart_tokenizer()
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenizer


def test_every_block_of_every_card_runs_as_printed(hub, fresh_process, tmp_path):
    token = hub.tokens["write"]
    make_run(tmp_path / "bart")
    make_run(tmp_path / "t5", tiny_t5_extractor(), unigram_tokenizer())
    make_run(tmp_path / "minilm", tiny_encoder_decoder_extractor(), bert_like_tokenizer())
    make_generator_run(tmp_path / "generator")
    make_adapter_run(tmp_path / "adapter", token)
    blocks = []
    for name in ("bart", "t5", "minilm", "generator", "adapter"):
        args = ReleaseArguments(str(tmp_path / name), f"tester/{name}", license="apache-2.0")
        publish(prepare_release(args), args.repo_id, token=token)
        card = hub.repo(args.repo_id).file("main", "README.md").data.decode()
        found = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        assert len(found) == (1 if name in ("generator", "adapter") else 2)
        blocks += [(name, block) for block in found]
    for library in (True, False):
        mine = [(name, block) for name, block in blocks if ("pess_hf" in block) == library]
        done = fresh_process(RUN_BLOCKS, library=library, BLOCKS=json.dumps(mine))
        assert done.returncode == 0, done.stdout + done.stderr
        assert [line[3:] for line in done.stdout.splitlines() if line.startswith("==")] == [name for name, _ in mine]
    assert {name for name, block in blocks if "pess_hf" not in block} == {
        "bart",
        "t5",
        "minilm",
        "generator",
        "adapter",
    }
