# SPDX-License-Identifier: Apache-2.0
"""Servers on loopback for tests: files over HTTP, and git repositories over smart and dumb HTTP."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


class Reply(Record):
    """What a path is answered with."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class WebServer:
    """Serves `files` (path -> Reply, or a function of the request's headers that gives one).

    `requests` are (method, path, headers) of what was asked, in order. Other paths are given to
    `git http-backend` if there is a `git_root`, unless `gate` answers the request. A context manager.
    """

    def __init__(self) -> None:
        self.files: dict[str, Reply | Callable[[dict[str, str]], Reply]] = {}
        self.git_root = ""
        self.gate: Callable[[dict[str, str]], Reply | None] = lambda _headers: None
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner._answer(self, b"")

            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length", "0"))
                body = self.rfile.read(size) if size else _chunks(self)
                owner._answer(self, body)

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def put(self, path: str, body: bytes, *, mtime: float | None = None, etag: bool = False) -> str:
        """Serve `body`, with validators that are honoured if asked for; the URL."""
        headers = []
        if mtime is not None:
            headers.append(("Last-Modified", formatdate(mtime, usegmt=True)))
        if etag:
            headers.append(("ETag", f'"{hashlib.sha256(body).hexdigest()[:16]}"'))

        def answer(request: dict[str, str]) -> Reply:
            asked = dict(headers)
            if etag and request.get("if-none-match") == asked["ETag"]:
                return Reply(304, b"", tuple(headers))
            if mtime is not None and request.get("if-modified-since") == asked["Last-Modified"]:
                return Reply(304, b"", tuple(headers))
            return Reply(200, body, tuple(headers))

        self.files[path] = answer
        return self.url + path

    def _answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.requests.append((handler.command, handler.path, headers))
        path = handler.path.partition("?")[0]
        found = self.files.get(path) or self.gate(headers)
        if found is None and self.git_root:
            _git(handler, self.git_root, body)
            return
        reply = found(headers) if callable(found) else found or Reply(404, b"not here")
        handler.send_response(reply.status)
        names = {name.lower() for name, _ in reply.headers}
        for name, value in reply.headers:
            handler.send_header(name, value)
        if "content-length" not in names and reply.status != 304:
            handler.send_header("Content-Length", str(len(reply.body)))
        handler.end_headers()
        try:
            handler.wfile.write(reply.body)
        except BrokenPipeError:
            return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _chunks(handler: BaseHTTPRequestHandler) -> bytes:
    parts = []
    while size := int(handler.rfile.readline().strip() or b"0", 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    return b"".join(parts)


def _git(handler: BaseHTTPRequestHandler, root: str, body: bytes) -> None:
    """Answer by `git http-backend` (CGI)."""
    path, _, query = handler.path.partition("?")
    env = {
        "PATH": os.environ.get("PATH", ""),
        "GIT_PROJECT_ROOT": root,
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_PROTOCOL": handler.headers.get("Git-Protocol", ""),
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_METHOD": handler.command,
        "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_CONTENT_ENCODING": handler.headers.get("Content-Encoding", ""),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }
    done = subprocess.run(
        ["git", "http-backend"], env=env, input=body, capture_output=True, check=False
    )
    head, _, content = done.stdout.partition(b"\r\n\r\n")
    headers = [line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line]
    status = next((int(v.split()[0]) for name, v in headers if name == "Status"), 200)
    handler.send_response(status)
    for name, value in headers:
        if name != "Status":
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def git(directory: str, *words: str) -> str:
    """Git's output in a directory, with a fixed author and date and no configuration."""
    env = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "A",
        "GIT_COMMITTER_EMAIL": "a@example.com",
        "GIT_AUTHOR_DATE": "1700000000 +0000",
        "GIT_COMMITTER_DATE": "1700000000 +0000",
    }
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main", *words],
        cwd=directory,
        env=env,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()
