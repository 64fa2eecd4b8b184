# SPDX-License-Identifier: Apache-2.0
"""Markers that say what a test needs, bytecode, and stores."""

from __future__ import annotations

import compileall
import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

import lamina
from lamina.start import codecache
from lamina.store import LocalStore, open_store
from lamina.testing import sample
from lamina.testing.command import Lamina
from lamina.testing.once import made_once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest_plugins = ["lamina.testing.skips"]

# a timing never decides a test: on a machine with other work, inputs come slowly
settings.register_profile("lamina", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lamina")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile what changed, once: with PYTHONDONTWRITEBYTECODE each command would, for itself."""
    if not hasattr(session.config, "workerinput"):  # workers of xdist start after this
        compileall.compile_dir(os.path.dirname(lamina.__file__), quiet=2)
        codecache.write()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --ordinary what says that it needs the host's root is left out; that is no skip."""
    if config.getoption("--ordinary"):
        left_out = [item for item in items if item.get_closest_marker("host_root") is not None]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    _order(items, workers=getattr(config, "workerinput", {}).get("workercount", 0))


def _order(items: list[pytest.Item], *, workers: int) -> None:
    """Let slow tests begin early and side by side: xdist gives each worker a run of the tests, and
    what is left over at the end should be small.

    Tests on Debian wait for the one that makes it: the first worker begins with some, the others come
    to theirs when it is there.
    """
    if not workers:
        return
    slow = [item for item in items if item.get_closest_marker("slow") is not None]
    fast = [item for item in items if item.get_closest_marker("slow") is None]
    debian = [item for item in slow if "debian_store" in getattr(item, "fixturenames", ())]
    other = [item for item in slow if item not in debian]
    items.clear()
    for worker in range(workers):
        share = fast[len(fast) * worker // workers : len(fast) * (worker + 1) // workers]
        early = len(share) // 4 if worker else 0
        items += [*other[worker::workers], *share[:early], *debian[worker::workers], *share[early:]]


@pytest.fixture(scope="session")
def busybox_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds `busybox:latest`, unpacked, and knows its runtime; tests copy it."""

    def make(place: Path) -> None:
        lamina = Lamina(place / "store", place)
        epoch = {"SOURCE_DATE_EPOCH": "1700000000"}
        lamina("bootstrap", "busybox", "-t", "busybox:latest", env=epoch)
        # the first container of a store costs three times as much as the next; not all tests run any
        lamina("run", "--rm", "--network=none", "busybox", "true", check=False)

    return made_once(tmp_path_factory, "busybox", make) / "store"


@pytest.fixture(scope="session")
def debian_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with `debian:bookworm` made for the epoch 1700000000; all tests build in it."""

    def make(place: Path) -> None:
        lamina = Lamina(place / "store", place)
        lamina("bootstrap", "debian:bookworm", env={"SOURCE_DATE_EPOCH": "1700000000"})

    made = made_once(tmp_path_factory, "debian", make)
    yield made / "store"
    if not os.environ.get("PYTEST_XDIST_WORKER"):  # it is too large to be kept
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    """An empty store."""
    opened = open_store(str(tmp_path / "store"))
    yield opened
    opened.close()


@pytest.fixture
def other_store(tmp_path: Path) -> Iterator[LocalStore]:
    """Another one, for what goes from store to store."""
    opened = open_store(str(tmp_path / "other"))
    yield opened
    opened.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--ordinary", action="store_true", help="run the commands of tests as an ordinary user"
    )


@pytest.fixture(scope="session", autouse=True)
def _actor(request: pytest.FixtureRequest) -> Iterator[None]:
    """With --ordinary: commands of `lamina.testing` are an ordinary user's, on stores of theirs."""
    if not request.config.getoption("--ordinary"):
        yield
        return
    from lamina.store import local
    from lamina.testing import command
    from lamina.testing.ordinary import OrdinaryActor, OrdinaryUser

    check = local._check_directory
    # root looks into the user's stores
    local._check_directory = lambda root, uid: os.path.isdir(root)
    with OrdinaryUser() as user:
        command.actor = OrdinaryActor(user)
        yield
        command.actor = command.Actor()
    local._check_directory = check


def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = _missing(item)
    if reason is not None:
        pytest.skip(reason)  # a failure where nothing may be skipped: lamina.testing.skips


def _missing(item: pytest.Item) -> str | None:
    if item.get_closest_marker("root") is not None and os.geteuid() != 0:
        return "needs root"
    for marker in item.iter_markers("tool"):
        for name in marker.args:
            if shutil.which(name) is None:
                return f"needs the program {name}"
    if item.get_closest_marker("network") is not None and os.environ.get("LAMINA_OFFLINE"):
        return "needs the network, and LAMINA_OFFLINE is set"
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if sample.SEED and not sample.WHOLE:
        terminalreporter.write_line(f"sampled tests: LAMINA_TEST_SEED={sample.SEED} does the same")
