"""The endpoints of the loopback Hub: one function each, from a `Call` to an `Answer`."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from loopback_hub_store import DATE, Blob, HubError, is_large

REPO = r"(?P<repo>[^/]+/[^/]+?)"
API = rf"/api/(?P<kind>model|dataset|space)s/{REPO}"
PLAIN = rf"/(?:(?P<kind>dataset|space)s/)?{REPO}"
REVISION = r"(?P<revision>[^/]+)"
LOCAL_PATH = re.compile(r"^base_model:\s*['\"]?(?:[./~\\]|[A-Za-z]:\\)", re.MULTILINE)

LICENSE = re.compile(r"^license:[ \t]*['\"]?(.*?)['\"]?[ \t]*$", re.MULTILINE)
LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-nc-4.0", "other")  # some of the Hub's


@dataclass
class Call:
    """One request, taken apart."""

    hub: object
    parts: dict[str, str]
    query: dict[str, list[str]]
    headers: object
    body: bytes

    @property
    def store(self):
        return self.hub.store

    @property
    def token(self):
        return self.store.who(self.headers.get("Authorization"))

    @property
    def kind(self):
        return self.parts.get("kind") or "model"

    @property
    def json(self):
        return json.loads(self.body or b"{}")

    def repo(self, write=False):
        find = self.store.writable if write else self.store.readable
        return find(self.kind, self.parts["repo"], self.token)


@dataclass
class Answer:
    """What goes back."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


ROUTES: list[tuple[str, re.Pattern, str, object]] = []


def route(method, pattern, step):
    """Register an endpoint; `step` is the name under which faults and the log know it."""

    def register(function):
        ROUTES.append((method, re.compile(pattern + r"/?$"), step, function))
        return function

    return register


def find_route(method, path):
    """(step, function, path parts) of a request; HEAD is served by GET."""
    method = "GET" if method == "HEAD" else method
    for known, pattern, step, function in ROUTES:
        match = pattern.match(path) if known == method else None
        if match:
            return step, function, {key: unquote(value) for key, value in match.groupdict().items() if value}
    return "unknown", unknown, {}


def unknown(call):
    raise HubError(404 if call.token else 401, "RepoNotFound", "Repository not found")


def as_json(value, status=200, **headers):
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


def refusal(error):
    """The answer to a `HubError`."""
    headers = {"X-Error-Message": error.message} | ({"X-Error-Code": error.code} if error.code else {})
    return as_json({"error": error.message, **error.more}, error.status, **headers)


def page_url(call, repo):
    prefix = "" if repo.kind == "model" else f"{repo.kind}s/"
    return f"{call.hub.url}/{prefix}{repo.repo_id}"


# Accounts and repositories


@route("GET", "/api/whoami-v2", "whoami")
def whoami(call):
    if call.token is None:
        raise HubError(401, None, "Invalid username or password.")
    access = {"accessToken": {"displayName": "loopback", "role": call.token.rights}}
    return as_json({"type": "user", "name": call.token.user, "fullname": call.token.user, "orgs": [], "auth": access})


@route("POST", "/api/repos/create", "create")
def create(call):
    asked, token = call.json, call.token
    if token is None:
        raise HubError(401, None, "Invalid username or password.")
    repo_id = f"{asked.get('organization') or token.user}/{asked['name']}"
    kind = asked.get("type") or "model"
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    known = call.store.repos.get((kind, repo_id))
    if known:
        call.store.check_write(repo_id.split("/")[0], token)
        raise HubError(409, None, "You already created this repo", url=page_url(call, known))
    repo = call.store.create(kind, repo_id, token, private, asked.get("sdk"))
    return as_json({"url": page_url(call, repo), "name": repo_id, "id": repo_id})


@route("DELETE", "/api/repos/delete", "delete")
def delete(call):
    asked, token = call.json, call.token
    namespace = asked.get("organization") or (token.user if token else "")
    repo = call.store.writable(asked.get("type") or "model", f"{namespace}/{asked['name']}", token)
    del call.store.repos[repo.kind, repo.repo_id]
    return as_json({})


@route("PUT", API + "/settings", "settings")
def settings(call):
    repo, asked = call.repo(write=True), call.json
    repo.private = asked.get("private", asked.get("visibility", "public") == "private")
    return as_json({"private": repo.private})


