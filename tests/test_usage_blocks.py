"""The usage blocks of published cards, run as they are printed, from the loopback Hub, in fresh processes."""

import json
import re

from tiny_published import bart_tokenizer, tiny_encoder_decoder_extractor, tiny_extractor, tiny_t5_extractor
from tiny_runs import make_adapter_run, make_generator_run, make_run
from tiny_tokenizers import unigram_tokenizer

from pess_hf.release import ReleaseArguments, prepare_release, publish

# Each block in a namespace of its own; what it prints follows its name.
RUN_BLOCKS = """
import json, os
for name, block in json.loads(os.environ["BLOCKS"]):
    print("==", name)
    exec(block, {})
"""


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
    tiny_extractor().push_to_hub("tester/base", token=token)
    make_adapter_run(tmp_path / "adapter", "tester/base")
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
