"""The real huggingface_hub and transformers clients against the loopback Hub: no part of a client is patched."""

import itertools
import json

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, ModelCardData, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file
from transformers import BartConfig, BartForConditionalGeneration

REPO = "tester/tiny"


def tiny_bart(seed=0):
    torch.manual_seed(seed)
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 32}
    return BartForConditionalGeneration(BartConfig(vocab_size=60, **sizes, **widths))


def same_weights(one, other):
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture
def write(hub):
    return HfApi(token=hub.tokens["write"])


@pytest.fixture
def folder(tmp_path):
    """A small model folder made without a model: one large file, two small ones."""
    path = tmp_path / "folder"
    (path / "sub").mkdir(parents=True)
    (path / "weights.bin").write_bytes(bytes(range(256)) * 20_000)
    (path / "config.json").write_text("{}")
    (path / "sub" / "notes.txt").write_text("hello")
    return path


def upload(api, folder, **options):
    api.create_repo(REPO, exist_ok=True, private=options.pop("private", None))
    return api.upload_folder(repo_id=REPO, folder_path=folder, **options)


# Models


@pytest.mark.parametrize("private", [False, True])
def test_push_and_load(hub, private):
    model = tiny_bart()
    token = hub.tokens["write"]
    model.push_to_hub(REPO, token=token, private=private)
    assert hub.repo(REPO).private is private
    assert same_weights(BartForConditionalGeneration.from_pretrained(REPO, token=token), model)
    assert hub.calls("lfs-get") and not any(line.authorized for line in hub.calls("lfs-get") + hub.calls("lfs-put"))
    assert {line.host for line in hub.calls("lfs-get")} == {"localhost"}


def test_pushed_files_are_safetensors_and_hold_tied_weights_once(hub, tmp_path):
    tiny_bart().push_to_hub(REPO, token=hub.tokens["write"])
    files = hub.repo(REPO).at("main").files
    assert {"config.json", "generation_config.json", "model.safetensors"} <= set(files)
    assert not [path for path in files if path.endswith((".bin", ".pt"))]
    assert files["model.safetensors"].large
    (tmp_path / "model.safetensors").write_bytes(files["model.safetensors"].data)
    names = load_file(tmp_path / "model.safetensors")
    assert sum(tensor.shape == (60, 16) for tensor in names.values()) == 1


def test_load_by_branch_tag_sha_and_revision(hub, write):
    old, new = tiny_bart(0), tiny_bart(1)
    old.push_to_hub(REPO, token=hub.tokens["write"])
    first = hub.repo(REPO).at("main").sha
    write.create_tag(REPO, tag="v1")
    write.create_branch(REPO, branch="try/one")
    new.push_to_hub(REPO, token=hub.tokens["write"])
    other = tiny_bart(2)
    other.push_to_hub(REPO, token=hub.tokens["write"], revision="try/one")
    expected = {None: new, "main": new, "v1": old, first: old, "try/one": other}
    for revision, model in expected.items():
        assert same_weights(BartForConditionalGeneration.from_pretrained(REPO, revision=revision), model), revision
    with pytest.raises(OSError, match="not a valid git identifier"):
        BartForConditionalGeneration.from_pretrained(REPO, revision="nowhere")


def test_load_in_a_fresh_process(hub, fresh_process):
    tiny_bart().push_to_hub(REPO, token=hub.tokens["write"], private=True)
    code = (
        "from transformers import AutoModelForSeq2SeqLM as M; print(type(M.from_pretrained('tester/tiny')).__name__)"
    )
    assert fresh_process(code, HF_TOKEN=hub.tokens["read"]).stdout.strip() == "BartForConditionalGeneration"
    assert fresh_process("import pess_hf", library=False).returncode == 1
    refused = fresh_process(code)
    assert refused.returncode == 1 and "tester/tiny is not a local folder" in refused.stderr
    assert not hub.calls("unknown")


def test_second_push_with_nothing_changed_makes_no_commit(hub):
    for _ in range(2):
        tiny_bart().push_to_hub(REPO, token=hub.tokens["write"])
    assert len(hub.calls("commit")) == 1
    assert len(hub.repo(REPO).history()) == 2


# Repositories, rights, revisions


def test_whoami_and_tokens(hub, write):
    assert write.whoami()["name"] == "tester"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(token=hub.tokens["expired"]).whoami()
    with pytest.raises(LocalTokenNotFoundError):
        HfApi().whoami()


