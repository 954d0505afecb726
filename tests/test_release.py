"""recipes/release.py through the loopback Hub: checks, one commit, faults, and no token anywhere."""

import json
import logging
import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_published import DIALOGUE_TEXT, METRICS, RUN, TOKEN, make_run, same_weights, tiny_extractor

from pess_hf.cli import run_recipe
from pess_hf.modeling_extractor import PessExtractor

ROOT = Path(__file__).resolve().parent.parent
REPO = "tester/released"
FILES = {
    ".gitattributes", "README.md", "config.json", "generation_config.json", "metrics.json", "model.safetensors",
    "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture
def release(run, hub, monkeypatch, capsys, caplog):
    """Run the recipe in this process: (status, stdout, stderr)."""
    main = runpy.run_path(str(ROOT / "recipes" / "release.py"))["main"]
    caplog.set_level(logging.DEBUG)

    def call(*options, token="write", license="apache-2.0"):
        monkeypatch.setenv("HF_TOKEN", hub.tokens[token]) if token else monkeypatch.delenv("HF_TOKEN", raising=False)
        capsys.readouterr()
        given = ["--run", str(run), "--repo_id", REPO, *(["--license", license] if license else []), *options]
        status = 0
        try:
            run_recipe(lambda: main(given))
        except SystemExit as error:
            status = error.code
        shown = capsys.readouterr()
        for secret in hub.tokens.values():
            assert secret not in shown.out + shown.err + caplog.text
        return status, shown.out, shown.err

    return call


def refused(answer, *words):
    """One line that says `error:` and every one of `words`."""
    status, _, err = answer
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 1 and len(lines) == 1 and "Traceback" not in err, err
    assert all(word in lines[0] for word in words), lines[0]
    return True


def test_one_commit_with_everything_and_none_when_nothing_changed(hub, release, run):
    status, out, _ = release("--private")
    repo = hub.repo(REPO)
    assert status == 0 and out.splitlines()[-1] == f"{hub.url}/{REPO}" and "published" in out
    assert repo.private and len(repo.history()) == 2 and set(repo.at().files) == FILES
    assert same_weights(PessExtractor.from_pretrained(REPO, token=hub.tokens["read"]), tiny_extractor())
    assert "stays here: checkpoint-1, predictions.jsonl, run.json, trainer_state.json, training_args.bin" in out
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    status, out, _ = release("--private")
    assert status == 0 and "nothing had changed" in out and len(repo.history()) == 2
    assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_a_dry_run_lists_and_sends_nothing(hub, release):
    status, out, _ = release("--dry_run", token=None)
    listed = {line.split()[-1] for line in out.splitlines() if line[:1] == " "}
    assert status == 0 and listed == FILES - {".gitattributes"} and "dry run" in out
    assert not hub.log


def test_no_token_in_anything_published(hub, release):
    assert release()[0] == 0
    for name, blob in hub.repo(REPO).at().files.items():
        for secret in (TOKEN, *hub.tokens.values()):
            assert secret.encode() not in blob.data, name
    assert "--hub_token ***" in hub.repo(REPO).file("main", "README.md").data.decode()
    assert all(secret not in repr(hub.log) for secret in hub.tokens.values())


# Checks


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
        (drop_tensor, ["found none for model.decoder.layers.0.fc1.weight"]),
        (make_nan, ["NaN or infinity in model.decoder.layers.0.fc1.bias"]),
        (lambda run: (run / "tokenizer_config.json").unlink(), ["expected a tokenizer"]),
        (lambda run: (run / "metrics.json").write_text("{}"), ["expected measured numbers"]),
        (lambda run: (run / "metrics.json").unlink(), ["metrics.json: no such file"]),
        (rewrite("metrics", note=DIALOGUE_TEXT), ["expected a number for 'note'"]),
        (rewrite("config", note=DIALOGUE_TEXT), ["config.json: expected no dialogue text"]),
        (rewrite("tokenizer_config", note=TOKEN), ["tokenizer_config.json: expected no token"]),
        (hide_in_weights, ["model.safetensors: expected no dialogue text"]),
        (rewrite("run", arguments={}), ["expected train_data in run.json"]),
        (rewrite("run", arguments={"train_data": ["my.jsonl"]}), ["--train_data_license"]),
    ],
)
def test_a_run_that_is_not_fit_is_refused_before_anything_is_sent(hub, release, run, change, words):
    change(run)
    assert refused(release(), *words)
    assert not hub.log


