# SPDX-License-Identifier: Apache-2.0
"""File locks between threads and processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lamina.errors import Cancelled
from lamina.system.locks import FileLock, same_file
from lamina.tasks import CancelToken


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lock")


def test_exclusive_lock_excludes_every_other(path: str) -> None:
    with FileLock(path):
        assert not FileLock(path).try_acquire()
        assert not FileLock(path, shared=True).try_acquire()
    free = FileLock(path)
    assert free.try_acquire()
    free.release()
    free.release()


def test_shared_locks_exclude_only_exclusive_ones(path: str) -> None:
    with FileLock(path, shared=True), FileLock(path, shared=True):
        assert not FileLock(path).try_acquire()


def test_waiting_ends_when_cancelled(path: str) -> None:
    cancel = CancelToken()
    waiter = FileLock(path, cancel=cancel)
    with FileLock(path):
        cancelling = threading.Timer(0.1, cancel.cancel)
        cancelling.start()
        with pytest.raises(Cancelled):
            waiter.acquire()
        cancelling.join()
    with pytest.raises(Cancelled):
        waiter.acquire()


def test_waiter_that_can_be_cancelled_gets_the_lock(path: str) -> None:
    holder, waiter = FileLock(path), FileLock(path, cancel=CancelToken())
    holder.acquire()
    thread = threading.Thread(target=waiter.acquire)
    thread.start()
    holder.release()
    thread.join()
    assert not holder.try_acquire()
    waiter.release()


def test_lock_of_a_killed_process_is_free(path: str) -> None:
    script = (
        f"import os, signal, sys; sys.path[:0] = {sys.path!r}\n"
        "from lamina.system.locks import FileLock\n"
        "FileLock(sys.argv[1]).acquire()\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, path], check=False)
    lock = FileLock(path)
    assert lock.try_acquire()
    lock.release()


def test_lock_is_not_inherited_by_programs(path: str) -> None:
    with FileLock(path) as lock:
        assert not os.get_inheritable(lock.fd)


def test_waiter_locks_the_new_file_when_the_holder_deletes_the_old(path: str) -> None:
    holder, waiter = FileLock(path), FileLock(path)
    holder.acquire()
    thread = threading.Thread(target=waiter.acquire)
    thread.start()
    os.unlink(path)
    holder.release()
    thread.join()
    assert same_file(waiter.fd, path)
    waiter.release()


def test_lock_file_is_not_followed_through_a_link(path: str, tmp_path: Path) -> None:
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(OSError, match="symbolic links"):
        FileLock(path).acquire()
