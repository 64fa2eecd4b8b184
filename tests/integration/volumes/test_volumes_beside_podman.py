# SPDX-License-Identifier: Apache-2.0
"""Containers see the same of volumes under lamina and podman.

Left out is where podman does not do as Docker does: it gives a new volume to the user of the container,
copies the image's files into a tmpfs, and a link's mode to a volume that is mounted on it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.testing.busybox import Lamina

pytestmark = [pytest.mark.tool("podman"), pytest.mark.host_root("podman is root's here")]

CONF = '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
# crun refuses to run anything while it sees cgroups v1 and v2 side by side
SHIELD = """if mountpoint -q /sys/fs/cgroup/unified
then mount -t tmpfs none /sys/fs/cgroup/unified; fi; exec "$@\""""
SHOW = (
    "cd {0} && find . | sort | while read f; do stat -c '%A %u %g %N' $f; done; "
    "find . -type f | sort | xargs md5sum"
)


class Podman:
    """podman on a storage of its own."""

    def __init__(self, place: str) -> None:
        Path(place, "conf").write_text(CONF)
        self._env = os.environ | {"CONTAINERS_CONF": f"{place}/conf"}
        self._argv = (
            *("unshare", "--mount", "sh", "-c", SHIELD, "sh"),
            *("podman", "--root", f"{place}/p", "--runroot", f"{place}/r"),
            *("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"),
        )

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._argv, *words], env=self._env, capture_output=True, text=True, check=False
        )

    def clear(self) -> None:
        """Remove all containers and volumes."""
        for words in (("rm", "-af", "-t", "0"), ("volume", "rm", "-af")):
            done = self(*words)
            assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def podman(bb_store: Path) -> Iterator[Podman]:
    # podman refuses a run root of more than 50 characters
    with tempfile.TemporaryDirectory(prefix="lp", dir="/tmp") as place:
        made = Podman(place)
        lamina = Lamina(str(bb_store))
        for image in ("bb", "v", "tree"):
            lamina("save", "-o", f"{place}/{image}.tar", image)
            done = made("load", "-i", f"{place}/{image}.tar")
            assert done.returncode == 0, done.stderr
            os.unlink(f"{place}/{image}.tar")
        try:
            yield made
        finally:
            made.clear()
            made("rmi", "-af")


Run = tuple[str, ...]
CASES: dict[str, list[Run]] = {
    "copy-up": [("-v", "one:/srv/t", "tree", SHOW.format("/srv/t"))],
    "copy-up elsewhere": [
        ("-v", "one:/srv/t", "tree", "true"),
        ("-v", "one:/w", "bb", SHOW.format("/w")),
    ],
    "no copy over what is there": [
        ("-v", "one:/w", "bb", "echo mine > /w/f"),
        ("-v", "one:/srv/t", "tree", SHOW.format("/srv/t")),
    ],
    "an empty directory's mode": [("-v", "one:/srv/empty", "tree", SHOW.format("/srv/empty"))],
    "a home": [("-v", "one:/home/guest", "bb", SHOW.format("/home/guest"))],
    "through a link": [("-v", "one:/here", "tree", "ls /srv/t /srv/t/sub; touch /srv/t/new; ls /here")],
    "a path that is not in the image": [("-v", "one:/not/there", "bb", SHOW.format("/not/there"))],
    "an image's volume": [("v", SHOW.format("/data") + "; touch /data/new")],
    "read-only": [("-v", "one:/w:ro", "bb", "touch /w/f")],
    "a user with them": [("-u", "guest", "-v", "one:/home/guest", "bb", "touch ~/f && ls ~")],
    "a mount": [("--mount", "type=volume,src=one,dst=/data", "bb", SHOW.format("/data"))],
    "a mount read-only": [
        ("--mount", "type=volume,source=one,target=/data,ro=true", "bb", "touch /data/x")
    ],
    "a tmpfs": [
        ("--mount", "type=tmpfs,dst=/t,tmpfs-size=64k", "bb", "df -k /t | tail -1 | awk '{print $2}'")
    ],
    "a volume in a volume": [
        ("-v", "in:/w/in", "-v", "out:/w", "bb", "touch /w/in/a /w/b"),
        ("-v", "out:/o", "-v", "in:/i", "bb", "ls /o /i"),
    ],
    "the same volume twice": [
        ("-v", "one:/a", "-v", "one:/b:ro", "bb", "echo x > /a/f; cat /b/f; echo y > /b/f")
    ],
    "exec of what lies in a volume": [
        ("-v", "one:/w", "bb", "cp /bin/busybox /w/busybox; /w/busybox echo ran")
    ],
    "twice the same destination": [("-v", "one:/w", "-v", "two:/w", "bb", "true")],
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[name.replace(" ", "-") for name in CASES])
def test_same_as_podman(lamina: Lamina, podman: Podman, case: str) -> None:
    podman.clear()
    for run in CASES[case]:
        *flags, image, script = run
        words = ("run", "--rm", "--network=none", *flags, image, "sh", "-c", script)
        ours = subprocess.run(
            lamina.argv(*words), env=lamina.env, capture_output=True, text=True, check=False
        )
        theirs = podman(*words)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), (
            ours.stderr,
            theirs.stderr,
        )
    left = {name for name in podman("volume", "ls", "-q").stdout.split() if len(name) < 64}
    assert set(lamina.out("volume", "ls", "-q").split()) == left
