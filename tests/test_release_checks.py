"""Runs that are not fit to be published: one line that names file and cure, before anything is sent."""

import json
import shutil

import pytest
import torch
from release_recipe import FILES, REPO, refused
from safetensors.torch import load_file, save_file
from tiny_published import same_weights, tiny_extractor
from tiny_runs import DIALOGUE_TEXT, TOKEN, make_adapter_run, make_generator_run, run_with
from tiny_tokenizers import byte_level_tokenizer, unigram_tokenizer

from pess_hf.hub_files import public_files
from pess_hf.modeling_extractor import PessExtractor

SENTENCE = 'My sister’s name is "Anna" and I live in Zürich.'


def break_shard(run):
    data = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(data[: len(data) // 2])


def drop_tensor(run):
    tensors = load_file(run / "model.safetensors")
    tensors.pop("model.decoder.layers.0.fc1.weight")
    save_file(tensors, run / "model.safetensors", {"format": "pt"})


def make_nan(run):
    tensors = load_file(run / "model.safetensors")
    tensors["model.decoder.layers.0.fc1.bias"][0] = torch.nan
    save_file(tensors, run / "model.safetensors", {"format": "pt"})


def hide_in_weights(run):
    save_file(load_file(run / "model.safetensors"), run / "model.safetensors", {"format": "pt", "note": DIALOGUE_TEXT})


def pickle_weights(run):
    torch.save(load_file(run / "model.safetensors"), run / "pytorch_model.bin")
    (run / "model.safetensors").unlink()


def rewrite(name, **values):
    def change(run):
        path = run / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (pickle_weights, ["expected weights (model.safetensors)"]),
        (break_shard, ["model.safetensors: expected weights"]),
        (drop_tensor, ["found no model.decoder.layers.0.fc1.weight"]),
        (make_nan, ["NaN or infinity in model.decoder.layers.0.fc1.bias"]),
        (lambda run: (run / "tokenizer_config.json").unlink(), ["expected a tokenizer"]),
        (lambda run: (run / "metrics.json").write_text("{}"), ["expected measured numbers"]),
        (lambda run: (run / "metrics.json").unlink(), ["metrics.json: no such file"]),
        (rewrite("metrics", note=DIALOGUE_TEXT), ["expected a number for 'note'"]),
        (rewrite("config", note=DIALOGUE_TEXT), ["config.json: expected no dialogue text"]),
        (rewrite("tokenizer_config", note=TOKEN), ["tokenizer_config.json: expected no token"]),
        (
            rewrite("config", encoder={"files": ["/srv/somebody/vocab.txt"]}),
            ["config.json: expected no folder of this machine", "found one at 'encoder.files.0'"],
        ),
        (rewrite("tokenizer_config", vocab_file="C:\\Users\\me\\vocab.txt"), ["found one at 'vocab_file'"]),
        (hide_in_weights, ["model.safetensors: expected no dialogue text"]),
        (rewrite("run", arguments={}), ["expected train_data in run.json"]),
        (rewrite("run", **run_with(train_data=["my.jsonl"])), ["--train_data_license"]),
    ],
)
def test_a_run_that_is_not_fit_is_refused_before_anything_is_sent(hub, release, run, change, words):
    change(run)
    assert refused(release(), *words)
    assert not hub.log


def test_where_the_parts_of_a_model_were_loaded_from_is_left_out(run):
    rewrite("config", encoder={"_name_or_path": "/srv/me/bert"}, decoder={"_name_or_path": "my/bert"})(run)
    published = json.loads(public_files(run)["config.json"])
    assert published["encoder"] == {} and published["decoder"] == {"_name_or_path": "my/bert"}


# Broken files


