"""Extraction by CTranslate2: the same text in float32, settings, refusals, the cache of converted models."""

import json
import sys

import pytest
import torch
from recipe_runs import flags, recipe, save_model, write_rows
from test_extraction import KINDS, extract, lively
from tiny_extractor import tiny_bart
from transformers import GenerationConfig

from pess_hf import PessError
from pess_hf.extraction import TorchEngine, open_engine
from pess_hf.fast_engine import CTranslate2Engine, converted_folder, decoding_options, model_digest
from pess_hf.small_tokenizer import train_tokenizer

MANY = [[f"I have {n} dogs and {word}.", f"Well, {word}!"] for n in range(5) for word in ("cats", "Snow", "a car")]
SETTINGS = {
    "greedy": {},
    "four beams": {"num_beams": 4},
    "ten beams": {"num_beams": 10, "max_new_tokens": 24},
    "a long text": {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True},
    "a shortest text": {"num_beams": 4, "min_new_tokens": 6, "renormalize_logits": True},
    "a shortest length": {"num_beams": 4, "min_length": 8, "renormalize_logits": True},
    "no repeated trigram": {"num_beams": 4, "no_repeat_ngram_size": 3, "renormalize_logits": True},
    "a forced start": {"num_beams": 4, "forced_bos_token_id": 70},
    "a length that counts the start": {"num_beams": 2, "max_length": 7, "max_new_tokens": None},
    "the end alone": {"max_new_tokens": 1},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("converted")


@pytest.fixture(scope="module", params=["bart", "t5"])
def opened(request, cache):
    model = lively(request.param).eval()
    return request.param, model, CTranslate2Engine(model, KINDS[request.param][1](), "float32", cache)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_float32_writes_what_torch_writes(opened, settings):
    kind, model, engine = opened
    expected = extract(model, kind, MANY, **settings)
    assert extract(model, kind, MANY, engine=engine, batch_size=4, **settings) == expected
    if kind == "bart" and settings.get("max_new_tokens") != 1:
        assert len({tuple(persona) for persona in expected}) > 3  # rows that differ


def test_settings_saved_with_the_model_hold(cache):
    model = lively("bart").eval()
    model.generation_config.update(num_beams=3, max_new_tokens=5)
    engine = CTranslate2Engine(model, KINDS["bart"][1](), "float32", cache)
    tokenizer = KINDS["bart"][1]()
    for more in ({}, {"max_new_tokens": None}, {"generation_config": GenerationConfig(max_new_tokens=9)}):
        expected = model.extract(MANY, tokenizer, disable_tqdm=True, **more)
        assert model.extract(MANY, tokenizer, disable_tqdm=True, engine=engine, **more) == expected


def test_options_are_those_of_generate():
    options, start = decoding_options(GenerationConfig(num_beams=4, max_length=30, forced_eos_token_id=2), {})
    assert (options["beam_size"], options["max_decoding_length"], start) == (4, 28, None)
    options, start = decoding_options(GenerationConfig(num_beams=4), {"num_beams": 2, "forced_bos_token_id": 0})
    assert (options["beam_size"], options["max_decoding_length"], start) == (2, 20, 0)


@pytest.mark.parametrize(
    "setting",
    [
        {"do_sample": True},
        {"repetition_penalty": 1.3},
        {"num_return_sequences": 2},
        {"bad_words_ids": [[5]]},
        {"early_stopping": "never"},
        {"eos_token_id": [2, 5]},
        {"no_such_setting": 3},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_what_has_no_counterpart_is_refused_in_one_line(opened, setting):
    kind, model, engine = opened
    with pytest.raises(PessError, match=rf"^engine='ctranslate2': .*{next(iter(setting))}") as caught:
        extract(model, kind, engine=engine, **setting)
    assert "\n" not in str(caught.value)


def test_settings_without_effect_pass():
    neutral = {"repetition_penalty": 1.0, "do_sample": False, "temperature": 0.7, "use_cache": True, "top_k": 50}
    assert decoding_options(GenerationConfig(), neutral) == decoding_options(GenerationConfig(), {})


def test_a_tokenizer_without_an_unknown_token_will_do(cache):
    tokenizer = train_tokenizer(["I sing in a choir. I have two dogs."], 320)
    assert tokenizer.unk_token is None
    model = tiny_bart(1, tokenizer, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2)
    engine = CTranslate2Engine(model, tokenizer, "float32", cache)
    settings = {"num_beams": 2, "max_new_tokens": 12, "disable_tqdm": True}
    assert model.extract(MANY, tokenizer, engine=engine, **settings) == model.extract(MANY, tokenizer, **settings)
    assert tokenizer.unk_token is None


def test_a_backbone_that_cannot_be_converted_is_refused(cache):
    model, tokenizer = lively("encoder-decoder"), KINDS["encoder-decoder"][1]()
    with pytest.raises(PessError, match=r"^engine='ctranslate2': expected a backbone of type bart or t5, found 'enc"):
        CTranslate2Engine(model, tokenizer, cache_dir=cache)


def test_an_unknown_compute_type_is_refused(cache):
    with pytest.raises(PessError, match=r"^engine='ctranslate2': expected a device and compute_type .*'int3'"):
        CTranslate2Engine(lively("bart"), KINDS["bart"][1](), "int3", cache)


def test_a_vocabulary_of_another_size_is_refused(cache):
    model = lively("bart")
    model.resize_token_embeddings(model.config.vocab_size + 8)
    with pytest.raises(PessError, match=r"^engine='ctranslate2': expected a model that can be converted") as caught:
        CTranslate2Engine(model, KINDS["bart"][1](), cache_dir=cache)
    assert "\n" not in str(caught.value)


def test_without_the_package_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)  # Python's own way to refuse an import
    with pytest.raises(
        PessError, match=r"expected the package ctranslate2, found none\. Run: pip install 'pess_hf\[fast"
    ):
        extract(lively("bart"), engine="ctranslate2")


def test_int8_writes_much_of_the_same(cache):
    model, tokenizer = lively("bart").eval(), KINDS["bart"][1]()
    engine = CTranslate2Engine(model, tokenizer, "int8", cache)
    assert engine.translator.compute_type == "int8_float32"
    found, expected = (extract(model, dialogues=MANY, max_new_tokens=2, engine=e) for e in (engine, "torch"))
    assert sum(map(list.__eq__, found, expected)) >= len(MANY) // 2


def test_a_model_is_converted_once_and_anew_when_it_changes(tmp_path):
    model, tokenizer = lively("bart"), KINDS["bart"][1]()
    first = converted_folder(model, tokenizer, tmp_path)
    written = (first / "model.bin").stat().st_mtime_ns
    assert converted_folder(model, tokenizer, tmp_path) == first
    assert (first / "model.bin").stat().st_mtime_ns == written
    with torch.no_grad():
        model.model.decoder.layers[0].fc1.weight[0, 0] += 1
    second = converted_folder(model, tokenizer, tmp_path)
    assert second != first
    assert sorted(second.parent.iterdir()) == sorted([first, second])  # nothing unfinished is left


def test_the_name_follows_vocabulary_and_config_but_not_saving(tmp_path):
    model, tokenizer = lively("bart"), KINDS["bart"][1]()
    name = model_digest(model, tokenizer)
    model.save_pretrained(tmp_path)
    assert model_digest(model, tokenizer) == name
    assert model_digest(type(model).from_pretrained(tmp_path), tokenizer) == name
    tokenizer.add_tokens(["<new>"])
    assert model_digest(model, tokenizer) != name
    model.config.activation_function = "relu"
    assert model_digest(model, KINDS["bart"][1]()) != name


def test_engines_are_picked_by_name():
    model, tokenizer = lively("bart"), KINDS["bart"][1]()
    engine = open_engine(model, tokenizer)
    assert isinstance(engine, TorchEngine) and open_engine(model, tokenizer, engine) is engine
    with pytest.raises(PessError, match=r"^engine: expected torch or ctranslate2, found 'onnx'"):
        open_engine(model, tokenizer, "onnx")
    with pytest.raises(PessError, match=r"^compute_type='int8': expected none, for only engine='ctranslate2'"):
        extract(model, compute_type="int8")


def test_the_recipe_writes_the_same_file_with_both_engines(tmp_path):
    model, source = save_model(tmp_path / "model"), write_rows(tmp_path / "rows.jsonl")
    common = {"model": model, "input": source, "num_beams": 2, "disable_tqdm": True}
    files = {}
    for engine, more in (("torch", {}), ("ctranslate2", {"compute_type": "float32"})):
        files[engine] = tmp_path / f"{engine}.jsonl"
        recipe("extract").main(flags(**common, output=files[engine], engine=engine, **more))
    rows = [json.loads(line) for line in files["torch"].read_text().splitlines()]
    assert files["ctranslate2"].read_text() == files["torch"].read_text()
    assert len(rows) == 8 and any(row["persona"] for row in rows)


def test_the_recipe_refuses_an_unknown_engine_and_an_idle_compute_type(tmp_path):
    model, source = save_model(tmp_path / "model"), write_rows(tmp_path / "rows.jsonl")
    common = {"model": model, "input": source, "output": tmp_path / "out.jsonl"}
    with pytest.raises(SystemExit) as caught:
        recipe("extract").main(flags(**common, engine="onnx"))
    assert caught.value.code == 2
    with pytest.raises(PessError, match=r"^compute_type='int8': expected none"):
        recipe("extract").main(flags(**common, compute_type="int8"))
