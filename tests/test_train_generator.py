"""The generator recipes on tiny models, end to end, and the scores of replies."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tiny_support import CountingExtractor, tiny_support_model

from pess_hf import PessGenerator
from pess_hf.errors import PessError
from pess_hf.generator_args import GeneratorArguments, PersonaSourceArguments, load_examples
from pess_hf.generator_evaluation import measure_generator
from pess_hf.metrics import SupportReplyMetric
from pess_hf.pipeline import collator_of
from pess_hf.reply_metrics import persona_similarity, reply_scores, words_of

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted((ROOT / "recipes" / "configs" / "generator").glob("*.yaml"))
TINY = {
    "model_type": "bart",
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 64,
}


def recipe(name):
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", ROOT / "recipes" / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings(tmp_path, **more):
    values = {
        "backbone_config": TINY,
        "vocab_size": 400,
        "persona_source": "reference",
        "train_data": "sample",
        "test_data": "sample",
        "test_split": "test",
        "max_train_dialogues": 6,
        "max_test_dialogues": 3,
        "max_test_replies": 4,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "output_dir": str(tmp_path / "run"),
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({**values, **more}))
    return ["--config", str(path)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generator")
    recipe("train_generator").main(settings(folder))
    return folder / "run"


def test_what_a_run_leaves_behind(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    names = "loss perplexity strategy_accuracy bleu_2 bleu_4 rouge_l distinct_1 distinct_2 persona_similarity"
    assert {f"test_{name}" for name in names.split()} <= set(metrics)
    assert metrics["test_perplexity"] == pytest.approx(math.exp(metrics["test_loss"]))
    rows = [json.loads(line) for line in (finished / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and {"dialogue_id", "turn", "persona", "reference", "generated"} == set(rows[0])
    assert json.loads((finished / "run.json").read_text())["arguments"]["persona_source"] == "reference"
    assert "not a substitute for professional help" in (finished / "README.md").read_text()


def test_evaluating_again_gives_the_same(finished, tmp_path, capsys):
    output = tmp_path / "scores.json"
    command = ["--model", finished, "--data", "sample", "--split", "test", "--output", output, "--max_dialogues", "3"]
    command += ["--max_replies", "4", "--persona_source", "reference", "--predictions", tmp_path / "replies.jsonl"]
    recipe("evaluate_generator").main([str(word) for word in command])
    scores, metrics = json.loads(output.read_text()), json.loads((finished / "metrics.json").read_text())
    assert scores["replies"] == 4
    assert (tmp_path / "replies.jsonl").read_text() == (finished / "predictions.jsonl").read_text()
    assert {f"test_{name}": value for name, value in scores.items() if name not in ("examples", "replies")} == {
        name: pytest.approx(value, rel=1e-4) for name, value in metrics.items() if name.startswith("test_")
    }


def test_replies_go_on_to_human_evaluation(finished, tmp_path):
    other, study = tmp_path / "other.jsonl", tmp_path / "study"
    command = ["--model", finished, "--data", "sample", "--split", "test", "--output", tmp_path / "scores.json"]
    command += ["--max_dialogues", "3", "--max_replies", "4", "--max_new_tokens", "2", "--predictions", other]
    recipe("evaluate_generator").main([*map(str, command), "--persona_source", "none"])
    command = [
        "--system_a",
        finished / "predictions.jsonl",
        "--system_b",
        other,
        "--data",
        "sample",
        "--split",
        "test",
    ]
    recipe("human_eval").main(["make", *map(str, command), "--raters", "1", "--output_dir", str(study)])
    pairs = json.loads((study / "key" / "key.json").read_text())["items"]
    rows = [json.loads(line) for line in (finished / "predictions.jsonl").read_text().splitlines()]
    assert pairs and {tuple(place) for place in pairs.values()} <= {(row["dialogue_id"], row["turn"]) for row in rows}


def test_a_run_without_personas_is_measured_against_them(tmp_path):
    recipe("train_generator").main(settings(tmp_path, persona_source="none"))
    assert "test_persona_similarity" in json.loads((tmp_path / "run" / "metrics.json").read_text())


def test_going_on_from_a_generator(finished, tmp_path):
    more = settings(tmp_path, backbone_config=None, model_name_or_path=str(finished), max_steps=1)
    recipe("train_generator").main(more)
    assert (tmp_path / "run" / "config.json").is_file()


def test_chat_answers_a_file(finished, tmp_path, capsys):
    messages = tmp_path / "messages.json"
    messages.write_text(json.dumps([{"role": "user", "content": "I lost my job."}]))
    command = ["--model", finished, "--input", messages, "--output", tmp_path / "answer.json", "--strategy", "Other"]
    recipe("chat").main([str(word) for word in command])
    assert json.loads((tmp_path / "answer.json").read_text())["strategy"] == "Others"
    assert "supporter [Others]:" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", None])
def test_chat_with_a_bad_file(finished, tmp_path, text):
    path = tmp_path / "messages.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PessError, match=r"messages\.json"):
        recipe("chat").main(["--model", str(finished), "--input", str(path)])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"backbone_config": None}, "either model_name_or_path or backbone_config"),
        ({"backbone_config": {"d_model": 8}}, "model_type"),
        ({"backbone_config": {"model_type": "bert"}}, "encoder-decoder"),
        ({"persona_source": "inferred"}, "--extractor"),
        ({"persona_source": "guessed"}, "persona_source"),
        ({"max_context_length": 2}, "max_context_length"),
        ({"max_target_length": 5000}, r"^max_target_length: expected 1 to \d+, the model's positions, found 5000"),
        ({"persona_min_words": 30}, "min_words"),
    ],
)
def test_bad_settings(tmp_path, more, message):
    with pytest.raises(PessError, match=message):
        recipe("train_generator").main(settings(tmp_path, **more))


def test_reference_needs_personas(tmp_path):
    turns = [{"speaker": "supporter", "text": "hi", "strategy": "Question"}]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"turns": turns}))
    with pytest.raises(PessError, match="persona_source reference"):
        load_examples([str(path)], None, None, PersonaSourceArguments(persona_source="reference"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_settings_are_accepted(path):
    from transformers import Seq2SeqTrainingArguments

    from pess_hf.arguments import parse_recipe_args
    from pess_hf.generator_args import SupportDataArguments
    from pess_hf.lora_args import LoraArguments

    kinds = [GeneratorArguments, PersonaSourceArguments, SupportDataArguments, LoraArguments, Seq2SeqTrainingArguments]
    model_args, persona_args, _, _, _ = parse_recipe_args(kinds, ["--config", str(path), "--extractor", "x"])
    assert persona_args.persona_source in ("reference", "inferred")
    assert (model_args.backbone_config is None) == (
        path.stem in ("blenderbot-small", "blenderbot-small-lora", "bart-base")
    )


def test_inferred_personas_reach_the_examples(tmp_path, monkeypatch):
    import transformers

    import pess_hf.modeling_extractor as extractors

    extractor = CountingExtractor()
    monkeypatch.setattr(extractors.AutoPessExtractor, "from_pretrained", lambda name: extractor)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda name: tiny_support_model()[1])
    examples = load_examples(["sample"], "test", 2, PersonaSourceArguments("inferred", "x"))
    assert {sentence.split()[0] for persona in examples["persona"] for sentence in persona} == {"said:"}


class TestScores:
    def test_hand_worked(self):
        scores = reply_scores(["a b c d"], ["a b x d"])
        assert scores["bleu_2"] == pytest.approx(math.sqrt(3 / 4 * 1 / 3))
        assert scores["rouge_l"] == pytest.approx(3 / 4)
        assert (scores["distinct_1"], scores["distinct_2"]) == (1.0, 1.0)

    def test_empty_replies(self):
        assert set(reply_scores(["", ""], ["a", "b"]).values()) == {0.0}

    def test_words(self):
        assert words_of("I\u2019m OK, really.") == ["i'm", "ok", ",", "really", "."]

    def test_as_an_evaluate_metric(self):
        replies, references = ["you are fine", "what happened ?"], ["You are fine.", "What happened?"]
        assert SupportReplyMetric().compute(predictions=replies, references=references) == reply_scores(
            replies, references
        )

    def test_persona_similarity_is_over_those_with_a_persona(self):
        class Encoder:
            def encode(self, texts, **kwargs):
                vectors = {"east": [1.0, 0.0], "north": [0.0, 1.0], "both of them": [0.6, 0.8]}
                return torch.tensor([vectors[text] for text in texts]).numpy()

        personas = [["both", "of them"], [], ["both of them"]]
        assert persona_similarity(["east", "unknown", "north"], personas, Encoder()) == pytest.approx(0.7)
        assert persona_similarity(["east"], [[]], Encoder()) is None


def test_measuring_counts_tokens_whatever_the_batch():
    model, tokenizer = tiny_support_model()
    examples = load_examples(["sample"], "test", 2, PersonaSourceArguments(persona_source="reference"))
    collator = collator_of(model, tokenizer, use_persona=True)
    found = [
        measure_generator(model, collator, examples, batch_size=size, max_replies=2, disable_tqdm=True)[0]
        for size in (1, 5)
    ]
    assert found[0] == {name: pytest.approx(value, rel=1e-4) for name, value in found[1].items()}
    assert "persona_similarity" not in found[0]


def test_public_names():
    import pess_hf

    for name in pess_hf.__all__:
        assert getattr(pess_hf, name) is not None
    assert pess_hf.PessGenerator is PessGenerator
