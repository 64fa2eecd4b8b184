# SPDX-License-Identifier: Apache-2.0
"""skopeo, podman and lamina's own pages as peers of the server."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.testing.busybox import IMAGE, make_image
from lamina.testing.command import Lamina
from lamina.testing.registry import RegistryServer


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{words}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An OCI archive of a busybox image."""
    make_image(str(tmp_path / "store"))
    path = tmp_path / "image.tar"
    Lamina(tmp_path / "store", tmp_path)("save", "-o", str(path), "--format", "oci-archive", IMAGE)
    return path


@pytest.mark.tool("skopeo")
@pytest.mark.parametrize("format_", ["oci", "v2s2"])
def test_skopeo_copies_both_ways(
    shared: RegistryServer, repository: str, archive: Path, tmp_path: Path, format_: str
) -> None:
    name = f"docker://{shared.host}/{repository}:v1"
    tls = "--dest-tls-verify=false"
    run("skopeo", "copy", "-q", tls, "-f", format_, f"oci-archive:{archive}", name)
    run("skopeo", "copy", "-q", "--src-tls-verify=false", name, f"dir:{tmp_path / 'back'}")
    raw = run("skopeo", "inspect", "--raw", "--tls-verify=false", name).encode()
    assert (tmp_path / "back" / "manifest.json").read_bytes() == raw
    listed = json.loads(run("skopeo", "list-tags", "--tls-verify=false", name.rpartition(":")[0]))
    assert listed["Tags"] == ["v1"]
    mounted = name.replace(repository, f"{repository}/copy")
    run("skopeo", "copy", "-q", tls, "--src-tls-verify=false", name, mounted)
    run("skopeo", "delete", "--tls-verify=false", mounted)


@pytest.mark.root
@pytest.mark.tool("podman", "skopeo")
def test_podman_pushes_and_pulls(
    shared: RegistryServer, repository: str, archive: Path, tmp_path: Path
) -> None:
    runroot = tempfile.mkdtemp(prefix="r")  # podman takes 50 characters at most
    store = ["--root", str(tmp_path / "p"), "--runroot", runroot]
    podman = ["podman", *store, "--storage-driver", "vfs"]
    name = f"{shared.host}/{repository}:v1"
    try:
        loaded = run(*podman, "pull", "-q", f"oci-archive:{archive}").strip()
        run(*podman, "push", "-q", "--tls-verify=false", loaded, name)
        run(*podman, "rmi", "-f", loaded)
        pulled = run(*podman, "pull", "-q", "--tls-verify=false", name).strip()
        assert len(pulled) == 64
    finally:
        subprocess.run([*podman, "rmi", "-af"], capture_output=True, check=False)
        shutil.rmtree(runroot, ignore_errors=True)


def test_health_metrics_and_access_log(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    with RegistryServer(tmp_path / "registry", flags=("--access-log", str(log))) as server:
        client = server.client()
        assert client("GET", "/healthz").body == b"ok\n"
        client("GET", "/v2/nothing/manifests/v1", headers={"User-Agent": 'a"b'})
        text = client("GET", "/metrics").body.decode()
    assert 'lamina_registry_requests_total{method="GET",status="404"} 1' in text
    assert "lamina_registry_request_seconds_count 2" in text
    entry = json.loads(log.read_text().splitlines()[1])
    assert entry["status"] == 404
    assert entry["path"] == "/v2/nothing/manifests/v1"
    assert entry["client"] == "127.0.0.1"


def test_one_client_may_hold_only_so_many_requests(tmp_path: Path) -> None:
    config = "[limits]\nrequests-per-client = 1\n"
    with RegistryServer(tmp_path / "registry", config=config) as server:
        client, second = server.client(), server.client()
        location = client("POST", "/v2/r/blobs/uploads/").headers["location"]
        seen: list[int] = []

        def body() -> Iterator[bytes]:
            yield b"x" * 10
            answer = second("GET", "/v2/")
            seen.append(answer.status)
            assert answer.code() == "TOOMANYREQUESTS"
            assert answer.headers["retry-after"] == "1"

        assert client("PATCH", location, body()).status == 202
        assert seen == [429]
        assert second("GET", "/v2/").status == 200


def test_webhooks_are_told_of_pushes_and_deletes(tmp_path: Path) -> None:
    received: list[tuple[str, bytes]] = []
    arrived = threading.Semaphore(0)

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.headers["lamina-signature"], body))
            self.send_response(204)
            self.end_headers()
            arrived.release()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        config = (
            f'[[webhooks]]\nurl = "http://127.0.0.1:{receiver.server_port}/"\nsecret = "secret"\n'
        )
        with RegistryServer(tmp_path / "registry", config=config) as server:
            client = server.client()
            digest, _ = client.push_image("r", "v1", b"x")
            client("DELETE", "/v2/r/manifests/v1")
            for _ in range(2):
                assert arrived.acquire(timeout=10)
        receiver.shutdown()
        thread.join()
    events = [json.loads(body) for _, body in received]
    assert events == [
        {"event": "push", "repository": "r", "digest": digest, "tag": "v1"},
        {"event": "delete", "repository": "r", "digest": "", "tag": "v1"},
    ]
    for signature, body in received:
        expected = hmac.new(b"secret", body, hashlib.sha256).hexdigest()
        assert signature == f"sha256={expected}"
