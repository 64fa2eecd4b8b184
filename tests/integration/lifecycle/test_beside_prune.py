# SPDX-License-Identifier: Apache-2.0
"""`run` while another process prunes: at every step between the record and the running container."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from lamina.app import containers
from lamina.app.disk import PruneFilter, prune_containers
from lamina.container import lifecycle
from lamina.store import LocalStore, open_store
from lamina.testing.busybox import Lamina


def prune(root: str) -> tuple[str, ...]:
    """What `container prune` of another process removes."""
    store = open_store(root)
    try:
        return prune_containers(store, containers.Host(), wanted=PruneFilter()).lines
    finally:
        store.close()


def before(target: object, name: str, root: str, patch: pytest.MonkeyPatch) -> list[object]:
    """Prune before each call of the function; what was removed."""
    real = getattr(target, name)
    pruned: list[object] = []

    def call(*args: Any, **options: Any) -> Any:
        pruned.append(prune(root))
        return real(*args, **options)

    patch.setattr(target, name, call)
    return pruned


@pytest.fixture
def store(lamina: Lamina) -> LocalStore:
    return open_store(lamina.root)


@pytest.mark.host_root("this process opens the store")
@pytest.mark.parametrize("moment", ["record", "snapshot", "start"])
def test_container_that_is_about_to_start_is_not_pruned(
    lamina: Lamina, store: LocalStore, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    target, name = {
        "record": (store.documents, "insert"),
        "snapshot": (store.snapshots, "prepare"),
        "start": (lifecycle, "start"),
    }[moment]
    pruned = before(target, name, lamina.root, monkeypatch)
    container = containers.run(store, "bb", ["echo", "ran"])
    monkeypatch.undo()
    assert container.wait() == 0
    assert container.output() == b"ran\n"
    assert pruned
    assert set(pruned) == {()}
    assert prune(lamina.root) == (container.id,)
    store.close()


@pytest.mark.host_root("this process opens the store")
def test_container_whose_creator_died_is_pruned(lamina: Lamina, store: LocalStore) -> None:
    """The lock ends with the process; a directory without a record is what a kill may leave."""
    script = (
        "import os, sys; from lamina.store import open_store; from lamina.app import containers\n"
        "from lamina.app.run_options import RunOptions; from lamina.events import silent\n"
        "from lamina.tasks import CancelToken, Work\n"
        "work = Work(silent, CancelToken(), lambda: 0.0)\n"
        "made = containers.create(open_store(sys.argv[1]), 'bb', RunOptions(), work=work)\n"
        "print(made.id, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, lamina.root],
        env=lamina.env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.mkdir(f"{lamina.root}/containers/{'5' * 64}")
    assert prune(lamina.root) == (done.stdout.strip(),)
    assert lamina.directories() == []
    store.close()


def test_stray_directory_that_somebody_holds_stays(lamina: Lamina, store: LocalStore) -> None:
    from lamina.container import state

    stray = f"{lamina.root}/containers/{'5' * 64}"
    os.mkdir(stray)
    lock = state.acquire(stray)
    assert lock is not None
    assert prune(lamina.root) == ()
    assert lamina.directories() == ["5" * 64]
    os.close(lock)
    assert prune(lamina.root) == ()
    assert lamina.directories() == []
    store.close()