@route("POST", "/api/validate-yaml", "validate-yaml")
def validate_yaml(call):
    # Only what a card of ours could get wrong; reading YAML in full would need more than the standard library.
    found = re.match(r"\s*---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)", call.json["content"], re.DOTALL)
    if found is None:
        return as_json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    if LOCAL_PATH.search(found[1]):
        message = '"base_model" is not valid. Use a model id from https://hf.co/models.'
        return as_json({"errors": [{"message": message}], "warnings": []}, status=400)
    license = LICENSE.search(found[1])
    if license and license[1] not in LICENSES:
        message = f'"license" must be one of [{", ".join(LICENSES)}]'
        return as_json({"errors": [{"message": message}], "warnings": []}, status=400)
    return as_json({"errors": [], "warnings": []})


# Revisions


@route("GET", API + "/refs", "refs")
def refs(call):
    repo = call.repo()

    def entries(kind, names):
        return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in names.items()]

    return as_json({"branches": entries("heads", repo.branches), "tags": entries("tags", repo.tags), "converts": []})


@route("GET", API + f"/commits/{REVISION}", "commits")
def commits(call):
    shown = [
        {"id": commit.sha, "title": commit.title, "message": "", "date": DATE, "authors": []}
        for commit in call.repo().history(call.parts["revision"])
    ]
    return as_json(shown)


@route("POST", API + "/branch/(?P<name>[^/]+)", "branch")
def create_branch(call):
    repo, name = call.repo(write=True), call.parts["name"]
    if name in repo.branches:
        raise HubError(409, None, "Reference already exists")
    repo.branches[name] = repo.at(call.json.get("startingPoint", "main")).sha
    return as_json({})


@route("DELETE", API + "/branch/(?P<name>[^/]+)", "branch")
def delete_branch(call):
    repo, name = call.repo(write=True), call.parts["name"]
    if name == "main" or name not in repo.branches:
        raise HubError(403 if name == "main" else 404, "RevisionNotFound", f"Cannot delete {name}")
    del repo.branches[name]
    return as_json({})


@route("POST", API + f"/tag/{REVISION}", "tag")
def create_tag(call):
    repo, name = call.repo(write=True), call.json["tag"]
    if name in repo.tags:
        raise HubError(409, None, "Tag already exists")
    repo.tags[name] = repo.at(call.parts["revision"]).sha
    return as_json({})


@route("DELETE", API + "/tag/(?P<name>[^/]+)", "tag")
def delete_tag(call):
    if call.repo(write=True).tags.pop(call.parts["name"], None) is None:
        raise HubError(404, "RevisionNotFound", "No such tag")
    return as_json({})


# Uploads


@route("POST", API + f"/preupload/{REVISION}", "preupload")
def preupload(call):
    known = call.repo(write=True).at(call.parts["revision"]).files
    files = [
        {
            "path": asked["path"],
            "uploadMode": "lfs" if is_large(asked["path"], asked["size"]) else "regular",
            "shouldIgnore": False,
            "oid": known[asked["path"]].oid if asked["path"] in known else None,
        }
        for asked in call.json["files"]
    ]
    return as_json({"files": files})


@route("POST", PLAIN + r"\.git/info/lfs/objects/batch", "lfs-batch")
def lfs_batch(call):
    repo = call.repo(write=True)
    objects = []
    for asked in call.json["objects"]:
        oid = asked["oid"]
        entry = {"oid": oid, "size": asked["size"]}
        if oid not in repo.large:
            entry["actions"] = {"upload": {"href": call.hub.storage_url(repo, oid)}}
        objects.append(entry)
    return as_json({"transfer": "basic", "objects": objects})


STORAGE = rf"/storage/(?P<secret>[^/]+)/(?P<kind>model|dataset|space)/{REPO}/(?P<oid>[0-9a-f]{{64}})"


def signed_repo(call):
    """The repository of a signed storage link; the secret stands for the signature, no token is looked at."""
    repo = call.store.repos.get((call.kind, call.parts["repo"]))
    if repo is None or call.parts["secret"] != call.hub.secret:
        raise HubError(403, None, "Access denied")
    return repo


@route("PUT", STORAGE, "lfs-put")
def lfs_put(call):
    repo, blob = signed_repo(call), Blob(call.body, large=True)
    if blob.oid != call.parts["oid"]:
        raise HubError(400, None, "The content does not have the announced hash")
    repo.large[blob.oid] = blob
    return Answer(headers={"ETag": f'"{blob.oid}"'})


