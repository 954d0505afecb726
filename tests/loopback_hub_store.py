"""What the loopback Hub remembers: tokens, repositories, commits, large files. No HTTP in here."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field

KINDS = ("model", "dataset", "space")
LARGE_SUFFIXES = (".safetensors", ".bin", ".parquet", ".arrow", ".pt", ".npz")
DATE = "2024-01-01T00:00:00.000Z"


class HubError(Exception):
    """An answer other than success: the status, the Hub's error code (or None), a message, further JSON fields."""

    def __init__(self, status, code=None, message="", **more):
        super().__init__(f"{status} {code} {message}")
        self.status, self.code, self.message, self.more = status, code, message, more


@dataclass(frozen=True)
class Token:
    """Who a bearer of `value` is and what it may do; `rights` is "read" or "write"."""

    value: str
    user: str
    rights: str
    expired: bool = False


@dataclass(frozen=True)
class Blob:
    """One file's content. `oid` is what the client compares: git's blob hash, or sha256 when it is large."""

    data: bytes
    large: bool = False

    @property
    def oid(self):
        return hashlib.sha256(self.data).hexdigest() if self.large else git_hash(self.data)

    @property
    def pointer(self):
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {len(self.data)}\n".encode()

    @property
    def git_oid(self):
        return git_hash(self.pointer) if self.large else self.oid


@dataclass(frozen=True)
class Commit:
    """A whole revision: every path and its content, and where it came from."""

    sha: str
    title: str
    parent: str | None
    files: dict[str, Blob]


@dataclass
class Repo:
    """A repository: commits by sha, branches and tags by name, and the large files that were uploaded to it."""

    kind: str
    repo_id: str
    private: bool = False
    sdk: str | None = None
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    large: dict[str, Blob] = field(default_factory=dict)

    def at(self, revision="main"):
        """The commit that a branch, a tag or a sha (seven characters are enough) names."""
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        short = [known for known in self.commits if len(sha) >= 7 and known.startswith(sha)]
        if len(short) != 1:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[short[0]]

    def file(self, revision, path):
        """The content of `path` at `revision`."""
        commit = self.at(revision)
        if path not in commit.files:
            raise HubError(404, "EntryNotFound", "Entry not found")
        return commit.files[path]

    def history(self, revision="main"):
        """Commits from the newest to the first."""
        found, commit = [], self.at(revision)
        while commit is not None:
            found.append(commit)
            commit = self.commits.get(commit.parent)
        return found

    def commit(self, branch, title, files):
        """Make `files` (the whole tree) the newest revision of `branch`."""
        parent = self.branches.get(branch)
        listing = "".join(f"{path}\0{blob.oid}\n" for path, blob in sorted(files.items()))
        sha = hashlib.sha1(f"{parent}\n{len(self.commits)}\n{title}\n{listing}".encode()).hexdigest()
        self.commits[sha] = Commit(sha, title, parent, files)
        self.branches[branch] = sha
        return self.commits[sha]

    def apply(self, branch, lines):
        """Apply a commit request (its decoded ndjson lines), all of it or nothing."""
        if branch not in self.branches:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        header = lines[0]["value"]
        parent = header.get("parentCommit")
        if parent and not self.branches[branch].startswith(parent):
            raise HubError(412, None, "A commit has happened since. Please refresh and try again.")
        files = dict(self.at(branch).files)
        for line in lines[1:]:
            self._apply_line(files, line["key"], line["value"])
        return self.commit(branch, header["summary"], files)

    def _apply_line(self, files, key, value):
        path = value["path"]
        if key == "file":
            files[path] = Blob(value["data"])
        elif key == "lfsFile":
            if value["oid"] not in self.large:
                raise HubError(400, None, f"LFS pointer pointed to a file that does not exist: {path}")
            files[path] = self.large[value["oid"]]
        elif key == "deletedFile":
            if path not in files:
                raise HubError(404, "EntryNotFound", "A file with this name doesn't exist")
            del files[path]
        elif key == "deletedFolder":
            for inside in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
                del files[inside]
        else:
            raise HubError(400, None, f"The loopback Hub does not know the commit operation {key}")


class Store:
    """Everything on the Hub. Callers hold `lock` while they use it."""

    def __init__(self):
        self.lock = threading.RLock()
        self.tokens: dict[str, Token] = {}
        self.repos: dict[tuple[str, str], Repo] = {}

    def who(self, authorization):
        """The token of an Authorization header; None when there is no header."""
        if not authorization:
            return None
        token = self.tokens.get(authorization.removeprefix("Bearer "))
        if token is None or token.expired:
            raise HubError(401, None, "Invalid credentials in Authorization header")
        return token

    def readable(self, kind, repo_id, token):
        """The repository, if it exists and the bearer may see it; the answer does not tell which failed."""
        repo = self.repos.get((kind, repo_id))
        owner = token is not None and token.user == repo_id.split("/")[0]
        if repo is None or (repo.private and not owner):
            raise HubError(404 if token else 401, "RepoNotFound", "Repository not found")
        return repo

    def writable(self, kind, repo_id, token):
        """The repository, if the bearer may also write to it."""
        repo = self.readable(kind, repo_id, token)
        self.check_write(repo_id.split("/")[0], token)
        return repo

    def check_write(self, namespace, token):
        """Refuse a bearer that may not write in `namespace`."""
        if token is None:
            raise HubError(401, None, "Invalid username or password.")
        if token.rights != "write" or token.user != namespace:
            raise HubError(403, None, f"You don't have the rights to create or change a repo under {namespace}")

    def create(self, kind, repo_id, token, private=False, sdk=None):
        """A new repository with its first commit, as the real Hub makes it."""
        self.check_write(repo_id.split("/")[0], token)
        repo = self.repos[kind, repo_id] = Repo(kind, repo_id, private, sdk)
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE_SUFFIXES)
        repo.commit("main", "initial commit", {".gitattributes": Blob(attributes.encode())})
        return repo


def git_hash(data):
    """The hash that git gives a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(path, size):
    """Whether a file goes through LFS."""
    return path.endswith(LARGE_SUFFIXES) or size > 10_000_000
