# SPDX-License-Identifier: Apache-2.0
"""A pull-through cache before an upstream that can be slow, wrong, shy or gone."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lamina.spec import mediatype
from lamina.testing.fakeregistry import FakeRegistry, TokenServer
from lamina.testing.registry import Answer, RegistryClient, RegistryServer
from lamina.testing.waiting import wait_until

CONFIG = """
[[proxy]]
prefix = "up/"
upstream = "http://{host}/team"
tag-ttl = {ttl}
namespace = "up.example"
{more}
"""

# the connection ends in the body, or before the head was sent
CUT_OFF = (http.client.IncompleteRead, http.client.RemoteDisconnected, ConnectionError)


@pytest.fixture
def upstream() -> Iterator[FakeRegistry]:
    with FakeRegistry() as fake:
        yield fake
        fake.go.set()


def cache(place: Path, fake: FakeRegistry, *, ttl: str = "0", more: str = "") -> RegistryServer:
    return RegistryServer(place / "cache", config=CONFIG.format(host=fake.host, ttl=ttl, more=more))


def add_image(fake: FakeRegistry, tag: str, *layers: bytes, **fields: Any) -> tuple[str, bytes]:
    """(digest, bytes) of an image at the upstream's team/app."""

    def added(kind: str, data: bytes) -> dict[str, Any]:
        digest = fake.add_blob(data)
        fake.repository_blobs.add(("team/app", digest))
        return {"mediaType": kind, "digest": digest, "size": len(data)}

    document = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": added(mediatype.OCI_CONFIG, json.dumps({"made": tag}).encode()),
        "layers": [added(mediatype.OCI_LAYER, layer) for layer in layers],
        **fields,
    }
    raw = json.dumps(document).encode()
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    for reference in (tag, digest):
        fake.manifests["team/app", reference] = (mediatype.OCI_MANIFEST, raw)
    return digest, raw


def get_blob(server: RegistryServer, digest: str) -> Answer:
    return server.client()("GET", f"/v2/up/app/blobs/{digest}")


