"""What is pushed comes back bit for bit, whatever the object and the way of loading; prints the table of docs/hub.md.

pytest tests/test_hub_round_trips.py -s -k table
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load, load_file, save_file
from test_hub_trainer import PUBLIC
from tiny_generator import tiny_generator
from tiny_published import (
    bart_tokenizer,
    same_weights,
    tiny_encoder_decoder_extractor,
    tiny_extractor,
    tiny_t5_extractor,
)
from tiny_tokenizers import SENTENCES, byte_level_tokenizer, unigram_tokenizer
from transformers import AutoTokenizer

from pess_hf.code_export import CODE_FILES, export_code
from pess_hf.hub_files import public_files
from pess_hf.hub_upload import upload_in_one_commit
from pess_hf.modeling_extractor import AutoPessExtractor
from pess_hf.modeling_generator import PessGenerator

peft = pytest.importorskip("peft")
DOCS = Path(__file__).resolve().parent.parent / "docs" / "hub.md"
WAYS = ("id", "revision", "branch", "tag", "private", "without pess_hf")
IDS = {"input_ids": torch.arange(4, 12)[None], "decoder_input_ids": torch.arange(4, 8)[None]}
PERSONA = {"persona_input_ids": torch.arange(12, 16)[None]}


@dataclass
class Kind:
    """An object that is published: how it is made, pushed, loaded and compared; `plain` loads it without pess_hf."""

    name: str
    make: object
    load: object
    plain: str
    push: object = None
    same: object = same_weights
    inputs: dict = None

    @property
    def repo(self):
        return f"tester/{self.name.lower().replace(' ', '-').replace(',', '')}"


def push_generator(model, repo, token, revision=None, **settings):
    """With its code, from a folder."""
    folder = settings.pop("folder")
    model.save_pretrained(folder)
    export_code(folder)
    HfApi(token=token).create_repo(repo, exist_ok=True, private=settings.get("private"))
    upload_in_one_commit(repo, public_files(folder), "Add the generator", token=token, revision=revision)


def make_adapter(seed):
    adapted = peft.get_peft_model(tiny_extractor(), peft.LoraConfig(r=2, target_modules=["q_proj", "fc1"]))
    adapted.peft_config["default"].base_model_name_or_path = "tester/base"
    torch.manual_seed(seed)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight)
    return adapted.eval()


def load_adapter(repo, **settings):
    base = AutoPessExtractor.from_pretrained("tester/base", token=settings.get("token"))
    return peft.PeftModel.from_pretrained(base, repo, **settings)


def same_tokenizer(one, other):
    return (
        one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()
        and one.special_tokens_map == other.special_tokens_map
        and one(list(SENTENCES)).input_ids == other(list(SENTENCES)).input_ids
    )


def more_words(seed):
    return (*SENTENCES, f"This is version {seed}.")


MODEL = "AutoModelForSeq2SeqLM.from_pretrained(repo)"
REMOTE = "AutoModelForSeq2SeqLM.from_pretrained(repo, trust_remote_code=True)"
ADAPTER = "PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained('tester/base'), repo)"
TOKENIZER = "AutoTokenizer.from_pretrained(repo)"
KINDS = [
    Kind("PessExtractor", tiny_extractor, AutoPessExtractor.from_pretrained, MODEL),
    Kind("PessT5Extractor", tiny_t5_extractor, AutoPessExtractor.from_pretrained, MODEL),
    Kind("PessEncoderDecoderExtractor", tiny_encoder_decoder_extractor, AutoPessExtractor.from_pretrained, MODEL),
    Kind(
        "PessGenerator",
        lambda seed: tiny_generator(seed=seed, learn_guidance=True),
        PessGenerator.from_pretrained,
        REMOTE,
        push_generator,
        inputs=IDS | PERSONA,
    ),
    Kind("LoRA adapter", make_adapter, load_adapter, ADAPTER),
    Kind(
        "tokenizer, byte level",
        lambda seed: byte_level_tokenizer(more_words(seed)),
        AutoTokenizer.from_pretrained,
        TOKENIZER,
        same=same_tokenizer,
    ),
    Kind(
        "tokenizer, unigram",
        lambda seed: unigram_tokenizer(more_words(seed)),
        AutoTokenizer.from_pretrained,
        TOKENIZER,
        same=same_tokenizer,
    ),
]


def push(kind, thing, token, tmp_path, **settings):
    if kind.push:
        return kind.push(thing, kind.repo, token, folder=tmp_path / "pushed", **settings)
    return thing.push_to_hub(kind.repo, token=token, **settings)


def round_trips(kind, hub, tmp_path):
    """Push three versions (a tag, main, a branch) to a private repository and load each; way -> equal or not."""
    token, read = hub.tokens["write"], hub.tokens["read"]
    api = HfApi(token=token)
    old, new, other = (kind.make(seed) for seed in (0, 1, 2))
    push(kind, old, token, tmp_path, private=True)
    api.create_tag(kind.repo, tag="v1")
    api.create_branch(kind.repo, branch="try/one")
    first = hub.repo(kind.repo).at("main").sha
    push(kind, new, token, tmp_path)
    push(kind, other, token, tmp_path, revision="try/one")
    assert not kind.same(old, new) and not kind.same(new, other)
    expected = {"id": (None, new), "revision": (first, old), "branch": ("try/one", other), "tag": ("v1", old)}
    equal = {}
    for way, (revision, thing) in expected.items():
        loaded = kind.load(kind.repo, token=read, **({"revision": revision} if revision else {}))
        equal[way] = kind.same(loaded, thing)
    equal["private"] = hub.repo(kind.repo).private and is_refused(kind, hub.tokens["stranger"])
    return equal, new


def is_refused(kind, token):
    try:
        kind.load(kind.repo, token=token)
    except (OSError, ValueError):
        return True
    return False


PLAIN = """
import json, os, torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
for name, (repo, expression) in json.loads(os.environ["WANTED"]).items():
    thing = eval(expression)
    if hasattr(thing, "backend_tokenizer"):
        open(name + ".json", "w").write(thing.backend_tokenizer.to_str())
    else:
        inputs = load_file(os.path.join(os.environ["INPUTS"], name + ".in"))
        with torch.no_grad():
            save_file({"logits": thing.eval()(**inputs).logits}, name + ".out")
