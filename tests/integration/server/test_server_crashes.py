# SPDX-License-Identifier: Apache-2.0
"""kill -9, restarts, shutdown, and many clients with the collector running."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.testing.command import Lamina
from lamina.testing.registry import RegistryServer, collected, with_query
from lamina.testing.registry_soak import interrupt, soak
from lamina.testing.sample import rounds
from lamina.testing.waiting import wait_until


def test_upload_goes_on_after_kill(registry: RegistryServer) -> None:
    client = registry.client()
    data = os.urandom(3 << 20)
    location = client("POST", "/v2/r/blobs/uploads/").headers["location"]
    assert client("PATCH", location, data[: 2 << 20]).status == 202
    registry.kill()
    registry.start()
    client = registry.client()
    answer = client("GET", location)
    assert answer.headers["range"] == f"0-{(2 << 20) - 1}"
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    end = client("PUT", with_query(location, f"digest={digest}"), data[2 << 20 :])
    assert end.status == 201
    assert client("GET", end.headers["location"]).body == data


@pytest.mark.slow
@pytest.mark.sampled
def test_what_was_acknowledged_is_whole_and_uploads_go_on_after_kills(
    registry: RegistryServer,
) -> None:
    report = interrupt(registry, kills=rounds(whole=50, sample=5))
    assert report.failures == ()
    assert report.pushed >= 40
    assert report.resumed > 0


def test_second_server_on_a_directory_or_port_is_refused(
    registry: RegistryServer, tmp_path: Path
) -> None:
    second = RegistryServer(registry.root)
    with pytest.raises(AssertionError, match="another process uses the registry"):
        second.start()
    second.stop()
    third = RegistryServer(tmp_path / "third")
    third.port = registry.port
    with pytest.raises(AssertionError, match="cannot listen"):
        third.start()
    third.stop()


def test_shutdown_lets_a_push_finish(registry: RegistryServer) -> None:
    client = registry.client()
    location = client("POST", "/v2/r/blobs/uploads/").headers["location"]
    data = os.urandom(4 << 20)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    begun, told = threading.Event(), threading.Event()

    def in_two_parts() -> Iterator[bytes]:
        yield data[: 1 << 20]
        begun.set()
        told.wait(60)
        yield data[1 << 20 :]

    statuses: list[int] = []

    def push() -> None:
        answer = client("PUT", with_query(location, f"digest={digest}"), in_two_parts())
        statuses.append(answer.status)

    thread = threading.Thread(target=push)
    thread.start()
    begun.wait(60)
    os.kill(registry.pid, signal.SIGTERM)

    def is_ending() -> bool:
        return registry.client()("GET", "/v2/").headers["connection"] == "close"

    wait_until(is_ending, "the server knows that it ends")
    told.set()
    thread.join()
    assert statuses == [201]
    assert registry.stop(0) == 0  # no second signal
    registry.start()
    assert registry.client()("HEAD", f"/v2/r/blobs/{digest}").status == 200


@pytest.mark.slow
@pytest.mark.sampled
def test_many_clients_beside_the_collector_lose_nothing(tmp_path: Path) -> None:
    """Pushes, pulls, mounts and deletes while everything unused goes after seconds."""
    config = '[gc]\ninterval = "100ms"\ngrace = "3s"\nuntagged-after = "1s"\n'
    config += "[history]\nwindow = 0\n"
    with RegistryServer(tmp_path / "registry", config=config) as server:
        report = soak(server, clients=64, seconds=rounds(whole=60, sample=5), grace=3)
        assert report.failures == ()
        assert report.pushed >= 64
        client = server.client()
        wait_until(lambda: collected(client), "the collector removes something")


def test_scrub_prints_what_is_damaged(registry: RegistryServer, tmp_path: Path) -> None:
    digest = registry.client().push_blob("r", b"to be flipped")
    lamina = Lamina(tmp_path / "store", tmp_path)
    scrub = ("registry", "scrub", "--root", str(registry.root))
    assert lamina(*scrub, check=False).returncode == 4  # a server uses it
    registry.stop()
    assert lamina(*scrub).stdout == ""
    hex_digits = digest.partition(":")[2]
    (registry.root / "blobs" / "sha256" / hex_digits[:2] / hex_digits).write_bytes(b"flipped")
    done = lamina(*scrub, check=False)
    assert (done.returncode, done.stdout) == (6, f"{digest}\n")


def test_configuration_is_checked_without_serving(tmp_path: Path) -> None:
    lamina = Lamina(tmp_path / "store", tmp_path)
    (tmp_path / "good.toml").write_text("[http]\nlisten = '127.0.0.1:0'\n")
    (tmp_path / "bad.toml").write_text("[auth]\nhtpasswd = 'missing'\n")
    assert "valid" in lamina("serve", "--check", "--root", "r", "--config", "good.toml").stdout
    done = lamina("serve", "--check", "--root", "r", "--config", "bad.toml", check=False)
    assert done.returncode == 3
    assert "missing does not exist" in done.stderr
    (tmp_path / "tls.toml").write_text("[http]\ntls-certificate = 'c'\ntls-key = 'k'\n")
    done = lamina("serve", "--check", "--root", "r", "--config", "tls.toml", check=False)
    assert done.returncode == 3
    (tmp_path / "c").write_text("no certificate")
    (tmp_path / "k").write_text("no key")
    done = lamina("serve", "--check", "--root", "r", "--config", "tls.toml", check=False)
    assert done.returncode == 2


def test_scrub_beside_requests_counts_the_damaged(tmp_path: Path) -> None:
    config = "[gc]\nscrub-interval = '50ms'\n"
    with RegistryServer(tmp_path / "registry", config=config) as server:
        client = server.client()
        name = client.push_blob("r", b"to be flipped").partition(":")[2]
        (server.root / "blobs" / "sha256" / name[:2] / name).write_bytes(b"flipped")
        wait_until(lambda: b"lamina_registry_damaged 1" in client("GET", "/metrics").body)
    assert "damaged: sha256:" in server.log.read_text()