def test_image_is_fetched_once_and_served_without_the_upstream(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    layer = os.urandom(3_000_000)
    digest, raw = add_image(upstream, "1", layer)
    with cache(tmp_path, upstream, ttl='"1h"') as server:
        client = server.client()
        for _ in range(2):
            got = client("GET", "/v2/up/app/manifests/1")
            assert (got.status, got.body) == (200, raw)
            assert got.headers["docker-content-digest"] == digest
            for entry in json.loads(raw)["layers"]:
                blob = client("GET", f"/v2/up/app/blobs/{entry['digest']}")
                assert (blob.status, blob.body) == (200, layer)
        assert len(upstream.requests("GET", "/manifests/")) == 1
        assert len(upstream.requests("GET", "/blobs/")) == 1
        text = client("GET", "/metrics").body.decode()
        assert "lamina_registry_upstream_bytes_total 3e+06" in text
        assert "lamina_registry_cache_hits_total 2" in text
    with cache(tmp_path, upstream, ttl='"1h"') as server:  # and after a restart
        assert server.client()("GET", "/v2/up/app/manifests/1").body == raw
        assert len(upstream.requests("GET", "/manifests/")) == 1


def test_fifty_clients_share_one_download_and_one_of_them_hangs_up(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    layer = os.urandom(4_000_000)
    digest = upstream.add_blob(layer)
    upstream.hold_after = 1_000_000
    with cache(tmp_path, upstream) as server:
        gone = socket.create_connection(("127.0.0.1", server.port))
        gone.sendall(f"GET /v2/up/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert gone.recv(10)  # it is being answered before the upstream has sent everything
        gone.close()
        found: list[Answer] = []

        def fetch() -> None:
            client = RegistryClient(server.port)
            found.append(client("GET", f"/v2/up/app/blobs/{digest}"))
            client.connection.close()

        threads = [threading.Thread(target=fetch) for _ in range(50)]
        for thread in threads:
            thread.start()
        metrics = server.client()
        wait_until(
            lambda: (
                re.search(rb"requests_in_flight (5\d|[6-9]\d)", metrics("GET", "/metrics").body)
                is not None
            )
        )  # 50 of them, and this one
        resumed = server.client()("GET", f"/v2/up/app/blobs/{digest}", None, {"Range": "bytes=5-9"})
        assert (resumed.status, resumed.body) == (206, layer[5:10])
        upstream.go.set()
        for thread in threads:
            thread.join()
        assert [answer.body == layer for answer in found] == [True] * 50
        assert len(upstream.requests("GET", "/blobs/")) == 1


def test_blob_with_another_digest_is_cut_off_and_not_stored(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    digest = upstream.add_blob(b"what was asked for" * 100)
    upstream.blobs[digest] = b"something else" * 100
    with cache(tmp_path, upstream) as server:
        with pytest.raises(CUT_OFF):
            get_blob(server, digest)
        assert not list((tmp_path / "cache" / "blobs").rglob("*/??/*"))
        upstream.blobs[digest] = b"what was asked for" * 100
        assert get_blob(server, digest).body == b"what was asked for" * 100


def test_upstream_that_dies_in_the_middle_cuts_its_clients_off(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    layer = os.urandom(2_000_000)
    digest = upstream.add_blob(layer)
    upstream.cut_after, upstream.cuts = 1_200_000, 1
    with cache(tmp_path, upstream) as server:
        with pytest.raises(CUT_OFF):
            get_blob(server, digest)
        assert not list((tmp_path / "cache" / "blobs").rglob("*/??/*"))
        assert not list((tmp_path / "cache" / "uploads").iterdir())
        wait_until(lambda: server.client()("GET", f"/v2/up/app/blobs/{digest}").body == layer)


def test_kill_9_while_a_blob_is_fetched_leaves_nothing_half(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    layer = os.urandom(2_000_000)
    digest = upstream.add_blob(layer)
    upstream.hold_after = 1_000_000
    server = cache(tmp_path, upstream).start()
    asked = socket.create_connection(("127.0.0.1", server.port))
    asked.sendall(f"GET /v2/up/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert asked.recv(10)
    server.kill()
    asked.close()
    upstream.go.set()
    with server:
        assert get_blob(server, digest).body == layer


def test_moved_tag_is_seen_after_its_time_and_only_asked_for_by_head(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    add_image(upstream, "1", b"old")
    with cache(tmp_path, upstream) as server:
        client = server.client()
        client("GET", "/v2/up/app/manifests/1")
        client("GET", "/v2/up/app/manifests/1")
        assert len(upstream.requests("GET", "/manifests/")) == 1
        assert len(upstream.requests("HEAD", "/manifests/")) == 1
        moved, raw = add_image(upstream, "1", b"new")
        assert client("GET", "/v2/up/app/manifests/1").body == raw
        assert client("HEAD", "/v2/up/app/manifests/1").headers["docker-content-digest"] == moved
        history = client("GET", "/lamina/v1/history/up/app?tag=1").json()["moves"]
        assert [move["why"] for move in history] == ["upstream", "upstream"]
        del upstream.manifests["team/app", "1"]
        gone = client("GET", "/v2/up/app/manifests/1")
        assert (gone.status, gone.code()) == (404, "MANIFEST_UNKNOWN")
        assert client("GET", f"/v2/up/app/manifests/{moved}").status == 200


def test_upstream_that_is_down_leaves_what_is_known(tmp_path: Path, upstream: FakeRegistry) -> None:
    _, raw = add_image(upstream, "1", b"layer")
    with cache(tmp_path, upstream) as server:
        client = server.client()
        client("GET", "/v2/up/app/manifests/1")
        upstream.failures = [(500, {})] * 4
        got = client("GET", "/v2/up/app/manifests/1")
        assert (got.status, got.body) == (200, raw)
        assert got.headers["warning"].startswith("111 ")
        tags = client("GET", "/v2/up/app/tags/list")
        assert tags.json()["tags"] == ["1"]
        assert tags.headers["warning"].startswith("111 ")
        unknown = client("GET", "/v2/up/app/manifests/2")
        assert (unknown.status, unknown.code()) == (503, "UNAVAILABLE")


@pytest.mark.slow
def test_blob_that_does_not_arrive_for_a_client_that_has_gone_does_not_keep_the_server(
    tmp_path: Path,
) -> None:
    with FakeRegistry() as upstream:
        add_image(upstream, "1", b"layer" * 500_000)
        upstream.hold_after = 1_000_000
        with cache(tmp_path, upstream) as server:
            raw = server.client()("GET", "/v2/up/app/manifests/1").body
            layer = json.loads(raw)["layers"][0]["digest"]
            asked = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            asked.request("GET", f"/v2/up/app/blobs/{layer}")
            arrived = 7 << 17  # what is passed on of a million bytes, in pieces of 128 KiB
            assert len(asked.getresponse().read(arrived)) == arrived
            asked.close()
            assert server.stop() == 0  # 20 seconds are given to requests; stop waits for 40
        upstream.go.set()


def test_upstream_that_is_gone_leaves_what_is_known_and_does_not_delay_the_end(
    tmp_path: Path,
) -> None:
    with FakeRegistry() as upstream:
        _, raw = add_image(upstream, "1", b"layer" * 500_000)
        upstream.hold_after = 1_000_000
        server = cache(tmp_path, upstream).start()
        client = server.client()
        client("GET", "/v2/up/app/manifests/1")
        layer = json.loads(raw)["layers"][0]["digest"]
        asked = socket.create_connection(("127.0.0.1", server.port))
        asked.sendall(f"GET /v2/up/app/blobs/{layer} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert asked.recv(10)
        asked.close()
    got = client("GET", "/v2/up/app/manifests/1")
    assert (got.status, got.body) == (200, raw)
    assert got.headers["warning"].startswith("111 ")
    assert client("GET", "/v2/up/app/manifests/2").code() == "UNAVAILABLE"
    assert server.stop() == 0  # the download still waits for the upstream
    upstream.go.set()


def test_serve_stale_false_says_so_when_the_upstream_is_down(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    add_image(upstream, "1", b"layer")
    with cache(tmp_path, upstream, more="serve-stale = false") as server:
        client = server.client()
        assert client("GET", "/v2/up/app/manifests/1").status == 200
        upstream.failures = [(500, {})]
        assert client("GET", "/v2/up/app/manifests/1").status == 503


@pytest.mark.parametrize(
    ("status", "told", "code"),
    [(404, 404, "UNKNOWN"), (401, 403, "DENIED"), (403, 403, "DENIED"), (429, 429, "TOOMANY")],
)
def test_what_the_upstream_says_is_told_in_the_registry_s_words(
    tmp_path: Path, upstream: FakeRegistry, status: int, told: int, code: str
) -> None:
    with cache(tmp_path, upstream) as server:
        client = server.client()
        blob = f"sha256:{'0' * 64}"
        for path in ("manifests/1", f"manifests/{blob}", f"blobs/{blob}"):
            upstream.failures = [(status, {})]
            answer = client("GET", f"/v2/up/app/{path}")
            assert answer.status == told
            assert code in answer.code()
        if status == 429:
            assert answer.headers["retry-after"] == "60"


def test_local_pushes_win_and_may_use_what_only_the_upstream_has(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    _, raw = add_image(upstream, "1", b"a layer of the upstream")
    with cache(tmp_path, upstream) as server:
        client = server.client()
        local, document = client.push_image("up/app", "1", b"of here")
        assert client("GET", "/v2/up/app/manifests/1").headers["docker-content-digest"] == local
        layer = json.loads(raw)["layers"][0]
        # what a client that pushes hears before it leaves the layer out
        assert client("HEAD", f"/v2/up/app/blobs/{layer['digest']}").status == 200
        pushed = client.push_manifest("up/app", "2", {**document, "layers": [layer]})
        assert pushed.status == 201
        asked = len(upstream.seen)
        assert client("GET", f"/v2/up/app/blobs/{layer['digest']}").status == 200
        assert client("GET", "/v2/up/app/manifests/2").status == 200
        assert len(upstream.seen) == asked
        client.push_image("elsewhere", "1", b"no upstream")
        assert len(upstream.seen) == asked


def test_tags_and_referrers_are_those_of_both(tmp_path: Path, upstream: FakeRegistry) -> None:
    digest, raw = add_image(upstream, "b", b"layer")
    subject = {"mediaType": mediatype.OCI_MANIFEST, "digest": digest, "size": len(raw)}
    add_image(upstream, "c", b"signature", subject=subject, artifactType="a/theirs")
    with cache(tmp_path, upstream) as server:
        client = server.client()
        client.push_image("up/app", "a", b"here", subject=subject, artifactType="a/ours")
        page = client("GET", "/v2/up/app/tags/list?n=2")
        assert page.json()["tags"] == ["a", "b"]
        assert "last=b" in page.headers["link"]
        assert client("GET", "/v2/up/app/tags/list?last=b").json()["tags"] == ["c"]
        found = client("GET", f"/v2/up/app/referrers/{digest}").json()["manifests"]
        assert {entry["artifactType"] for entry in found} == {"a/theirs", "a/ours"}
        only = client("GET", f"/v2/up/app/referrers/{digest}?artifactType=a/theirs")
        assert len(only.json()["manifests"]) == 1


def test_namespace_of_containerd_means_the_proxy(tmp_path: Path, upstream: FakeRegistry) -> None:
    _, raw = add_image(upstream, "1", b"layer")
    with cache(tmp_path, upstream) as server:
        client = server.client()
        assert client("GET", "/v2/app/manifests/1?ns=up.example").body == raw
        layer = json.loads(raw)["layers"][0]["digest"]
        assert client("GET", f"/v2/app/blobs/{layer}?ns=up.example").body == b"layer"
        assert client("GET", "/v2/app/manifests/1?ns=other.example").status == 404


def test_credentials_go_to_the_upstream_alone_and_rights_are_checked_first(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    layer = os.urandom(100_000)
    add_image(upstream, "1", layer)
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    more = f'username = "cache"\npassword-file = "{secret}"'
    more += '\n[[rules]]\nrepositories = "up/app"\nusers = ["anonymous"]\nactions = ["pull"]'
    with FakeRegistry() as other, TokenServer(upstream, account="cache:s3cret") as tokens:
        upstream.realm = tokens.url
        other.blobs = upstream.blobs
        upstream.redirect_blobs = f"http://{other.host}"
        with cache(tmp_path, upstream, more=more) as server:
            client = server.client()
            assert client("GET", "/v2/up/secret/manifests/1").status == 401
            assert upstream.seen == []
            assert client("GET", "/v2/up/app/manifests/1").status == 200
            blob = f"sha256:{hashlib.sha256(layer).hexdigest()}"
            assert client("GET", f"/v2/up/app/blobs/{blob}").body == layer
            assert [seen.authorization for seen in other.seen] == [""]
            assert any(seen.authorization for seen in upstream.seen)
            assert "s3cret" not in server.log.read_text()


def test_blob_that_another_repository_holds_is_linked_after_a_question(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    layer = os.urandom(100_000)
    add_image(upstream, "1", layer)
    with cache(tmp_path, upstream) as server:
        client = server.client()
        digest = client.push_blob("mine", layer)
        assert client("GET", f"/v2/up/app/blobs/{digest}").body == layer
        assert upstream.requests("GET", "/blobs/") == []
        assert len(upstream.requests("HEAD", "/blobs/")) == 1
        upstream.repository_blobs.clear()
        assert client("GET", f"/v2/up/other/blobs/{digest}").status == 404


@pytest.mark.tool("skopeo")
def test_skopeo_pulls_an_index_through(tmp_path: Path) -> None:
    with RegistryServer(tmp_path / "origin") as origin:
        client = origin.client()
        children = []
        for architecture in ("amd64", "arm64"):
            digest, document = client.push_image("team/app", f"of-{architecture}", b"l" * 1000)
            children.append(
                {
                    "mediaType": mediatype.OCI_MANIFEST,
                    "digest": digest,
                    "size": len(json.dumps(document)),
                    "platform": {"os": "linux", "architecture": architecture},
                }
            )
        index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": children}
        assert client.push_manifest("team/app", "1", index).status == 201
        config = f'[[proxy]]\nprefix = "o"\nupstream = "http://{origin.host}"\n'
        with RegistryServer(tmp_path / "cache", config=config) as server:
            subprocess.run(
                [
                    "skopeo",
                    "copy",
                    "--all",
                    "--src-tls-verify=false",
                    f"docker://{server.host}/o/team/app:1",
                    f"oci:{tmp_path}/layout",
                ],
                check=True,
                capture_output=True,
            )
