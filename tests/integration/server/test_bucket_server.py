# SPDX-License-Identifier: Apache-2.0
"""Server processes on one bucket: skopeo, redirects, kills, and an S3 that fails."""

from __future__ import annotations

import hashlib
import http.client
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lamina.server.objectstore.uploads import PIECE
from lamina.testing.objectstore import S3Server, faulty, s3_server
from lamina.testing.registry import Answer, RegistryServer, with_query
from lamina.testing.registry_sample import push_index
from lamina.testing.waiting import wait_until

SECRET = "the-secret-key"
Start = Callable[..., RegistryServer]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def start(s3: S3Server, tmp_path: Path) -> Iterator[Start]:
    """Starts servers; they end with the test, and none has told a secret."""
    servers: list[RegistryServer] = []

    def make(bucket: str, *, endpoint: str = "", redirect: bool = False) -> RegistryServer:
        config = f"""
        [storage.s3]
        bucket = "{bucket}"
        prefix = "registry"
        endpoint = "{endpoint or s3.endpoint}"
        region = "us-east-1"
        access-key-id = "AKIATEST"
        secret-access-key = "{SECRET}"
        redirect = {str(redirect).lower()}
        """
        log = ("--access-log", str(tmp_path / f"access{len(servers)}"))
        server = RegistryServer(tmp_path / f"server{len(servers)}", config=config, flags=log)
        servers.append(server)
        return server.start()

    yield make
    for server in servers:
        server.stop()
    for log in (*tmp_path.glob("*.log"), *tmp_path.glob("access*")):
        text = log.read_text()
        assert SECRET not in text
        assert "X-Amz-Signature" not in text


def test_web_page_reads_a_bucket(s3: S3Server, start: Start) -> None:
    client = start(s3.bucket()).client()
    push_index(client, "team/app", "v1")
    for path, expected in (
        ("/", b"team/app"),
        ("/repositories/team/app", b"linux/arm64"),
        ("/images/team/app:v1", b"libpq5"),
    ):
        page = client("GET", path)
        assert page.status == 200
        assert expected in page.body


@pytest.mark.tool("skopeo")
def test_skopeo_pulls_and_pushes_through_redirects(
    s3: S3Server, start: Start, tmp_path: Path
) -> None:
    server = start(s3.bucket(), redirect=True)
    client = server.client()
    big = os.urandom(PIECE + 1000)
    digest, document = client.push_image("a", "v1", b"small", big)
    layer = document["layers"][1]["digest"]
    answer = client("GET", f"/v2/a/blobs/{layer}")
    assert answer.status == 307
    assert answer.headers["docker-content-digest"] == layer
    place = urlsplit(answer.headers["location"])
    assert place.port == s3.port
    assert client("HEAD", f"/v2/a/blobs/{layer}").headers["content-length"] == str(len(big))
    remote = f"docker://{server.host}"
    pulled = f"dir:{tmp_path}/image"
    _run("skopeo", "copy", "--src-tls-verify=false", f"{remote}/a:v1", pulled)
    _run("skopeo", "copy", "--dest-tls-verify=false", pulled, f"{remote}/b:v1")
    assert client("HEAD", "/v2/b/manifests/v1").headers["docker-content-digest"] == digest


def test_blobs_are_streamed_with_ranges_without_redirects(s3: S3Server, start: Start) -> None:
    client = start(s3.bucket()).client()
    data = os.urandom(3_000_000)
    digest = client.push_blob("a", data)
    whole = client("GET", f"/v2/a/blobs/{digest}")
    assert (whole.status, whole.body) == (200, data)
    part = client("GET", f"/v2/a/blobs/{digest}", headers={"Range": "bytes=1000000-2999999"})
    assert (part.status, part.body) == (206, data[1_000_000:])
    assert part.headers["content-range"] == "bytes 1000000-2999999/3000000"
    empty = client.push_blob("a", b"")
    assert client("GET", f"/v2/a/blobs/{empty}").body == b""


def test_two_servers_take_pushes_of_one_repository_at_once(s3: S3Server, start: Start) -> None:
    bucket = s3.bucket()
    servers = [start(bucket), start(bucket)]
    shared = b"of all images" * 1000

    def push(number: int) -> str:
        client = servers[number % 2].client()
        return client.push_image("a", f"v{number}", shared, b"layer %d" % number)[0]

    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(push, range(12)))
    for server in servers:
        client = server.client()
        tags = client("GET", "/v2/a/tags/list").json()["tags"]
        assert sorted(tags) == sorted(f"v{number}" for number in range(12))
        for number, digest in enumerate(digests):
            found = client("GET", f"/v2/a/manifests/v{number}")
            assert found.headers["docker-content-digest"] == digest
            for layer in found.json()["layers"]:
                assert client("HEAD", f"/v2/a/blobs/{layer['digest']}").status == 200
    assert client("GET", "/v2/_catalog").json() == {"repositories": ["a"]}


