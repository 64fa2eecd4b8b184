# SPDX-License-Identifier: Apache-2.0
"""An S3 server for tests: moto's, a real process on loopback, with buckets in its memory."""

from __future__ import annotations

import http.client
import secrets
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lamina.server.objectstore.bucket import Location
from lamina.testing.waiting import wait_for_server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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

    def remove_buckets(self) -> None:
        """Remove all buckets."""
        self._send("POST", "/moto-api/reset")

    def location(self, bucket: str, **fields: object) -> Location:
        """Where the bucket is."""
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
        wait_for_server(port, process)
        yield S3Server(port, process)
    finally:
        process.kill()
        process.wait()


class Faults:
    """What a `faulty` server does wrong. `refuse` says with which status a request is refused (0:
    not at all); `dropped` are headers lost on the way, by lower-case name.
    """

    def __init__(self) -> None:
        self.refuse: Callable[[str, str], int] = lambda _method, _path: 0
        self.dropped: frozenset[str] = frozenset()


@contextmanager
def faulty(server: S3Server) -> Iterator[tuple[Faults, str]]:
    """(what to do wrong, endpoint) of a proxy before the server."""
    faults = Faults()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            status = faults.refuse(self.command, self.path)
            headers: list[tuple[str, str]] = []
            answer = b""
            if not status:
                sent = {
                    name: text
                    for name, text in self.headers.items()
                    if name.lower() not in faults.dropped
                }
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
                with closing(connection):
                    connection.request(self.command, self.path, body, sent)
                    response = connection.getresponse()
                    status, headers, answer = (
                        response.status,
                        response.getheaders(),
                        response.read(),
                    )
            self.send_response_only(status)
            for name, text in headers:
                if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                    self.send_header(name, text)
            length = {name.lower(): text for name, text in headers}.get("content-length")
            is_head = self.command == "HEAD" and length is not None
            self.send_header("Content-Length", str(length if is_head else len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815  # http.server's

        def log_message(self, *args: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield faults, f"http://127.0.0.1:{proxy.server_address[1]}"
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
