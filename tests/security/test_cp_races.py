# SPDX-License-Identifier: Apache-2.0
"""`cp` while the container swaps a directory for links out of it: nothing of the host is touched."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lamina.testing.busybox import Lamina, make_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.tool("crun", "busybox")]
ROUNDS = 25
# `/w/d` is by turns a directory, a link to the host's directory and one that climbs
SWAP = """
mkdir -p /w/real; echo inside >/w/real/secret; echo ready
while :; do
  rm -rf /w/d; cp -r /w/real /w/d
  rm -rf /w/d; ln -s "$0" /w/d
  rm -rf /w/d; ln -s "../../../../../..$0" /w/d
done
"""


@pytest.fixture
def swapping(tmp_path: Path) -> Iterator[tuple[Lamina, Path]]:
    """A container `it` that swaps all the time, and the directory of the host that it points to."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "secret").write_text("the host's\n")
    root = str(tmp_path / "store")
    make_image(root)
    lamina = Lamina(root)
    lamina(
        "run", "-d", "--name", "it", "--network", "none", "bb", "sh", "-c", SWAP, str(host)
    )  # fmt: skip
    with lamina.popen("logs", "-f", "it") as logs:
        assert logs.stdout is not None
        assert logs.stdout.readline() == b"ready\n"
        logs.kill()
    try:
        yield lamina, host
    finally:
        lamina("rm", "-f", "it")


def test_cp_out_never_reads_the_hosts_files(swapping: tuple[Lamina, Path], tmp_path: Path) -> None:
    lamina, _ = swapping
    got = tmp_path / "got"
    seen = 0
    for flag in ("-q", "-L") * ROUNDS:
        done = subprocess.run(
            lamina.argv("cp", flag, "it:/w/d/secret", str(got)),
            env=lamina.env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        if got.exists():
            assert got.read_text() in {"inside\n", ""}
            got.unlink()
            seen += 1
    assert seen, "no copy met the directory"


def test_cp_in_never_writes_the_hosts_files(swapping: tuple[Lamina, Path], tmp_path: Path) -> None:
    lamina, host = swapping
    new = tmp_path / "secret"
    new.write_text("evil\n")
    for target in ("it:/w/d/secret", "it:/w/d", "it:/w/d/"):
        for _ in range(ROUNDS // 2):
            done = subprocess.run(
                lamina.argv("cp", str(new), target),
                env=lamina.env, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert "Traceback" not in done.stderr
    assert (host / "secret").read_text() == "the host's\n"
    assert os.listdir(host) == ["secret"]


def test_absolute_links_are_the_containers(swapping: tuple[Lamina, Path], tmp_path: Path) -> None:
    """A link to `/...` means the container's file of that name, in and out."""
    lamina, host = swapping
    inside = f"mkdir -p {host}; echo mine >{host}/secret; ln -s {host} /there"
    lamina("exec", "it", "sh", "-c", inside)
    got = tmp_path / "got"
    lamina("cp", "it:/there/secret", str(got))
    assert got.read_text() == "mine\n"
    (tmp_path / "new").write_text("new\n")
    lamina("cp", str(tmp_path / "new"), "it:/there/secret")
    assert lamina.out("exec", "it", "cat", f"{host}/secret") == "new"
    assert (host / "secret").read_text() == "the host's\n"