"""


def without_library(made, fresh_process, hub, tmp_path):
    """Open everything in one fresh process that cannot import pess_hf; name -> equal logits, or equal tokenizer."""
    for kind, _ in made:
        if kind.same is same_weights:
            save_file(kind.inputs or IDS, tmp_path / f"{kind.name}.in")
    wanted = json.dumps({kind.name: (kind.repo, kind.plain) for kind, _ in made})
    done = fresh_process(PLAIN, library=False, WANTED=wanted, INPUTS=str(tmp_path), HF_TOKEN=hub.tokens["read"])
    assert done.returncode == 0, done.stderr
    equal = {}
    for kind, thing in made:
        if kind.same is same_weights:
            with torch.no_grad():
                logits = thing(**(kind.inputs or IDS)).logits
            equal[kind.name] = torch.equal(load_file(tmp_path / f"{kind.name}.out")["logits"], logits)
        else:
            equal[kind.name] = (tmp_path / f"{kind.name}.json").read_text() == thing.backend_tokenizer.to_str()
    return equal


def table_of(rows):
    lines = ["| Object | " + " | ".join(WAYS) + " |", "| --- |" + " --- |" * len(WAYS)]
    for name, equal in rows.items():
        lines.append(f"| {name} | " + " | ".join("equal" if equal[way] else "DIFFERS" for way in WAYS) + " |")
    return "\n".join(lines)


def test_the_table_of_round_trips(hub, fresh_process, tmp_path):
    tiny_extractor().push_to_hub("tester/base", token=hub.tokens["write"])
    rows, made = {}, []
    for kind in KINDS:
        rows[kind.name], thing = round_trips(kind, hub, tmp_path)
        made.append((kind, thing))
    for name, equal in without_library(made, fresh_process, hub, tmp_path).items():
        rows[name]["without pess_hf"] = equal
    table = table_of(rows)
    print("\n" + table)
    assert "DIFFERS" not in table
    assert table in DOCS.read_text(encoding="utf-8"), "the table in docs/hub.md is not the one printed here"


@pytest.mark.parametrize(
    ("make", "shape", "times"),
    [
        (tiny_extractor, (len(bart_tokenizer()), 16), 1),
        (tiny_t5_extractor, (len(unigram_tokenizer()), 16), 1),
        (tiny_encoder_decoder_extractor, (len(bart_tokenizer()), 16), 2),  # one each for encoder and decoder
        (lambda: tiny_generator(tied=True), (30, 16), 1),
    ],
)
def test_tied_weights_are_stored_once_in_safetensors_alone(hub, make, shape, times):
    model = make()
    model.push_to_hub("tester/tied", token=hub.tokens["write"])
    files = hub.repo("tester/tied").at().files
    assert set(files) <= PUBLIC and [name for name in files if name.startswith("model")] == ["model.safetensors"]
    stored = load(files["model.safetensors"].data)
    assert sum(tuple(tensor.shape) == shape for tensor in stored.values()) == times
    loaded = type(model).from_pretrained("tester/tied")
    decoder = getattr(loaded, "decoder", loaded) if times == 2 else loaded
    assert decoder.get_output_embeddings().weight is decoder.get_input_embeddings().weight


def test_exported_code_is_whole_and_asks_for_nothing_of_ours(tmp_path):
    tiny_generator().save_pretrained(tmp_path)
    assert sorted(path.name for path in export_code(tmp_path)) == sorted(CODE_FILES)
    code = {name: (tmp_path / name).read_text() for name in CODE_FILES}
    for name, text in code.items():
        imported = [line for line in text.splitlines() if line.lstrip().startswith(("from ", "import "))]
        assert not [line for line in imported if "pess_hf" in line], name
        relative = [line.split()[1][1:] + ".py" for line in imported if line.startswith("from .")]
        assert set(relative) <= set(CODE_FILES), name
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    for target in auto_map.values():
        module, name = target.split(".")
        assert f"class {name}(" in code[module + ".py"]
