# SPDX-License-Identifier: Apache-2.0
"""Steps and containers of another architecture, really run by qemu-user.

Needs root, Debian's qemu-user-static and a kernel with binfmt_misc. Where no arm64 handler is
registered (a host without systemd), the tests register the package's own for as long as they run,
through a mount of binfmt_misc that only this process has.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.container.emulation import NoEmulator, elf_headers, require_emulation
from lamina.errors import LaminaError
from lamina.spec.platform import host
from lamina.system.mounts import filesystem_fd
from lamina.testing.command import Lamina
from lamina.testing.skips import host_lacks

NATIVE = host(os.uname().machine)
QEMU = "qemu-aarch64-static"
pytestmark = [
    pytest.mark.root,
    pytest.mark.network,  # the busybox of arm64 comes from the distribution
    pytest.mark.slow,
    pytest.mark.tool("crun"),
    pytest.mark.tool("busybox"),
    pytest.mark.tool("apt-get"),
    pytest.mark.tool(QEMU),
]


@pytest.fixture(scope="module")
def arm64() -> Iterator[None]:
    """A host that runs arm64 programs, which are not its own."""
    if NATIVE.architecture == "arm64":
        host_lacks("a processor to which arm64 is foreign")
    try:
        require_emulation("arm64", host=NATIVE.architecture)
    except NoEmulator:
        yield from _registered()
    else:
        yield


def _registered() -> Iterator[None]:
    try:
        directory = filesystem_fd("binfmt_misc")
    except LaminaError as error:
        host_lacks(f"a kernel with binfmt_misc: {error}")
    name = f"lamina-test-{os.getpid()}"
    try:
        _write(directory, "register", _handler(name))
        yield
        _write(directory, name, b"-1")
    finally:
        os.close(directory)


def _handler(name: str) -> bytes:
    """The registration of Debian's package: with argv[0] kept, opened at once."""
    program = shutil.which(QEMU)
    assert program is not None
    keeps_name = Path(program).parent.parent / "libexec/qemu-binfmt/aarch64-binfmt-P"
    flags = "OPF" if keeps_name.exists() else "OF"
    magic = "".join(f"\\x{byte:02x}" for byte in elf_headers("arm64")[0])
    mask = "\\xff" * 7 + "\\x00" + "\\xff" * 8 + "\\xfe" + "\\xff" * 3
    interpreter = keeps_name if keeps_name.exists() else program
    return f":{name}:M::{magic}:{mask}:{interpreter}:{flags}".encode()


def _write(directory: int, name: str, data: bytes) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


@pytest.mark.host_root("the test mounts binfmt_misc")
def test_arm64_step_and_container_run(lamina: Lamina, arm64: None) -> None:
    lamina("bootstrap", "busybox", "--arch", "arm64")
    names = lamina("images", "--format", "{{.Repository}}").stdout.split()
    assert names == ["busybox"], "the second platform joins the name, and nothing is left over"
    (lamina.cwd / "Dockerfile").write_text(
        "FROM busybox\nRUN uname -m > /machine && cat /machine && ls -l /bin/busybox\nUSER nobody\n"
    )
    native = os.uname().machine
    lamina("build", "--platform", f"linux/arm64,{NATIVE}", "-t", "app", ".")
    for platform, machine in (("linux/arm64", "aarch64"), (str(NATIVE), native)):
        done = lamina("run", "--rm", "--platform", platform, "app", "cat", "/machine")
        assert done.stdout == f"{machine}\n"
        done = lamina("run", "--rm", "--platform", platform, "app", "uname", "-m")
        assert done.stdout == f"{machine}\n"
    assert lamina("run", "--rm", "app", "cat", "/machine").stdout == f"{native}\n"
    again = lamina("build", "--progress=plain", "--platform", "linux/arm64", ".")
    assert "CACHED" in again.stderr
