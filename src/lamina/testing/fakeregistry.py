# SPDX-License-Identifier: Apache-2.0
"""A registry in memory that misbehaves on request, for tests of the client.

Not a conformant server: it says yes to whatever is well formed, remembers every request, and can
ask for credentials, cut answers off, answer slowly or with errors, and redirect. Partial uploads
survive a client that was killed, and their status tells how much is there.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


class Seen(Record):
    """A request that arrived: `authorization` empty if there was none."""

    method: str
    path: str
    authorization: str
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str:
        return {key.lower(): value for key, value in self.headers}.get(name.lower(), "")


class FakeRegistry:
    """A registry on a port of 127.0.0.1, in threads of this process. A context manager.

    `basic` is `user:password`, `realm` the address of a token server (then `token` opens the door).
    `cut_after` bytes every blob GET ends, until `cuts` are used up; `failures` are (status,
    headers) answered before anything else; `redirect_blobs` is the address that blob GETs are sent
    to; `connections` counts those that are open; `hold_after` bytes (0: never) a blob GET sends (-1: not even an answer)
    before it waits until `go` is set; `ranges` False ignores Range; `no_chunks` refuses an upload in pieces.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.repository_blobs: set[tuple[str, str]] = set()
        self.seen: list[Seen] = []
        self.basic = ""
        self.realm = ""
        self.tokens: set[str] = set()
        self.cut_after = 0
        self.cuts = 0
        self.hold_after = 0
        self.go = threading.Event()
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.redirect_blobs = ""
        self.ranges = True
        self.no_chunks = False
        self.referrers_api = True
        self.on_patch: Callable[[int], None] | None = None
        self.connections = 0
        self._lock = threading.Lock()
        registry = self

        class Handler(_Handler):
            owner = registry

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def add_blob(self, data: bytes) -> str:
        """Keep a blob; its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def requests(self, method: str, part: str = "") -> list[Seen]:
        """What arrived with that method and text in its path."""
        return [seen for seen in self.seen if seen.method == method and part in seen.path]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FakeRegistry

    def log_message(self, format: str, *args: Any) -> None: ...

    def handle(self) -> None:
        with self.owner._lock:
            self.owner.connections += 1
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                super().handle()
        finally:
            with self.owner._lock:
                self.owner.connections -= 1

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  # http.server's names

    def _answer(self) -> None:
        owner = self.owner
        if "/v2/" not in self.path and "/token" not in self.path:
            self._send(404, b"")
            return
        url = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(url.query))
        owner.seen.append(
            Seen(
                self.command,
                self.path,
                self.headers.get("Authorization", ""),
                tuple(self.headers.items()),
            )
        )
        with owner._lock:
            failure = owner.failures.pop(0) if owner.failures and url.path != "/v2/" else None
        if failure is not None:
            self._drain()
            self._send(failure[0], b"", failure[1])
            return
        if not self._let_in():
            return
        parts = url.path.strip("/").split("/")[1:]
        if not parts:
            self._send(200, b"{}")
        elif parts[-2:-1] == ["manifests"]:
            self._manifest("/".join(parts[:-2]), parts[-1])
        elif parts[-2:] == ["tags", "list"]:
            self._tags("/".join(parts[:-2]))
        elif parts[-2:-1] == ["referrers"]:
            self._referrers("/".join(parts[:-2]), parts[-1])
        elif "uploads" in parts:
            self._upload("/".join(parts[: parts.index("uploads") - 1]), parts[-1])
        elif parts[-2:-1] == ["blobs"]:
            self._blob("/".join(parts[:-2]), parts[-1])
        else:
            self._send(404, b"")

    def _let_in(self) -> bool:
        owner = self.owner
        given = self.headers.get("Authorization", "")
        challenge = ""
        if owner.realm:
            if given.removeprefix("Bearer ") not in owner.tokens:
                challenge = f'Bearer realm="{owner.realm}",service="fake"'
        elif owner.basic:
            pair = base64.b64encode(owner.basic.encode()).decode()
            if given != f"Basic {pair}":
                challenge = 'Basic realm="fake"'
        if challenge:
            self._drain()
            self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})
        return not challenge

    # --- manifests, tags ---

    def _manifest(self, repository: str, reference: str) -> None:
        owner = self.owner
        if self.command == "PUT":
            raw = self._body()
            digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
            kept = (self.headers.get("Content-Type", ""), raw)
            owner.manifests[repository, reference] = kept
            owner.manifests[repository, digest] = kept
            headers = {"Location": self.path, "Docker-Content-Digest": digest}
            subject = json.loads(raw).get("subject")
            if subject and owner.referrers_api:
                headers["OCI-Subject"] = subject["digest"]
            self._send(201, b"", headers)
            return
        found = owner.manifests.get((repository, reference))
        if found is None:
            self._error(404, "MANIFEST_UNKNOWN")
            return
        if self.command == "DELETE":
            del owner.manifests[repository, reference]
            self._send(202, b"")
            return
        digest = f"sha256:{hashlib.sha256(found[1]).hexdigest()}"
        self._send(200, found[1], {"Content-Type": found[0], "Docker-Content-Digest": digest})

    def _tags(self, repository: str) -> None:
        """One tag a page, to see that Link is followed."""
        names = sorted(r for name, r in self.owner.manifests if name == repository and ":" not in r)
        rest = [name for name in names if name > self.query.get("last", "")]
        headers = {}
        if len(rest) > 1:
            headers["Link"] = f'</v2/{repository}/tags/list?n=1&last={rest[0]}>; rel="next"'
        body = json.dumps({"name": repository, "tags": rest[:1]}).encode()
        self._send(200, body, headers)

    def _referrers(self, repository: str, digest: str) -> None:
        if not self.owner.referrers_api:
            self._error(404, "UNSUPPORTED")
            return
        entries = []
        for (name, reference), (media_type, raw) in self.owner.manifests.items():
            document = json.loads(raw)
            if name != repository or ":" not in reference:
                continue
            if document.get("subject", {}).get("digest") == digest:
                entry = {"mediaType": media_type, "digest": reference, "size": len(raw)}
                entries.append({**entry, "artifactType": document.get("artifactType", "")})
        media_type = "application/vnd.oci.image.index.v1+json"
        body = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
        self._send(200, json.dumps(body).encode(), {"Content-Type": media_type})

    # --- blobs ---

    def _blob(self, repository: str, digest: str) -> None:
        owner = self.owner
        data = owner.blobs.get(digest)
        if data is None or (
            self.command == "HEAD" and (repository, digest) not in (owner.repository_blobs)
        ):
            self._error(404, "BLOB_UNKNOWN")
            return
        if self.command == "GET" and owner.redirect_blobs:
            self._send(307, b"", {"Location": owner.redirect_blobs + self.path})
            return
        offset = 0
        wanted = self.headers.get("Range", "")
        if wanted and owner.ranges:
            offset = int(wanted.removeprefix("bytes=").partition("-")[0])
        body = data[offset:]
        headers = {"Content-Length": str(len(body))}
        if offset:
            headers["Content-Range"] = f"bytes {offset}-{len(data) - 1}/{len(data)}"
        with owner._lock:
            cut = self.command == "GET" and owner.cuts > 0 and len(body) > owner.cut_after
            owner.cuts -= cut
        if self.command == "GET" and owner.hold_after < 0:
            owner.go.wait()
        if cut or (self.command == "GET" and owner.hold_after > 0):
            self.send_response(206 if offset else 200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: owner.cut_after if cut else owner.hold_after])
            if not cut:
                owner.go.wait()
                self.wfile.write(body[owner.hold_after :])
            self.close_connection = cut
            return
        self._send(206 if offset else 200, body, headers)

    def _upload(self, repository: str, name: str) -> None:
        owner = self.owner
        if self.command == "POST":
            self._drain()
            mount = (self.query.get("from", ""), self.query.get("mount", ""))
            if mount in owner.repository_blobs:
                owner.repository_blobs.add((repository, mount[1]))
                self._send(201, b"", {"Location": f"/v2/{repository}/blobs/{mount[1]}"})
                return
            id = f"u{len(owner.uploads)}"
            owner.uploads[id] = bytearray()
            self._state(202, repository, id)
            return
        data = owner.uploads.get(name)
        if data is None:
            self._drain()
            self._error(404, "BLOB_UPLOAD_UNKNOWN")
        elif self.command == "GET":
            self._state(204, repository, name)
        elif self.command == "PATCH":
            self._patch(data, repository, name)
        elif self.command == "PUT":
            self._read_into(data)
            digest = self.query.get("digest", "")
            if digest != f"sha256:{hashlib.sha256(data).hexdigest()}":
                self._error(400, "DIGEST_INVALID")
                return
            owner.blobs[digest] = bytes(data)
            owner.repository_blobs.add((repository, digest))
            del owner.uploads[name]
            self._send(201, b"", {"Location": f"/v2/{repository}/blobs/{digest}"})

    def _patch(self, data: bytearray, repository: str, name: str) -> None:
        start = self.headers.get("Content-Range", "").partition("-")[0]
        if start and self.owner.no_chunks:
            self._drain()
            self._error(400, "UNSUPPORTED")
            return
        if start and int(start) != len(data):
            self._drain()
            self._state(416, repository, name)
            return
        self._read_into(data)
        self._state(202, repository, name)

    def _state(self, status: int, repository: str, name: str) -> None:
        last = max(len(self.owner.uploads[name]) - 1, 0)
        location = f"/v2/{repository}/blobs/uploads/{name}"
        self._send(status, b"", {"Location": location, "Range": f"0-{last}"})

    # --- bodies ---

    def _read_into(self, data: bytearray) -> None:
        left = int(self.headers.get("Content-Length", "0"))
        while left and (piece := self.rfile.read(min(left, 65536))):
            data += piece
            left -= len(piece)
            if self.owner.on_patch is not None:
                self.owner.on_patch(len(data))

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _drain(self) -> None:
        self._body()

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()
        self._send(status, body, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        headers = headers or {}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers and status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and body:
            self.wfile.write(body)


class TokenServer:
    """Gives tokens to `user:password` (empty: to everybody) and to refresh tokens; remembers all.

    The tokens are put into `registry.tokens`. A context manager.
    """

    def __init__(self, registry: FakeRegistry, *, account: str = "", refresh: str = "") -> None:
        self.registry = registry
        self.account = account
        self.refresh = refresh
        self.expires_in = 300
        self.rotates = False  # a refresh token is good once, a new one comes with each answer
        self.scopes: list[list[str]] = []
        self.authorizations: list[str] = []
        self.bodies: list[dict[str, str]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None: ...

            def do_GET(self) -> None:
                owner._get(self)

            def do_POST(self) -> None:
                owner._post(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(handler.path).query)
        given = handler.headers.get("Authorization", "")
        self.scopes.append(sorted(query.get("scope", [])))
        self.authorizations.append(given)
        wanted = f"Basic {base64.b64encode(self.account.encode()).decode()}"
        if self.account and given and given != wanted:
            _reply(handler, 401, {"details": "incorrect username or password"})
            return
        self._grant(handler, offline="offline_token" in query)

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length", "0"))
        form = dict(urllib.parse.parse_qsl(handler.rfile.read(length).decode()))
        self.bodies.append(form)
        self.scopes.append(sorted(form.get("scope", "").split()))
        if form.get("refresh_token") != self.refresh:
            _reply(handler, 401, {"error": "invalid_grant"})
            return
        if self.rotates:
            self.refresh += "+"
        self._grant(handler, offline=self.rotates)

    def _grant(self, handler: BaseHTTPRequestHandler, *, offline: bool) -> None:
        token = f"token{len(self.scopes)}"
        self.registry.tokens.add(token)
        body: dict[str, object] = {"token": token, "expires_in": self.expires_in}
        if offline and self.refresh:
            body["refresh_token"] = self.refresh
        _reply(handler, 200, body)

    def __enter__(self) -> Self:
        self._thread.start()
        self.registry.realm = self.url
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _reply(handler: BaseHTTPRequestHandler, status: int, document: dict[str, object]) -> None:
    body = json.dumps(document).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
