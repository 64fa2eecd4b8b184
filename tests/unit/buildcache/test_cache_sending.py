# SPDX-License-Identifier: Apache-2.0
"""Layers of steps that ended travel while the build goes on; documents last."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lamina.buildcache.codec import Remembered
from lamina.buildcache.exporting import CacheExport, DirectoryPlace
from lamina.buildcache.options import CacheTo
from lamina.buildcache.places import read_cache
from lamina.events import silent
from lamina.image.view import Image
from lamina.registry.layout import LayoutEnd
from lamina.spec.digest import Digest
from lamina.store import open_store
from lamina.tasks import CancelToken, Work
from lamina.testing.images import ImageMaker
from lamina.testing.waiting import wait_until


def test_layer_is_sent_before_the_end(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    cache = tmp_path / "cache"
    image = Image.open(store, ImageMaker(store)("one").target)
    stack = image.config().diff_ids
    export = CacheExport(
        CacheTo("local", dest=str(cache)),
        DirectoryPlace(str(cache), "t", time.time),
        store,
        imports=None,
        work=Work(emit=silent, cancel=CancelToken(), clock=time.time),
    )
    with store.lease("test"):
        export.made(stack)
        blob = cache / "blobs" / "sha256" / image.layers()[0].descriptor().digest.hex
        wait_until(blob.exists, "the blob is written")
        assert not (cache / "index.json").exists()
        # what a killed export left long ago goes; what is being written stays
        old, new = blob.with_name("old.new"), blob.with_name("new.new")
        for path in (old, new):
            path.write_bytes(b"")
        os.utime(old, (1, 1))
        DirectoryPlace(str(cache), "t", time.time).sink()
        assert (old.exists(), new.exists()) == (False, True)
        done = export.finish([Remembered(Digest.of(b"k"), stack, "s")], [], frozenset())
    export.close()
    assert (done.records, done.layers, done.sent) == (1, len(stack), 1)
    assert (cache / "index.json").exists()
    store.close()


def test_explanations_are_left_out_of_a_cache_that_would_be_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamina.buildcache.codec.MAX_SIZE", 1000)
    store = open_store(str(tmp_path / "store"))
    export = CacheExport(
        CacheTo("local", dest=str(tmp_path / "cache")),
        DirectoryPlace(str(tmp_path / "cache"), "t", time.time),
        store,
        imports=None,
        work=Work(emit=silent, cancel=CancelToken(), clock=time.time),
    )
    record = Remembered(Digest.of(b"k"), (), "s", tree="x" * 2000)
    with store.lease("test"):
        export.finish([record], [], frozenset())
    export.close()
    layout = LayoutEnd(str(tmp_path / "cache"))
    (found,) = read_cache(layout, layout.find("t"))
    assert [(each.name, each.tree) for each in found.document.records] == [("s", "")]
    store.close()
