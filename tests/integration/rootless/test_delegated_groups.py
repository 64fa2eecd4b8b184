# SPDX-License-Identifier: Apache-2.0
"""Control groups of an ordinary user's containers, beneath one that root has given to the user."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from lamina.testing.ordinary import UID, OrdinaryLamina, OrdinaryUser
from lamina.testing.skips import host_lacks
from lamina.testing.waiting import wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.tool("crun", "busybox", "newuidmap")]

# a process of the user's whose mount namespace has control groups v2 only, whatever the host has
V2_ONLY = 'umount -lR /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'


class Delegated(OrdinaryLamina):
    """`lamina` run in the group `work` of a group that is the user's."""

    group: Path

    def argv(self, *words: str) -> list[str]:
        inner = super().argv(*words)
        at = inner.index("--") + 1
        enter = f'echo $$ > {self.group}/work/cgroup.procs && exec "$@"'
        return [
            *("sh", "-c", enter, "sh", *inner[:at]),
            *("unshare", "-m", "sh", "-c", V2_ONLY, "sh", *inner[at:]),
        ]

    def groups(self) -> set[str]:
        """The groups of containers."""
        return {entry.name for entry in self.group.iterdir() if entry.is_dir()} - {"work"}


@pytest.fixture
def delegated(
    user: OrdinaryUser, lamina: OrdinaryLamina, request: pytest.FixtureRequest
) -> Iterator[Delegated]:
    mount = next((m for m in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if _is_v2(m)), None)
    if mount is None:
        host_lacks("a mount of control groups v2")
    made = Delegated(user, lamina.root.name)
    made.directory = lamina.directory
    made.group = Path(mount, f"lamina-test-{os.getpid()}-{abs(hash(request.node.name))}")
    for path in (made.group, made.group / "work"):
        path.mkdir()
        for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(path / name, UID, UID)
    try:
        yield made
        for id in made("ps", "-aq").stdout.split():
            made("rm", "-f", id)
        assert made.groups() == set()
    finally:
        wait_until(lambda: (made.group / "work/cgroup.procs").read_text() == "")
        (made.group / "work").rmdir()
        made.group.rmdir()


def _is_v2(mount: str) -> bool:
    return os.path.exists(f"{mount}/cgroup.subtree_control")


def test_container_has_a_group_of_its_own_beneath_the_delegated_one(delegated: Delegated) -> None:
    assert f"in the delegated /{delegated.group.name}" in delegated("info").stdout
    id = delegated("run", "-d", "--name", "it", "busybox", "sleep", "600").stdout.strip()
    assert delegated.groups() == {id}
    assert len((delegated.group / id / "cgroup.procs").read_text().split()) == 1
    delegated("exec", "-d", "it", "sleep", "601")
    assert len((delegated.group / id / "cgroup.procs").read_text().split()) == 2
    delegated("kill", "it")
    assert delegated.groups() == set()


def test_it_can_be_paused_and_see_the_hosts_processes(delegated: Delegated) -> None:
    delegated("run", "-d", "--name", "it", "--pid=host", "busybox", "sleep", "600")
    delegated("pause", "it")
    assert "(Paused)" in delegated("ps").stdout
    delegated("unpause", "it")
    delegated("kill", "it")
    assert delegated.groups() == set()


def test_limit_is_enforced_if_its_controller_was_delegated_else_refused(
    delegated: Delegated,
) -> None:
    done = delegated("run", "--rm", "-m", "64m", "busybox", "true", check=False)
    if "memory" in (delegated.group / "cgroup.controllers").read_text().split():
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 125
        assert "--memory cannot be enforced" in done.stderr
    assert delegated.groups() == set()


def test_killed_monitor_leaves_a_group_that_rm_removes(delegated: Delegated) -> None:
    id = delegated("run", "-d", "--name", "it", "busybox", "sleep", "600").stdout.strip()
    state = json.loads((delegated.store_seen / "containers" / id / "state.json").read_text())
    os.kill(state["monitor_pid"], signal.SIGKILL)
    wait_until(lambda: "orphaned" in delegated("ps").stdout)
    assert delegated.groups() == {id}
    delegated("rm", "-f", "it")
    assert delegated.groups() == set()


def test_without_a_delegated_group_the_refusal_says_how_to_have_one(lamina: OrdinaryLamina) -> None:
    done = lamina("run", "--rm", "-m", "64m", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "systemd-run --user --scope lamina run" in done.stderr
    refused = lamina("run", "--rm", "--pid=host", "busybox", "true", check=False)
    assert "needs a control group" in refused.stderr
