"""Replies with and without personas: scores by problem type, from finished runs and from runs that are trained."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from fake_encoder import FakeEncoder
from recipe_runs import RECIPES, flags, launch_here, recipe, save_model
from tiny_support import tiny_support_model
from transformers import Seq2SeqTrainingArguments

from pess_hf import PessError, experiment, reply_runs, similarity
from pess_hf.data import load_support_dataset
from pess_hf.data.support_examples import build_support_examples
from pess_hf.experiment_args import read_experiment_of
from pess_hf.generator_evaluation import Reply, measure_generator, reply_rows
from pess_hf.pipeline import collator_of
from pess_hf.reply_metrics import bleu_counts, bleu_of, reply_scores
from pess_hf.reply_scores import persona_sources

TYPES = ["work", "home", "work", "", "work"]
STRATEGIES = ["Question", "Others", "Information", "Others", "Question"]
ANSWERS = ["That must be hard.", "Tell me more of it.", "I see.", "You are not alone.", "What helped you then?"]
LENGTHS = {"max_context_length": 60, "max_persona_length": 30, "max_target_length": 40}
PERSONA = ["I have a boss.", "I am tired."]


class Encoder(FakeEncoder):
    """Replies that say "hard" are what the persona is about; the others have nothing to do with it."""

    def encode(self, sentences, *, batch_size=1, convert_to_numpy=True, **settings):
        return super().encode(sentences, batch_size=batch_size, convert_to_numpy=convert_to_numpy, **settings)

    def _vector(self, sentence):
        return (1, 0) if "hard" in sentence or sentence == " ".join(PERSONA) else (0, 1)


@pytest.fixture(scope="module", autouse=True)
def _sentences_cost_nothing():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "load_encoder", lambda *_, **__: Encoder())
        yield


def write_conversations(path):
    """Five conversations of two supporter turns each."""
    rows = []
    for n, kind in enumerate(TYPES):
        said = ["Hi.", ANSWERS[n], "My boss shouts.", ANSWERS[n - 1]]
        labels = [None, STRATEGIES[n], None, STRATEGIES[n - 1]]
        speakers = ["seeker", "supporter"] * 2
        turns = [
            {"speaker": who, "text": text, "strategy": label}
            for who, text, label in zip(speakers, said, labels, strict=True)
        ]
        rows.append({"dialogue_id": f"talk-{n}", "problem_type": kind, "turns": turns})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_run(folder, data, replies, persona_source="none", seed=0):
    """A finished run: a tiny generator and what it is said to have answered."""
    model, tokenizer = tiny_support_model(seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    examples = build_support_examples(load_support_dataset([data]))
    rows = list(reply_rows(examples, replies))
    for row in rows[1::2]:
        row["persona"] = PERSONA  # known at each second turn
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.json").write_text(json.dumps({"arguments": {"persona_source": persona_source, **LENGTHS}}))
    (folder / "metrics.json").write_text(json.dumps({"test_loss": 1.0}))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Conversations; a run that always asks and says the same; two seeds of one that sees personas and is right."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_conversations(folder / "talks.jsonl")
    truth = [(STRATEGIES[n - back], ANSWERS[n - back]) for n in range(5) for back in (0, 1)]
    plain = write_run(folder / "plain", data, [Reply("Question", "I see.")] * 10)
    seeds = []
    for seed in (1, 2):
        replies = [Reply(*one) for one in truth[: 8 + seed]] + [Reply(None, "")] * (2 - seed)
        seeds.append(write_run(folder / f"pess-{seed}", data, replies, "inferred", seed))
    return data, plain, seeds


def run(made, folder, **settings):
    data, plain, seeds = made
    runs = [f"plain={plain}", f"pess={','.join(map(str, seeds))}"]
    common = {"runs": runs, "test_data": data, "output_dir": folder, "resamples": 50, "min_dialogues": 2}
    recipe("experiments/responses").main(flags(**common | settings))
    return json.loads((folder / "responses.json").read_text())


@pytest.fixture(scope="module")
def measured(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    return folder, run(made, folder)


def scores(results, kind="all"):
    [entry] = [entry for entry in results["results"] if entry["problem_type"] == kind]
    return {one["name"]: one["scores"] for one in entry["settings"]}


class TestMeasuring:
    def test_types_are_counted_and_rare_ones_not_scored(self, measured):
        folder, results = measured
        found = [(one["problem_type"], one["conversations"], one["replies"]) for one in results["results"]]
        assert found == [("all", 5, 10), ("work", 3, 6), ("home", 1, 2), ("not given", 1, 2)]
        assert [one["settings"] is None for one in results["results"]] == [False, False, True, True]
        text = (folder / "responses.md").read_text()
        assert "| home | 1 | 2 | fewer than 2 |  |" in text and "| not given | 1 | 2 | fewer than 2 |" in text
        assert text.count("| home |") == 1 and "| work | 3 | 6 | pess | 2 |" in text
        assert (folder / "responses.png").read_bytes().startswith(b"\x89PNG")

    def test_scores_of_all_and_of_one_type(self, measured, made):
        examples = build_support_examples(load_support_dataset([made[0]]))
        wanted, known = list(examples["response"]), list(examples["strategy"])
        for kind, rows in (("all", range(10)), ("work", [0, 1, 4, 5, 8, 9])):
            expected = reply_scores(["I see."] * len(rows), [wanted[row] for row in rows])
            found = scores(measured[1], kind)["plain"]
            assert {name: found[name]["value"] for name in expected} == pytest.approx(expected)
            asked = [known[row] == "Question" for row in rows]
            assert found["strategy_accuracy"]["value"] == pytest.approx(sum(asked) / len(rows))
            for name in ("bleu_2", "strategy_accuracy", "rouge_l", "perplexity"):
                low, high = found[name]["interval"]
                assert low <= found[name]["value"] <= high
            assert "interval" not in found["distinct_1"]

    def test_perplexity_is_that_of_evaluation(self, measured, made):
        data, plain, seeds = made
        examples = build_support_examples(load_support_dataset([data])).to_list()
        for row in examples[1::2]:
            row["persona"] = PERSONA
        features = build_support_examples(load_support_dataset([data])).features
        found = scores(measured[1])
        for name, folder, number in (("plain", plain, 0), ("pess", seeds[0], 0), ("pess", seeds[1], 1)):
            model, tokenizer = tiny_support_model({plain: 0, seeds[0]: 1, seeds[1]: 2}[folder])
            collator = collator_of(model, tokenizer, use_persona=name == "pess", **LENGTHS)
            dataset = type(load_support_dataset([data])).from_list(examples, features=features)
            expected, _ = measure_generator(
                model, collator, dataset, batch_size=3, max_replies=1, disable_tqdm=True, max_new_tokens=2
            )
            assert found[name]["perplexity"]["by_seed"][number] == pytest.approx(expected["perplexity"], rel=1e-4)

    def test_seeds_are_pooled_and_compared_with_the_first_setting(self, measured):
        plain, pess = scores(measured[1]).values()
        assert pess["strategy_accuracy"]["by_seed"] == [0.9, 1.0]
        assert pess["strategy_accuracy"]["value"] == pytest.approx(0.95)
        assert pess["strategy_accuracy"]["seed_interval"] is not None
        against = pess["strategy_accuracy"]["against_first"]
        assert against["difference"] == pytest.approx(0.95 - plain["strategy_accuracy"]["value"])
        assert "against_first" not in plain["strategy_accuracy"] and plain["rouge_l"]["seed_interval"] is None

    def test_all_settings_are_compared_with_the_same_personas(self, measured):
        found = scores(measured[1])
        # "hard" stands in the replies to rows 0 and 3, of which only row 3 has a persona; five rows have one
        assert found["plain"]["persona_cosine (pess)"]["value"] == 0
        assert found["pess"]["persona_cosine (pess)"]["value"] == pytest.approx(1 / 5)
        assert not any(name.startswith("persona_cosine (plain") for name in found["plain"])

    def test_nothing_is_measured_twice(self, made, measured, monkeypatch, tmp_path):
        folder = Path(shutil.copytree(measured[0], tmp_path / "out"))
        asked = []
        monkeypatch.setattr(reply_runs, "row_losses", lambda *_, **__: asked.append(1) or (np.ones(10), np.ones(10)))
        assert scores(run(made, folder))["pess"] == scores(measured[1])["pess"] and not asked
        data, plain, seeds = made
        other = Path(shutil.copytree(plain, tmp_path / "plain"))  # as if trained anew
        text = (other / "predictions.jsonl").read_text()
        (other / "predictions.jsonl").write_text(text.replace('"I see."', '"I hear."', 1))
        results = run((data, other, seeds), folder)
        found = scores(results)
        assert found["plain"]["perplexity"]["value"] == pytest.approx(np.e) and len(asked) == 1
        # Ten tokens as if by another tokenizer, one a reply: they stand under every run's likelihood.
        losses = json.loads((folder / "likelihood" / "pess-1.json").read_text())["losses"]
        assert found["pess"]["perplexity"]["by_seed"][1] == pytest.approx(np.exp(min(sum(losses) / 10, 700)))
        assert measured[1]["same_tokens"] and not results["same_tokens"]
        assert "Tokenizers differ: perplexity is per token of `plain`." in (folder / "responses.md").read_text()

    def test_personas_are_named_by_who_saw_them(self, made):
        _, plain, seeds = made
        runs = {"plain": [reply_runs.read_reply_run(plain)], "pess": [reply_runs.read_reply_run(seeds[0])]}
        assert persona_sources(runs) == {"pess": [runs["pess"][0].personas]}
        runs["plain"][0].personas[0].append("I sing.")
        assert list(persona_sources(runs)) == ["pess", "plain"]


class TestBadInput:
    @pytest.fixture
    def copy(self, made, tmp_path):
        """A run that may be spoilt, named as the second one."""
        return write_run(tmp_path / "copy", made[0], [Reply("Question", "I see.")] * 10)

    def refuse(self, made, tmp_path, message, copy=None, **settings):
        runs = {} if copy is None else {"runs": [f"plain={made[1]}", f"copy={copy}"]}
        with pytest.raises(PessError, match=message) as caught:
            run(made, tmp_path / "out", **runs | settings)
        assert "\n" not in str(caught.value)

    def test_no_generator(self, made, tmp_path, copy):
        save_model(copy)
        self.refuse(made, tmp_path, r"copy: expected a run of train_generator.py, found a model of type 'bart'", copy)

    def test_no_run(self, made, tmp_path, copy):
        self.refuse(made, tmp_path, "expected the folder of a finished run, or of several", tmp_path / "nowhere")
        (copy / "predictions.jsonl").unlink()
        self.refuse(made, tmp_path, "found no predictions.jsonl in it", copy)
        with pytest.raises(PessError, match=r"copy: expected predictions.jsonl in it, found none"):
            reply_runs.read_reply_run(copy)
        (copy / "run.json").write_text('{"arguments": {}}')
        with pytest.raises(PessError, match=r"found no persona_source in run.json"):
            reply_runs.read_reply_run(copy)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda rows: rows[:-1], r"plain and .*copy: 10 and 9 replies. Compare runs of the same test_data"),
            (lambda rows: rows[::-1], r"copy, row 0: turn 1 of 'talk-0' and turn 3 of 'talk-4'"),
            (lambda rows: [*rows[:-1], rows[0]], r"line 10: expected one reply a turn, found a second one for turn 1"),
            (lambda rows: [{**rows[0], "reference": {"strategy": None, "text": "No."}}, *rows[1:]],
             r"copy, row 0 \(turn 1 of 'talk-0'\): the references differ"),
            (lambda rows: [{**rows[0], "generated": ["I sing."]}, *rows[1:]],
             r"line 1, column 'generated': expected an object with a text 'text' and a 'strategy', found a list"),
            (lambda rows: [{**rows[0], "turn": "x"}, *rows[1:]], r"line 1, column 'turn': expected a whole number"),
        ],
    )  # fmt: skip
    def test_predictions_that_do_not_fit(self, made, tmp_path, copy, change, message):
        path = copy / "predictions.jsonl"
        rows = change([json.loads(line) for line in path.open()])
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.refuse(made, tmp_path, message, copy)

    def test_other_conversations(self, made, tmp_path):
        data = tmp_path / "other.jsonl"
        rows = [json.loads(line) for line in Path(made[0]).read_text().splitlines()]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
        self.refuse(
            made, tmp_path, r"test_data: expected the test turns of .*, found no turn 1 of 'talk-0'", test_data=data
        )
        rows[0]["turns"][1]["text"] = "Hm."
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.refuse(made, tmp_path, r"test_data: turn 1 of 'talk-0' has another reply than in", test_data=data)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({}, "extractors: expected it or runs, found neither"),
            ({"runs": "a=x"}, "test_data: expected the conversations to measure on, found none"),
            ({"runs": "x"}, "runs: expected NAME=PATH"),
            ({"runs": "none=x", "extractors": "a=y"}, "expected each name once, found 'none' twice"),
            ({"extractors": "a=x,y"}, "extractors: expected one folder for 'a', found several"),
            ({"runs": "a=x", "min_dialogues": 0}, "min_dialogues: expected 1 or more, found 0"),
            ({"runs": "a=x", "extractor": "y"}, "extractor: expected no such setting here"),
            ({"runs": "a=x", "seeds": 1, "push_to_hub": True}, "push_to_hub: expected no such setting"),
        ],
    )  # fmt: skip
    def test_what_makes_no_sense(self, tmp_path, settings, message):
        begins = {"train_data": "sample", "model_name_or_path": "m", "output_dir": tmp_path}
        with pytest.raises(PessError, match=message):
            recipe("experiments/responses").main(flags(**begins | settings))


def test_a_generator_is_trained_for_each_extractor(tmp_path, monkeypatch):
    extractor = save_model(tmp_path / "extractor")
    started = []
    monkeypatch.setattr(experiment, "_start_process", lambda *_: launch_here("train_generator", started))
    sizes = {"model_type": "bart", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16,
             "decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
             "max_position_embeddings": 64}  # fmt: skip
    data = {"train_data": "sample", "test_data": "sample", "test_split": "test", "max_train_dialogues": 3}
    settings = data | {
        "backbone_config": sizes, "vocab_size": 400, "seeds": [3], "max_test_dialogues": 2, "max_steps": 1,
        "report_to": "none", "use_cpu": True, "disable_tqdm": True, "output_dir": str(tmp_path / "out"),
        "resamples": 20, "extractors": [f"tiny={extractor}"], "persona_source": "inferred", "max_target_length": 8,
    }  # fmt: skip
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    words = ["--config", str(tmp_path / "settings.yaml")]
    recipe("experiments/responses").main(words)
    assert [(one["persona_source"], one.get("extractor"), one["seed"]) for one in started] == [
        ("none", None, 3),
        ("inferred", extractor, 3),
    ]
    assert all(one["save_strategy"] == "no" and "save_before_pess" not in one for one in started)
    results = json.loads((tmp_path / "out" / "responses.json").read_text())
    assert results["runs"]["tiny"] == [str(tmp_path / "out" / "tiny" / "seed-3")]
    assert [one["name"] for one in results["results"][0]["settings"]] == ["none", "tiny"]
    recipe("experiments/responses").main(words)
    assert len(started) == 2
    with pytest.raises(PessError, match=r"settings.yaml: expected the settings of this experiment, found others"):
        recipe("experiments/responses").main([*words, "--max_steps", "2"])


def test_the_settings_file_is_read_strictly():
    module = recipe("experiments/responses")
    path = RECIPES / "configs" / "experiments" / "responses.yaml"
    words = module.with_stand_ins(["--config", str(path)])
    found = read_experiment_of(module.TRAINING_TYPES, module.ResponsesArguments, words)
    assert len(found.own.seeds) >= 3 and len(found.own.extractors) == 2
    assert found.settings["max_test_replies"] is None and found.settings["test_data"]
    assert isinstance(found.training[-1], Seq2SeqTrainingArguments)


def test_bleu_of_sums_is_that_of_nltk():
    draw = random.Random(0)
    for _ in range(60):
        texts = [" ".join(draw.choice("abcd.") for _ in range(draw.randint(0, 6))) for _ in range(6)]
        sums, expected = bleu_counts(texts[:3], texts[3:]).sum(axis=1), reply_scores(texts[:3], texts[3:])
        assert [bleu_of(sums, n).item() for n in (2, 4)] == pytest.approx([expected["bleu_2"], expected["bleu_4"]])
