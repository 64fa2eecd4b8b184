# SPDX-License-Identifier: Apache-2.0
"""Where caches go, and the artifact they go in."""

from __future__ import annotations

import json

import pytest

from lamina.app.cachecopies import CONFIG, Entry, decode, encode, parse_destination
from lamina.app.copying import Place
from lamina.errors import Kind, LaminaError
from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import Digest
from lamina.spec.manifest import Manifest

ENTRIES = [
    Entry("/b", "", Descriptor(mediatype.OCI_LAYER_ZSTD, Digest.of(b"b"), 1)),
    Entry("ns/a", " 1:2 755", Descriptor(mediatype.OCI_LAYER_GZIP, Digest.of(b"a"), 1)),
    Entry("/a", "", Descriptor(mediatype.OCI_LAYER_ZSTD, Digest.of(b"b"), 1)),
]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("/caches", Place("oci", "/caches", "latest")),
        ("./caches", Place("oci", "/cwd/./caches", "latest")),
        ("oci:dir:name", Place("oci", "/cwd/dir", "name")),
        ("oci-archive:f.tar", Place("oci-archive", "/cwd/f.tar", "latest")),
        ("team/caches:main", Place("docker", name="team/caches:main")),
        ("docker://host:5000/c", Place("docker", name="host:5000/c")),
        ("type=local,dest=dir", Place("oci", "/cwd/dir", "latest")),
        ("type=local,src=dir", Place("oci", "/cwd/dir", "latest")),
        ("type=oci,dest=f.tar", Place("oci-archive", "/cwd/f.tar", "latest")),
        ("type=registry,ref=a/b:1", Place("docker", name="a/b:1")),
    ],
)
def test_destinations(text: str, place: Place) -> None:
    assert parse_destination(text, absolute=absolute) == place


def absolute(path: str) -> str:
    return path if path.startswith("/") else f"/cwd/{path}"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("store:x", Kind.UNSUPPORTED),
        ("docker-archive:x", Kind.UNSUPPORTED),
        ("dir:x", Kind.UNSUPPORTED),
        ("type=gha", Kind.UNSUPPORTED),
        ("type=local", Kind.USAGE),
        ("type=local,ref=x", Kind.USAGE),
        ("type=registry,dest=x", Kind.USAGE),
        ("type=local,dest=x,mode=max", Kind.USAGE),
        ("type=local,dest=x,src=y", Kind.USAGE),
        ("a//b", Kind.INVALID),
    ],
)
def test_what_is_no_destination_is_refused(text: str, kind: Kind) -> None:
    with pytest.raises(LaminaError) as caught:
        parse_destination(text, absolute=absolute)
    assert caught.value.kind is kind


def test_an_artifact_does_not_depend_on_the_order() -> None:
    manifest, config = encode(ENTRIES)
    assert encode(list(reversed(ENTRIES))) == (manifest, config)
    assert manifest.config.media_type == CONFIG
    assert sorted(decode(manifest, config), key=str) == sorted(ENTRIES, key=str)


def changed(**fields: object) -> bytes:
    """The config of ENTRIES with other fields."""
    document: dict[str, object] = json.loads(encode(ENTRIES)[1])
    return json.dumps(document | fields).encode()


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        changed(version=2),
        changed(caches=None),
        changed(caches=[1]),
        changed(caches=[]),
        changed(caches=[{"id": "/a", "variant": "", "layer": "x"}] * 3),
    ],
    ids=lambda raw: raw[:30].decode(),
)
def test_a_malformed_config_is_invalid(config: bytes) -> None:
    with pytest.raises(LaminaError) as caught:
        decode(encode(ENTRIES)[0], config)
    assert caught.value.kind is Kind.INVALID


def test_a_cache_that_is_there_twice_or_is_no_layer_is_invalid() -> None:
    twice, config = encode([ENTRIES[0], ENTRIES[0]])
    with pytest.raises(LaminaError, match="twice"):
        decode(twice, config)
    other = Entry("/a", "", Descriptor("text/plain", Digest.of(b"a"), 1))
    with pytest.raises(LaminaError, match="text/plain"):
        decode(*encode([other]))
    manifest: Manifest = encode(ENTRIES)[0]
    assert [layer.size for layer in manifest.layers] == [1, 1, 1]
