"""The benchmark of extraction, run tiny, and the model that it teaches and enlarges."""

import importlib
import json
import sys

import pytest
import torch
from recipe_runs import ROOT, flags, save_model, write_rows
from tiny_extractor import matcher, rows


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("extract", "taught_bart"):  # other scripts have such names
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("extract")
    monkeypatch.setattr(module, "PersonaMatcher", matcher)
    return module


def run(benchmark, monkeypatch, folder, **settings):
    settings = {
        "model": save_model(folder / "model"), "data": write_rows(folder / "rows.jsonl"), "rows": 5, "beams": [3],
        "batch": 2, "baseline-batch": 2, "max-new-tokens": 8, "repeats": 1, "json": folder / "out.json",
    } | settings  # fmt: skip
    words = flags(**settings)
    monkeypatch.setattr(sys, "argv", ["extract.py", *words])
    return benchmark.main()


def test_all_ways_are_compared_and_timed(benchmark, monkeypatch, tmp_path, capsys):
    assert run(benchmark, monkeypatch, tmp_path, scaling=[3, 12]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    result = found["beams"]["3"]
    assert set(result["seconds"]) == set(result["times_the_baseline"]) == set(benchmark.WAYS)
    assert result["times_the_baseline"]["baseline"] == 1 and min(result["seconds"].values()) > 0
    assert all(result["rows_equal"][name] == 5 for name in ("baseline", *benchmark.SAME_TEXT))
    assert set(result["scores"]) == {"float32", "int8", "int8 against float32"}
    assert set(found["scaling"]) == {"3", "12"}
    assert "12 rows in" in capsys.readouterr().out


def test_another_text_is_an_error(benchmark, monkeypatch, tmp_path, capsys):
    plain = benchmark.baseline
    monkeypatch.setattr(benchmark, "baseline", lambda *args: [*plain(*args)[:-1], ["Something else."]])
    assert run(benchmark, monkeypatch, tmp_path, ways=["extract"]) == 1
    assert "error: not the baseline's text in every row: extract at beam 3" in capsys.readouterr().err
    assert json.loads((tmp_path / "out.json").read_text())["beams"]["3"]["rows_equal"]["extract"] == 4


def test_an_enlarged_model_computes_what_the_small_one_does(benchmark):
    taught = sys.modules["taught_bart"]
    small, tokenizer = taught.teach(list(rows()), steps=3, batch=4, vocab_size=320)
    words = len(tokenizer)
    source = torch.tensor([tokenizer("I sing in a choir. | Hello.")["input_ids"]])
    target = torch.tensor([tokenizer("I sing.")["input_ids"]])
    large, tokenizer = taught.enlarge(small, tokenizer, 3, 256, words + 7)
    assert large.config.vocab_size == len(tokenizer) == words + 7
    assert (large.config.d_model, large.config.decoder_layers) == (256, 3)
    with torch.no_grad():
        expected = small(input_ids=source, decoder_input_ids=target).logits
        logits = large(input_ids=source, decoder_input_ids=target).logits
    torch.testing.assert_close(logits[..., :words], expected, rtol=1e-3, atol=1e-3)
    assert logits[..., words:].max() < expected.min()
