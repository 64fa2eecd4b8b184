# SPDX-License-Identifier: Apache-2.0
"""What is refused, with which code, and that nothing of it stays."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from lamina.spec import mediatype
from lamina.testing.registry import RegistryClient, RegistryServer, with_query
from lamina.testing.waiting import wait_until

UNKNOWN = "sha256:" + "0" * 64


def files_of(root: Path) -> list[Path]:
    return [path for path in (root / "blobs").rglob("*") if path.is_file()]


def descriptor(media_type: str, digest: str = UNKNOWN, size: int = 2) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def image(**changes: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": descriptor(mediatype.OCI_CONFIG),
        "layers": [],
        **changes,
    }


def test_digest_mismatch_is_refused_and_nothing_is_stored(registry: RegistryServer) -> None:
    client = registry.client()
    location = client("POST", "/v2/r/blobs/uploads/").headers["location"]
    answer = client("PUT", with_query(location, f"digest={UNKNOWN}"), b"other")
    assert (answer.status, answer.code()) == (400, "DIGEST_INVALID")
    answer = client("POST", f"/v2/r/blobs/uploads/?digest={UNKNOWN}", b"other")
    assert (answer.status, answer.code()) == (400, "DIGEST_INVALID")
    assert client("GET", location).status == 404
    assert files_of(registry.root) == []
    assert list((registry.root / "uploads").iterdir()) == []


def test_put_without_digest_is_refused_and_the_upload_stays(
    client: RegistryClient, repository: str
) -> None:
    location = client("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
    for query in ("", "?digest=", "?digest=sha256:xyz", "?digest=md5:00"):
        assert client("PUT", location + query, b"x").code() == "DIGEST_INVALID"
    assert client("GET", location).status == 204


def test_truncated_body_of_a_chunk_stays_and_can_go_on(
    shared: RegistryServer, client: RegistryClient, repository: str
) -> None:
    location = client("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
    digest = "sha256:" + hashlib.sha256(b"0123456789").hexdigest()
    for method, target in (("PATCH", location), ("PUT", with_query(location, f"digest={digest}"))):
        with socket.create_connection(("127.0.0.1", shared.port)) as raw:
            head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
            raw.sendall(head.encode() + (b"01234" if method == "PATCH" else b"567"))
        expected = "0-4" if method == "PATCH" else "0-7"
        wait_until(
            lambda expected=expected: client("GET", location).headers["range"] == expected,  # type: ignore[misc]  # bound now
            "the bytes that arrived are there",
        )
    assert client("HEAD", f"/v2/{repository}/blobs/{digest}").status == 404
    end = client("PUT", with_query(location, f"digest={digest}"), b"89")
    assert end.status == 201


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ("5", 400, "BLOB_UPLOAD_INVALID"),
        ("9-0", 400, "BLOB_UPLOAD_INVALID"),
        ("-1-3", 400, "BLOB_UPLOAD_INVALID"),
        ("0-99999999999999999999", 400, "BLOB_UPLOAD_INVALID"),
        ("0-8", 400, "SIZE_INVALID"),
        ("1-5", 416, "RANGE_INVALID"),
    ],
)
def test_wrong_content_range(
    client: RegistryClient, repository: str, given: str, status: int, code: str
) -> None:
    location = client("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
    answer = client("PATCH", location, b"01234", {"Content-Range": given})
    assert (answer.status, answer.code()) == (status, code)
    assert client("GET", location).headers["range"] == "0-0"


def test_body_longer_than_its_range_is_taken_back(client: RegistryClient, repository: str) -> None:
    location = client("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
    answer = client("PATCH", location, iter([b"0123", b"456789"]), {"Content-Range": "0-4"})
    assert (answer.status, answer.code()) == (400, "SIZE_INVALID")
    again = client("PATCH", location, b"01234", {"Content-Range": "0-4"})
    assert again.headers["range"] == "0-4"


def test_manifest_of_more_than_four_mebibytes(shared: RegistryServer, repository: str) -> None:
    document = json.dumps(image(annotations={"a": "x" * (4 << 20)})).encode()
    for body in (document, iter([document])):
        client = shared.client()
        answer = client(
            "PUT", f"/v2/{repository}/manifests/v1", body, {"Content-Type": mediatype.OCI_MANIFEST}
        )
        assert answer.status == 413
        client.connection.close()
    client = shared.client()
    assert client("GET", f"/v2/{repository}/manifests/v1").status == 404
    client.connection.close()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/UPPER/manifests/v1", "NAME_INVALID"),
        ("/v2/a/../b/manifests/v1", "NAME_INVALID"),
        ("/v2/%2e%2e/%2e%2e/etc/manifests/v1", "NAME_INVALID"),
        ("/v2/a%2f..%2f..%2fetc/blobs/" + UNKNOWN, "NAME_INVALID"),
        ("/v2//manifests/v1", "NAME_INVALID"),
        ("/v2/a//b/manifests/v1", "NAME_INVALID"),
        ("/v2/-a/manifests/v1", "NAME_INVALID"),
        ("/v2/a%00b/manifests/v1", "NAME_INVALID"),
        ("/v2/%C3%A9/manifests/v1", "NAME_INVALID"),
        ("/v2/" + "a" * 256 + "/tags/list", "NAME_INVALID"),
        ("/v2/a/manifests/.hidden", "MANIFEST_UNKNOWN"),
        ("/v2/a/manifests/" + "t" * 129, "MANIFEST_UNKNOWN"),
        ("/v2/a/manifests/sha256:" + "g" * 64, "DIGEST_INVALID"),
        ("/v2/a/blobs/sha256:" + "A" * 64, "DIGEST_INVALID"),
        ("/v2/a/blobs/sha1:" + "0" * 40, "DIGEST_INVALID"),
        ("/v2/a/blobs/uploads/../../../etc/passwd", "UNSUPPORTED"),
        ("/v2/a/blobs/uploads/..", "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/a/blobs/uploads/" + "A" * 43, "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/a/nothing", "UNSUPPORTED"),
        ("/etc/passwd", "UNSUPPORTED"),
    ],
)
def test_paths_outside_the_grammar(client: RegistryClient, path: str, code: str) -> None:
    answer = client("GET", path)
    assert answer.status in {400, 404}
    assert answer.code() == code


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{", mediatype.OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b"[]", mediatype.OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b"[" * 100_000, mediatype.OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b'{"schemaVersion":2}', mediatype.OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b"{}", "application/vnd.unknown+json", 400, "MANIFEST_INVALID"),
        (b"{}", "", 400, "MANIFEST_INVALID"),
        (b'{"schemaVersion":1}', mediatype.DOCKER_MANIFEST_V1, 400, "MANIFEST_INVALID"),
        (image(), mediatype.OCI_MANIFEST, 404, "MANIFEST_BLOB_UNKNOWN"),
        (image(), mediatype.OCI_INDEX, 400, "MANIFEST_INVALID"),
        (image(manifests=[]), mediatype.OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (image(config=descriptor("x", "sha256:short")), mediatype.OCI_MANIFEST, 400, None),
        (image(layers=[{"digest": UNKNOWN}]), mediatype.OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (image(subject="x"), mediatype.OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (
            {
                "schemaVersion": 2,
                "mediaType": mediatype.OCI_INDEX,
                "manifests": [descriptor(mediatype.OCI_MANIFEST)],
            },
            mediatype.OCI_INDEX,
            404,
            "MANIFEST_BLOB_UNKNOWN",
        ),
    ],
)
def test_manifests_that_are_none(
    client: RegistryClient, repository: str, body: Any, kind: str, status: int, code: str | None
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client("PUT", f"/v2/{repository}/manifests/v1", raw, {"Content-Type": kind})
    assert (answer.status, answer.code()) == (status, code or "MANIFEST_INVALID")
    assert client("GET", f"/v2/{repository}/manifests/v1").status == 404


def test_manifest_under_what_is_no_tag(client: RegistryClient, repository: str) -> None:
    _, document = client.push_image(repository, "v1", b"x")
    for tag in (".hidden", "t" * 129, "a%20b"):
        answer = client.push_manifest(repository, tag, document)
        assert (answer.status, answer.code()) == (400, "TAG_INVALID")


def test_manifest_pushed_under_another_digest(client: RegistryClient, repository: str) -> None:
    _, document = client.push_image(repository, "v1", b"x")
    answer = client.push_manifest(repository, UNKNOWN, document)
    assert (answer.status, answer.code()) == (400, "DIGEST_INVALID")


def test_indexes_nested_too_deeply(client: RegistryClient, repository: str) -> None:
    digest, document = client.push_image(repository, "v1", b"x")
    kind, size = mediatype.OCI_MANIFEST, len(json.dumps(document))
    statuses = []
    for _ in range(9):
        raw = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": mediatype.OCI_INDEX,
                "manifests": [descriptor(kind, digest, size)],
            }
        ).encode()
        digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        kind, size = mediatype.OCI_INDEX, len(raw)
        statuses.append(client.push_manifest(repository, digest, raw).status)
    assert statuses[:7] == [201] * 7
    assert statuses[7] == 400


def test_blob_of_another_repository_is_not_there(client: RegistryClient, repository: str) -> None:
    """Equal bytes are kept once, but each repository shows its own (zot's CVE-2024-39897)."""
    digest = client.push_blob(repository, b"secret")
    other = f"{repository}/other"
    assert client("GET", f"/v2/{other}/blobs/{digest}").status == 404
    body = image(config=descriptor(mediatype.OCI_CONFIG, digest, 6))
    assert client.push_manifest(other, "v1", body).code() == "MANIFEST_BLOB_UNKNOWN"


def test_upload_of_another_repository_is_not_there(client: RegistryClient, repository: str) -> None:
    location = client("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
    moved = location.replace(repository, f"{repository}/other")
    assert client("PATCH", moved, b"x").code() == "BLOB_UPLOAD_UNKNOWN"
    assert client("GET", location).status == 204


def test_raw_garbage_does_not_hurt(shared: RegistryServer, client: RegistryClient) -> None:
    for garbage in (
        b"\0" * 1000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\n",
        b"GET /v2/%ff%fe/manifests/b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\nRange: bytes=\xff\r\n\r\n",
        b"GET /v2/_catalog?"
        + b"&".join(b"a=1" for _ in range(100))
        + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", shared.port), timeout=5) as raw:
            try:
                raw.sendall(garbage)
                raw.shutdown(socket.SHUT_WR)
                answer = raw.recv(200)
            except OSError:  # refused in the middle of it
                continue
            assert not answer or answer.split()[1][:1] == b"4", (garbage[:60], answer)
    assert client("GET", "/v2/").status == 200