def test_private_repository_shows_itself_to_its_owner_only(hub, write, folder):
    upload(write, folder, private=True)
    assert HfApi(token=hub.tokens["read"]).model_info(REPO).private
    for token in (False, hub.tokens["stranger"]):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(token=token).model_info(REPO)
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download(REPO, "config.json", token=token)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        HfApi(token=hub.tokens["expired"]).model_info(REPO)
    write.update_repo_settings(REPO, private=False)
    assert not HfApi(token=False).model_info(REPO).private


@pytest.mark.parametrize(("who", "status"), [("read", 403), ("stranger", 403), ("expired", 401), (None, 401)])
def test_no_rights_to_write(hub, write, folder, who, status):
    upload(write, folder)
    before = hub.repo(REPO).history()
    api = HfApi(token=hub.tokens[who] if who else False)
    for act in (lambda: api.create_repo("tester/new"), lambda: api.upload_folder(repo_id=REPO, folder_path=folder)):
        with pytest.raises(HfHubHTTPError) as caught:
            act()
        assert caught.value.response.status_code == status
    assert hub.repo(REPO).history() == before


def test_missing_things_raise_the_clients_own_errors(write, folder):
    upload(write, folder)
    with pytest.raises(RepositoryNotFoundError):
        write.model_info("tester/none")
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("bare-name", "config.json")
    with pytest.raises(RepositoryNotFoundError):
        write.upload_folder(repo_id="tester/none", folder_path=folder)
    with pytest.raises(RevisionNotFoundError):
        write.upload_folder(repo_id=REPO, folder_path=folder, revision="none")
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(REPO, "config.json", revision="none")
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(REPO, "none.json")
    with pytest.raises(RemoteEntryNotFoundError):
        list(write.list_repo_tree(REPO, "none"))


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_every_kind_of_repository(hub, write, folder, kind):
    sdk = {"space_sdk": "gradio"} if kind == "space" else {}
    write.create_repo(REPO, repo_type=kind, private=True, **sdk)
    with pytest.raises(HfHubHTTPError):
        write.create_repo(REPO, repo_type=kind, **sdk)
    write.upload_folder(repo_id=REPO, repo_type=kind, folder_path=folder)
    got = snapshot_download(REPO, repo_type=kind, token=hub.tokens["read"])
    for path in ("weights.bin", "config.json", "sub/notes.txt"):
        with open(f"{got}/{path}", "rb") as file:
            assert file.read() == (folder / path).read_bytes()
    assert write.repo_info(REPO, repo_type=kind).sha == hub.repo(REPO, kind).at("main").sha
    write.delete_repo(REPO, repo_type=kind)
    assert not write.repo_exists(REPO, repo_type=kind)


def test_branches_tags_and_history(write, folder):
    upload(write, folder, commit_message="one")
    write.create_tag(REPO, tag="v1")
    write.create_branch(REPO, branch="side", revision="v1")
    write.create_branch(REPO, branch="side", exist_ok=True)
    (folder / "config.json").write_text("{ }")
    made = upload(write, folder, commit_message="two")
    refs = write.list_repo_refs(REPO)
    assert [tag.name for tag in refs.tags] == ["v1"]
    assert {branch.name: branch.target_commit == made.oid for branch in refs.branches} == {"main": True, "side": False}
    assert [commit.title for commit in write.list_repo_commits(REPO)] == ["two", "one", "initial commit"]
    write.delete_tag(REPO, tag="v1")
    write.delete_branch(REPO, branch="side")
    with pytest.raises(RevisionNotFoundError):
        write.model_info(REPO, revision="v1")


def test_tree_paths_and_deletion(write, folder):
    upload(write, folder)
    top = {entry.path for entry in write.list_repo_tree(REPO)}
    assert top == {".gitattributes", "config.json", "sub", "weights.bin"}
    assert [entry.path for entry in write.list_repo_tree(REPO, "sub")] == ["sub/notes.txt"]
    (weights,) = write.get_paths_info(REPO, ["weights.bin"])
    assert weights.lfs.size == weights.size == 256 * 20_000
    write.delete_file("config.json", REPO)
    write.delete_folder("sub", REPO)
    assert set(write.list_repo_files(REPO)) == {".gitattributes", "weights.bin"}
    with pytest.raises(RemoteEntryNotFoundError):
        write.delete_file("config.json", REPO)


def test_a_commit_on_an_outdated_parent_is_refused(hub, write, folder):
    upload(write, folder)
    first = hub.repo(REPO).history()[-1].sha
    (folder / "config.json").write_text("[]")
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        upload(write, folder, parent_commit=first)
    assert len(hub.repo(REPO).history()) == 2


# Cards


def test_card_push_and_load(hub, write):
    write.create_repo(REPO)
    data = ModelCardData(language="en", library_name="transformers", base_model="facebook/bart-base")
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n# Tiny\n")
    card.push_to_hub(REPO, token=hub.tokens["write"])
    loaded = ModelCard.load(REPO)
    assert loaded.data.to_dict() == data.to_dict() and loaded.text == card.text


