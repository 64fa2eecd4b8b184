# SPDX-License-Identifier: Apache-2.0
"""An S3 server for tests: moto's, a real process on loopback, with buckets in its memory."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.registry.server.objectstore.bucket import Location

_START = 60.0  # seconds: a loaded machine imports slowly
_PROGRAM = "import sys; from moto.server import main; main(sys.argv[1:])"


class S3Server:
    """The running server."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.pid = process.pid

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"test-{secrets.token_hex(6)}"
        self._send("PUT", f"/{name}")
        return name

    def remove_bucket(self, name: str) -> None:
        """Remove all buckets, this one among them."""
        self._send("POST", "/moto-api/reset")

    def location(self, bucket: str, **fields: object) -> Location:
        """Where the bucket is."""
        from lamina.registry.server.objectstore.bucket import Location

        given = {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": "AKIATEST",
            "secret_access_key": "the-secret-key",
            **fields,
        }
        return Location(bucket, **given)  # type: ignore[arg-type]  # test data

    def _send(self, method: str, path: str) -> None:
        request = urllib.request.Request(self.endpoint + path, method=method)  # noqa: S310  # http
        with urllib.request.urlopen(request, timeout=30):  # noqa: S310  # same
            pass


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server that accepts requests; it ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _START
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "the S3 server has ended"
                assert time.monotonic() < deadline, "the S3 server does not start"
                time.sleep(0.05)
        yield S3Server(port, process)
    finally:
        process.kill()
        process.wait()
