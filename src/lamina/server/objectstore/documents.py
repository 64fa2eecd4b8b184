# SPDX-License-Identifier: Apache-2.0
"""JSON documents in a bucket that are changed by compare and swap.

A reader gets a parsed document that it must not change; what was read before is parsed again only
if the object has another entity tag. A change runs on a copy of its own, and again if another
process was first, so it must be repeatable. Changes of one key by this process take turns, so that
they lose no races against each other.
"""

from __future__ import annotations

import json
import random
import threading
import time
import zlib
from collections import OrderedDict

from lamina.errors import Kind, LaminaError
from lamina.server.objectstore.bucket import Unchanged
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from lamina.server.objectstore.bucket import Bucket

    T = TypeVar("T")
    Document = dict[str, Any]

EMPTY = 128  # bytes: what is not longer says nothing; listings tell without reading
_CACHE = 32 << 20  # bytes of objects, compressed; parsed they take about eight times that
_STRIPES = 64
_PATIENCE = 30.0  # seconds for which a change is tried again
_LONGEST_PAUSE = 0.4  # seconds


class _Version(Record):
    raw: bytes
    tag: str
    document: Document


_ABSENT = _Version(b"", "", {})


class Documents:
    """The documents of a bucket. `is_empty` says of which nothing but their being is to be kept."""

    def __init__(self, bucket: Bucket, *, is_empty: Callable[[Document], bool]) -> None:
        self._bucket = bucket
        self._is_empty = is_empty
        self._guard = threading.Lock()
        self._cache: OrderedDict[str, _Version] = OrderedDict()
        self._cached = 0
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]

    def read(self, key: str) -> Document:
        """The document, {} if there is none; not to be changed."""
        return self._read(key).document

    def read_if(self, key: str, tag: str) -> Document:
        """The document of the entity tag that a listing gave, without a request if it is known."""
        with self._guard:
            known = self._cache.get(key)
        return known.document if known is not None and known.tag == tag else self.read(key)

    def update(self, key: str, change: Callable[[Document], T]) -> T:
        """What `change` gave for the document that was stored. Nothing is written if it changed
        nothing, or raised.

        Raises:
            LaminaError: kind UNAVAILABLE if other processes were always first.
        """
        deadline = time.monotonic() + _PATIENCE
        pause = 0.01
        with self._stripes[hash(key) % _STRIPES]:
            while True:
                before = self._read(key)
                document = _parse(before.raw)
                result = change(document)
                raw = self._dump(document)
                if raw == before.raw or (not document and not before.raw):
                    return result
                tag = self._bucket.swap(key, raw, expected=before.tag)
                if tag is not None:
                    self._remember(key, _Version(raw, tag, document))
                    return result
                if self._read(key).raw == raw:  # it was done; the answer was lost
                    return result
                if time.monotonic() > deadline:
                    raise LaminaError(
                        f"{key} is changed by others all the time", kind=Kind.UNAVAILABLE
                    )
                time.sleep(random.uniform(0, pause))  # noqa: S311  # to spread them
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _read(self, key: str) -> _Version:
        with self._guard:
            known = self._cache.get(key)
            if known is not None:
                self._cache.move_to_end(key)
        try:
            found = self._bucket.get(key, unless="" if known is None else known.tag)
        except Unchanged:
            assert known is not None
            return known
        if found is None:
            self._remember(key, None)
            return _ABSENT
        version = _Version(found.raw, found.tag, _parse(found.raw))
        self._remember(key, version)
        return version

    def _remember(self, key: str, version: _Version | None) -> None:
        with self._guard:
            old = self._cache.pop(key, None)
            self._cached -= 0 if old is None else len(old.raw)
            if version is None or not version.tag:
                return
            self._cache[key] = version
            self._cached += len(version.raw)
            while self._cached > _CACHE and len(self._cache) > 1:
                _, dropped = self._cache.popitem(last=False)
                self._cached -= len(dropped.raw)

    def _dump(self, document: Document) -> bytes:
        raw = zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 1)
        if self._is_empty(document):
            return raw
        return raw.ljust(EMPTY + 1, b"\0")  # bytes after a zlib stream are no part of it


def _parse(raw: bytes) -> Document:
    if not raw:
        return {}
    try:
        found = json.loads(zlib.decompressobj().decompress(raw))
    except (ValueError, zlib.error) as error:
        raise LaminaError("a document of the registry is damaged", kind=Kind.UNAVAILABLE) from error
    if not isinstance(found, dict):
        raise LaminaError("a document of the registry is damaged", kind=Kind.UNAVAILABLE)
    return found
