"""Publishing a finished run: checks, then model, tokenizer, card and metrics in one commit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import HfApi, ModelCard, get_token

from pess_hf.errors import PessError
from pess_hf.hub_files import Content, is_weights, public_files, size_of
from pess_hf.hub_upload import on_hub, upload_in_one_commit
from pess_hf.model_card import kind_of, render_model_card
from pess_hf.release_checks import check_card, check_sizes, check_texts, check_weights
from pess_hf.run_folder import RunFolder, as_hub_id, read_run_folder


@dataclass
class ReleaseArguments:
    """Which run is published, where, and what its folder cannot know.

    Example:
        >>> ReleaseArguments(run="runs/demo", repo_id="me/pess-minilm", license="apache-2.0").private
        False
    """

    run: str = field(metadata={"help": "The output folder of a finished run."})
    repo_id: str = field(metadata={"help": "Where it goes: namespace/name on the Hub."})
    private: bool = field(default=False, metadata={"help": "Make the repository private."})
    dry_run: bool = field(default=False, metadata={"help": "Check, list what would go, and send nothing."})
    license: str | None = field(
        default=None, metadata={"help": "Licence of the weights; by default that in the run's README.md."}
    )
    base_model: str | None = field(default=None, metadata={"help": "Hub id of the model that training started from."})
    datasets: list[str] | None = field(default=None, metadata={"help": "Hub ids of the training data."})
    language: list[str] | None = field(default=None, metadata={"help": "Language codes."})
    model_name: str | None = field(default=None, metadata={"help": "Title of the card."})
    train_data_license: str | None = field(
        default=None, metadata={"help": "Licence of the training data, in words; not needed for 'sample'."}
    )
    evaluation_command: str | None = field(default=None, metadata={"help": "Command that measures the numbers again."})
    max_file_gb: float = field(default=20.0, metadata={"help": "Largest file that is sent, in gigabytes."})

    def __post_init__(self) -> None:
        """Check the name and the limit."""
        if as_hub_id(self.repo_id) is None:
            raise PessError(f"repo_id: expected namespace/name, found {self.repo_id!r}.")
        if not self.max_file_gb > 0:
            raise PessError(f"max_file_gb: expected a number above 0, found {self.max_file_gb}.")


@dataclass(frozen=True)
class Release:
    """A run that passed the checks.

    Attributes:
        files: Path in the repository to the file, or to its bytes.
        left_out: Names in the run folder that stay here.
    """

    files: dict[str, Content]
    left_out: list[str]

    def listing(self) -> str:
        """The files and their sizes, one a line, then what stays.

        Example:
            >>> print(Release({"README.md": b"# Mine"}, ["checkpoint-5"]).listing())
                       6  README.md
            stays here: checkpoint-5
        """
        lines = [f"{size_of(content):12,}  {name}" for name, content in sorted(self.files.items())]
        return "\n".join([*lines, *([f"stays here: {', '.join(self.left_out)}"] if self.left_out else [])])


@dataclass(frozen=True)
class Published:
    """Where a release went.

    Attributes:
        url: The repository's page.
        commit: The commit on its main branch that holds the release.
        is_new: Whether anything had changed.
    """

    url: str
    commit: str
    is_new: bool


def prepare_release(args: ReleaseArguments) -> Release:
    """Render the card, choose the files and check them; nothing is written and nothing is sent.

    Args:
        args: What to publish.

    Returns:
        What would go.

    Raises:
        PessError: If a check fails.

    Example:
        >>> prepare_release(ReleaseArguments("runs/demo", "me/pess", license="mit")).listing()  # doctest: +SKIP
    """
    run = read_run_folder(args.run)
    card = render_model_card(run, **_card_fields(args, run))
    check_card(card, run, args.train_data_license)
    base_model = ModelCard(card, ignore_metadata_errors=True).data.get("base_model")
    files = {**public_files(run.path, base_model), "README.md": card.encode()}
    check_weights(run.path, files)
    check_sizes(files, args.max_file_gb)
    check_texts(files, run, kind_of(run), get_token())
    return Release(files, sorted(path.name for path in run.path.iterdir() if path.name not in files))


def _card_fields(args: ReleaseArguments, run: RunFolder) -> dict[str, Any]:
    """What the card takes beside the run; the licence also from a README.md in which somebody wrote it."""
    readme = run.path / "README.md"
    known = ModelCard.load(readme, ignore_metadata_errors=True).data.get("license") if readme.exists() else None
    return {
        "model_id": args.repo_id,
        "license": args.license or known,
        "base_model": args.base_model,
        "datasets": args.datasets,
        "language": args.language,
        "model_name": args.model_name,
        "train_data_license": args.train_data_license,
        "evaluation_command": args.evaluation_command,
    }


def publish(release: Release, repo_id: str, private: bool = False, token: str | None = None) -> Published:
    """Upload a prepared release in one commit; weights of an earlier release that it lacks go in the same commit.

    Args:
        release: What `prepare_release` returned.
        repo_id: The repository; made where there is none.
        private: Whether it is to be private.
        token: The token; by default that of this machine.

    Returns:
        Where it is now.

    Raises:
        PessError: If the Hub refuses, cannot be reached, or the repository is public and was asked to be private.

    Example:
        >>> publish(release, "me/pess", private=True).url  # doctest: +SKIP
        'https://huggingface.co/me/pess'
    """
    api = HfApi(token=token)
    # None leaves a repository that exists as it is, and follows an organisation's default for a new one.
    visibility = True if private else None
    url = on_hub(lambda: api.create_repo(repo_id, private=visibility, exist_ok=True), repo_id, token, tries=2)
    before = on_hub(lambda: api.model_info(repo_id), repo_id, token, tries=2)
    if private and not before.private:
        raise PessError(f"{repo_id}: expected a private repository, found a public one. Change it on the Hub first.")
    stale = [file.rfilename for file in before.siblings or [] if is_weights(file.rfilename)]
    stale = [name for name in stale if name not in release.files]
    commit = upload_in_one_commit(repo_id, release.files, "Release", delete=stale, token=token)
    return Published(str(url), str(commit.oid), commit.oid != before.sha)
