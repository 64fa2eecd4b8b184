# SPDX-License-Identifier: Apache-2.0
"""`lamina serve --share-store`: the store's images, beside what was pushed."""

from __future__ import annotations

import http.client
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.image.pack import Packed
from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor
from lamina.spec.document import dump
from lamina.store.local import LocalStore, open_store
from lamina.testing.images import ImageMaker
from lamina.testing.registry import RegistryServer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = open_store(str(tmp_path / "store"))
    yield store
    store.close()


@pytest.fixture
def image(store: LocalStore) -> Packed:
    return ImageMaker(store)(
        "shared",
        "docker.io/library/app:v1",
        "localhost/x/app:v2",
        "127.0.0.1:5000/app:v3",
    )


@pytest.fixture
def server(tmp_path: Path, image: Packed) -> Iterator[RegistryServer]:
    config = f'[storage]\nshare-store = "{tmp_path}/store"\n'
    with RegistryServer(tmp_path / "registry", config=config) as server:
        yield server


def test_images_of_the_store_are_listed_and_pulled_without_a_copy(
    server: RegistryServer, image: Packed, tmp_path: Path
) -> None:
    client = server.client()
    assert client("GET", "/v2/_catalog").json() == {"repositories": ["app", "localhost/x/app"]}
    assert client("GET", "/v2/app/tags/list").json() == {"name": "app", "tags": ["v1"]}
    found = client("GET", "/v2/app/manifests/v1")
    assert found.headers["docker-content-digest"] == str(image.target.digest)
    for part in (*found.json()["layers"], found.json()["config"]):
        got = client("GET", f"/v2/app/blobs/{part['digest']}")
        assert got.headers["content-length"] == str(part["size"])
        assert got.body == _blob(tmp_path, part["digest"]).read_bytes()
        assert client("GET", f"/v2/other/blobs/{part['digest']}").status == 404
    assert not list((tmp_path / "registry" / "blobs").glob("*/*/*"))
    for path in ("/v2/app/manifests/v1", f"/v2/app/manifests/{image.target.digest}"):
        assert client("DELETE", path).status == 405


@pytest.mark.tool("skopeo")
def test_skopeo_pulls_an_image_of_the_store(server: RegistryServer, tmp_path: Path) -> None:
    source = f"docker://{server.host}/localhost/x/app:v2"
    words = ["skopeo", "copy", "--src-tls-verify=false", source, f"oci:{tmp_path}/out"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_push_stands_on_its_own_when_the_store_loses_the_image(
    server: RegistryServer, store: LocalStore, tmp_path: Path
) -> None:
    """A client that was told that the store's layer exists does not push it."""
    client = server.client()
    document = client("GET", "/v2/app/manifests/v1").json()
    layer = document["layers"][0]["digest"]
    assert client("HEAD", f"/v2/app/blobs/{layer}").status == 200
    assert client("POST", f"/v2/other/blobs/uploads/?mount={layer}&from=app").status == 201
    changed = {**document, "annotations": {"is": "another"}}
    assert client.push_manifest("app", "v1", changed).status == 201
    assert client.push_manifest("app", "v9", changed).status == 201
    store.metadata.delete_names(["docker.io/library/app:v1", "localhost/x/app:v2"])
    os.unlink(_blob(tmp_path, layer))
    for repository in ("app", "other"):
        assert client("GET", f"/v2/{repository}/blobs/{layer}").status == 200
    assert client("GET", "/v2/app/manifests/v1").json()["annotations"] == {"is": "another"}
    assert client("GET", "/v2/app/tags/list").json()["tags"] == ["v1", "v9"]
    assert client("GET", f"/v2/localhost/x/app/blobs/{layer}").status == 404


def test_collection_of_the_store_does_not_break_a_get_in_flight(
    server: RegistryServer, store: LocalStore, tmp_path: Path
) -> None:
    raw, blob = _big_layer(store, tmp_path)
    client = server.client()
    client.connection.request("GET", f"/v2/big/blobs/sha256:{blob.name}")
    response = client.connection.getresponse()
    assert response.read(1000) == raw[:1000]
    blob.unlink()
    assert response.read() == raw[1000:]
    assert server.client()("GET", f"/v2/big/blobs/sha256:{blob.name}").status == 404


def test_body_that_breaks_ends_the_connection(
    server: RegistryServer, store: LocalStore, tmp_path: Path
) -> None:
    """A client must not take a part for the whole."""
    raw, blob = _big_layer(store, tmp_path)
    client = server.client()
    client.connection.request("GET", f"/v2/big/blobs/sha256:{blob.name}")
    response = client.connection.getresponse()
    assert response.read(1000) == raw[:1000]
    os.truncate(blob, len(raw) // 2)
    with pytest.raises(http.client.IncompleteRead):
        response.read()


def test_client_that_stands_still_or_goes_costs_no_memory(
    server: RegistryServer, store: LocalStore, tmp_path: Path
) -> None:
    _, blob = _big_layer(store, tmp_path)
    before = _memory(server)
    for _ in range(4):
        client = server.client()
        client.connection.request("GET", f"/v2/big/blobs/sha256:{blob.name}")
        assert client.connection.getresponse().status == 200
    assert server.client()("GET", "/healthz").status == 200
    assert _memory(server) < before + _BIG
    assert server.stop() == 0  # with the bodies half sent


_BIG = 40 << 20  # bytes: more than sockets hold


def _big_layer(store: LocalStore, place: Path) -> tuple[bytes, Path]:
    """The bytes and the file of the layer of an image `big`, made."""
    raw = os.urandom(_BIG)
    layer, config = store.content.add(raw), store.content.add(b"{}")
    entry = {"mediaType": mediatype.OCI_LAYER, "digest": str(layer), "size": len(raw)}
    made = {"mediaType": mediatype.OCI_CONFIG, "digest": str(config), "size": 2}
    text = dump({"schemaVersion": 2, "config": made, "layers": [entry]})
    target = Descriptor(mediatype.OCI_MANIFEST, store.content.add(text), len(text))
    store.metadata.set_names(["docker.io/library/big:latest"], target)
    return raw, _blob(place, str(layer))


def _memory(server: RegistryServer) -> int:
    """Resident bytes of the server."""
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError


def _blob(place: Path, digest: str) -> Path:
    return place / "store" / "blobs" / "sha256" / digest.partition(":")[2]
