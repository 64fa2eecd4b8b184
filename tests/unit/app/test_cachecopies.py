# SPDX-License-Identifier: Apache-2.0
"""The artifact in which caches travel."""

from __future__ import annotations

import json

import pytest

from lamina.app.cachecopies import CONFIG, Entry, decode, encode
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
