"""Cards from a small fake run folder; the numbers here are made up and only there to be found again."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from tiny_runs import ARGUMENTS, GENERATOR_METRICS, RUN, TOKEN, make_records, run_with

from pess_hf.errors import PessError
from pess_hf.model_card import PessModelCardData, render_model_card, write_model_card
from pess_hf.run_folder import as_hub_id

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).parent / "golden"
GENERATOR_RUN = run_with(model_name_or_path="/tmp/base", extractor="/tmp/extractor") | {
    "recipe": "train_generator.py",
    "command": "python x.py",
}


@pytest.fixture
def make_run(tmp_path):
    def make(name="fake", **files):
        return make_records(tmp_path / name, **{"config": {"model_type": "bart"}} | files)

    return make


@pytest.fixture
def generator_run(make_run):
    return make_run(config={"model_type": "pess-generator"}, run=GENERATOR_RUN, metrics=GENERATOR_METRICS)


def head(card):
    return yaml.safe_load(card.split("---\n")[1])


def check_golden(name, card):
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(card, encoding="utf-8")
    assert card == (GOLDEN / name).read_text(encoding="utf-8"), "see the difference, then run with UPDATE_GOLDEN=1"


def test_extractor_card_is_the_golden_one(make_run):
    run = make_run(trainer_state={"global_step": 24})
    check_golden("extractor_card.md", render_model_card(run, model_id="tester/fake", license="apache-2.0"))


def test_generator_card_is_the_golden_one(generator_run):
    check_golden("generator_card.md", render_model_card(generator_run))


def prose(card):
    """What the templates say whatever the run: no head, title, table row, command, version or number of rows."""
    body = card.split("---\n", 2)[2]
    body = re.sub(r"```bash\n.*?```", "", body, flags=re.DOTALL)
    kept = [line for line in body.splitlines() if line and not line.startswith(("|", "# ", "Training rows:"))]
    return [line for line in kept if not re.fullmatch(r"- [\w-]+ \d[\w.+]*", line)]


@pytest.mark.parametrize("kind", ["extractor", "generator"])
def test_the_published_examples_say_what_the_templates_say_now(make_run, kind):
    example = (ROOT / "model_cards" / f"{kind}_example.md").read_text(encoding="utf-8")
    base = head(example).get("base_model", "/tmp/base")
    run = make_run(run=run_with(model_name_or_path=base), metrics={"test_loss": 1.0})
    card = render_model_card(run, kind, license="apache-2.0")
    assert prose(example) == prose(card)
    assert set(head(card)) == set(head(example)) and head(card)["tags"] == head(example)["tags"]


def test_the_head_holds_what_was_measured(make_run, tmp_path):
    write_model_card(make_run(), model_id="tester/fake", license="mit", tags=["bart"])
    data = ModelCard.load(tmp_path / "fake" / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "text-generation", "mit")
    assert (data.base_model, data.language) == ("facebook/bart-base", "en")
    assert {"pess", "bart"} <= set(data.tags)
    measured = {result.metric_type: result.metric_value for result in data.eval_results}
    assert measured == {"persona_precision": 0.7123, "persona_recall": 0.6, "persona_f1": 0.6514, "loss": 1.25}
    assert data.metrics == list(measured)


def test_sources_are_lists_and_the_command_measures_what_the_run_measured(make_run):
    more = {"train_data": ["me/one", "me/two"], "test_data": ["me/three"], "test_split": "test", "max_test_rows": 5}
    card = render_model_card(make_run(run=run_with(**more)), model_id="tester/fake")
    assert head(card)["datasets"] == ["me/one", "me/two"] and "`me/one, me/two`" in card
    assert head(card)["model-index"][0]["results"][0]["dataset"]["type"] == "me/three"
    command = "--model tester/fake --data me/three --split test --max_rows 5 --similarity_threshold 0.6"
    assert f"python recipes/evaluate_extractor.py {command}" in card
    strict = run_with(train_data=["me/one"], test_data=["me/three"], one_to_one_matching=True)
    assert "--one_to_one true" in render_model_card(make_run("strict", run=strict))
    held_out = {"train_data": ["sample"], "held_out_fraction": 0.1}
    card = render_model_card(make_run("held", run=run_with(**held_out)))
    assert "--data sample --held_out_fraction 0.1 --seed 42 " in card and "seeded grammar" in card
    mixed = render_model_card(make_run("mixed", run=run_with(train_data=["sample", "a.jsonl"])))
    assert "Local files" in mixed and "a.jsonl" not in mixed


def test_the_command_of_a_generator_measures_what_its_run_measured(make_run):
    measured = {"test_data": "me/three", "test_split": "test", "max_test_dialogues": 12, "max_test_replies": 24,
                "max_target_length": 40, "generation_num_beams": 2, "max_context_length": 48, "max_persona_length": 32,
                "persona_source": "inferred"}  # fmt: skip
    run = make_run("g", config={"model_type": "pess-generator"}, run=run_with(**measured), metrics=GENERATOR_METRICS)
    card = render_model_card(run)
    line = next(line for line in card.splitlines() if line.startswith("python recipes/evaluate_generator.py "))
    words = line.split()[2:]
    assert dict(zip(words[::2], words[1::2], strict=True)) == {
        "--model": ".", "--data": "me/three", "--split": "test", "--max_dialogues": "12", "--max_replies": "24",
        "--max_new_tokens": "40", "--num_beams": "2", "--max_context_length": "48", "--max_persona_length": "32",
        "--persona_source": "inferred", "--extractor": "EXTRACTOR", "--output": "metrics.json",
        "--similarity_model": "sentence-transformers/all-MiniLM-L6-v2",
    }  # fmt: skip


def test_what_was_not_measured_is_blank(make_run):
    card = render_model_card(make_run(metrics={"test_persona_f1": float("nan"), "test_persona_recall": None}))
    assert "model-index" not in head(card) and "metrics" not in head(card) and "model_name" not in head(card)
    assert "| Persona F1 |  |" in card and "| Persona recall |  |" in card and "| Loss |  |" in card
    bare = render_model_card(make_run("bare", metrics={}, run={}))
    assert "| `completeness_weight` |  |" in bare and "| time |  |" in bare
    broken = make_run("broken", run=RUN | {"seconds": float("inf")})
    assert "| time |  |" in render_model_card(broken)
    assert set(head(bare)) == {"library_name", "pipeline_tag", "tags"}


def test_numbers_of_the_validation_part_are_called_that(make_run):
    card = render_model_card(make_run(metrics={"eval_persona_f1": 0.5, "eval_loss": 2}))
    assert "On the validation part" in card and "| Persona F1 | 0.5000 |" in card
    assert head(card)["model-index"][0]["results"][0]["dataset"]["split"] == "validation"


@pytest.mark.parametrize("kind", ["extractor", "generator"])
def test_no_path_and_no_token_in_a_card(make_run, kind, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "plain-looking-token")
    arguments = ARGUMENTS | {"model_name_or_path": "/tmp/base", "train_data": "/srv/somebody/secret.jsonl"}
    command = f"python /srv/somebody/x.py --wandb_api_key=12345 --note plain-looking-token {TOKEN} ~/y C:\\z\\w"
    run = make_run(run=RUN | {"arguments": arguments, "command": command})
    card = render_model_card(run, kind)
    for secret in ("/tmp", "/srv", "somebody", "secret.jsonl", TOKEN, "12345", "plain-looking", "~/", "C:\\"):
        assert secret not in card, secret
    assert "base_model" not in head(card) and "datasets" not in head(card)
    assert "--note ***" in card and "Local files" in card
    assert "max_new_tokens" in card


def test_hub_ids_and_paths(tmp_path):
    (tmp_path / "mine" / "base").mkdir(parents=True)
    for name in ("/tmp/x", "./x", "../x", "~/x", "runs/x", "a/b/c", "https://a.b/c", "C:\\x", "bart", "", None, 3):
        assert as_hub_id(name) is None, name
    assert as_hub_id("mine/base") == "mine/base"
    assert as_hub_id("mine/base", near=tmp_path / "run") is None
    assert as_hub_id("gpt2", bare=True) == "gpt2"


def test_a_local_base_model_is_dropped_with_a_warning(caplog):
    data = PessModelCardData(kind="generator", base_model="/tmp/x")
    assert data.base_model is None and "left out" in caplog.text and "/tmp" not in caplog.text
    assert "base_model" not in data.to_yaml()


def test_an_adapter_says_so(make_run):
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "/tmp/base"}
    card = render_model_card(make_run(config=None, adapter_config=adapter), model_id="tester/fake")
    assert head(card)["library_name"] == "peft"
    assert (head(card)["base_model"], head(card)["base_model_relation"]) == ("facebook/bart-base", "adapter")
    assert 'from_pretrained("facebook/bart-base")' in card and "PeftModel" in card


def test_overrides_win(make_run):
    given = {"base_model": "me/base", "datasets": ["me/one", "me/two"], "language": ["en", "de"], "model_name": "Name"}
    card = render_model_card(make_run(), **given, train_data_license="CC0", evaluation_command="make it")
    data = head(card)
    assert (data["base_model"], data["datasets"], data["language"]) == ("me/base", ["me/one", "me/two"], ["en", "de"])
    assert "# Name\n" in card and "Licence: CC0." in card and "make it" in card


@pytest.mark.parametrize(
    ("break_it", "arguments", "message"),
    [
        (lambda run: (run / "metrics.json").unlink(), {}, r"metrics\.json: no such file"),
        (lambda run: (run / "config.json").unlink(), {}, r"config\.json: no such file"),
        (lambda run: (run / "run.json").write_text("{"), {}, r"run\.json: expected JSON"),
        (lambda run: (run / "run.json").write_text("[]"), {}, r"run\.json: expected a JSON object, found list"),
        (lambda run: (run / "metrics.json").write_text('{"a": "b"}'), {}, "expected a number for 'a', found 'b'"),
        (shutil.rmtree, {}, "found no folder"),
        (None, {"kind": "other"}, "expected kind extractor or generator, found 'other'"),
        (None, {"licence": "mit"}, "unknown field 'licence'. The nearest known one is 'license'"),
        (None, {"model_id": "/tmp/x"}, "expected an id on the Hub for model_id"),
    ],
)
def test_what_the_user_can_mend_is_one_line(make_run, break_it, arguments, message):
    run = make_run()
    if break_it:
        break_it(run)
    with pytest.raises(PessError, match=message) as caught:
        render_model_card(run, **arguments)
    assert "\n" not in str(caught.value)


def test_the_usage_block_without_pess_hf_runs_as_printed(make_run, fresh_process):
    from test_loopback_hub import tiny_bart
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    run = make_run()
    words = {word: number for number, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "I", "dogs", "sing", "|"])}
    words_only = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    words_only.pre_tokenizer = pre_tokenizers.Whitespace()
    specials = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words_only, **specials)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(run)
    tiny_bart().save_pretrained(run)
    blocks = re.findall(r"```python\n(.*?)```", render_model_card(run), re.DOTALL)
    plain = [block for block in blocks if "pess_hf" not in block]
    assert len(blocks) == 2 and len(plain) == 1
    done = fresh_process(plain[0], library=False, cwd=run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")


@pytest.mark.parametrize("editable", [False, True])
def test_templates_are_found_after_installation(make_run, tmp_path, editable):
    checkout, target = tmp_path / "checkout", tmp_path / "venv"
    ignore = shutil.ignore_patterns(".*", "tests", "runs", "build", "*.egg-info")
    shutil.copytree(ROOT, checkout, ignore=ignore)
    venv.create(target, with_pip=False, system_site_packages=False)
    site = next(target.glob("lib/python*/site-packages"))
    flags = ["--editable"] if editable else []
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        *flags,
        str(checkout),
    ]
    subprocess.run([*command, "--prefix", str(target)], check=True, cwd=tmp_path)
    (site / "outer.pth").write_text(str(Path(yaml.__file__).parent.parent))
    code = "import sys, pess_hf.model_card as m; print(m.__file__); print(m.render_model_card(sys.argv[1])[:3])"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [target / "bin" / "python", "-c", code, make_run()],
        env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    place, start = done.stdout.split()
    assert start == "---" and Path(place).is_relative_to(checkout if editable else target)
