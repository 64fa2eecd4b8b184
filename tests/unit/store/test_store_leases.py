# SPDX-License-Identifier: Apache-2.0
"""Leases: who is alive, since when, and what using something under one does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable

from lamina.spec.digest import ChainID, Digest
from lamina.store import LocalStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.unit.store.conftest import Clock


def test_lease_lasts_as_long_as_its_block(
    store: LocalStore, open_again: Callable[[], LocalStore], clock: Clock
) -> None:
    watcher = open_again()
    began = clock.now
    with store.lease("build"):
        clock.advance(5)
        assert _in_thread(watcher.leases.oldest) == began
    assert _in_thread(watcher.leases.oldest) is None
    assert os.listdir(store.leases.directory) == []


def test_oldest_of_several_leases_counts(store: LocalStore, clock: Clock) -> None:
    began = clock.now
    with store.lease("first"):
        clock.advance(5)
        with store.lease("second"):
            assert _in_thread(store.leases.oldest) == began


def test_own_lease_does_not_hold_the_caller_back(store: LocalStore) -> None:
    with store.lease("prune"):
        assert store.leases.oldest() is None


def test_lease_of_a_killed_process_is_dead_and_its_file_removed(store: LocalStore) -> None:
    script = (
        "import os, signal, sys\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from lamina.store import open_store\n"
        "with open_store(sys.argv[1]).lease('build'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, store.root], check=False)
    assert len(os.listdir(store.leases.directory)) == 1
    assert store.leases.oldest() is None
    assert os.listdir(store.leases.directory) == []


def test_lease_that_cannot_be_read_yet_holds_everything_back(
    store: LocalStore, open_again: Callable[[], LocalStore]
) -> None:
    watcher = open_again()
    with store.lease("build"):
        (name,) = os.listdir(store.leases.directory)
        os.truncate(os.path.join(store.leases.directory, name), 0)
        assert _in_thread(watcher.leases.oldest) == 0.0


def test_using_an_old_blob_under_a_lease_notes_the_use(store: LocalStore, clock: Clock) -> None:
    digest = store.content.add(b"old")
    made = clock.now
    clock.advance(100)
    assert store.content.exists(digest)
    assert os.stat(store.content.path(digest)).st_atime == made
    with store.lease("build"):
        assert store.content.exists(digest)
    found = os.stat(store.content.path(digest))
    assert (found.st_mtime, found.st_atime) == (made, clock.now)


def test_clock_set_back_does_not_make_a_use_look_old(store: LocalStore, clock: Clock) -> None:
    digest = store.content.add(b"old")
    clock.advance(100)
    began = clock.now
    with store.lease("build"):
        clock.advance(-1000)
        store.content.exists(digest)
        fresh = store.content.add(b"fresh")
    for each in (digest, fresh):
        assert os.stat(store.content.path(each)).st_atime >= began


def test_using_an_old_snapshot_under_a_lease_notes_the_use(store: LocalStore, clock: Clock) -> None:
    chain = ChainID(Digest.of(b"chain"))
    store.snapshots.prepare("key", None)
    store.snapshots.commit(chain, "key")
    clock.advance(100)
    with store.lease("build"):
        assert store.snapshots.exists(chain)
    assert store.database.read("SELECT used FROM snapshots") == [(clock.now,)]


def _in_thread(function: Callable[[], float | None]) -> float | None:
    """What another thread, which holds no lease, sees."""
    found: list[float | None] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]