@route("GET", STORAGE, "lfs-get")
def lfs_get(call):
    blob = signed_repo(call).large.get(call.parts["oid"])
    if blob is None:
        raise HubError(404, "EntryNotFound", "No such object")
    return with_range(call, blob)


@route("POST", API + f"/commit/{REVISION}", "commit")
def commit(call):
    repo = call.repo(write=True)
    if "create_pr" in call.query:
        raise HubError(400, None, "The loopback Hub has no pull requests")
    lines = [json.loads(line) for line in call.body.splitlines() if line.strip()]
    for line in lines:
        if line["key"] == "file":
            line["value"]["data"] = base64.b64decode(line["value"]["content"])
    made = repo.apply(call.parts["revision"], lines)
    url = f"{page_url(call, repo)}/commit/{made.sha}"
    return as_json({"success": True, "commitUrl": url, "commitOid": made.sha, "hookOutput": ""})


# Reading


@route("GET", API + f"/revision/{REVISION}", "info")
@route("GET", API, "info")
def info(call):
    repo = call.repo()
    found = repo.at(call.parts.get("revision", "main"))
    siblings = [{"rfilename": path} for path in sorted(found.files)]
    about = {"id": repo.repo_id, "sha": found.sha, "private": repo.private, "siblings": siblings, "tags": []}
    more = {"modelId": repo.repo_id, "lastModified": DATE, "createdAt": DATE, "downloads": 0, "likes": 0}
    return as_json({**about, **more, "disabled": False, "gated": False, "sdk": repo.sdk})


def tree_entry(path, blob):
    entry = {"type": "file", "path": path, "size": len(blob.data), "oid": blob.git_oid}
    if blob.large:
        entry["lfs"] = {"oid": blob.oid, "size": len(blob.data), "pointerSize": len(blob.pointer)}
    return entry


def folders(files):
    """Every folder that holds a file, deep ones included."""
    return {path[: end.start()] for path in files for end in re.finditer("/", path)}


@route("GET", API + f"/tree/{REVISION}(?:/(?P<path>.+?))?", "tree")
def tree(call):
    files = call.repo().at(call.parts["revision"]).files
    top = call.parts.get("path", "")
    if top and top not in folders(files):
        raise HubError(404, "EntryNotFound", f"{top} does not exist")
    start = top + "/" if top else ""
    entries = [tree_entry(path, blob) for path, blob in files.items()]
    entries += [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders(files)]
    inside = [entry for entry in entries if entry["path"].startswith(start) and entry["path"] != top]
    if call.query.get("recursive", ["false"])[0].lower() != "true":
        inside = [entry for entry in inside if "/" not in entry["path"][len(start) :]]
    return as_json(sorted(inside, key=lambda entry: entry["path"]))


@route("POST", API + f"/paths-info/{REVISION}", "paths-info")
def paths_info(call):
    files, wanted = call.repo().at(call.parts["revision"]).files, call.hub.form(call.body).get("paths", [])
    found = [tree_entry(path, files[path]) for path in wanted if path in files]
    found += [{"type": "directory", "path": path, "oid": "0" * 40} for path in wanted if path in folders(files)]
    return as_json(found)


@route("GET", PLAIN + f"/resolve/{REVISION}/(?P<path>.+)", "resolve")
def resolve(call):
    repo = call.repo()
    found = repo.at(call.parts["revision"])
    about = {"X-Repo-Commit": found.sha, "Accept-Ranges": "bytes"}
    blob = found.files.get(call.parts["path"])
    if blob is None:
        return Answer(404, b"Entry not found", {**about, "X-Error-Code": "EntryNotFound"})
    if not blob.large:
        answer = with_range(call, blob)
        answer.headers.update(about)
        return answer
    # As the real Hub does: the bytes of a large file come from another origin, where the token must not go.
    about |= {"X-Linked-Etag": f'"{blob.oid}"', "X-Linked-Size": str(len(blob.data)), "ETag": f'"{blob.oid}"'}
    return Answer(302, b"", {**about, "Location": call.hub.storage_url(repo, blob.oid)})


def with_range(call, blob):
    """The content, or the part of it that a Range header asks for."""
    headers = {"ETag": f'"{blob.oid}"', "Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("Range") or "")
    size = len(blob.data)
    if asked is None or not any(asked.groups()):
        return Answer(200, blob.data, headers)
    first = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
    last = min(int(asked[2]), size - 1) if asked[1] and asked[2] else size - 1
    if first >= size or first > last:
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{size}"})
    return Answer(206, blob.data[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{size}"})
