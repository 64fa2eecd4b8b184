# SPDX-License-Identifier: Apache-2.0
"""Digests, descriptors, manifests, configs: what is read, kept and refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest

from lamina.errors import Kind, LaminaError
from lamina.spec import mediatype
from lamina.spec.config import Healthcheck, ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import DiffID, Digest
from lamina.spec.document import MAX_DOCUMENT, DocumentTooLarge, parse_object
from lamina.spec.identity import chain_id, chain_ids
from lamina.spec.manifest import Index, Manifest, children

CONFIG = Descriptor.of(mediatype.OCI_CONFIG, b"{}")
LAYER = Descriptor.of(mediatype.OCI_LAYER_GZIP, b"layer")


def test_digest_is_of_the_bytes() -> None:
    assert str(Digest.of(b"x")) == "sha256:" + hashlib.sha256(b"x").hexdigest()
    assert str(Digest.of(b"x", algorithm="sha512")) == "sha512:" + hashlib.sha512(b"x").hexdigest()
    assert Digest.parse(str(Digest.of(b"x"))) == Digest.of(b"x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:" + "g" * 64,
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "md5:" + "a" * 32,
        "SHA256:" + "a" * 64,
        "sha512:" + "a" * 64,
        "sha256:" + "a" * 64 + "\n",
        "sha256:../../../../etc/passwd",
        "sha256:" + "١" * 64,
    ],
)
def test_malformed_digests_are_refused(text: str) -> None:
    with pytest.raises(LaminaError) as caught:
        Digest.parse(text)
    assert caught.value.kind is Kind.INVALID


def test_chain_id_folds_the_stack() -> None:
    one, two = DiffID(Digest.of(b"1")), DiffID(Digest.of(b"2"))
    folded = Digest.of(f"{one} {two}".encode())
    assert [*map(str, chain_ids([one, two]))] == [str(one), str(folded)]
    assert str(chain_id([one, two])) == str(folded)
    assert chain_id([]) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"nul",
        b'{"a":',
        b"\xff\xfe{\x00}\x00",
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":"\\ud800"}',
        b"[" * 100000,
        b'{"a":' * 100 + b"1" + b"}" * 100,
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"9" * 5000 + b"}",
        b" " * (4 * 1024 * 1024 + 1),
    ],
)
def test_malformed_json_is_one_invalid_error(raw: bytes) -> None:
    with pytest.raises(LaminaError) as caught:
        parse_object(raw, what="thing")
    assert caught.value.kind is Kind.INVALID


def test_config_keeps_fields_it_does_not_know() -> None:
    raw = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "os.features": ["a"],
            "vendor": {"x": 1.5, "y": "\u00fc"},
            "config": {
                "Domainname": "d",
                "Env": ["A=1", "B=2", "A=3"],
                "Healthcheck": {"Retries": 2},
            },
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"1"))]},
            "history": [{"created_by": "x", "empty_layer": True}],
        }
    ).encode()
    config = ImageConfig.parse(raw)
    assert config.config.env == (("A", "3"), ("B", "2"))
    assert config.config.healthcheck == Healthcheck(retries=2)
    written = json.loads(config.serialise())
    assert written["vendor"] == {"x": 1.5, "y": "\u00fc"}
    assert written["os.features"] == ["a"]
    assert written["config"]["Domainname"] == "d"
    assert ImageConfig.parse(config.serialise()) == config


def test_empty_entrypoint_is_not_an_unset_one() -> None:
    config = ImageConfig.parse(b'{"os":"linux","architecture":"amd64","config":{"Cmd":[]}}').config
    assert config.cmd == ()
    assert config.entrypoint is None


@pytest.mark.parametrize(
    "body",
    [
        {"rootfs": {"type": "windows"}},
        {"rootfs": {"diff_ids": "x"}},
        {"rootfs": {"diff_ids": ["sha256:0"]}},
        {"config": []},
        {"config": {"Env": [1]}},
        {"config": {"Labels": {"a": 1}}},
        {"config": {"User": 0}},
        {"config": {"Healthcheck": {"Retries": True}}},
        {"history": [1]},
        {"history": {}},
        {"created": 5},
    ],
)
def test_config_fields_of_the_wrong_type_are_refused(body: dict[str, object]) -> None:
    with pytest.raises(LaminaError) as caught:
        ImageConfig.parse(json.dumps(body).encode())
    assert caught.value.kind is Kind.INVALID


def test_manifest_round_trip_and_children_leaves_first() -> None:
    manifest = Manifest.make(CONFIG, [LAYER, LAYER], annotations=[("b", "2"), ("a", "1")])
    again = Manifest.parse(manifest.raw, media_type=mediatype.OCI_MANIFEST)
    assert again == manifest
    assert manifest.annotations == (("a", "1"), ("b", "2"))
    assert children(manifest.media_type, manifest.raw) == (LAYER, LAYER, CONFIG)
    index = Index.make([manifest.descriptor()])
    assert children(index.media_type, index.raw) == (manifest.descriptor(),)
    assert children(mediatype.OCI_LAYER, b"anything") == ()


@pytest.mark.parametrize(
    "change",
    [
        {"schemaVersion": 1},
        {"mediaType": mediatype.OCI_INDEX},
        {"mediaType": "text/plain"},
        {"mediaType": 1},
        {"manifests": []},
        {"layers": {}},
        {"layers": [{"mediaType": "x", "digest": str(Digest.of(b"")), "size": -1}]},
        {"layers": [{"mediaType": "x", "digest": str(Digest.of(b"")), "size": True}]},
        {"layers": [{"mediaType": "x", "digest": "sha256:x", "size": 1}]},
        {"layers": [3]},
        {"layers": [LAYER.to_json()] * 10_001},
        {"config": None},
        {"annotations": {"a": 1}},
    ],
)
def test_malformed_manifests_are_refused(change: dict[str, object]) -> None:
    document = json.loads(Manifest.make(CONFIG, [LAYER]).raw) | change
    with pytest.raises(LaminaError) as caught:
        Manifest.parse(json.dumps(document).encode())
    assert caught.value.kind is Kind.INVALID


def test_a_declared_media_type_must_agree_with_the_document() -> None:
    raw = Manifest.make(CONFIG, []).raw
    with pytest.raises(LaminaError):
        Manifest.parse(raw, media_type=mediatype.DOCKER_MANIFEST)


@pytest.mark.parametrize(
    "make",
    [
        lambda text: ImageConfig("amd64", "linux", author=text).serialise(),
        lambda text: Manifest.make(CONFIG, [LAYER], annotations=[("a", text)]),
        lambda text: Index.make([CONFIG], annotations=[("a", text)]),
    ],
)
def test_documents_are_as_large_as_can_be_read_and_no_larger(make: Callable[[str], object]) -> None:
    make("x" * (MAX_DOCUMENT - 1000))
    with pytest.raises(DocumentTooLarge) as caught:
        make("x" * MAX_DOCUMENT)
    assert caught.value.kind is Kind.INVALID
    assert str(MAX_DOCUMENT) in str(caught.value)
