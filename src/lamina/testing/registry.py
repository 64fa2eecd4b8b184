# SPDX-License-Identifier: Apache-2.0
"""A registry for tests: a server process on loopback, and a small client that hides nothing.

from lamina.testing.registry import registry  # a pytest fixture

def test_push(registry):
    subprocess.run(["skopeo", "copy", ..., f"docker://{registry.host}/app:1"])
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lamina.spec import mediatype
from lamina.testing.command import installed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Self


class RegistryServer:
    """`lamina serve` in a process of its own on the directory `root`.

    `config` is the text of a configuration file; one with `[storage.s3]` leaves `root` to logs. The port is free and stays the same over `restart`.
    """

    def __init__(self, root: Path, *, config: str = "", flags: tuple[str, ...] = ()) -> None:
        self.root = root
        self.port = 0
        self._clients: list[RegistryClient] = []
        self._flags = list(flags)
        self._process: subprocess.Popen[str] | None = None
        root.mkdir(parents=True, exist_ok=True)
        self.log = root.with_name(root.name + ".log")
        self._in_bucket = "[storage.s3]" in config
        if config:
            path = root.with_name(root.name + ".toml")
            path.write_text(config)
            self._flags += ["--config", str(path)]
        self.scheme = "http"

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`, the registry part of a reference."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start the process and wait until it accepts requests."""
        env = {name: text for name, text in os.environ.items() if not name.startswith("LAMINA_")}
        env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        env["LAMINA_ROOT"] = str(self.root)
        place = [] if self._in_bucket else ["--root", str(self.root)]
        words = ["--listen", f"127.0.0.1:{self.port}", *place, *self._flags]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                installed("serve", *words),
                env=env,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert " at http" in line, f"the registry did not start: {line}{self.log.read_text()}"
        address = urlsplit(line.split()[-1])
        assert address.port is not None
        self.port, self.scheme = address.port, address.scheme
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal, wait for the end; the exit status. Idempotent."""
        while self._clients:
            self._clients.pop().connection.close()
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)  # nothing if it has ended
        assert process.stdout is not None
        try:
            return process.wait(40)
        finally:
            process.kill()  # nothing, if it has ended
            process.wait()
            process.stdout.close()

    def kill(self) -> None:
        """End the process as `kill -9` does."""
        self.stop(signal.SIGKILL)

    def client(self) -> RegistryClient:
        """A new connection; `stop` closes it."""
        client = RegistryClient(self.port)
        self._clients.append(client)
        return client

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)

    def code(self) -> str:
        """The first error code of the specification."""
        return str(self.json()["errors"][0]["code"])


class RegistryClient:
    """Requests as the distribution specification writes them, one connection."""

    def __init__(self, port: int, *, headers: dict[str, str] | None = None) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.headers = headers or {}

    def __call__(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        # a server may answer from the headers and close while the body is still being written
        with contextlib.suppress(BrokenPipeError):
            self.connection.request(method, path, body, {**self.headers, **(headers or {})})
        with contextlib.closing(self.connection.getresponse()) as response:
            return Answer(response.status, response.headers, response.read())

    def push_blob(self, repository: str, data: bytes, *, algorithm: str = "sha256") -> str:
        """POST, then PUT; the digest."""
        begun = self("POST", f"/v2/{repository}/blobs/uploads/")
        assert begun.status == 202, begun.body
        digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        done = self("PUT", with_query(begun.headers["location"], f"digest={digest}"), data)
        assert done.status == 201, done.body
        return digest

    def push_manifest(
        self, repository: str, reference: str, document: dict[str, Any] | bytes
    ) -> Answer:
        """PUT of a manifest, by tag or digest."""
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        kind = json.loads(raw).get("mediaType", mediatype.OCI_MANIFEST)
        path = f"/v2/{repository}/manifests/{reference}"
        return self("PUT", path, raw, {"Content-Type": kind})

    def push_image(
        self, repository: str, reference: str, *layers: bytes, **fields: Any
    ) -> tuple[str, dict[str, Any]]:
        """(digest, manifest) of a small image with these layers, pushed."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "made": reference}).encode()
        document = {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": self._pushed(repository, mediatype.OCI_CONFIG, config),
            "layers": [self._pushed(repository, mediatype.OCI_LAYER, layer) for layer in layers],
            **fields,
        }
        answer = self.push_manifest(repository, reference, document)
        assert answer.status == 201, answer.body
        return answer.headers["docker-content-digest"], document

    def _pushed(self, repository: str, media_type: str, data: bytes) -> dict[str, Any]:
        return {
            "mediaType": media_type,
            "digest": self.push_blob(repository, data),
            "size": len(data),
        }


def collected(client: RegistryClient) -> bool:
    """Whether the server's collector has removed a blob since it was started."""
    name = b"lamina_registry_collected_blobs_total "
    counts = [line for line in client("GET", "/metrics").body.splitlines() if line.startswith(name)]
    return any(int(float(line.split()[1])) for line in counts)


def with_query(location: str, query: str) -> str:
    """The Location's path with another parameter."""
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}{'&' if parts.query else ''}{query}"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    """An empty registry that everybody may use."""
    with RegistryServer(tmp_path / "registry") as server:
        yield server