def cut(name):
    def change(run):
        data = (run / name).read_bytes()
        (run / name).write_bytes(data[: len(data) // 2])

    return change


def write(name, text):
    return lambda run: (run / name).write_text(text, encoding="utf-8")


def shard(run, seed=0):
    (run / "model.safetensors").unlink(missing_ok=True)
    tiny_extractor(seed).save_pretrained(run, max_shard_size="8KB")


def shard_with(index):
    def change(run):
        shard(run)
        (run / "model.safetensors.index.json").write_text(index)

    return change


def lose_shard(run):
    shard(run)
    sorted(run.glob("model-*-of-*"))[0].unlink()


def lose_index(run):
    shard(run)
    (run / "model.safetensors.index.json").unlink()


def add_second_set(run):
    kept = (run / "model.safetensors").read_bytes()
    shard(run)
    (run / "model.safetensors").write_bytes(kept)


def nest(name):
    return write(name, "[" * 100_000)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut("run.json"), ["run.json: expected JSON", "Run the recipe again"]),
        (cut("metrics.json"), ["metrics.json: expected JSON", "Run the recipe again"]),
        (cut("config.json"), ["config.json: expected JSON", "again"]),
        (cut("generation_config.json"), ["generation_config.json: expected JSON", "Save the model"]),
        (cut("tokenizer.json"), ["tokenizer.json: expected JSON", "Save the model and the tokenizer again"]),
        (cut("trainer_state.json"), ["trainer_state.json: expected JSON"]),
        (nest("run.json"), ["run.json: expected JSON"]),
        (write("metrics.json", ""), ["metrics.json: expected JSON"]),
        (write("metrics.json", '{"test_loss": 1' + "0" * 400 + "}"), ["expected measured numbers"]),
        (write("run.json", '{"arguments": [1]}'), ["run.json: expected a JSON object for 'arguments'"]),
        (write("adapter_config.json", "{"), ["adapter_config.json: expected JSON"]),
        (write("adapter_config.json", '{"peft_type": "LORA"}'), ["expected weights (adapter_model.safetensors)"]),
        (rewrite("run", versions="0.1"), ["run.json: expected a JSON object for 'versions'"]),
        (rewrite("config", model_type="nothing"), ["expected a model that opens", "nothing"]),
        (rewrite("config", d_model="wide"), ["expected a model that opens"]),
        (rewrite("tokenizer", model={"type": "BPE", "vocab": 3}), ["expected a tokenizer that opens"]),
        (rewrite("tokenizer", model=None, added_tokens=None), ["expected a tokenizer that opens"]),
        (write("predictions.jsonl", "{}\n{"), ["predictions.jsonl, line 2", "delete the file"]),
        (write("README.md", "---\nlicense: [mit\n---\n"), ["README.md: expected a card with YAML", "--license"]),
        (write("README.md", "---\n- mit\n---\n"), ["README.md: expected a card with YAML", "--license"]),
        (write("README.md", "---\n1: mit\n---\n"), ["README.md: expected a card with YAML", "--license"]),
        (write("README.md", "---\nlicense: [mit]\n---\n"), ["README.md: expected one word for the license"]),
        (lambda run: (run / "README.md").mkdir(), ["README.md: expected a card with YAML"]),
        (shard_with("{}"), ["index.json: expected weight_map", "Save the model again"]),
        (shard_with("{"), ["index.json: expected JSON", "Save the model again"]),
        (shard_with('{"weight_map": []}'), ["index.json: expected weight_map"]),
        (shard_with('{"weight_map": {"a": "../other.safetensors"}}'), ["index.json: expected weight_map"]),
        (shard_with('{"weight_map": {"a": 1}}'), ["index.json: expected weight_map"]),
        (lose_shard, ["expected model-00001-of", "found no such file"]),
        (lose_index, ["expected weights (model.safetensors), found model-00001-of", "which nothing names"]),
        (add_second_set, ["expected one set of weights", "Delete the older one"]),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(hub, release, run, change, words):
    change(run)
    assert refused(release(license=None if (run / "README.md").exists() else "mit"), *words)
    assert not hub.log


def test_a_left_over_shard_is_named_and_stays(hub, release, run, caplog):
    (run / "model-00003-of-00004.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    status, out, _ = release()
    assert status == 0 and set(hub.repo(REPO).at().files) == FILES
    assert "stays here: checkpoint-1, model-00003-of-00004.safetensors" in out
    assert "model-00003-of-00004.safetensors belongs to no weights" in caplog.text


def test_only_the_shards_of_the_index_go(hub, release, run):
    shard(run, seed=1)
    (run / "model-00099-of-00099.safetensors").write_bytes(b"old")
    assert release()[0] == 0
    names = set(hub.repo(REPO).at().files)
    assert "model-00099-of-00099.safetensors" not in names and "model.safetensors.index.json" in names
    assert same_weights(PessExtractor.from_pretrained(REPO), tiny_extractor(1))


def test_an_adapter_does_not_take_an_earlier_model_along(hub, release, run, tmp_path):
    tiny_extractor().save_pretrained(tmp_path / "base")
    make_adapter_run(run, tmp_path / "base")  # where a whole model lies already
    status, out, _ = release("--base_model", "tester/base")
    assert status == 0 and "model.safetensors" in out.split("stays here: ")[1]
    names = set(hub.repo(REPO).at().files)
    assert "adapter_model.safetensors" in names and "model.safetensors" not in names


def test_folders_that_are_no_run(release, run, tmp_path):
    file = tmp_path / "file"
    file.write_text("no folder")
    shutil.copy(run / "config.json", run / "checkpoint-1")
    for path, words in (
        (file, "found a file"),
        (tmp_path / "none", "found no folder"),
        (run / "checkpoint-1", "found one of its checkpoints. Name the folder that holds checkpoint-1"),
        (tmp_path, "no such file"),
    ):
        assert refused(release("--run", str(path)), str(path), words)


def test_a_folder_that_cannot_be_written_is_published(hub, release, run):
    before = {path: path.stat().st_mtime_ns for path in (run, *run.iterdir())}
    run.chmod(0o555)
    try:
        assert release()[0] == 0
    finally:
        run.chmod(0o755)
    assert set(hub.repo(REPO).at().files) == FILES
    assert {path: path.stat().st_mtime_ns for path in (run, *run.iterdir())} == before


# Dialogue text


def predict(run, sentence):
    with (run / "predictions.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"dialogue_id": "x", "reference": [sentence], "generated": []}) + "\n")


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("sentence", [SENTENCE, "She said: 😀\nI keep geese, she said."])
def test_a_sentence_that_json_spells_otherwise_is_found_too(release, run, ascii_only, sentence):
    predict(run, sentence)
    config = json.loads((run / "config.json").read_text("utf-8")) | {"note": sentence}
    (run / "config.json").write_text(json.dumps(config, ensure_ascii=ascii_only), encoding="utf-8")
    assert refused(release("--dry_run"), "config.json: expected no dialogue text")


@pytest.mark.parametrize("make", [byte_level_tokenizer, unigram_tokenizer])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_sentence_among_the_tokens_is_found_as_the_tokenizer_spells_it(release, run, make, ascii_only):
    predict(run, "Ich wohne in Zürich.")  # of four words: found as it was predicted, not by its length
    path = run / "tokenizer.json"
    tokenizer = json.loads(make().backend_tokenizer.to_str())
    if make is byte_level_tokenizer:
        letters = "ĠIchĠwohneĠinĠZÃ¼rich."
        assert tokenizer["pre_tokenizer"]["type"] == "ByteLevel"
        tokenizer["model"]["vocab"][letters] = len(tokenizer["model"]["vocab"])
    else:
        tokenizer["model"]["vocab"].append(["▁Ich▁wohne▁in▁Zürich.", -3.0])
    path.write_text(json.dumps(tokenizer, ensure_ascii=ascii_only), encoding="utf-8")
    make_opens(run, make)
    assert refused(release("--dry_run"), "tokenizer.json: expected no dialogue text")


def make_opens(run, make):
    """The settings of the tokenizer that is in the folder now."""
    settings = make().init_kwargs
    kept = json.loads((run / "tokenizer_config.json").read_text())
    kept |= {name: str(value) for name, value in settings.items() if name.endswith("_token") and value}
    (run / "tokenizer_config.json").write_text(json.dumps(kept))


def test_a_token_that_is_a_sentence_nobody_predicted_is_found(release, run):
    tokenizer = json.loads((run / "tokenizer.json").read_text("utf-8"))
    vocab = tokenizer["model"]["vocab"]
    vocab["ĠIĠhaveĠneverĠseenĠsnow."] = len(vocab)
    (run / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert refused(release("--dry_run"), "tokenizer.json: expected words and pieces of words", "five words")


def test_a_token_and_a_sentence_in_a_chat_template_are_found(release, run):
    template = run / "chat_template.jinja"
    template.write_text("{{ 'You are kind. " + DIALOGUE_TEXT + "' }}")
    assert refused(release("--dry_run"), "chat_template.jinja: expected no dialogue text")
    template.write_text("{{ '" + TOKEN + "' }}")
    assert refused(release("--dry_run"), "chat_template.jinja: expected no token")
    template.write_text("{{ 'You are a kind supporter who listens and asks.' }}")
    assert release("--dry_run")[0] == 0
    tokenizer = json.loads((run / "tokenizer.json").read_text("utf-8"))
    tokenizer["model"]["vocab"][TOKEN] = len(tokenizer["model"]["vocab"])
    (run / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert refused(release("--dry_run"), "tokenizer.json: expected no token")


def test_single_words_are_no_sentences(release, run):
    predict(run, "Donaudampfschifffahrtsgesellschaft")
    tokenizer = json.loads((run / "tokenizer.json").read_text("utf-8"))
    for word in ("Donaudampfschifffahrtsgesellschaft", "Philomena", "ĠofĠtheĠfour"):
        tokenizer["model"]["vocab"][word] = len(tokenizer["model"]["vocab"])
    (run / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    status, _, err = release("--dry_run")
    assert status == 0, err


def test_sentences_of_the_training_data_are_looked_for_where_it_is(release, run, tmp_path):
    data = tmp_path / "train.jsonl"
    rows = [{"dialogue_id": "1", "utterances": ["We rowed across the lake at night."], "persona": ["I row."]}]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_record = run_with(train_data=[str(data), "tester/data", str(tmp_path / "gone.jsonl")])
    (run / "run.json").write_text(json.dumps(run_record))
    options = ("--dry_run", "--train_data_license", "CC0")
    status, out, err = release(*options)
    assert status == 0, err
    assert f"not searched for, as it is not here: sentences of tester/data, {tmp_path / 'gone.jsonl'}" in out
    rewrite("config", note="We rowed across the lake at night.")(run)
    assert refused(release(*options), "config.json: expected no dialogue text", "training data")


def test_a_generator_with_its_strategy_tokens_is_no_false_alarm(release, tmp_path):
    folder = make_generator_run(tmp_path / "generator")
    reply = {"strategy": "Restatement or Paraphrasing", "text": DIALOGUE_TEXT}
    row = {"dialogue_id": "valid-0", "turn": 3, "persona": [], "reference": reply, "generated": reply}
    (folder / "predictions.jsonl").write_text(json.dumps(row) + "\n")
    assert "Restatement or Paraphrasing" in (folder / "config.json").read_text()
    status, _, err = release("--run", str(tmp_path / "generator"), "--dry_run")
    assert status == 0, err