def test_licence_limit_and_name(hub, release, run):
    assert refused(release(license=None), "--license")
    assert refused(release("--max_file_gb", "0.00001"), "at most 1e-05 GB", "--max_file_gb")
    assert refused(release("--repo_id", "/tmp/x"), "repo_id")
    assert refused(release("--base_model", "/tmp/x"), "base_model")
    assert not hub.log
    (run / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    assert release(license=None)[0] == 0
    assert "license: mit" in hub.repo(REPO).file("main", "README.md").data.decode()


def test_a_public_repository_is_not_taken_for_a_private_one(hub, release):
    assert release()[0] == 0
    assert refused(release("--private"), "found a public one")


def test_weights_of_an_earlier_release_go_in_the_same_commit(hub, release, run):
    assert release()[0] == 0
    (run / "model.safetensors").unlink()
    tiny_extractor(1).save_pretrained(run, max_shard_size="8KB")
    assert release()[0] == 0
    names = set(hub.repo(REPO).at().files)
    assert "model.safetensors" not in names and "model.safetensors.index.json" in names
    assert len(hub.repo(REPO).history()) == 3
    assert same_weights(PessExtractor.from_pretrained(REPO), tiny_extractor(1))


def test_an_adapter_is_released_under_its_base_models_id(hub, release, run, tmp_path):
    peft = pytest.importorskip("peft")
    tiny_extractor().save_pretrained(tmp_path / "base")
    base = PessExtractor.from_pretrained(tmp_path / "base")
    (run / "model.safetensors").unlink()
    (run / "config.json").unlink()
    peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(run)
    rewrite("run", arguments=RUN["arguments"] | {"model_name_or_path": str(tmp_path / "base")})(run)
    assert refused(release(), "expected the Hub id of the adapter's base model", "--base_model")
    assert release("--base_model", "tester/base")[0] == 0
    files = hub.repo(REPO).at().files
    assert json.loads(files["adapter_config.json"].data)["base_model_name_or_path"] == "tester/base"
    assert not [name for name, blob in files.items() if str(tmp_path).encode() in blob.data]
    assert json.loads((run / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tmp_path / "base")


# Faults


def published_whole(hub):
    """Nothing of ours, or all of it: every revision of the repository, and the newest one is whole."""
    for commit in hub.repo(REPO).history():
        assert set(commit.files) in ({".gitattributes"}, FILES)
    return set(hub.repo(REPO).at().files) == FILES


@pytest.mark.parametrize("how", ["status", "cut", "lost"])
@pytest.mark.parametrize("step", ["create", "info", "validate-yaml", "preupload", "lfs-batch", "lfs-put", "commit"])
def test_a_fault_is_healed_and_one_commit_made(hub, release, step, how):
    hub.fail_next(step, status=500, how=how)
    status, _, err = release()
    assert status == 0, err
    assert published_whole(hub) and len(hub.repo(REPO).history()) == 2


@pytest.mark.parametrize("step", ["create", "commit"])
def test_a_server_that_stays_down_is_one_line_and_a_rerun_completes(hub, release, step):
    hub.fail_next(step, status=500, times=20)
    assert refused(release(), REPO, "500", "Run it again")
    assert not hub.store.repos or not published_whole(hub)
    hub.faults.clear()
    assert release()[0] == 0 and published_whole(hub) and len(hub.repo(REPO).history()) == 2


@pytest.mark.parametrize("step", ["create", "preupload", "lfs-batch", "lfs-put", "commit"])
@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_one_line_publishes_nothing_and_a_rerun_completes(hub, release, step, status):
    hub.fail_next(step, status=status)
    assert refused(release(), REPO)
    assert not hub.store.repos or not published_whole(hub)
    assert release()[0] == 0 and published_whole(hub) and len(hub.repo(REPO).history()) == 2


def test_a_commit_whose_every_answer_is_lost_was_made_once(hub, release):
    hub.fail_next("commit", how="lost", times=2)
    assert release()[0] == 0
    assert published_whole(hub) and len(hub.calls("commit")) == 1 and len(hub.repo(REPO).history()) == 2


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("expired", ["invalid or expired", "hf auth login"]),
        (None, ["hf auth login"]),
        ("read", ["may not write"]),
        ("stranger", ["may not write"]),
    ],
)
def test_tokens_without_rights(hub, release, token, words):
    assert refused(release(token=token), REPO, *words)
    assert not hub.store.repos


def test_a_hub_that_never_answers_is_one_line(hub, release):
    hub.fail_next("create", how="cut", times=20)
    assert refused(release(), REPO, "the connection to the Hub was lost", "Run it again")
    assert not hub.store.repos


DOWNLOADS = """
import json, os, resource, runpy, sys
from pess_hf.cli import run_recipe
from pess_hf.modeling_extractor import AutoPessExtractor

def load(repo):
    try:
        run_recipe(lambda: AutoPessExtractor.from_pretrained(repo))
        print("opened")
    except SystemExit as error:
        print("status", error.code)

most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))
load("tester/released")
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
load("tester/released")
load("tester/none")
sys.argv = json.loads(os.environ["ARGV"])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_full_disk_on_download_and_a_missing_repository_are_one_line_each(hub, release, run, fresh_process):
    # A file may not grow past a limit: write() fails in the middle of the weights, as on a full disk.
    assert release()[0] == 0
    hub.log.clear()
    recipe = [str(ROOT / "recipes" / "release.py"), "--run", str(run), "--repo_id", REPO, "--license", "mit"]
    done = fresh_process(DOWNLOADS, ARGV=json.dumps([*recipe, "--dry_run"]))
    assert done.stdout.splitlines()[:3] == ["status 1", "opened", "status 1"], done.stderr
    assert "dry run" in done.stdout and done.returncode == 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and "Traceback" not in done.stderr
    assert "too large" in errors[0] and "tester/none" in errors[1]
    assert len(hub.calls("lfs-get")) >= 2


def test_metrics_of_the_card_are_those_of_the_run(hub, release):
    assert release()[0] == 0
    card = hub.repo(REPO).file("main", "README.md").data.decode()
    assert f"| Persona F1 | {METRICS['test_persona_f1']:.4f} |" in card


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_sentence_that_json_spells_otherwise_is_found_too(release, run, ascii_only):
    sentence = 'My sister’s name is "Anna" and I live in Utrecht.'
    with (run / "predictions.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"dialogue_id": "x", "reference": [sentence], "generated": []}) + "\n")
    config = json.loads((run / "config.json").read_text("utf-8")) | {"note": sentence}
    (run / "config.json").write_text(json.dumps(config, ensure_ascii=ascii_only), encoding="utf-8")
    assert refused(release("--dry_run"), "config.json: expected no dialogue text")
