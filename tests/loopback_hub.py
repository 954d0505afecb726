"""A writable Hub on 127.0.0.1 that the real `huggingface_hub` client uses over HTTP; standard library only.

    hub = LoopbackHub().start()          # then HF_ENDPOINT=hub.url, before huggingface_hub is imported
    hub.tokens["write"]                  # also "read", "expired", "stranger" (another user's)
    hub.fail_next("commit", how="lost")  # applied, but the answer never arrives
    hub.repo("tester/x").history()       # what is on the Hub, without the client
    hub.calls("commit")                  # what the client asked for

Left out, as no test of ours needs them: pull requests, multipart LFS, Xet, listing and searching repositories.
"""

from __future__ import annotations

import secrets
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from loopback_hub_routes import ROUTES, Call, find_route, refusal
from loopback_hub_store import HubError, Store, Token

STEPS = frozenset(step for _, _, step, _ in ROUTES)


@dataclass
class Request:
    """A line of the log. The token itself is never kept."""

    method: str
    path: str
    step: str
    authorized: bool
    host: str
    ranged: str | None = None
    size: int = 0
    status: int | None = None


@dataclass
class Fault:
    """What goes wrong the next `times` times that `step` is asked for."""

    step: str
    status: int
    times: int
    how: str
    path: str


class LoopbackHub:
    """The server, its store, its faults and its log."""

    user = "tester"

    def __init__(self):
        self.store = Store()
        self.secret = secrets.token_hex(8)
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self.tokens = {name: f"hf_loopback{name}{secrets.token_hex(8)}" for name in ("write", "read", "expired")}
        self.tokens["stranger"] = f"hf_loopbackstranger{secrets.token_hex(8)}"
        for name, value in self.tokens.items():
            user = "stranger" if name == "stranger" else self.user
            rights = "read" if name == "read" else "write"
            self.store.tokens[value] = Token(value, user, rights, expired=name == "expired")
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        """Serve in the background."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()

    def reset(self):
        """Forget repositories, faults and log; tokens stay."""
        with self.store.lock:
            self.store.repos.clear()
            self.faults.clear()
            self.log.clear()

    def repo(self, repo_id, kind="model"):
        """What the Hub holds of a repository; KeyError when there is none."""
        return self.store.repos[kind, repo_id]

    def fail_next(self, step, status=500, times=1, how="status", path=""):
        """Let the next requests for `step` fail.

        `how`: "status" answers `status` and does nothing; "cut" drops the connection in the middle of the body (of
        the request when it has one, else of the answer); "lost" does what was asked and drops the connection.
        `path`: only requests whose path contains it.
        """
        if step not in STEPS or how not in ("status", "cut", "lost"):
            raise ValueError(f"no step {step!r} or no fault {how!r}; steps: {sorted(STEPS)}")
        self.faults.append(Fault(step, status, times, how, path))

    def calls(self, step, status=None):
        """The logged requests for `step`, or those of them that were answered with `status`."""
        return [line for line in self.log if line.step == step and status in (None, line.status)]

    def storage_url(self, repo, oid):
        """A signed link to a large file: another origin than the Hub's own."""
        return f"http://localhost:{self.port}/storage/{self.secret}/{repo.kind}/{repo.repo_id}/{oid}"

    def take_fault(self, step, path):
        """The fault that hits this request, counted down."""
        with self.store.lock:
            for fault in self.faults:
                if fault.step == step and fault.times > 0 and fault.path in path:
                    fault.times -= 1
                    return fault
        return None

    @staticmethod
    def form(body):
        """The fields of a form body."""
        return parse_qs(body.decode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """Keep quiet about clients that went away: the faults make them."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: LoopbackHub

    def do_GET(self):
        """Serve any request; the method is looked at in the routes."""
        address = urlsplit(self.path)
        step, function, parts = find_route(self.command, address.path)
        authorized = "Authorization" in self.headers
        host = (self.headers.get("Host") or "").split(":")[0]
        line = Request(self.command, address.path, step, authorized, host, self.headers.get("Range"))
        self.hub.log.append(line)
        fault = self.hub.take_fault(step, address.path)
        sends = int(self.headers.get("Content-Length") or 0) > 0 or "Transfer-Encoding" in self.headers
        if fault and fault.how == "cut" and sends:
            self._read_body(half=True)
            return self._drop()
        body = self._read_body()
        line.size = len(body)
        if fault and fault.how == "status":
            answer = refusal(HubError(fault.status, None, "A fault was asked for"))
        else:
            answer = self._call(function, Call(self.hub, parts, parse_qs(address.query), self.headers, body))
        if fault and fault.how == "lost":
            return self._drop()
        line.status = answer.status
        self._send(answer, cut=bool(fault and fault.how == "cut"))

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _call(self, function, call):
        with self.hub.store.lock:
            try:
                return function(call)
            except HubError as error:
                return refusal(error)

    def _read_body(self, half=False):
        if "Transfer-Encoding" in self.headers:
            return self._read_chunks(half)
        length = int(self.headers.get("Content-Length") or 0)
        return self.rfile.read(length // 2 if half else length)

    def _read_chunks(self, half):
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
            if half:
                return found
        self.rfile.readline()
        return found

    def _send(self, answer, cut):
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("X-Request-Id", f"loopback-{len(self.hub.log)}")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
        if cut:
            self._drop()

    def _drop(self):
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *arguments):
        """Nothing on the terminal: the log is `hub.log`."""
