# SPDX-License-Identifier: Apache-2.0
"""Volumes, on a store of its own for each test, which must be clean in the end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.testing.busybox import Lamina, make_image, processes_of
from lamina.testing.once import made_once
from lamina.testing.waiting import wait_until

# /data is a volume of `v`; /srv has what a copy must keep
TREE = (
    "mkdir -p /srv/t/sub /srv/empty && cd /srv/t && echo one > one && ln one hard && ln -s one soft "
    "&& ln -s /etc/passwd abs && chown 12:34 sub && chmod 2750 sub && echo s > sub/s && mkfifo fifo "
    "&& chmod 4711 one && chown 1000:1000 . && chmod 1777 . && ln -s /srv/t /here && "
    "ln -s ../../../../../../../../tmp /outside"
)
MANY = "mkdir /many && cd /many && for i in $(seq 4000); do echo $i > $i; done"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.tool("crun", "busybox"))


@pytest.fixture(scope="session")
def bb_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the images `bb`, `v` (a volume at /data), `tree` and `many` (see above)."""

    def make(place: Path) -> None:
        root = str(place / "store")
        make_image(root)
        make_image(root, "docker.io/library/v:latest", Volumes={"/data": {}})
        lamina = Lamina(root)
        for image, script in (("tree", TREE), ("many", MANY)):
            lamina("run", "--network=none", "--name=made", "bb", "sh", "-c", script)
            lamina("commit", "made", image)
            lamina("rm", "made")

    return made_once(tmp_path_factory, "volumes", make) / "store"


@pytest.fixture
def lamina(tmp_path: Path, bb_store: Path) -> Iterator[Lamina]:
    """The command line on a fresh store with the images; nothing may be left behind."""
    root = str(tmp_path / "store")
    subprocess.run(["cp", "-a", str(bb_store), root], check=True)
    command = Lamina(root)
    try:
        yield command
    finally:
        names = command.out("ps", "-aq").split()
        if names:
            command("rm", "-f", *names)
    command("volume", "prune", "-af")
    places = Path(root, "volumes")
    assert not places.exists() or list(places.iterdir()) == []
    assert command.directories() == []
    assert root not in Path("/proc/mounts").read_text()
    wait_until(lambda: processes_of(root) == [])
