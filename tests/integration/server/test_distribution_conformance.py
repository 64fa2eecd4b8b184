# SPDX-License-Identifier: Apache-2.0
"""The four workflows of the distribution specification, endpoint by endpoint, on a real server."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import pytest

from lamina.spec import mediatype
from lamina.testing.registry import RegistryClient, with_query

UNKNOWN = "sha256:" + "0" * 64


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class TestPull:
    """§Pull (end-1, end-2, end-3)."""

    def test_base_says_that_this_is_a_registry(self, client: RegistryClient) -> None:
        for path in ("/v2/", "/v2"):
            answer = client("GET", path)
            assert answer.status == 200
            assert answer.headers["docker-distribution-api-version"] == "registry/2.0"

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_blob_that_does_not_exist_is_404(
        self, client: RegistryClient, repository: str, method: str
    ) -> None:
        answer = client(method, f"/v2/{repository}/blobs/{UNKNOWN}")
        assert answer.status == 404
        assert method == "HEAD" or answer.code() == "BLOB_UNKNOWN"

    def test_blob_is_read_whole_and_in_ranges(
        self, client: RegistryClient, repository: str
    ) -> None:
        data = os.urandom(100_000)
        digest = client.push_blob(repository, data)
        path = f"/v2/{repository}/blobs/{digest}"
        head = client("HEAD", path)
        assert (head.status, head.headers["content-length"]) == (200, "100000")
        assert head.headers["docker-content-digest"] == digest
        assert client("GET", path).body == data
        for asked, start, end in (
            ("bytes=0-9", 0, 10),
            ("bytes=99990-", 99_990, 100_000),
            ("bytes=-5", 99_995, 100_000),
            ("bytes=50-200000", 50, 100_000),
        ):
            part = client("GET", path, headers={"Range": asked})
            assert part.status == 206
            assert part.body == data[start:end]
            assert part.headers["content-range"] == f"bytes {start}-{end - 1}/100000"
        for none in ("bytes=500-0", "bytes=-0", "bytes=200000-300000"):
            assert client("GET", path, headers={"Range": none}).status == 416
        beyond = client("GET", path, headers={"Range": "bytes=100000-"})
        assert beyond.status == 416
        assert beyond.headers["content-range"] == "bytes */100000"
        assert client("GET", path, headers={"Range": "bytes=0-1,5-6"}).status == 200

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("reference", ["nothing", UNKNOWN, ".INVALID_MANIFEST_NAME"])
    def test_manifest_that_does_not_exist_is_404(
        self, client: RegistryClient, repository: str, method: str, reference: str
    ) -> None:
        answer = client(method, f"/v2/{repository}/manifests/{reference}")
        assert answer.status == 404
        assert method == "HEAD" or answer.code() == "MANIFEST_UNKNOWN"

    def test_manifest_is_read_by_tag_and_digest_with_exact_bytes(
        self, client: RegistryClient, repository: str
    ) -> None:
        digest, document = client.push_image(repository, "v1", b"layer")
        for reference in ("v1", digest):
            path = f"/v2/{repository}/manifests/{reference}"
            head, got = client("HEAD", path), client("GET", path)
            assert head.status == got.status == 200
            assert head.headers["content-length"] == str(len(got.body))
            assert got.body == json.dumps(document).encode()
            for answer in (head, got):
                assert answer.headers["docker-content-digest"] == digest
                assert answer.headers["content-type"] == mediatype.OCI_MANIFEST

    def test_manifest_that_the_client_has_is_not_sent_again(
        self, client: RegistryClient, repository: str
    ) -> None:
        digest, _ = client.push_image(repository, "v1", b"layer")
        answer = client(
            "GET", f"/v2/{repository}/manifests/v1", headers={"If-None-Match": f'"{digest}"'}
        )
        assert (answer.status, answer.body) == (304, b"")


class TestPush:
    """§Push (end-4 to end-7, end-11, end-13)."""

    def test_post_then_put(self, client: RegistryClient, repository: str) -> None:
        digest = client.push_blob(repository, b"two requests")
        assert client("GET", f"/v2/{repository}/blobs/{digest}").body == b"two requests"

    def test_single_post(self, client: RegistryClient, repository: str) -> None:
        data = b"one request"
        answer = client("POST", f"/v2/{repository}/blobs/uploads/?digest={sha256(data)}", data)
        assert answer.status == 201
        assert client("GET", answer.headers["location"]).body == data

    def test_chunks(self, client: RegistryClient, repository: str) -> None:
        data = os.urandom(30_000)
        location = client("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
        for start in (0, 10_000):
            chunk = data[start : start + 10_000]
            answer = client(
                "PATCH",
                location,
                chunk,
                {
                    "Content-Type": "application/octet-stream",
                    "Content-Range": f"{start}-{start + 9_999}",
                },
            )
            assert answer.status == 202
            assert answer.headers["range"] == f"0-{start + 9_999}"
            location = answer.headers["location"]
        status = client("GET", location)
        assert (status.status, status.headers["range"]) == (204, "0-19999")
        done = client(
            "PUT",
            with_query(location, f"digest={sha256(data)}"),
            data[20_000:],
            {"Content-Range": "20000-29999"},
        )
        assert done.status == 201
        assert client("GET", done.headers["location"]).body == data
        assert client("GET", location).status == 404

    def test_chunk_out_of_order_is_416_and_says_where_to_go_on(
        self, client: RegistryClient, repository: str
    ) -> None:
        location = client("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
        wrong = client("PATCH", location, b"12345", {"Content-Range": "5-9"})
        assert wrong.status == 416
        assert client("PATCH", location, b"01234", {"Content-Range": "0-4"}).status == 202
        again = client("PATCH", location, b"01234", {"Content-Range": "0-4"})
        assert again.status == 416
        assert again.headers["range"] == "0-4"
        assert again.headers["location"] == location
        digest = sha256(b"0123456789")
        late = with_query(location, f"digest={digest}")
        assert client("PUT", late, b"56789", {"Content-Range": "6-10"}).status == 416
        assert client("PUT", late, b"56789", {"Content-Range": "5-9"}).status == 201

    def test_body_without_length(self, client: RegistryClient, repository: str) -> None:
        location = client("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
        parts = [b"a" * 70_000, b"b" * 70_000]
        assert client("PATCH", location, iter(parts)).status == 202
        digest = sha256(b"".join(parts))
        assert client("PUT", with_query(location, f"digest={digest}")).status == 201

    def test_cancelled_upload_is_gone(self, client: RegistryClient, repository: str) -> None:
        location = client("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
        assert client("DELETE", location).status == 204
        for method in ("GET", "DELETE", "PATCH"):
            answer = client(method, location)
            assert answer.status == 404
            assert answer.code() == "BLOB_UPLOAD_UNKNOWN"

    def test_mount_from_a_repository_that_has_it(
        self, client: RegistryClient, repository: str
    ) -> None:
        digest = client.push_blob(repository, b"shared")
        other = f"{repository}/other"
        assert client("HEAD", f"/v2/{other}/blobs/{digest}").status == 404
        path = f"/v2/{other}/blobs/uploads/?mount={digest}&from={repository}"
        mounted = client("POST", path)
        assert mounted.status == 201
        assert mounted.headers["location"] == f"/v2/{other}/blobs/{digest}"
        assert client("GET", f"/v2/{other}/blobs/{digest}").body == b"shared"

    @pytest.mark.parametrize("source", ["&from=nobody/nothing", ""])
    def test_mount_that_is_not_possible_begins_an_upload(
        self, client: RegistryClient, repository: str, source: str
    ) -> None:
        data = repository.encode()
        digest = sha256(data)
        answer = client("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}{source}")
        assert answer.status == 202
        done = client("PUT", with_query(answer.headers["location"], f"digest={digest}"), data)
        assert done.status == 201

    def test_mount_without_source(self, client: RegistryClient, repository: str) -> None:
        digest = client.push_blob(repository, repository.encode())
        path = f"/v2/{repository}/other/blobs/uploads/?mount={digest}"
        assert client("POST", path).status == 201
        assert client("HEAD", f"/v2/{repository}/other/blobs/{digest}").status == 200

    def test_empty_blob(self, client: RegistryClient, repository: str) -> None:
        digest = client.push_blob(repository, b"")
        got = client("GET", f"/v2/{repository}/blobs/{digest}")
        assert (got.status, got.headers["content-length"], got.body) == (200, "0", b"")

    def test_tags_as_parameters(self, client: RegistryClient, repository: str) -> None:
        _, document = client.push_image(repository, "v1", b"layer")
        for algorithm in ("sha256", "sha512"):
            raw = json.dumps(document, indent=len(algorithm)).encode()
            digest = f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"
            answer = client.push_manifest(repository, f"{digest}?tag=a&tag=b", raw)
            assert (answer.status, answer.headers["oci-tag"]) == (201, "a, b")
            for tag in ("a", "b"):
                got = client("HEAD", f"/v2/{repository}/manifests/{tag}")
                assert got.headers["docker-content-digest"] == digest

    def test_sha512(self, client: RegistryClient, repository: str) -> None:
        digest = client.push_blob(repository, b"long digest", algorithm="sha512")
        assert client("GET", f"/v2/{repository}/blobs/{digest}").body == b"long digest"
        _, document = client.push_image(repository, "v1", b"layer")
        raw = json.dumps(document).encode()
        named = "sha512:" + hashlib.sha512(raw).hexdigest()
        answer = client.push_manifest(repository, named, raw)
        assert answer.status == 201
        assert answer.headers["docker-content-digest"] == named
        assert client("GET", f"/v2/{repository}/manifests/{named}").body == raw

    def test_manifest_is_pushed_by_digest(self, client: RegistryClient, repository: str) -> None:
        _, document = client.push_image(repository, "v1", b"layer")
        raw = json.dumps(document, indent=1).encode()
        answer = client.push_manifest(repository, sha256(raw), raw)
        assert answer.status == 201
        assert answer.headers["location"] == f"/v2/{repository}/manifests/{sha256(raw)}"
        assert client("GET", answer.headers["location"]).body == raw

    def test_docker_media_types(self, client: RegistryClient, repository: str) -> None:
        config = client.push_blob(repository, b"{}")
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": mediatype.DOCKER_MANIFEST,
            "config": {"mediaType": mediatype.DOCKER_CONFIG, "digest": config, "size": 2},
            "layers": [
                {
                    "mediaType": mediatype.DOCKER_FOREIGN_LAYER,
                    "digest": UNKNOWN,
                    "size": 7,
                    "urls": ["https://elsewhere.example/layer"],
                }
            ],
        }
        raw = json.dumps(manifest).encode()
        pushed = client.push_manifest(repository, "docker", raw)
        assert pushed.status == 201
        index = {
            "schemaVersion": 2,
            "mediaType": mediatype.DOCKER_MANIFEST_LIST,
            "manifests": [
                {
                    "mediaType": mediatype.DOCKER_MANIFEST,
                    "digest": sha256(raw),
                    "size": len(raw),
                    "platform": {"os": "linux", "architecture": "amd64"},
                }
            ],
        }
        assert client.push_manifest(repository, "list", index).status == 201
        got = client("GET", f"/v2/{repository}/manifests/list")
        assert got.headers["content-type"] == mediatype.DOCKER_MANIFEST_LIST

    def test_tag_moves_and_the_old_manifest_stays(
        self, client: RegistryClient, repository: str
    ) -> None:
        first, _ = client.push_image(repository, "v1", b"one")
        second, _ = client.push_image(repository, "v1", b"two")
        assert client("HEAD", f"/v2/{repository}/manifests/v1").headers[
            "docker-content-digest"
        ] == (second)
        assert client("HEAD", f"/v2/{repository}/manifests/{first}").status == 200


class TestContentDiscovery:
    """§Content Discovery (end-8, end-12)."""

    def test_tags_in_order_and_in_pages(self, client: RegistryClient, repository: str) -> None:
        names = ["b", "A", "c", "a", "latest", "1.0", "_x"]
        for name in names:
            client.push_image(repository, name, b"same")
        path = f"/v2/{repository}/tags/list"
        everything = client("GET", path).json()
        assert everything["name"] == repository
        assert everything["tags"] == ["1.0", "_x", "A", "a", "b", "c", "latest"]
        assert client("GET", f"{path}?n=0").json()["tags"] == []
        collected: list[str] = []
        following: str | None = f"{path}?n=3"
        while following:
            page = client("GET", following)
            assert len(page.json()["tags"]) <= 3
            collected += page.json()["tags"]
            link = page.headers["link"]
            assert link is None or link.endswith('; rel="next"')
            following = link[1 : link.index(">")] if link else None
        assert collected == everything["tags"]
        assert client("GET", f"{path}?last=b").json()["tags"] == ["c", "latest"]
        assert client("GET", f"{path}?n=x").code() == "PAGINATION_NUMBER_INVALID"

    def test_tags_of_an_unknown_repository(self, client: RegistryClient, repository: str) -> None:
        answer = client("GET", f"/v2/{repository}/tags/list")
        assert (answer.status, answer.code()) == (404, "NAME_UNKNOWN")

    def test_catalog(self, client: RegistryClient, repository: str) -> None:
        client.push_image(f"{repository}/a", "v1", b"x")
        client.push_image(f"{repository}/b", "v1", b"x")
        page = client("GET", f"/v2/_catalog?n=1&last={repository}")
        assert page.json()["repositories"] == [f"{repository}/a"]
        link = page.headers["link"]
        second = client("GET", link[1 : link.index(">")])
        assert second.json()["repositories"] == [f"{repository}/b"]

    def test_referrers(self, client: RegistryClient, repository: str) -> None:
        digest, document = client.push_image(repository, "v1", b"subject")
        subject = {
            "mediaType": mediatype.OCI_MANIFEST,
            "digest": digest,
            "size": len(json.dumps(document)),
        }
        path = f"/v2/{repository}/referrers/{digest}"
        empty = client("GET", path)
        assert (empty.status, empty.json()["manifests"]) == (200, [])
        assert empty.headers["content-type"] == mediatype.OCI_INDEX
        client.push_blob(repository, b"{}")
        pushed = {}
        for kind in ("application/vnd.test.sbom", "application/vnd.test.signature"):
            referrer = {
                "schemaVersion": 2,
                "mediaType": mediatype.OCI_MANIFEST,
                "artifactType": kind,
                "config": {"mediaType": mediatype.OCI_EMPTY, "digest": sha256(b"{}"), "size": 2},
                "layers": [],
                "subject": subject,
                "annotations": {"of": kind},
            }
            raw = json.dumps(referrer).encode()
            answer = client.push_manifest(repository, sha256(raw), raw)
            assert answer.status == 201
            assert answer.headers["oci-subject"] == digest
            pushed[kind] = {
                "mediaType": mediatype.OCI_MANIFEST,
                "digest": sha256(raw),
                "size": len(raw),
                "artifactType": kind,
                "annotations": {"of": kind},
            }
        found = client("GET", path).json()
        assert found["schemaVersion"] == 2
        assert sorted(found["manifests"], key=str) == sorted(pushed.values(), key=str)
        kind = "application/vnd.test.sbom"
        filtered = client("GET", f"{path}?artifactType={kind}")
        assert filtered.json()["manifests"] == [pushed[kind]]
        assert filtered.headers["oci-filters-applied"] == "artifactType"
        first = client("GET", f"{path}?n=1")
        link = first.headers["link"]
        second = client("GET", link[1 : link.index(">")])
        assert len(first.json()["manifests"] + second.json()["manifests"]) == 2

    def test_referrer_of_what_is_not_there_yet(
        self, client: RegistryClient, repository: str
    ) -> None:
        subject = {"mediaType": mediatype.OCI_MANIFEST, "digest": UNKNOWN, "size": 5}
        digest, _ = client.push_image(repository, "sig", b"x", subject=subject)
        index = {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_INDEX,
            "artifactType": "application/vnd.test.index",
            "manifests": [],
            "subject": subject,
        }
        assert client.push_manifest(repository, "index", index).headers["oci-subject"] == UNKNOWN
        found = client("GET", f"/v2/{repository}/referrers/{UNKNOWN}").json()["manifests"]
        by_digest = {entry["digest"]: entry for entry in found}
        assert by_digest.pop(digest)["artifactType"] == mediatype.OCI_CONFIG
        (other,) = by_digest.values()
        assert other["artifactType"] == "application/vnd.test.index"
        assert other["mediaType"] == mediatype.OCI_INDEX


class TestContentManagement:
    """§Content Management (end-9, end-10)."""

    def test_tag_is_deleted_and_the_manifest_stays(
        self, client: RegistryClient, repository: str
    ) -> None:
        digest, _ = client.push_image(repository, "v1", b"x")
        client.push_image(repository, "v2", b"y")
        assert client("DELETE", f"/v2/{repository}/manifests/v1").status == 202
        assert client("GET", f"/v2/{repository}/manifests/v1").status == 404
        assert client("GET", f"/v2/{repository}/manifests/{digest}").status == 200
        assert client("GET", f"/v2/{repository}/tags/list").json()["tags"] == ["v2"]

    def test_manifest_is_deleted_with_its_tags(
        self, client: RegistryClient, repository: str
    ) -> None:
        digest, document = client.push_image(repository, "v1", b"x")
        client.push_manifest(repository, "v2", document)
        assert client("DELETE", f"/v2/{repository}/manifests/{digest}").status == 202
        for reference in ("v1", "v2", digest):
            assert client("GET", f"/v2/{repository}/manifests/{reference}").status == 404
        again = client("DELETE", f"/v2/{repository}/manifests/{digest}")
        assert (again.status, again.code()) == (404, "MANIFEST_UNKNOWN")
        assert client("GET", f"/v2/{repository}/tags/list").json()["tags"] == []

    def test_blob_is_deleted_from_one_repository_only(
        self, client: RegistryClient, repository: str
    ) -> None:
        digest = client.push_blob(repository, b"in two places")
        client.push_blob(f"{repository}/other", b"in two places")
        assert client("DELETE", f"/v2/{repository}/blobs/{digest}").status == 202
        assert client("GET", f"/v2/{repository}/blobs/{digest}").status == 404
        assert client("DELETE", f"/v2/{repository}/blobs/{digest}").code() == "BLOB_UNKNOWN"
        assert client("GET", f"/v2/{repository}/other/blobs/{digest}").status == 200

    def test_deleted_referrer_is_not_listed(self, client: RegistryClient, repository: str) -> None:
        subject = {"mediaType": mediatype.OCI_MANIFEST, "digest": UNKNOWN, "size": 5}
        digest, _ = client.push_image(repository, "sig", b"x", subject=subject)
        client("DELETE", f"/v2/{repository}/manifests/{digest}")
        found = client("GET", f"/v2/{repository}/referrers/{UNKNOWN}")
        assert found.json()["manifests"] == []

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("PUT", "/v2/r/tags/list"),
            ("DELETE", "/v2/_catalog"),
            ("POST", "/v2/r/manifests/v1"),
            ("GET", "/v2/r/blobs/uploads/"),
            ("PUT", f"/v2/r/blobs/{UNKNOWN}"),
            ("POST", "/v2/"),
            ("BREW", "/v2/r/manifests/v1"),
        ],
    )
    def test_other_methods_are_refused_with_those_allowed(
        self, client: RegistryClient, method: str, path: str
    ) -> None:
        answer = client(method, path)
        assert (answer.status, answer.code()) == (405, "UNSUPPORTED")
        assert "GET" in answer.headers["allow"] or "POST" in answer.headers["allow"]
