# SPDX-License-Identifier: Apache-2.0
"""What the official conformance suite of distribution-spec 1.1 asks, with everything switched on.

Its two halves (opencontainers/distribution-spec, conformance/): each way to push a blob, with both
digest algorithms; and each kind of manifest pushed, listed, asked for, pulled, found as a referrer
and deleted. Optional parts that the suite leaves off by default (upload cancel, digest headers, tag
parameters) are on; sparse manifests, which the specification lets a registry refuse, are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from lamina.spec import mediatype
from lamina.testing.registry import Answer, RegistryClient, with_query

ALGORITHMS = ("sha256", "sha512")
CHUNK = 1024
EXAMPLE = "application/vnd.example.oci.conformance"


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def begin(client: RegistryClient, repository: str) -> str:
    answer = client("POST", f"/v2/{repository}/blobs/uploads/", headers={"Content-Length": "0"})
    assert answer.status == 202
    return str(answer.headers["location"])


def post_only(client: RegistryClient, repository: str, data: bytes, digest: str) -> Answer:
    kind = {"Content-Type": "application/octet-stream"}
    return client("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data, kind)


def post_put(client: RegistryClient, repository: str, data: bytes, digest: str) -> Answer:
    location = with_query(begin(client, repository), f"digest={digest}")
    return client("PUT", location, data, {"Content-Type": "application/octet-stream"})


def stream(client: RegistryClient, repository: str, data: bytes, digest: str) -> Answer:
    location = begin(client, repository)
    answer = client("PATCH", location, iter([data[:100], data[100:]]))
    assert answer.status == 202
    return client("PUT", with_query(answer.headers["location"], f"digest={digest}"), b"")


def chunked(
    client: RegistryClient,
    repository: str,
    data: bytes,
    digest: str,
    *,
    put_last: bool = False,
    out_of_order: bool = False,
) -> Answer:
    """In three chunks; `out_of_order` sends each time another one first, which must be 416."""
    location = begin(client, repository)
    position = 0
    while position < len(data):
        if out_of_order:
            wrong = position + CHUNK if position + CHUNK < len(data) else 0
            bad = _chunk(client, "PATCH", location, data, wrong)
            assert bad.status == 416
            status = client("GET", location)
            assert status.status == 204
            assert not position or status.headers["range"] == f"0-{position - 1}"
            location = status.headers["location"]
        if put_last and position + CHUNK >= len(data):
            last = with_query(location, f"digest={digest}")
            return _chunk(client, "PUT", last, data, position)
        answer = _chunk(client, "PATCH", location, data, position)
        assert answer.status == 202
        location = answer.headers["location"]
        position += CHUNK
    return client("PUT", with_query(location, f"digest={digest}"), b"")


def _chunk(client: RegistryClient, method: str, location: str, data: bytes, start: int) -> Answer:
    part = data[start : start + CHUNK]
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Range": f"{start}-{start + len(part) - 1}",
    }
    return client(method, location, part, headers)


def chunked_put_last(c: RegistryClient, r: str, data: bytes, digest: str) -> Answer:
    return chunked(c, r, data, digest, put_last=True)


def out_of_order(c: RegistryClient, r: str, data: bytes, digest: str) -> Answer:
    return chunked(c, r, data, digest, out_of_order=True)


def out_of_order_put_last(c: RegistryClient, r: str, data: bytes, digest: str) -> Answer:
    return chunked(c, r, data, digest, out_of_order=True, put_last=True)


Push = Callable[[RegistryClient, str, bytes, str], Answer]
WAYS: tuple[Push, ...] = (
    post_only,
    post_put,
    stream,
    chunked,
    chunked_put_last,
    out_of_order,
    out_of_order_put_last,
)
CONTENTS = {"random": None, "one byte": b"x", "empty": b"", "empty json": b"{}"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("way", WAYS)
def test_blob_is_pushed_asked_for_pulled_and_deleted(
    client: RegistryClient, repository: str, way: Push, algorithm: str
) -> None:
    data = os.urandom(3 * CHUNK - 5)
    digest = digest_of(data, algorithm)
    path = f"/v2/{repository}/blobs/{digest}"
    assert client("GET", path).status == 404
    answer = way(client, repository, data, digest)
    assert answer.status == 201
    assert answer.headers["docker-content-digest"] == digest
    assert client("GET", answer.headers["location"]).body == data
    head = client("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(data))
    got = client("GET", path)
    assert (got.status, got.body) == (200, data)
    for found in (head, got):
        assert found.headers["docker-content-digest"] == digest
    assert client("DELETE", path).status == 202
    assert client("HEAD", path).status == 404


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("way", WAYS[:5])
def test_blob_under_another_digest_is_refused(
    client: RegistryClient, repository: str, way: Push, algorithm: str
) -> None:
    data = os.urandom(3 * CHUNK - 5)
    digest = digest_of(data, algorithm)
    answer = way(client, repository, data + b"oh no", digest)
    assert (answer.status, answer.code()) == (400, "DIGEST_INVALID")
    assert client("HEAD", f"/v2/{repository}/blobs/{digest}").status == 404


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("content", CONTENTS)
def test_well_known_contents(
    client: RegistryClient, repository: str, content: str, algorithm: str
) -> None:
    data = CONTENTS[content]
    data = os.urandom(512) if data is None else data
    digest = digest_of(data, algorithm)
    assert post_put(client, repository, data, digest).status == 201
    got = client("GET", f"/v2/{repository}/blobs/{digest}")
    assert (got.status, got.headers["content-length"]) == (200, str(len(data)))
    assert got.body == data


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("named", [True, False])
def test_mounts(client: RegistryClient, repository: str, algorithm: str, named: bool) -> None:
    data = os.urandom(512)
    digest = digest_of(data, algorithm)
    other = f"{repository}/two"
    assert post_put(client, other, data, digest).status == 201
    source = f"&from={other}" if named else ""
    answer = client("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}{source}")
    assert answer.status == 201
    assert answer.headers["docker-content-digest"] == digest
    assert client("GET", answer.headers["location"]).body == data
    assert client("DELETE", f"/v2/{repository}/blobs/{digest}").status == 202
    assert client("HEAD", f"/v2/{other}/blobs/{digest}").status == 200


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_mount_of_what_is_missing_begins_an_upload(
    client: RegistryClient, repository: str, algorithm: str
) -> None:
    data = os.urandom(512)
    digest = digest_of(data, algorithm)
    path = f"/v2/{repository}/blobs/uploads/?mount={digest}&from={repository}/two"
    answer = client("POST", path)
    assert answer.status == 202
    done = client("PUT", with_query(answer.headers["location"], f"digest={digest}"), data)
    assert done.status == 201
    assert client("GET", done.headers["location"]).body == data


class Content:
    """A set of blobs and manifests to push; tags by name."""

    def __init__(self, algorithm: str = "sha256") -> None:
        self.algorithm = algorithm
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.referrers: dict[str, list[dict[str, Any]]] = {}
        self.with_data = False
        self.extra: dict[str, Any] = {}

    def blob(self, media_type: str, data: bytes | None = None) -> dict[str, Any]:
        data = os.urandom(300) if data is None else data
        digest = digest_of(data, self.algorithm)
        self.blobs[digest] = data
        return self.described(media_type, digest, data)

    def described(self, media_type: str, digest: str, data: bytes) -> dict[str, Any]:
        found = {"mediaType": media_type, "digest": digest, "size": len(data), **self.extra}
        if self.with_data:
            import base64

            found["data"] = base64.b64encode(data).decode()
        return found

    def image(self, *, layers: int = 2, tag: str = "", **fields: Any) -> dict[str, Any]:
        config = json.dumps({"os": "linux", "architecture": "amd64", **self.extra}).encode()
        return self.manifest(
            mediatype.OCI_MANIFEST,
            tag=tag,
            config=self.blob(mediatype.OCI_CONFIG, config),
            layers=[self.blob(mediatype.OCI_LAYER_GZIP) for _ in range(layers)],
            **fields,
        )

    def artifact(self, kind: str = EXAMPLE, *, tag: str = "", **fields: Any) -> dict[str, Any]:
        return self.manifest(
            mediatype.OCI_MANIFEST,
            tag=tag,
            artifactType=kind,
            config=self.blob(mediatype.OCI_EMPTY, b"{}"),
            layers=[self.blob(kind)],
            **fields,
        )

    def index(self, *children: dict[str, Any], tag: str = "", **fields: Any) -> dict[str, Any]:
        return self.manifest(mediatype.OCI_INDEX, tag=tag, manifests=list(children), **fields)

    def manifest(self, media_type: str, *, tag: str = "", **fields: Any) -> dict[str, Any]:
        unique = {"org.example.unique": os.urandom(8).hex()}
        fields["annotations"] = {**unique, **fields.get("annotations", {})}
        document = {"schemaVersion": 2, "mediaType": media_type, **fields, **self.extra}
        raw = json.dumps(document).encode()
        digest = digest_of(raw, self.algorithm)
        self.manifests[digest] = raw
        if tag:
            self.tags[tag] = digest
        if "subject" in fields:
            kind = fields.get("artifactType") or fields.get("config", {}).get("mediaType", "")
            entry = {
                "mediaType": media_type,
                "digest": digest,
                "size": len(raw),
                "artifactType": kind,
                "annotations": fields["annotations"],
            }
            self.referrers.setdefault(fields["subject"]["digest"], []).append(entry)
        return self.described(media_type, digest, raw)


def platforms(content: Content, **fields: Any) -> list[dict[str, Any]]:
    return [
        {**content.image(**fields), "platform": {"os": "linux", "architecture": name}}
        for name in ("amd64", "arm64")
    ]


def _image(content: Content) -> None:
    content.image(tag="image")


def _large_manifest(content: Content) -> None:
    content.image(tag="large", annotations={f"large-{n}": "A" * 10_000 for n in range(390)})


def _index(content: Content) -> None:
    content.index(*platforms(content), tag="index")


def _nested_index(content: Content) -> None:
    inner = [content.index(*platforms(content)) for _ in range(2)]
    content.index(*inner, tag="index-of-index")


def _empty_index(content: Content) -> None:
    content.index(tag="empty")


def _artifact(content: Content) -> None:
    content.artifact(tag="artifact")


def _artifact_index(content: Content) -> None:
    children = [content.artifact(), content.artifact()]
    content.index(*children, tag="artifacts", artifactType=EXAMPLE)


def _artifact_without_layers(content: Content) -> None:
    empty = content.blob(mediatype.OCI_EMPTY, b"{}")
    content.manifest(
        mediatype.OCI_MANIFEST, tag="no-layers", artifactType=EXAMPLE, config=empty, layers=[empty]
    )


def _subjects(content: Content) -> None:
    subject = content.image(tag="image")
    content.image(subject=subject)
    content.artifact(f"{EXAMPLE}.v1", tag="one", subject=subject)
    content.artifact(f"{EXAMPLE}.v2", tag="two", subject=subject)


def _subject_of_an_index(content: Content) -> None:
    subject = content.index(*platforms(content), tag="index")
    children = [content.artifact()]
    content.index(*children, tag="about", artifactType=EXAMPLE, subject=subject)


def _missing_subject(content: Content) -> None:
    nothing = {"mediaType": mediatype.OCI_MANIFEST, "digest": digest_of(os.urandom(9)), "size": 1}
    content.artifact(tag="about-nothing", subject=nothing)


def _data_field(content: Content) -> None:
    content.with_data = True
    content.image(tag="data")


def _nondistributable(content: Content) -> None:
    elsewhere = [
        {
            "mediaType": f"{mediatype.OCI_NONDISTRIBUTABLE}{suffix}",
            "digest": digest_of(os.urandom(9)),
            "size": 123_456,
            "urls": ["https://store.example/blob"],
        }
        for suffix in ("", "+gzip")
    ]
    content.manifest(
        mediatype.OCI_MANIFEST,
        tag="elsewhere",
        config=content.blob(mediatype.OCI_CONFIG),
        layers=[*elsewhere, content.blob(mediatype.OCI_LAYER_GZIP)],
    )


def _custom_fields(content: Content) -> None:
    content.extra = {"org.example.field": {"deep": [1, None, "x"]}}
    content.index(*platforms(content), tag="custom")


def _no_layers(content: Content) -> None:
    content.image(layers=0, tag="none")


KINDS = (
    _image,
    _large_manifest,
    _index,
    _nested_index,
    _empty_index,
    _artifact,
    _artifact_index,
    _artifact_without_layers,
    _subjects,
    _subject_of_an_index,
    _missing_subject,
    _data_field,
    _nondistributable,
    _custom_fields,
    _no_layers,
)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", KINDS)
def test_kind_of_manifest(
    client: RegistryClient, repository: str, kind: Callable[[Content], None], algorithm: str
) -> None:
    content = Content(algorithm)
    kind(content)
    push(client, repository, content)
    check_listed(client, repository, content)
    check_pulled(client, repository, content)
    check_referrers(client, repository, content)
    delete(client, repository, content)


def push(client: RegistryClient, repository: str, content: Content) -> None:
    """Blobs, then manifests by digest; tags by another PUT (sha256) or as a parameter."""
    for number, (digest, data) in enumerate(content.blobs.items()):
        assert WAYS[number % 3](client, repository, data, digest).status == 201
    for digest, raw in content.manifests.items():
        tags = [tag for tag, found in content.tags.items() if found == digest]
        wanted = "&".join(f"tag={tag}" for tag in tags)
        parameters = f"?{wanted}" if wanted and content.algorithm == "sha512" else ""
        references = [digest + parameters]
        if not parameters:
            references += tags
        for reference in references:
            answer = client.push_manifest(repository, reference, raw)
            assert answer.status == 201, answer.body
            assert answer.headers["docker-content-digest"] == digest
            subject = json.loads(raw).get("subject")
            assert answer.headers["oci-subject"] == (subject and subject["digest"])
            assert client("GET", answer.headers["location"]).body == raw
        if parameters:
            assert {tag.strip() for tag in answer.headers["oci-tag"].split(",")} == set(tags)


def check_listed(client: RegistryClient, repository: str, content: Content) -> None:
    path = f"/v2/{repository}/tags/list"
    tags = client("GET", path).json()["tags"]
    assert tags == sorted(content.tags)
    for position, last in enumerate(tags, start=1):
        assert client("GET", f"{path}?last={last}").json()["tags"] == tags[position:]


def check_pulled(client: RegistryClient, repository: str, content: Content) -> None:
    wanted = {**{d: d for d in content.manifests}, **content.tags}
    for reference, digest in wanted.items():
        raw = content.manifests[digest]
        accept = {"Accept": f"{mediatype.OCI_INDEX}, {mediatype.OCI_MANIFEST}"}
        for method in ("HEAD", "GET"):
            answer = client(method, f"/v2/{repository}/manifests/{reference}", headers=accept)
            assert answer.status == 200
            assert answer.body == (raw if method == "GET" else b"")
            assert answer.headers["content-type"] == json.loads(raw)["mediaType"]
            assert answer.headers["content-length"] == str(len(raw))
            assert answer.headers["docker-content-digest"] == digest
    for digest, data in content.blobs.items():
        assert client("GET", f"/v2/{repository}/blobs/{digest}").body == data


def check_referrers(client: RegistryClient, repository: str, content: Content) -> None:
    for subject, expected in content.referrers.items():
        path = f"/v2/{repository}/referrers/{subject}"
        answer = client("GET", path)
        assert answer.headers["content-type"] == mediatype.OCI_INDEX
        found = answer.json()
        assert (found["schemaVersion"], found["mediaType"]) == (2, mediatype.OCI_INDEX)
        assert sorted(found["manifests"], key=str) == sorted(expected, key=str)
        for kind in {entry["artifactType"] for entry in expected}:
            filtered = client("GET", f"{path}?artifactType={kind.replace('+', '%2B')}")
            assert filtered.headers["oci-filters-applied"] == "artifactType"
            assert {entry["digest"] for entry in filtered.json()["manifests"]} == {
                entry["digest"] for entry in expected if entry["artifactType"] == kind
            }


def delete(client: RegistryClient, repository: str, content: Content) -> None:
    """Tags, manifests from the last to the first, blobs; each is gone at once."""
    paths = [f"manifests/{tag}" for tag in content.tags]
    paths += [f"manifests/{digest}" for digest in reversed(content.manifests)]
    paths += [f"blobs/{digest}" for digest in content.blobs]
    for path in paths:
        assert client("DELETE", f"/v2/{repository}/{path}").status == 202
        assert client("HEAD", f"/v2/{repository}/{path}").status == 404
    for subject in content.referrers:
        assert client("GET", f"/v2/{repository}/referrers/{subject}").json()["manifests"] == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_manifest_with_another_digest_is_refused(
    client: RegistryClient, repository: str, algorithm: str
) -> None:
    content = Content(algorithm)
    content.image()
    for digest, data in content.blobs.items():
        assert post_put(client, repository, data, digest).status == 201
    ((digest, raw),) = content.manifests.items()
    for reference in (digest, f"{algorithm}:baddigeststring"):
        answer = client.push_manifest(repository, reference, raw + b"  ")
        assert (answer.status, answer.code()) == (400, "DIGEST_INVALID")
        assert client("GET", f"/v2/{repository}/manifests/{reference}").status in {400, 404}


def test_empty_repository_has_no_tags(client: RegistryClient, repository: str) -> None:
    assert client("GET", f"/v2/{repository}/tags/list").status in {200, 404}
    found = client("GET", f"/v2/{repository}/referrers/{digest_of(b'nothing')}")
    assert (found.status, found.json()["manifests"]) == (200, [])