@pytest.mark.slow
def test_upload_of_a_killed_server_ends_on_another(s3: S3Server, start: Start) -> None:
    bucket = s3.bucket()
    first, second = start(bucket), start(bucket)
    data = os.urandom(3 * PIECE)
    location = first.client()("POST", "/v2/a/blobs/uploads/").headers["location"]
    dying = http.client.HTTPConnection("127.0.0.1", first.port, timeout=60)
    dying.putrequest("PATCH", location)
    dying.putheader("Content-Length", str(len(data)))
    dying.endheaders()
    dying.send(data[: 2 * PIECE + 5])
    client = second.client()
    wait_until(lambda: _offset(client("GET", location)) >= PIECE)
    first.kill()
    dying.close()
    offset = _offset(client("GET", location))
    assert PIECE <= offset <= 2 * PIECE + 5

    # refused until the claim of the dead has run out
    wait_until(lambda: second.client()("PATCH", location, b"").status == 202, pause=0.2)
    span = {"Content-Range": f"{offset}-{len(data) - 1}"}
    assert client("PATCH", location, data[offset:], span).status == 202
    digest = _digest(data)
    done = client("PUT", with_query(location, f"digest={digest}"))
    assert done.status == 201
    assert client("GET", f"/v2/a/blobs/{digest}").body == data


def test_failing_store_is_503_and_leaves_no_half_manifest(s3: S3Server, start: Start) -> None:
    with faulty(s3) as (faults, endpoint):
        server = start(s3.bucket(), endpoint=endpoint)
        client = server.client()
        config = client.push_blob("a", b"{}")
        described = {"mediaType": "application/x", "digest": config, "size": 2}
        document = {"schemaVersion": 2, "config": described, "layers": []}
        for part in ("/repositories/", "/documents/"):
            faults.refuse = lambda method, path, part=part: (  # type: ignore[misc]  # bound now
                503 if method == "PUT" and part in path else 0
            )
            answer = client.push_manifest("a", "v1", document)
            assert answer.status == 503, part
            assert answer.headers["retry-after"]
            assert answer.code() == "UNAVAILABLE"
            assert client("GET", "/v2/a/manifests/v1").status == 404
        faults.refuse = lambda method, path: 403  # keys that were revoked
        answer = client("HEAD", f"/v2/a/blobs/{config}")
        assert (answer.status, bool(answer.headers["retry-after"])) == (503, True)
        faults.refuse = lambda method, path: 0
        assert client.push_manifest("a", "v1", document).status == 201
        assert client("GET", "/healthz").status == 200


def test_blob_that_cannot_be_read_is_503(s3: S3Server, start: Start) -> None:
    with faulty(s3) as (faults, endpoint):
        server = start(s3.bucket(), endpoint=endpoint)
        client = server.client()
        digest = client.push_blob("a", b"x" * 1000)
        faults.refuse = lambda method, path: 503 if "/data/" in path else 0
        assert client("GET", f"/v2/a/blobs/{digest}").status == 503


def test_start_says_what_is_wrong_with_the_bucket(s3: S3Server, start: Start) -> None:
    with pytest.raises(AssertionError, match="bucket missing-bucket does not exist"):
        start("missing-bucket")
    with faulty(s3) as (faults, endpoint):
        faults.refuse = lambda method, path: 403
        with pytest.raises(AssertionError, match="the credentials are refused"):
            start(s3.bucket(), endpoint=endpoint)


def test_bucket_that_vanishes_is_503(start: Start) -> None:
    with s3_server() as own:
        server = start(own.bucket(), endpoint=own.endpoint)
        client = server.client()
        client.push_image("a", "v1", b"layer")
        own.remove_buckets()
        for method, path in (
            ("GET", "/v2/a/manifests/v1"),
            ("GET", "/v2/a/tags/list"),
            ("GET", "/healthz"),
            ("POST", "/v2/a/blobs/uploads/"),
        ):
            answer = client(method, path)
            assert answer.status == 503, path
            assert answer.headers["retry-after"]


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _offset(answer: Answer) -> int:
    last = int(answer.headers["range"].partition("-")[2])
    return last + 1 if last else 0
