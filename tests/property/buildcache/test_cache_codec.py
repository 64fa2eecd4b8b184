# SPDX-License-Identifier: Apache-2.0
"""The document of cache records: decoding gives back what was encoded; bytes give a value or an error."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.buildcache.codec import (
    BaseImage,
    CacheDocument,
    Remembered,
    decode,
    encode,
    encode_inline,
)
from lamina.errors import LaminaError
from lamina.spec.digest import DiffID, Digest, Stack

digests = st.binary(min_size=1, max_size=2).map(Digest.of)
diff_ids = digests.map(DiffID)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
records = st.builds(
    Remembered,
    digests,
    st.lists(diff_ids, max_size=5).map(tuple),
    texts,
    texts,
    st.integers(0, 2**33).map(float),
)
images = st.builds(BaseImage, texts, texts, st.lists(texts, min_size=2, max_size=4).map(tuple))


@st.composite
def documents(draw: st.DrawFn) -> CacheDocument:
    rows = draw(st.lists(records, max_size=8, unique_by=lambda row: row.key))
    needed = {diff_id for row in rows for diff_id in row.result}
    layers = tuple((diff_id, draw(digests)) for diff_id in sorted(needed, key=str))
    bases = draw(st.lists(images, max_size=3, unique_by=lambda i: (i.reference, i.platform)))
    return CacheDocument(tuple(rows), layers, tuple(bases))


def _sorted(document: CacheDocument) -> CacheDocument:
    return CacheDocument(
        tuple(sorted(document.records, key=lambda row: str(row.key))),
        tuple(sorted(document.layers, key=lambda pair: str(pair[0]))),
        tuple(sorted(document.images, key=lambda i: (i.reference, i.platform))),
    )


@settings(deadline=None)
@given(documents())
def test_decode_gives_back_what_was_encoded(document: CacheDocument) -> None:
    assert _sorted(decode(encode(document))) == _sorted(document)


@settings(deadline=None)
@given(documents(), st.randoms(use_true_random=False))
def test_order_does_not_count(document: CacheDocument, random: st.DataObject) -> None:
    shuffled = list(document.records)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # it is a random.Random
    again = CacheDocument(tuple(shuffled), document.layers[::-1], document.images[::-1])
    assert encode(again) == encode(document)


@settings(deadline=None)
@given(st.lists(diff_ids, unique=True, max_size=6).map(tuple), st.data())
def test_inline_records_are_of_the_image(stack: Stack, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, len(stack)), max_size=5))
    rows = [Remembered(Digest.of(bytes([n])), stack[:k], "s") for n, k in enumerate(lengths)]
    found = decode(encode_inline(rows, stack).encode(), stack=stack)
    assert {row.key: row.result for row in found.records} == {r.key: r.result for r in rows}
    assert found.layers == ()


scalars = st.none() | st.booleans() | st.integers() | texts | digests.map(str)
trees = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner))


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {"lamina-cache": st.just(1) | scalars},
        optional=dict.fromkeys(("layers", "results", "records", "images"), trees),
    )
)
def test_any_document_gives_a_value_or_an_error(document: dict[str, object]) -> None:
    try:
        decode(json.dumps(document).encode())
    except LaminaError:
        return
