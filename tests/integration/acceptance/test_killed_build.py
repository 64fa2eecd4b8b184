# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a build at random moments leaves a store that works and nothing on the host."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from lamina.store import open_store
from lamina.store.gc import collect
from lamina.testing.busybox import processes_of
from lamina.testing.command import Lamina
from lamina.testing.sample import randomness, rounds
from lamina.testing.waiting import let_pass, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.tool("crun"),
    pytest.mark.tool("busybox"),
    pytest.mark.slow,
    pytest.mark.sampled,
]

DOCKERFILE = """FROM busybox AS one
RUN head -c 3000000 /dev/urandom > /one && echo {stamp}
FROM busybox AS two
RUN sleep 0.3 && head -c 1000000 /dev/urandom > /two
FROM busybox
COPY --from=one /one /
COPY --from=two /two /
COPY . /app
RUN cat /one /two > /both && sleep 0.05
"""


def snapshots_known(root: Path) -> int:
    store = open_store(str(root))
    try:
        return len(list(store.snapshots.walk()))
    finally:
        store.close()


def test_store_survives_kills_at_any_moment(lamina: Lamina) -> None:
    moments = randomness("kills of a build")
    (lamina.cwd / "app.txt").write_text("app")
    lamina("build", "-t", "steady", ".", stdin=b"", check=False)
    (lamina.cwd / "Dockerfile").write_text("FROM busybox\nRUN echo steady > /s\n")
    lamina("build", "-t", "steady", ".")
    steady = lamina.id_of("steady")
    (lamina.cwd / "Dockerfile").write_text(DOCKERFILE.format(stamp="whole"))
    begin = time.monotonic()
    lamina("build", "--no-cache", "-t", "app", ".")
    whole = time.monotonic() - begin
    for number in range(rounds(whole=50, sample=10)):
        (lamina.cwd / "Dockerfile").write_text(DOCKERFILE.format(stamp=number))
        process = subprocess.Popen(
            lamina.argv("build", "--no-cache", "-t", "app", "."),
            env=lamina.env,
            cwd=lamina.cwd,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        let_pass(moments.uniform(0, whole))
        process.kill()
        process.wait()
        # the tag is old or new, and whole either way
        assert lamina(
            "run", "--rm", "--network=none", "app", "sh", "-c", "cat /both | wc -c"
        ).stdout == ("4000000\n")
    assert lamina.id_of("steady") == steady
    lamina("build", "-t", "app", ".")
    wait_until(lambda: not processes_of(str(lamina.root)), "no process of a killed build is left")
    assert str(lamina.root) not in Path("/proc/self/mounts").read_text()
    store = open_store(str(lamina.root))
    # a kill between making a directory and writing its row leaves rubbish that GC removes
    collect(store)
    active = [snapshot.name for snapshot in store.snapshots.walk() if not snapshot.committed]
    directories = {path.name for path in (lamina.root / "snapshots").iterdir()}
    store.close()
    assert len(active) <= 2, "killed builds' snapshots pile up"
    assert len(directories) <= snapshots_known(lamina.root), "directories without a row pile up"
