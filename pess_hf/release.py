"""Publishing a finished run: checks, then model, tokenizer, card and metrics in one commit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from pess_hf.cli import one_line
from pess_hf.errors import PessError
from pess_hf.hub_files import Content, is_stale, public_files, size_of, text_of
from pess_hf.hub_upload import on_hub, stale_paths, upload_in_one_commit
from pess_hf.known_sentences import KnownSentences
from pess_hf.model_card import kind_of, render_model_card, template_text
from pess_hf.release_checks import (
    check_card,
    check_opens,
    check_sizes,
    check_texts,
    check_weights,
    predicted_texts,
    training_texts,
)
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
        try:
            validate_repo_id(self.repo_id)
        except HFValidationError as error:
            raise PessError(f"repo_id: {one_line(str(error))}") from error
        if not self.max_file_gb > 0:
            raise PessError(f"max_file_gb: expected a number above 0, found {self.max_file_gb}.")


@dataclass(frozen=True)
class Release:
    """A run that passed the checks.

    Attributes:
        files: Path in the repository to the file, or to its bytes.
        left_out: Names in the run folder that stay here.
        unseen: Training sources that are not on this machine: their sentences could not be looked for.
    """

    files: dict[str, Content]
    left_out: list[str]
    unseen: list[str] = field(default_factory=list)

    def listing(self) -> str:
        """The files and their sizes, one a line, then what stays.

        Example:
            >>> print(Release({"README.md": b"# Mine"}, ["checkpoint-5"]).listing())
                       6  README.md
            stays here: checkpoint-5
        """
        lines = [f"{size_of(content):12,}  {name}" for name, content in sorted(self.files.items())]
        if self.left_out:
            lines.append(f"stays here: {', '.join(self.left_out)}")
        if self.unseen:
            lines.append(f"not searched for, as it is not here: sentences of {', '.join(self.unseen)}")
        return "\n".join(lines)


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
    check_opens(run.path, files)
    check_sizes(files, args.max_file_gb)
    kind = kind_of(run)
    texts, unseen = training_texts(run, kind)
    known = KnownSentences([*predicted_texts(run.path), *texts], template_text(kind))
    check_texts(run.path, files, known)
    return Release(files, sorted(path.name for path in run.path.iterdir() if path.name not in files), unseen)


def _card_fields(args: ReleaseArguments, run: RunFolder) -> dict[str, Any]:
    """What the card takes beside the run; the licence also from a README.md in which somebody wrote it."""
    return {
        "model_id": args.repo_id,
        "license": args.license or _written_license(run.path / "README.md"),
        "base_model": args.base_model,
        "datasets": args.datasets,
        "language": args.language,
        "model_name": args.model_name,
        "train_data_license": args.train_data_license,
        "evaluation_command": args.evaluation_command,
    }


def _written_license(readme: Path) -> str | None:
    if not readme.exists():
        return None
    try:
        found = ModelCard.load(readme, ignore_metadata_errors=True).data.get("license")
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise PessError(
            f"{readme}: expected a card with YAML between two lines of ---, found what cannot be read "
            f"({one_line(str(error))}). Mend it, or delete it and give --license."
        ) from error
    if not isinstance(found, str | None):
        raise PessError(f"{readme}: expected one word for the license, found {found!r}. Mend it, or give --license.")
    return found


def publish(release: Release, repo_id: str, private: bool = False, token: str | None = None) -> Published:
    """Upload a prepared release in one commit, which also deletes what `files_to_delete` lists.

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
    check_texts("", release.files, KnownSentences([]), token)
    # Before the repository is made: a card that the Hub does not take shall leave no empty one behind.
    on_hub(lambda: _validate(text_of(release.files, "README.md")), repo_id, token, tries=2)
    # None leaves a repository that exists as it is, and follows an organisation's default for a new one.
    visibility = True if private else None
    url = on_hub(lambda: api.create_repo(repo_id, private=visibility, exist_ok=True), repo_id, token, tries=2)
    before = on_hub(lambda: api.model_info(repo_id), repo_id, token, tries=2)
    _check_private(before, private)
    commit = upload_in_one_commit(repo_id, release.files, "Release", stale=is_stale, token=token)
    return Published(str(url), str(commit.oid), commit.oid != before.sha)


def _validate(card: str) -> None:
    """Let the Hub look at the head of a card; the client hands its answer on as it came, as JSON."""
    try:
        ModelCard(card, ignore_metadata_errors=True).validate()
    except ValueError as error:
        try:
            reason = "; ".join(found["message"] for found in json.loads(str(error))["errors"])
        except (ValueError, KeyError, TypeError):
            reason = one_line(str(error))
        raise PessError(
            f"README.md: expected metadata that the Hub takes, but it says: {reason}. Mend it; for a licence that is "
            "not in its list, --license other."
        ) from error


def _check_private(repo: Any, private: bool) -> None:
    if private and not repo.private:
        raise PessError(f"{repo.id}: expected a private repository, found a public one. Change it on the Hub first.")


def files_to_delete(
    release: Release, repo_id: str, private: bool = False, token: str | None = None
) -> list[str] | None:
    """Look which files of the repository the release's commit deletes: weights and pickles that it does not hold.

    Args:
        release: What `prepare_release` returned.
        repo_id: The repository.
        private: Whether it is to be private.
        token: The token; by default that of this machine.

    Returns:
        The paths; None where there is no such repository, or this token may not see it.

    Raises:
        PessError: If the Hub cannot be reached, or the repository is public and was asked to be private.

    Example:
        >>> files_to_delete(release, "me/pess")  # doctest: +SKIP
        ['pytorch_model.bin']
    """
    api = HfApi(token=token)
    if not on_hub(lambda: api.repo_exists(repo_id), repo_id, token):
        return None
    repo = on_hub(lambda: api.model_info(repo_id), repo_id, token)
    _check_private(repo, private)
    return stale_paths(repo, release.files, is_stale)
