# SPDX-License-Identifier: Apache-2.0
"""What is flushed when, and what is believed after the host went down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import ChainID, Digest
from lamina.store import LocalStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.unit.store.conftest import Notices

CHAIN = ChainID(Digest.of(b"chain"))


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    done: list[str] = []
    monkeypatch.setattr("lamina.system.mounts.syncfs", done.append)
    return done


def name(store: LocalStore, text: bytes, *, as_name: str) -> None:
    target = Descriptor(mediatype.OCI_MANIFEST, store.content.add(text), len(text))
    store.metadata.set_names([as_name], target)


def go_down(store: LocalStore) -> None:
    """The host restarts: every trace of this boot is of an earlier one."""
    store.close()
    marks = os.path.join(store.root, "unsynced")
    for mark in os.listdir(marks):
        _, dot, rest = mark.partition(".")
        os.rename(os.path.join(marks, mark), os.path.join(marks, f"earlier{dot}{rest}"))
    store.database.write(
        lambda transaction: transaction.run(
            "UPDATE snapshots SET boot = 'earlier' WHERE boot <> ''"
        )
    )


def test_one_flush_covers_all_blobs_before_a_name(store: LocalStore, flushes: list[str]) -> None:
    for number in range(10):
        store.content.add(b"%d" % number)
    assert flushes == []
    name(store, b"manifest", as_name="a")
    assert flushes == [store.root]


def test_nothing_new_needs_no_flush(store: LocalStore, flushes: list[str]) -> None:
    name(store, b"manifest", as_name="a")
    name(store, b"manifest", as_name="b")
    assert len(flushes) == 1
    assert os.listdir(store.root + "/unsynced") == []


def test_blobs_of_a_dead_process_are_flushed_before_they_are_named(
    store: LocalStore, flushes: list[str]
) -> None:
    script = (
        "import os, sys\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from lamina.store import open_store\n"
        "open_store(sys.argv[1]).content.add(b'manifest')\n"
        "os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", script, store.root], check=False)
    name(store, b"manifest", as_name="a")
    assert flushes == [store.root]
    assert os.listdir(store.root + "/unsynced") == []


def test_mark_stays_while_another_live_process_may_be_publishing(
    store: LocalStore, open_again: Callable[[], LocalStore], flushes: list[str]
) -> None:
    other = open_again()
    other.content.add(b"other's")
    name(store, b"manifest", as_name="a")
    name(store, b"later", as_name="b")
    assert len(flushes) == 2
    assert len(os.listdir(store.root + "/unsynced")) == 1


def test_failed_flush_sets_no_name(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("lamina.system.mounts.syncfs", failing)
    with pytest.raises(OSError, match="Input/output"):
        name(store, b"manifest", as_name="a")
    assert store.metadata.list_names() == []


def test_torn_blob_is_removed_when_the_host_went_down(
    store: LocalStore, open_again: Callable[[], LocalStore], notices: Notices
) -> None:
    torn, sound = store.content.add(b"torn"), store.content.add(b"sound")
    os.truncate(store.content.path(torn), 0)
    go_down(store)
    again = open_again()
    assert not again.content.exists(torn)
    assert again.content.exists(sound)
    assert len(notices.messages) == 1
    assert os.listdir(store.root + "/unsynced") == []


def test_blobs_are_not_hashed_again_in_the_same_boot(
    store: LocalStore, open_again: Callable[[], LocalStore]
) -> None:
    torn = store.content.add(b"torn")
    os.truncate(store.content.path(torn), 0)
    assert open_again().content.exists(torn)


@pytest.mark.usefixtures("flushes")
def test_snapshot_not_flushed_before_the_host_went_down_is_not_believed(
    store: LocalStore, open_again: Callable[[], LocalStore]
) -> None:
    store.snapshots.prepare("flushed", None)
    store.snapshots.commit(ChainID(Digest.of(b"flushed")), "flushed")
    name(store, b"manifest", as_name="a")
    upper = store.snapshots.prepare("lost", None).upper
    store.snapshots.commit(CHAIN, "lost")
    go_down(store)
    again = open_again()
    assert again.snapshots.exists(ChainID(Digest.of(b"flushed")))
    assert not again.snapshots.exists(CHAIN)
    again.snapshots.prepare("again", None)
    again.snapshots.commit(CHAIN, "again")
    assert again.snapshots.exists(CHAIN)
    assert not os.path.exists(upper)
