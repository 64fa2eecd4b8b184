# SPDX-License-Identifier: Apache-2.0
"""The same flags given to lamina and to podman (with CNI or netavark): what a container sees is the same."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamina.testing.network import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.testing.busybox import Lamina

pytestmark = [pytest.mark.root, pytest.mark.tool("crun", "runc", "busybox", "nft", "ip", "podman")]

SHOW = "ip -o -4 addr show eth0; ip route | sort; cat /sys/class/net/eth0/address; hostname"


class Podman:
    """podman on a store of its own with the image `bb`, and networks of its own."""

    def __init__(self, directory: Path, archive: Path) -> None:
        self._argv = [
            "podman", "--root", f"{directory}/p", "--runroot", f"{directory}/r",
            "--network-config-dir", f"{directory}/n", "--cgroup-manager", "cgroupfs",
            "--tmpdir", f"{directory}/t", "--storage-driver", "vfs", "--runtime", "runc",
        ]  # fmt: skip
        self("load", "-i", str(archive))

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        if words[0] == "run":  # podman's own limits need more than this root may have
            words = (
                "run",
                "--ulimit=nofile=1024:1024",
                "--ulimit=nproc=1024:1024",
                *words[1:],
            )
        done = subprocess.run(
            [*self._argv, *words], capture_output=True, text=True, check=False, timeout=120
        )
        assert not check or done.returncode == 0, (words, done.stderr)
        return done


@pytest.fixture
def podman(lamina: Lamina, tmp_path: Path) -> Iterator[Podman]:
    archive = tmp_path / "bb.tar"
    lamina("save", "-o", str(archive), "bb")
    with tempfile.TemporaryDirectory(prefix="lp", dir="/tmp") as directory:  # its paths are short
        made = Podman(Path(directory), archive)
        try:
            yield made
        finally:
            made("rm", "-fa", "-t0")
            made("network", "prune", "-f")
            made("rmi", "-fa")
            # what podman leaves on a host
            run("nft flush ruleset; ip -o link | grep -o 'cni-[^:@]*' | xargs -rn1 ip link del")


def seen(text: str) -> list[str]:
    """What is the same for every container with these flags: no numbers of interfaces, no ids."""
    lines = [
        re.sub(r"^\d+: |@if\d+|brd \S+ |\\.*|link-netns\S*", "", line) for line in text.splitlines()
    ]
    return sorted(" ".join(line.split()) for line in lines)


@pytest.mark.parametrize(
    ("create", "flags"),
    [
        (["--subnet=10.201.0.0/24"], ["--ip=10.201.0.9", "--mac-address=92:d0:c6:0a:29:33"]),
        (["--subnet=10.202.0.0/16", "--gateway=10.202.3.4"], ["--ip=10.202.9.9"]),
        (["--subnet=10.203.0.0/24", "--internal"], ["--ip=10.203.0.7"]),
    ],
)
def test_a_container_sees_the_same(
    lamina: Lamina, podman: Podman, create: list[str], flags: list[str]
) -> None:
    flags = [*flags, "--hostname=box"]
    if not any("mac" in flag for flag in flags):
        flags.append("--mac-address=92:d0:c6:0a:29:34")
    lamina("network", "create", *create, "net")
    ours = lamina.out("run", "--rm", "--network=net", *flags, "bb", "sh", "-c", SHOW)
    lamina("network", "rm", "net")
    podman("network", "create", *create, "net")
    theirs = podman("run", "--rm", "--network=net", *flags, "bb", "sh", "-c", SHOW).stdout
    assert seen(ours) == seen(theirs)


@pytest.mark.parametrize(
    "flags",
    [
        ["--subnet=10.204.0.0/33"],
        ["--subnet=nonsense"],
        ["--subnet=10.204.0.0/24", "--gateway=10.205.0.1"],
        ["--driver=nonsense"],
    ],
)
def test_both_refuse_the_same(lamina: Lamina, podman: Podman, flags: list[str]) -> None:
    assert podman("network", "create", *flags, "net", check=False).returncode != 0
    process = lamina.popen("network", "create", *flags, "net")
    process.communicate()
    assert process.returncode in {1, 125}


def test_both_share_a_namespace_with_who_runs(lamina: Lamina, podman: Podman) -> None:
    show = ("readlink", "/proc/self/ns/net")
    shared = ("run", "--rm", "--network=container:first", "bb", *show)
    for command in (lamina, podman):
        command("run", "-d", "--name=first", "bb", "sleep", "100")
        assert command(*shared).stdout == command("exec", "first", *show).stdout
        command("rm", "-f", "first")
    assert podman(*shared, check=False).returncode == 125
    lamina(*shared, status=125)
