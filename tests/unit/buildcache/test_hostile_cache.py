# SPDX-License-Identifier: Apache-2.0
"""Documents of cache records that nobody should make are refused, whatever is wrong with them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lamina.buildcache import codec
from lamina.buildcache.codec import CacheDocument, Remembered, decode, encode
from lamina.errors import Kind, LaminaError
from lamina.spec.digest import DiffID, Digest
from lamina.spec.document import DocumentTooLarge

D = f"sha256:{'1' * 64}"


def document(**fields: Any) -> bytes:
    good: dict[str, Any] = {
        "lamina-cache": 1,
        "layers": [[D, D]],
        "results": [[-1, 0]],
        "records": [{"key": D, "result": 0, "name": "n"}],
    }
    return json.dumps(good | fields).encode()


def test_the_sound_one_is_read() -> None:
    found = decode(document())
    assert found.records[0].result == (DiffID(Digest.parse(D)),)


@pytest.mark.parametrize(
    "fields",
    [
        {"layers": {}},
        {"layers": [[D]]},
        {"layers": [[D, "md5:x"]]},
        {"results": [[0, 0]]},  # its own parent
        {"results": [[1, 0], [0, 0]]},  # a cycle
        {"results": [[-1, 1]]},
        {"results": [[-1, -1]]},
        {"results": [[-2, 0]]},
        {"results": [[True, 0]]},
        {"results": [[-1, 0.0]]},
        {"results": "x"},
        {"records": [{"key": D, "result": 1, "name": "n"}]},
        {"records": [{"key": "x", "result": 0, "name": "n"}]},
        {"records": [{"key": D, "result": 0, "name": 3}]},
        {"records": [{"key": D, "result": 0, "tree": []}]},
        {"records": [{"key": D, "result": 0, "created": -1}]},
        {"records": [{"key": D}]},
        {"records": [[]]},
        {"images": [{"reference": "a", "platform": "b", "documents": ["c"]}]},
        {"images": [{"reference": "a", "platform": "b", "documents": ["c", 1]}]},
        {"images": [1]},
        {"lamina-cache": True},
        {"lamina-cache": "1"},
    ],
)
def test_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(LaminaError) as error:
        decode(document(**fields))
    assert error.value.kind is Kind.INVALID


def test_newer_format_is_named() -> None:
    with pytest.raises(LaminaError) as error:
        decode(document(**{"lamina-cache": 2}))
    assert error.value.kind is Kind.UNSUPPORTED


def test_deep_and_wide_results_are_bounded() -> None:
    deep = [[number - 1, 0] for number in range(codec.MAX_DEPTH + 1)]
    with pytest.raises(LaminaError, match="layers"):
        decode(document(results=deep))
    chain = deep[: codec.MAX_DEPTH]
    wide = [*chain, *[[codec.MAX_DEPTH - 2, 0]] * (codec.MAX_EXPANDED // codec.MAX_DEPTH + 1)]
    records = [{"key": D, "result": number} for number in range(codec.MAX_DEPTH, len(wide))]
    with pytest.raises(LaminaError, match=str(codec.MAX_EXPANDED)):
        decode(document(results=wide, records=records))


def test_nested_and_large_json_is_refused() -> None:
    with pytest.raises(LaminaError):
        decode(b'{"lamina-cache":1,"records":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    with pytest.raises(LaminaError, match="larger"):
        decode(b" " * (codec.MAX_SIZE + 1))


def test_result_needs_its_layer() -> None:
    one = Remembered(Digest.parse(D), (DiffID(Digest.parse(D)),), "n")
    with pytest.raises(KeyError):
        encode(CacheDocument((one,)))


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("MAX_LAYERS", 1),
        ("MAX_RECORDS", 1),
        ("MAX_DEPTH", 1),
        ("MAX_EXPANDED", 2),
        ("MAX_SIZE", 300),
    ],
)
def test_what_would_be_refused_is_not_written(
    limit: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = tuple((DiffID(Digest.of(text)), Digest.of(text)) for text in (b"a", b"b"))
    stack = tuple(diff_id for diff_id, _ in layers)
    records = tuple(
        Remembered(Digest.of(part[0].hex.encode()), part, "n") for part in (stack, stack[1:])
    )
    sound = CacheDocument(records, layers)
    assert len(decode(encode(sound)).records) == 2
    monkeypatch.setattr(codec, limit, value)
    with pytest.raises(DocumentTooLarge, match=rf"may have {value}$"):
        encode(sound)


def test_name_of_a_step_is_no_longer_than_is_read() -> None:
    record = Remembered(Digest.of(b"k"), (), "n" * (2 << 20))
    assert decode(encode(CacheDocument((record,)))).records[0].key == record.key
