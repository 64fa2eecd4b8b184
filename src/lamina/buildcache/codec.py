# SPDX-License-Identifier: Apache-2.0
"""The document of cache records: bytes <-> `CacheDocument`. Pure; what is read is not trusted.

    {"lamina-cache": 1,
     "layers":  [[diffID, digest], ...],       blobs that the manifest lists beside the document
     "results": [[parent, layer], ...],        a stack: the one before it (-1: none) and a layer
     "records": [{"key", "result", "name", "tree", "created"}, ...],    result -1: no layers
     "images":  [{"reference", "platform", "documents": [root, ..., config]}, ...]}

A result names an earlier one as its parent, so there are no cycles. The documents of a base image
are its own bytes, from what its name points to down to its config: each is in the one before by
its digest. Inside an image (`type=inline`) there are no `layers`: those of the image are meant.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.spec.digest import DiffID, Digest, Stack
from lamina.spec.document import DocumentTooLarge, dump, dump_bounded, parse_object
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


FORMAT = 1
CONFIG_TYPE = "application/vnd.lamina.buildcache.config.v1+json"
ARTIFACT_TYPE = "application/vnd.lamina.buildcache.v1"
INLINE_FIELD = "lamina.buildcache.v1"
MAX_SIZE = 64 << 20  # bytes of a document
MAX_RECORDS = 100_000
MAX_LAYERS = 9_000  # a manifest lists 10,000 blobs at most
MAX_DEPTH = 1_000  # layers of one result; overlayfs takes 500
MAX_EXPANDED = 2_000_000  # layers of all records' results together
_MAX_TEXT = 1 << 20  # of a name or reference
_FIELD = "lamina-cache"


class InvalidCache(LaminaError):
    kind = Kind.INVALID


class Remembered(Record):
    """One record: `tree` is the key as JSON text (empty: left out), `created` POSIX seconds."""

    key: Digest
    result: Stack
    name: str
    tree: str = ""
    created: float = 0.0


class BaseImage(Record):
    """What a base image's name meant: `documents` lead from what it points to down to its config."""

    reference: str
    platform: str
    documents: tuple[str, ...]


class CacheDocument(Record):
    """All that one cache says. `layers` has the blob of each diffID."""

    records: tuple[Remembered, ...]
    layers: tuple[tuple[DiffID, Digest], ...] = ()
    images: tuple[BaseImage, ...] = ()


def encode(document: CacheDocument) -> bytes:
    """The bytes; the same content gives the same ones. Every layer of a result must be listed.

    Raises:
        DocumentTooLarge: it has more than `decode` takes, of bytes or of anything else.
    """
    layers = sorted(document.layers, key=lambda pair: str(pair[0]))
    _check("layers", len(layers), MAX_LAYERS)
    positions = {diff_id: position for position, (diff_id, _) in enumerate(layers)}
    rows = [[str(diff_id), str(digest)] for diff_id, digest in layers]
    body = {_FIELD: FORMAT, "layers": rows, **_body(document, positions)}
    return dump_bounded(body, what="cache", limit=MAX_SIZE)


def encode_inline(records: Sequence[Remembered], stack: Stack) -> str:
    """The JSON text that goes into the config of an image with these layers."""
    positions = {diff_id: position for position, diff_id in enumerate(stack)}
    bare = tuple(Remembered(each.key, each.result, each.name) for each in records)
    return dump({_FIELD: FORMAT, **_body(CacheDocument(bare), positions)}).decode()


def _body(document: CacheDocument, positions: dict[DiffID, int]) -> dict[str, object]:
    results: dict[Stack, int] = {(): -1}
    rows: list[list[int]] = []
    records: list[dict[str, object]] = []
    for each in sorted(document.records, key=lambda each: (len(each.result), str(each.key))):
        for depth in range(1, len(each.result) + 1):
            stack = each.result[:depth]
            if stack not in results:
                results[stack] = len(rows)
                rows.append([results[stack[:-1]], positions[stack[-1]]])
        row: dict[str, object] = {
            "key": str(each.key),
            "result": results[each.result],
            "name": each.name[:_MAX_TEXT],
        }
        if each.tree:
            row["tree"] = each.tree
        if each.created:
            row["created"] = int(each.created)
        records.append(row)
    _check("records", len(records), MAX_RECORDS)
    _check("results", len(rows), MAX_RECORDS)
    _check("images", len(document.images), MAX_RECORDS)
    lengths = [len(stack) for stack in {each.result for each in document.records}]
    _check("layers of one result", max(lengths, default=0), MAX_DEPTH)
    _check("layers of all results", sum(lengths), MAX_EXPANDED)
    body: dict[str, object] = {"results": rows, "records": records}
    if document.images:
        body["images"] = [
            {"reference": i.reference, "platform": i.platform, "documents": list(i.documents)}
            for i in sorted(document.images, key=lambda i: (i.reference, i.platform))
        ]
    return body


