"""recipes/release.py through the loopback Hub: checks, one commit, faults, and no token anywhere."""

import json
import shutil

import pytest
from huggingface_hub import HfApi
from release_recipe import FILES, REPO, ROOT, refused
from tiny_published import same_weights, tiny_extractor
from tiny_runs import METRICS, TOKEN, make_adapter_run

from pess_hf.modeling_extractor import PessExtractor


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
    assert "would be deleted there: nothing; tester/released does not exist" in out
    assert {line.method for line in hub.log} == {"GET"} and not hub.store.repos


def test_no_token_in_anything_published(hub, release):
    assert release()[0] == 0
    for name, blob in hub.repo(REPO).at().files.items():
        for secret in (TOKEN, *hub.tokens.values()):
            assert secret.encode() not in blob.data, name
    assert "--hub_token ***" in hub.repo(REPO).file("main", "README.md").data.decode()
    assert all(secret not in repr(hub.log) for secret in hub.tokens.values())


def test_licence_limit_and_name(hub, release, run):
    assert refused(release(license=None), "--license")
    assert refused(release("--max_file_gb", "0.00001"), "at most 1e-05 GB", "--max_file_gb")
    for name in ("/tmp/x", "tester/a b", "tester", "a/b/c", "tester/x.git", "tester/a--b", "tester/" + "x" * 97, ""):
        assert refused(release("--repo_id", name), "repo_id")
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


STALE = {"pytorch_model.bin", "training_args.bin", "model-00001-of-00002.safetensors", "last-checkpoint/optimizer.pt"}


@pytest.fixture
def old_repo(hub, tmp_path):
    """A public repository as others push it: pickles, a shard, a checkpoint, and notes that are nobody's business."""
    api = HfApi(token=hub.tokens["write"])
    api.create_repo(REPO)
    for name in (*STALE, "notes.md", "last-checkpoint/notes.md"):
        path = tmp_path / "old" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"old {name}")
    api.upload_folder(repo_id=REPO, folder_path=tmp_path / "old")
    hub.log.clear()
    return hub.repo(REPO)


def test_stale_weights_and_pickles_are_listed_and_go_in_the_same_commit(hub, release, old_repo):
    status, out, _ = release("--dry_run", token="read")
    assert status == 0 and f"would be deleted there: {', '.join(sorted(STALE))}" in out
    assert {line.method for line in hub.log} == {"GET"} and set(old_repo.at().files) > STALE
    assert release()[0] == 0
    assert set(old_repo.at().files) == FILES | {"notes.md", "last-checkpoint/notes.md"}
    assert len(old_repo.history()) == 3
    assert "nothing had changed" in release()[1]
    assert "would be deleted there: nothing" in release("--dry_run")[1]


@pytest.mark.parametrize("how", ["lost", "status", "cut"])
def test_a_commit_that_deletes_is_made_once_whatever_becomes_of_its_answer(hub, release, old_repo, how):
    hub.fail_next("commit", how=how)
    status, out, err = release()
    assert status == 0 and "published" in out, err
    assert len(old_repo.history()) == 3 and not STALE & set(old_repo.at().files)


def test_what_somebody_else_commits_meanwhile_is_not_written_over(hub, release, old_repo):
    add, parents = old_repo.apply, []

    def after_another(branch, lines):
        parents.append(lines[0]["value"].get("parentCommit"))
        if len(parents) == 1:
            old_repo.commit(branch, "another", dict(old_repo.at(branch).files))
        return add(branch, lines)

    old_repo.apply = after_another  # the server's side: the client is the real one
    assert refused(release(), "somebody else committed meanwhile", "Run it again")
    assert release()[0] == 0 and len(parents) == 2 and all(parents)


@pytest.mark.parametrize(("token", "words"), [("expired", "invalid or expired"), (None, "this token may not see it")])
def test_a_dry_run_says_what_it_could_not_look_at(hub, release, old_repo, token, words):
    old_repo.private = True
    status, out, _ = release("--dry_run", token=token)
    assert status == 0 and words in out and "dry run" in out


def test_a_dry_run_without_a_network_says_so(hub, release):
    hub.fail_next("info", how="cut", times=20)
    status, out, _ = release("--dry_run")
    assert status == 0 and "not known: what would be deleted" in out and "connection to the Hub was lost" in out


def test_a_dry_run_refuses_a_public_repository_for_a_private_one(hub, release, old_repo):
    assert refused(release("--private", "--dry_run"), "found a public one")


def test_a_licence_that_the_hub_does_not_know_leaves_no_repository(hub, release):
    assert refused(
        release(license="my own"), "README.md", '"license" must be one of [apache-2.0, mit', "--license other"
    )
    assert not hub.store.repos
    assert release(license="other")[0] == 0


def test_an_adapter_is_released_under_its_base_models_id(hub, release, run, tmp_path):
    tiny_extractor().save_pretrained(tmp_path / "base")
    shutil.rmtree(run)
    make_adapter_run(run, tmp_path / "base")
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
    assert f"| Persona F1 | 0.5000 | {METRICS['test_persona_f1']:.4f} |" in card
