# SPDX-License-Identifier: Apache-2.0
"""A COPY below a RUN: the layer's snapshot is made while its blob is written, not afterwards."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lamina.errors import Kind, LaminaError
from lamina.events import Phase, Progress
from lamina.image.newlayer import NewLayer
from lamina.spec.identity import chain_id
from lamina.tasks import CancelToken

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Site  # type: ignore[import-not-found]  # found by pytest
    from lamina.spec.digest import Stack

pytestmark = [pytest.mark.root, pytest.mark.tool("crun"), pytest.mark.tool("busybox")]


def unpacked(site: Site) -> set[object]:
    """The layers that were unpacked from blobs, by their blob."""
    return {
        event.subject
        for event in site.events
        if isinstance(event, Progress) and event.phase is Phase.UNPACKING
    }


def has_snapshot(site: Site, stack: Stack) -> bool:
    chain = chain_id(stack)
    assert chain is not None
    found: bool = site.store.snapshots.exists(chain)
    return found


def filled(context: Path) -> None:
    (context / "d" / "e").mkdir(parents=True)
    (context / "d" / "e" / "f").write_text("f\n")
    (context / "d" / "tool").write_text("#!/bin/sh\n")
    (context / "d" / "tool").chmod(0o4750)
    os.link(context / "d" / "tool", context / "d" / "again")
    (context / "d" / "link").symlink_to("e/f")
    (context / "large").write_bytes(os.urandom(3 << 20))


def test_a_row_of_copies_below_a_run_unpacks_the_base_alone(site: Site) -> None:
    filled(site.context)
    first = site.copy("d", to="/srv/link/")
    second = site.copy("large", to="/srv/real/e/", base=first)
    script = (
        "cat /srv/link/link /srv/real/again && stat -c '%a %h' /srv/real/tool && ls /srv/real/e"
    )
    last = site.run(script, second)
    solved = site.solve(last, first, second)
    assert site.output(last) == b"f\n#!/bin/sh\n4750 2\nf\nlarge\n"
    assert len(unpacked(site)) == 1
    (stack,) = solved.outputs
    assert site.read(stack, "/srv/real/e/large") == (site.context / "large").read_bytes()


def test_the_snapshot_is_what_unpacking_the_blob_makes(site: Site) -> None:
    filled(site.context)
    copied = site.copy(".", to="/srv/link/x/")
    show = "cd /srv/real && ls -lRn --full-time && cat x/d/e/f"
    step = site.run(show, copied)
    stack = site.solve(step, copied).outputs[0]
    composed = site.output(step)
    for below in (stack, stack[:2]):
        site.store.snapshots.remove(str(chain_id(below)))
    assert b"x/d/e:" in composed
    again = site.run(show + " && true", copied)
    site.solve(again, copied)  # the COPY is cached: only its blob is there
    assert len(unpacked(site)) == 1
    assert site.output(again) == composed


def test_copy_without_a_run_makes_no_snapshot(site: Site) -> None:
    filled(site.context)
    solved = site.solve(site.copy("d", to="/x/"))
    assert not has_snapshot(site, solved.outputs[0])


def test_file_that_changed_leaves_neither_snapshot_nor_record(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(site.context)
    copied = site.copy("d", to="/x/")
    step = site.run("true", copied)
    answers = iter([True, False])  # the second file has changed, the first is placed
    monkeypatch.setattr("lamina.builder.copying.is_same", lambda *_: next(answers))
    with pytest.raises(LaminaError, match="changed while the build was reading it") as caught:
        site.solve(step, copied)
    assert caught.value.kind is Kind.CONFLICT
    assert all(snapshot.committed for snapshot in site.store.snapshots.walk())
    monkeypatch.undo()
    assert site.solve(step, copied).ran == 2


def test_layer_that_is_not_committed_leaves_nothing(site: Site) -> None:
    solved = site.solve(site.run("true"))
    base = solved.outputs[0][:1]
    with site.store.lease("test"), NewLayer(site.store, base) as new:
        new.create((), lambda _: None, compression="uncompressed", level=None, cancel=CancelToken())
    assert all(snapshot.committed for snapshot in site.store.snapshots.walk())