def _check(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise DocumentTooLarge(f"the cache would have {count} {what}, and may have {limit}")


def decode(raw: bytes, *, stack: Stack | None = None) -> CacheDocument:
    """What the bytes say; `stack` are the layers of the image that they were found in.

    Raises:
        LaminaError: kind INVALID for anything that `encode` does not make; UNSUPPORTED for a
            newer format.
    """
    document = parse_object(raw, what="cache", limit=MAX_SIZE)
    version = document.get(_FIELD)
    if isinstance(version, bool) or not isinstance(version, int):
        raise InvalidCache("it does not hold lamina's cache records")
    if version != FORMAT:
        raise InvalidCache(
            f"the cache has format {version}, this lamina knows {FORMAT}", kind=Kind.UNSUPPORTED
        )
    layers = _layers(document) if stack is None else ()
    diff_ids = tuple(diff_id for diff_id, _ in layers) if stack is None else stack
    stacks = _stacks(document, diff_ids)
    expanded = _Expanded(stacks)
    records = [_record(row, expanded) for row in _list(document, "records", MAX_RECORDS)]
    images = [_image(row) for row in _list(document, "images", MAX_RECORDS)]
    return CacheDocument(tuple(records), layers, tuple(images))


def _layers(document: dict[str, object]) -> tuple[tuple[DiffID, Digest], ...]:
    found = []
    for row in _list(document, "layers", MAX_LAYERS):
        if not isinstance(row, list) or len(row) != 2:
            raise InvalidCache("invalid cache: a layer is not a pair")
        diff_id, digest = (Digest.parse(_text(part, "layer")) for part in row)
        found.append((DiffID(diff_id), digest))
    return tuple(found)


def _stacks(document: dict[str, object], diff_ids: Stack) -> list[tuple[int, DiffID, int]]:
    """(parent, layer, depth) of each result: expanded only when a record needs it."""
    found: list[tuple[int, DiffID, int]] = []
    for row in _list(document, "results", MAX_RECORDS):
        if not isinstance(row, list) or len(row) != 2:
            raise InvalidCache("invalid cache: a result is not a pair")
        parent = _number(row[0], -1, len(found), "parent of a result")
        layer = diff_ids[_number(row[1], 0, len(diff_ids), "layer of a result")]
        depth = 1 + (found[parent][2] if parent >= 0 else 0)
        if depth > MAX_DEPTH:
            raise InvalidCache(f"invalid cache: a result of more than {MAX_DEPTH} layers")
        found.append((parent, layer, depth))
    return found


class _Expanded:
    """Results as stacks, each made once; together they are bounded."""

    def __init__(self, rows: list[tuple[int, DiffID, int]]) -> None:
        self._rows = rows
        self._known: dict[int, Stack] = {-1: ()}
        self._left = MAX_EXPANDED

    def __call__(self, value: object) -> Stack:
        at = number = _number(value, -1, len(self._rows), "result of a record")
        known = self._known.get(number)
        if known is not None:
            return known
        self._left -= self._rows[number][2]
        if self._left < 0:
            raise InvalidCache(f"invalid cache: results of more than {MAX_EXPANDED} layers")
        result: list[DiffID] = []
        while at >= 0:
            at, layer, _ = self._rows[at]
            result.append(layer)
        self._known[number] = stack = tuple(reversed(result))
        return stack


def _record(row: object, expanded: _Expanded) -> Remembered:
    if not isinstance(row, dict):
        raise InvalidCache("invalid cache: a record is not an object")
    created = row.get("created", 0)
    return Remembered(
        Digest.parse(_text(row.get("key"), "key")),
        expanded(row.get("result")),
        _text(row.get("name", ""), "name"),
        _text(row.get("tree", ""), "tree", limit=MAX_SIZE),
        float(_number(created, 0, 1 << 40, "time of a record")),
    )


def _image(row: object) -> BaseImage:
    if not isinstance(row, dict):
        raise InvalidCache("invalid cache: an image is not an object")
    documents = row.get("documents")
    if not isinstance(documents, list) or not 2 <= len(documents) <= 8:
        raise InvalidCache("invalid cache: an image without its documents")
    return BaseImage(
        _text(row.get("reference"), "reference"),
        _text(row.get("platform"), "platform"),
        tuple(_text(each, "document", limit=MAX_SIZE) for each in documents),
    )


def _list(document: dict[str, object], field: str, limit: int) -> list[object]:
    value = document.get(field, [])
    if not isinstance(value, list) or len(value) > limit:
        raise InvalidCache(f"invalid cache: {field} is not a list of at most {limit}")
    return value


def _text(value: object, what: str, *, limit: int = _MAX_TEXT) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise InvalidCache(f"invalid cache: {what} is not a text")
    return value


def _number(value: object, low: int, high: int, what: str) -> int:
    """`value` if it is a number in [low, high)."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < high:
        raise InvalidCache(f"invalid cache: {what} is {value!r}"[:200])
    return value