def test_a_card_with_a_local_base_model_is_refused(hub, write):
    write.create_repo(REPO)
    with pytest.raises(ValueError, match="base_model"):
        ModelCard("---\nbase_model: /tmp/run\n---\n# Tiny\n").push_to_hub(REPO, token=hub.tokens["write"])
    assert not hub.calls("commit")


# Downloads


def test_snapshot_by_revision(write, folder):
    first = upload(write, folder).oid
    (folder / "config.json").write_text("[]")
    upload(write, folder)
    for revision, text in ((first, "{}"), (first[:7], "{}"), ("main", "[]")):
        with open(snapshot_download(REPO, revision=revision) + "/config.json") as file:
            assert file.read() == text


def test_a_download_that_is_cut_goes_on_where_it_stopped(hub, write, folder):
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 100_000)  # the client writes in pieces of 10 MB
    upload(write, folder)
    hub.fail_next("lfs-get", how="cut")
    with open(hf_hub_download(REPO, "weights.bin"), "rb") as file:
        assert file.read() == (folder / "weights.bin").read_bytes()
    assert [line.status for line in hub.calls("lfs-get")] == [200, 206]


def test_a_download_heals_or_leaves_no_file(hub, write, folder):
    upload(write, folder)
    hub.fail_next("resolve", status=503)
    assert hf_hub_download(REPO, "config.json").endswith("config.json")
    hub.fail_next("lfs-get", status=403)
    with pytest.raises(OSError):
        hf_hub_download(REPO, "weights.bin")
    assert not isinstance(try_to_load_from_cache(REPO, "weights.bin"), str)


# Faults on upload: healed, or refused with nothing published; a second push completes it.


@pytest.mark.parametrize("step", ["preupload", "lfs-batch", "lfs-put"])
@pytest.mark.parametrize("how", ["status", "cut", "lost"])
def test_the_client_heals_what_it_retries(hub, write, folder, step, how):
    write.create_repo(REPO)
    hub.fail_next(step, status=500, how=how)
    upload(write, folder)
    assert len(hub.calls(step)) == 2
    assert len(hub.repo(REPO).history()) == 2
    assert hub.repo(REPO).file("main", "weights.bin").data == (folder / "weights.bin").read_bytes()


@pytest.mark.parametrize(
    ("step", "status"),
    [
        *itertools.product(["create", "preupload", "lfs-batch", "lfs-put", "commit"], [403, 404]),
        ("create", 500),  # not retried by the client, as the commit is not
    ],
)
def test_a_refused_upload_publishes_nothing_and_a_second_one_completes(hub, write, folder, step, status):
    if step != "create":
        write.create_repo(REPO)
    hub.fail_next(step, status=status)
    with pytest.raises((HfHubHTTPError, RuntimeError)):
        upload(write, folder)
    assert step == "create" or len(hub.repo(REPO).history()) == 1
    upload(write, folder)
    assert len(hub.repo(REPO).history()) == 2
    assert set(hub.repo(REPO).at("main").files) == {".gitattributes", "weights.bin", "config.json", "sub/notes.txt"}


@pytest.mark.parametrize(("how", "commits"), [("status", 1), ("cut", 1), ("lost", 2)])
def test_a_commit_that_fails_or_whose_answer_is_lost(hub, write, folder, how, commits):
    write.create_repo(REPO)
    hub.fail_next("commit", how=how)
    with pytest.raises(Exception) as caught:
        upload(write, folder)
    assert type(caught.value).__name__ in ("HfHubHTTPError", "RemoteProtocolError", "ReadError", "WriteError")
    assert len(hub.repo(REPO).history()) == commits
    upload(write, folder)
    assert len(hub.repo(REPO).history()) == 2
    assert len(hub.calls("lfs-put")) == 1


def test_faults_are_checked_and_counted(hub):
    with pytest.raises(ValueError, match="no step"):
        hub.fail_next("nonsense")
    hub.fail_next("info", status=418, times=2, path="tiny")
    statuses = []
    for repo in ("tester/other", REPO, REPO, REPO):
        with pytest.raises(HfHubHTTPError) as caught:
            HfApi(token=hub.tokens["read"]).model_info(repo)
        statuses.append(caught.value.response.status_code)
    assert statuses == [404, 418, 418, 404]


def test_the_log_holds_no_token(hub, write, folder):
    upload(write, folder)
    text = json.dumps([vars(line) for line in hub.log])
    assert not any(token in text for token in hub.tokens.values())
    assert all(line.status == 200 for line in hub.log)
