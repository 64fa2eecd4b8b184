# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.container.emulation import (
    Handler,
    NoEmulator,
    check_handlers,
    elf_headers,
    is_native,
    parse_handler,
)

ARM64 = """enabled
interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P
flags: POF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""


def handler(text: str = ARM64) -> Handler:
    found = parse_handler(text)
    assert found is not None
    return found


def test_handler_is_read_as_the_kernel_writes_it() -> None:
    found = handler()
    assert (found.interpreter, found.flags, found.offset) == (
        "/usr/libexec/qemu-binfmt/aarch64-binfmt-P",
        "POF",
        0,
    )
    assert found.magic[:4] == b"\x7fELF"


@pytest.mark.parametrize(
    "text",
    [
        ARM64.replace("enabled", "disabled"),
        "enabled\ninterpreter /usr/bin/jexec\nflags: \nextension .jar\n",
        ARM64.replace("magic 7f", "magic xx"),
        ARM64.replace("mask ffff", "mask "),
        "",
    ],
)
def test_handler_that_is_off_or_not_by_magic_is_none(text: str) -> None:
    assert parse_handler(text) is None


def test_handler_matches_both_types_of_programs_of_its_architecture_only() -> None:
    for architecture in ("amd64", "arm64", "arm", "riscv64", "s390x", "ppc64le"):
        matched = [handler().matches(header) for header in elf_headers(architecture)]
        assert matched == [architecture == "arm64"] * 2


def test_header_is_that_of_a_real_program() -> None:
    with open("/proc/self/exe", "rb") as file:
        start = bytearray(file.read(20))
    start[7:16] = bytes(9)  # the system's ABI, and padding
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    assert bytes(start) in elf_headers(machine)


def test_no_handler_names_the_packages() -> None:
    with pytest.raises(NoEmulator, match="does not run s390x programs") as raised:
        check_handlers("s390x", [handler()], host="amd64")
    assert raised.value.hint == "apt-get install qemu-user-static binfmt-support"
    with pytest.raises(NoEmulator):
        check_handlers("unheard-of", [handler()], host="amd64")


def test_handler_without_the_flag_f_needs_its_interpreter_inside(tmp_path: Path) -> None:
    outside = handler(ARM64.replace("POF", "OC"))
    check_handlers("arm64", [handler()], host="amd64")
    with pytest.raises(NoEmulator, match="without the flag F"):
        check_handlers("arm64", [outside], host="amd64")
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(NoEmulator):
            check_handlers("arm64", [outside], host="amd64", root=root)
        inside = tmp_path / "usr/libexec/qemu-binfmt"
        inside.mkdir(parents=True)
        (inside / "aarch64-binfmt-P").touch()
        check_handlers("arm64", [outside], host="amd64", root=root)
    finally:
        os.close(root)


def test_what_the_host_runs_itself() -> None:
    assert is_native("amd64", "amd64")
    assert is_native("386", "amd64")
    assert is_native("", "amd64")
    assert not is_native("amd64", "386")
    assert not is_native("arm64", "amd64")
