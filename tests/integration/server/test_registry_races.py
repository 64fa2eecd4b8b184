# SPDX-License-Identifier: Apache-2.0
"""Requests that meet: the same blob, tag, upload or manifest from several clients at once."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

from lamina.testing.registry import Answer, RegistryClient, RegistryServer, with_query


def at_once(
    server: RegistryServer, count: int, work: Callable[[RegistryClient, int], Answer]
) -> list[Answer]:
    """The answers of `count` clients that begin together."""
    start = threading.Barrier(count)
    answers: list[Answer] = []

    def run(number: int) -> None:
        client = RegistryClient(server.port)
        try:
            start.wait()
            answers.append(work(client, number))
        finally:
            client.connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == count
    return answers


def test_one_blob_from_many(shared: RegistryServer, repository: str) -> None:
    data = os.urandom(300_000)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    path = f"/v2/{repository}/blobs/uploads/?digest={digest}"
    answers = at_once(shared, 8, lambda client, _: client("POST", path, data))
    assert {answer.status for answer in answers} == {201}
    assert shared.client()("GET", f"/v2/{repository}/blobs/{digest}").body == data
    names = [path for path in (shared.root / "blobs").rglob(digest[7:]) if path.is_file()]
    assert len(names) == 1


def test_one_tag_from_many_is_one_of_theirs(shared: RegistryServer, repository: str) -> None:
    client = shared.client()
    _, document = client.push_image(repository, "base", b"x")

    def push(other: RegistryClient, number: int) -> Answer:
        return other.push_manifest(
            repository, "race", {**document, "annotations": {"by": str(number)}}
        )

    answers = at_once(shared, 8, push)
    assert {answer.status for answer in answers} == {201}
    winner = client("GET", f"/v2/{repository}/manifests/race").headers["docker-content-digest"]
    digests = {answer.headers["docker-content-digest"] for answer in answers}
    assert winner in digests
    for digest in digests:  # the losers stay, untagged
        assert client("HEAD", f"/v2/{repository}/manifests/{digest}").status == 200


def test_one_upload_from_many_takes_one_at_a_time(
    shared: RegistryServer, client: RegistryClient, repository: str
) -> None:
    location = client("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
    data = os.urandom(2_000_000)
    headers = {"Content-Range": f"0-{len(data) - 1}"}
    answers = at_once(shared, 6, lambda other, _: other("PATCH", location, data, headers))
    statuses = sorted(answer.status for answer in answers)
    assert statuses.count(202) == 1
    assert set(statuses) <= {202, 416, 429}
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    last = with_query(location, f"digest={digest}")
    assert client("PUT", last, b"").status == 201


def test_one_upload_is_finished_once(
    shared: RegistryServer, client: RegistryClient, repository: str
) -> None:
    location = client("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
    data = os.urandom(500_000)
    client("PATCH", location, data)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    last = with_query(location, f"digest={digest}")
    statuses = [a.status for a in at_once(shared, 6, lambda other, _: other("PUT", last, b""))]
    assert statuses.count(201) == 1
    assert set(statuses) <= {201, 404, 429}
    assert client("GET", f"/v2/{repository}/blobs/{digest}").body == data


def test_push_beside_delete_is_whole_or_refused(
    shared: RegistryServer, client: RegistryClient, repository: str
) -> None:
    """A manifest that was taken has its blobs; one whose blob went first is refused."""
    for round_ in range(10):
        layer = os.urandom(100)
        digest = client.push_blob(repository, layer)
        config = client.push_blob(repository, b"{}")
        document = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/x", "digest": config, "size": 2},
            "layers": [{"mediaType": "application/y", "digest": digest, "size": 100}],
        }
        tag = f"r{round_}"

        def work(
            other: RegistryClient,
            number: int,
            tag: str = tag,
            raw: bytes = json.dumps(document).encode(),
            blob: str = f"/v2/{repository}/blobs/{digest}",
        ) -> Answer:
            if number:
                return other("DELETE", blob)
            return other.push_manifest(repository, tag, raw)

        answers = at_once(shared, 2, work)
        statuses = sorted(answer.status for answer in answers)
        assert statuses in ([201, 202], [202, 404])


def test_listing_beside_pushes_skips_and_repeats_nothing(
    shared: RegistryServer, client: RegistryClient, repository: str
) -> None:
    _, document = client.push_image(repository, "a00", b"x")
    for number in range(1, 30):
        client.push_manifest(repository, f"a{number:02}", document)

    def push(other: RegistryClient) -> Answer:
        for number in range(30):
            answer = other.push_manifest(repository, f"b{number:02}", document)
        return answer

    def page(other: RegistryClient) -> Answer:
        seen: list[str] = []
        following: str | None = f"/v2/{repository}/tags/list?n=4"
        while following:
            answer = other("GET", following)
            seen += answer.json()["tags"]
            link = answer.headers["link"]
            following = link[1 : link.index(">")] if link else None
        assert len(seen) == len(set(seen))
        assert seen == sorted(seen)
        assert [tag for tag in seen if tag[0] == "a"] == [f"a{n:02}" for n in range(30)]
        return answer

    at_once(shared, 3, lambda other, number: page(other) if number else push(other))


def test_limits(tmp_path: Path) -> None:
    config = '[limits]\nblob = 1000\nmanifest = 2000\npage = 2\nuploads = 3\nidle-timeout = "30s"\n'
    with RegistryServer(tmp_path / "registry", config=config) as server:
        client = server.client()
        digest = client.push_blob("r", b"x" * 1000)
        big = b"x" * 1001
        name = "sha256:" + hashlib.sha256(big).hexdigest()
        answer = client("POST", f"/v2/r/blobs/uploads/?digest={name}", big)
        assert (answer.status, answer.code()) == (413, "SIZE_INVALID")
        client = server.client()  # a refused body may close the connection
        location = client("POST", "/v2/r/blobs/uploads/").headers["location"]
        assert client("PATCH", location, iter([b"x" * 600])).status == 202
        assert client("PATCH", location, iter([b"x" * 600])).status == 413
        client = server.client()
        assert client("GET", location).headers["range"] == "0-599"
        client("DELETE", location)
        for _ in range(3):
            assert client("POST", "/v2/r/blobs/uploads/").status == 202
        answer = client("POST", "/v2/r/blobs/uploads/")
        assert (answer.status, answer.code()) == (429, "TOOMANYREQUESTS")
        assert client("HEAD", f"/v2/r/blobs/{digest}").status == 200
