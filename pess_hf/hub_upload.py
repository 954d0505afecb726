"""One commit to the Hub: all files or none, tried a second time after a fault, errors in one line."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from json import JSONDecodeError
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from pess_hf.cli import one_line
from pess_hf.errors import PessError
from pess_hf.hub_files import Content
from pess_hf.redaction import without_secrets

_LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN to a token with write access."
_CURES = {
    401: ("the token is missing, invalid or expired", _LOG_IN),
    403: ("this token may not write there", "Check the name, or use a token of its owner with write access."),
    404: ("there is no such repository or revision, or this token may not see it", "Check the name and the token."),
    412: ("somebody else committed meanwhile", "Run it again."),
}


class HubError(PessError):
    """The Hub refused, or could not be reached."""


def upload_in_one_commit(
    repo_id: str,
    files: Mapping[str, Content],
    message: str,
    *,
    stale: Callable[[str], bool] | None = None,
    token: str | None = None,
    revision: str | None = None,
    repo_type: str | None = None,
) -> CommitInfo:
    """Commit files to a repository that exists; what is on the Hub already is neither sent nor committed again.

    A lost connection or an error of the server is met by one more try. That is safe even where the first commit
    went through and only its answer was lost: what is to be deleted is looked up for each try, so that nothing is
    left to change and no second commit is made. A commit that somebody else makes in between is never written over.

    Args:
        repo_id: The repository.
        files: Path in the repository to the file, or to its bytes.
        message: The commit's message.
        stale: Says of a path in the repository whether it goes, in the same commit, where `files` does not hold it.
        token: The token; by default that of this machine.
        revision: The branch; by default main.
        repo_type: "model", "dataset" or "space"; by default a model.

    Returns:
        What was committed, or the newest commit where nothing had changed.

    Raises:
        HubError: If the Hub refuses or cannot be reached. No file of a failed commit is visible.

    Example:
        >>> upload_in_one_commit("me/model", {"README.md": b"# Mine"}, "Add a card")  # doctest: +SKIP
    """
    api = HfApi(token=token)

    def commit() -> CommitInfo:
        before = api.repo_info(repo_id, revision=revision, repo_type=repo_type)
        # Operations remember that they were used: each try needs its own.
        added = [CommitOperationAdd(path, content) for path, content in files.items()]
        removed = [CommitOperationDelete(path) for path in stale_paths(before, files, stale)]
        return api.create_commit(
            repo_id,
            [*added, *removed],
            commit_message=message,
            revision=revision,
            repo_type=repo_type,
            parent_commit=before.sha,
        )

    return on_hub(commit, repo_id, token, tries=2)


def stale_paths(repo: Any, files: Mapping[str, Content], stale: Callable[[str], bool] | None) -> list[str]:
    """What a commit of `files` deletes in a repository.

    Args:
        repo: What `HfApi.repo_info` says about it.
        files: What is committed.
        stale: See `upload_in_one_commit`; None for nothing.

    Returns:
        The paths, sorted.
    """
    present = [file.rfilename for file in repo.siblings or []]
    return sorted(path for path in present if stale is not None and stale(path) and path not in files)


def on_hub(do: Callable[[], Any], name: str, token: str | None = None, tries: int = 1, pause: float = 1.0) -> Any:
    """Do something on the Hub, with errors that say in one line what to mend.

    Args:
        do: What to do; safe to do twice.
        name: What the error is about: a repository.
        token: A token that must not show in the error.
        tries: How often it is tried in all; only faults of the connection and of the server are tried again.
        pause: Seconds between two tries.

    Returns:
        What `do` returns.

    Raises:
        HubError: If the Hub refuses or cannot be reached.

    Example:
        >>> on_hub(lambda: "done", "me/model")
        'done'
    """
    for left in reversed(range(tries)):
        try:
            return do()
        except PessError:
            raise
        except (LocalTokenNotFoundError, RuntimeError, OSError, ValueError) as error:
            cause = _cause(error)
        except Exception as error:  # errors of the HTTP library derive from nothing else, and it is not imported here
            if not _is_connection_error(error):
                raise
            cause = error
        if left and _may_pass(cause):
            time.sleep(pause)
            continue
        raise HubError(without_secrets(f"{name}: {_reason(cause)}", token)) from cause
    raise AssertionError("tries: expected 1 or more")


def _cause(error: Exception) -> Exception:
    """The client wraps what went wrong while a large file was sent."""
    wrapped = error.__cause__
    return wrapped if isinstance(error, RuntimeError) and isinstance(wrapped, Exception) else error


def _is_connection_error(error: Exception) -> bool:
    return any(kind.__name__ in ("TransportError", "CloseError") for kind in type(error).__mro__)


def _status(error: Exception) -> int:
    response = getattr(error, "response", None)
    return getattr(response, "status_code", 0) if isinstance(error, HfHubHTTPError) else 0


def _may_pass(error: Exception) -> bool:
    passing = ConnectionError | JSONDecodeError
    return _is_connection_error(error) or _status(error) >= 500 or isinstance(error, passing)


def _reason(error: Exception) -> str:
    """What happened and what to do."""
    status = _status(error)
    if isinstance(error, LocalTokenNotFoundError):
        status = 401
    if status in _CURES:
        reason, cure = _CURES[status]
        return f"expected to write to it, but {reason}. {cure}"
    if status >= 500:
        return f"the Hub answered with an error of its own ({status}). Run it again; what was sent is kept."
    if isinstance(error, JSONDecodeError):
        return "the Hub answered with something else than JSON. Run it again; what was sent is kept."
    if _is_connection_error(error):
        return f"the connection to the Hub was lost ({type(error).__name__}). Run it again; what was sent is kept."
    return f"{one_line(str(error)) or type(error).__name__}"
