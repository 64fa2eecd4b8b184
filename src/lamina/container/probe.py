# SPDX-License-Identifier: Apache-2.0
"""Trying the OCI runtimes with a real container, and whether its device nodes can be opened in it."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
from contextlib import suppress
from itertools import product

from lamina.container.bundle import write_bundle
from lamina.container.filterprogram import with_program
from lamina.container.host import Cgroups, NoRuntime, Runtime, read_facts
from lamina.container.launcher import remove_cgroups_soon
from lamina.container.ports import ProcessSpec
from lamina.container.profile import seccomp_for
from lamina.container.spawn import Launch, Launcher
from lamina.container.spec import make_spec
from lamina.container.users import ResolvedUser
from lamina.errors import LaminaError
from lamina.start.record import replace
from lamina.system.userns import is_namespaced
from lamina.tasks import CancelToken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any


_NODE = "device"  # in the root of the probe's container: /dev/null's numbers, for everybody
_OPENED = 64  # the program's exit status if it could open the node
# machine -> (ELF e_machine, code): openat(AT_FDCWD, "/device", O_RDONLY, 0), then exit_group with
# status 1 << 6 if that gave a descriptor, else 0.
_CODE = {
    "x86_64": (
        62,
        bytes.fromhex(
            "bf 9cffffff"  # mov edi, -100
            "48 8d 35 1b000000"  # lea rsi, [rip + 27]
            "31 d2"  # xor edx, edx
            "b8 01010000 0f05"  # mov eax, 257; syscall
            "31 ff"  # xor edi, edi
            "85 c0"  # test eax, eax
            "40 0f 99 c7 c1 e7 06"  # setns dil; shl edi, 6
            "b8 e7000000 0f05"  # mov eax, 231; syscall
        ),
    ),
    "aarch64": (
        183,
        bytes.fromhex(
            "600c8092"  # mov x0, #-100
            "41010010"  # adr x1, . + 40
            "020080d2 030080d2"  # mov x2, #0; mov x3, #0
            "080780d2 010000d4"  # mov x8, #56; svc #0
            "1f0000f1"  # cmp x0, #0
            "e0479f9a 00e47ad3"  # cset x0, pl; lsl x0, x0, #6
            "c80b80d2 010000d4"  # mov x8, #94; svc #0
        ),
    ),
    "riscv64": (
        243,
        bytes.fromhex(
            "1305c0f9"  # li a0, -100
            "97050000 9385c502"  # auipc a1, 0; addi a1, a1, 44
            "13060000 93060000"  # li a2, 0; li a3, 0
            "93088003 73000000"  # li a7, 56; ecall
            "13250500 13451500"  # slti a0, a0, 0; xori a0, a0, 1
            "13156500"  # slli a0, a0, 6
            "9308e005 73000000"  # li a7, 94; ecall
        ),
    ),
}
_LOAD_ADDRESS = 0x400000


def tiny_program(machine: str) -> bytes | None:
    """A static ELF executable; None for a machine not known here.

    It exits with status 0 if it cannot open the device node `/device`, with `_OPENED` if it can.
    """
    known = _CODE.get(machine)
    if known is None:
        return None
    number, code = known
    code += f"/{_NODE}".encode() + b"\0"
    header, segment = 64, 56  # sizes of an ELF64 header and of a program header
    entry = _LOAD_ADDRESS + header + segment
    size = header + segment + len(code)
    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64 bit, little endian, version 1
    elf = struct.pack(
        "<HHIQQQIHHHHHH", 2, number, 1, entry, header, 0, 0, header, segment, 1, 0, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, 4096)
    return identity + elf + load + code


def probe(
    root: str, candidates: Sequence[tuple[str, str]], cgroups: Cgroups, *, seccomp: bool
) -> Runtime:
    """The first way to run a container that works. Scratch files live and die in `root`.

    Raises:
        NoRuntime: none does.
    """
    refused: list[tuple[str, str]] = []
    scratch = f"{root}/probe-{os.getpid()}"
    os.makedirs(f"{scratch}/rootfs", mode=0o755)
    try:
        with Launcher() as launcher:
            for runtime in _ways(candidates, cgroups, seccomp=seccomp):
                way = _name(runtime)
                why = _try(launcher, runtime, scratch)
                if not why:
                    return _compiled(launcher, _chosen(runtime, tuple(refused)), scratch)
                refused.append((way, why))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    tried = "; ".join(f"{way}: {why}" for way, why in refused)
    raise NoRuntime(
        f"no OCI runtime can run a container here: {tried}",
        hint="`lamina doctor` checks what a container needs, one thing after the other",
    )


def _ways(
    candidates: Sequence[tuple[str, str]], cgroups: Cgroups, *, seccomp: bool
) -> Iterator[Runtime]:
    """Every way, best first: control groups (limits, device rules) matter more than speed. Ways to
    run that leave device nodes of images usable come last, and only with device rules.
    """
    is_managed = cgroups.mode != "none" and (bool(cgroups.delegated) or not is_namespaced())
    managers = ["cgroupfs", "disabled"] if is_managed else ["disabled"]
    shields = ["", cgroups.unified] if cgroups.mode == "hybrid" else [""]
    for nodev, manager, (kind, path) in product((True, False), managers, candidates):
        if kind == "runc" and manager == "disabled" and is_managed:
            continue  # runc has no such switch; in a user namespace it does without
        host = read_facts(cgroups, manager=manager, nodev=nodev)
        if not nodev and not host.device_control:
            continue
        for shield in shields if kind == "crun" else [""]:
            yield Runtime(
                name=kind,
                path=path,
                version="",
                manager=manager,
                cgroups=cgroups,
                shield=shield,
                seccomp=seccomp,
                host=host,
                nodev=nodev,
            )


def _name(runtime: Runtime) -> str:
    shield = ", cgroup2 hidden" if runtime.shield else ""
    devices = "" if runtime.nodev else ", device nodes usable"
    return f"{runtime.path} (cgroups {runtime.manager}{shield}{devices})"


def _chosen(runtime: Runtime, refused: tuple[tuple[str, str], ...]) -> Runtime:
    why = "the first of the known ways" if not refused else "the ways before it failed"
    return replace(
        runtime,
        version=_version(runtime.path),
        why=f"it ran a container; {why}",
        refused=refused,
    )


def _version(path: str) -> str:
    """The version in the first line of `--version`."""
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, env={})
    words = done.stdout.split("\n")[0].split()
    return words[-1] if words else "unknown"


def _compiled(launcher: Launcher, runtime: Runtime, scratch: str) -> Runtime:
    """The runtime with the default filter as it compiles it, if it leaves that where it can be seen.

    crun has the program in the state of a container that was created and not started. Its process
    dies with crun, which the launcher makes process 1 of a PID namespace.
    """
    if runtime.name != "crun" or not runtime.seccomp or tiny_program(os.uname().machine) is None:
        return runtime
    id = f"lamina-filter-{os.getpid()}"
    spec = _bundle(runtime, scratch, id)
    try:
        status, _ = _launch(launcher, runtime, scratch, id, verb="create")
        with open(f"{scratch}/state/{id}/seccomp.bpf", "rb") as file:
            program = file.read()
    except (OSError, LaminaError):
        return runtime
    finally:
        remove_cgroups_soon(id)
        shutil.rmtree(f"{scratch}/state", ignore_errors=True)
    if status != 0 or not program or len(program) % 8:  # struct sock_filter has 8 bytes
        return runtime
    return with_program(runtime, spec["linux"]["seccomp"], program)


def _try(launcher: Launcher, runtime: Runtime, scratch: str) -> str:
    """Run the tiny program as a RUN step would run; empty if all is as it should be, else why not."""
    if tiny_program(os.uname().machine) is None:
        return ""  # nothing to try with: believe that a runtime that is installed works
    id = f"lamina-probe-{os.getpid()}"
    _bundle(runtime, scratch, id)
    try:
        status, text = _launch(launcher, runtime, scratch, id, verb="run")
    except LaminaError as error:
        return str(error)
    finally:
        shutil.rmtree(f"{scratch}/state", ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    if code == 0 or (code == _OPENED and not runtime.nodev):
        return ""
    if code == _OPENED:
        return "device nodes of images could be opened"
    last = text.splitlines()[-1] if text else "no message"
    return f"exit status {code}: {last}"


def _bundle(runtime: Runtime, scratch: str, id: str) -> dict[str, Any]:
    """Write the bundle of a container of the tiny program, as a RUN step would be; its spec."""
    program = tiny_program(os.uname().machine)
    assert program is not None
    rootfs = f"{scratch}/rootfs"
    with open(f"{rootfs}/exit", "wb") as file:
        file.write(program)
    os.chmod(f"{rootfs}/exit", 0o755)  # noqa: S103  # the container's own program
    _make_node(scratch)
    process = ProcessSpec(argv=("/exit",), env=())
    spec = make_spec(
        process,
        rootfs=rootfs,
        user=ResolvedUser(),
        host=runtime.host,
        seccomp=seccomp_for(process, runtime.host) if runtime.seccomp else None,
        cgroup=runtime.cgroup_path(id),
    )
    write_bundle(scratch, spec)
    return spec


def _make_node(scratch: str) -> None:
    """Put the device node into the root, if this process may make one (else no image can have one)."""
    path = f"{scratch}/rootfs/{_NODE}"
    with suppress(FileExistsError, PermissionError):
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.chmod(path, 0o666)  # noqa: S103  # as an image would have it; the directory is root's


def _launch(
    launcher: Launcher, runtime: Runtime, scratch: str, id: str, *, verb: str
) -> tuple[int, str]:
    """(the wait status, the output) of `runtime verb`. Raises LaminaError."""
    output: list[bytes] = []
    launch = Launch(
        id=id,
        bundle=scratch,
        argv=runtime.command(verb, "--bundle", scratch, id, root=f"{scratch}/state"),
        keep=(scratch,),
        shield=runtime.shield,
    )
    try:
        status = launcher.run(
            launch, on_output=lambda _stream, data: output.append(data), cancel=CancelToken()
        )
    finally:
        if runtime.cgroups.delegated:  # the launcher knows the others
            remove_cgroups_soon(runtime.cgroup_path(id).lstrip("/"))
    return status, b"".join(output).decode("utf-8", "replace").strip()
