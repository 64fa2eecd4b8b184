# SPDX-License-Identifier: Apache-2.0
"""Trying the OCI runtimes with a real container: a static program of a few bytes that exits 0."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess

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


_EXIT_CODE = {  # machine -> (ELF e_machine, code of exit_group(0))
    "x86_64": (62, bytes.fromhex("31ff b8e7000000 0f05")),
    "aarch64": (183, bytes.fromhex("000080d2 c80b80d2 010000d4")),
    "riscv64": (243, bytes.fromhex("13050000 9308e005 73000000")),
}
_LOAD_ADDRESS = 0x400000


def tiny_program(machine: str) -> bytes | None:
    """A static ELF executable that exits with status 0; None for a machine not known here."""
    known = _EXIT_CODE.get(machine)
    if known is None:
        return None
    number, code = known
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
    """Every way, best first: control groups (limits, device rules) matter more than speed."""
    is_managed = cgroups.mode != "none" and not is_namespaced()
    managers = ["cgroupfs", "disabled"] if is_managed else ["disabled"]
    shields = ["", cgroups.unified] if cgroups.mode == "hybrid" else [""]
    for manager in managers:
        for kind, path in candidates:
            if kind == "runc" and manager == "disabled" and is_managed:
                continue  # runc has no such switch; in a user namespace it does without
            for shield in shields if kind == "crun" else [""]:
                yield Runtime(
                    name=kind,
                    path=path,
                    version="",
                    manager=manager,
                    cgroups=cgroups,
                    shield=shield,
                    seccomp=seccomp,
                    host=read_facts(cgroups, manager=manager),
                )


def _name(runtime: Runtime) -> str:
    shield = ", cgroup2 hidden" if runtime.shield else ""
    return f"{runtime.path} (cgroups {runtime.manager}{shield})"


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
    """Run the tiny program as a RUN step would run; empty if it worked, else why not."""
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
    if status == 0:
        return ""
    last = text.splitlines()[-1] if text else "no message"
    return f"exit status {os.waitstatus_to_exitcode(status)}: {last}"


def _bundle(runtime: Runtime, scratch: str, id: str) -> dict[str, Any]:
    """Write the bundle of a container of the tiny program, as a RUN step would be; its spec."""
    program = tiny_program(os.uname().machine)
    assert program is not None
    rootfs = f"{scratch}/rootfs"
    with open(f"{rootfs}/exit", "wb") as file:
        file.write(program)
    os.chmod(f"{rootfs}/exit", 0o755)  # noqa: S103  # the container's own program
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
    status = launcher.run(
        launch, on_output=lambda _stream, data: output.append(data), cancel=CancelToken()
    )
    return status, b"".join(output).decode("utf-8", "replace").strip()
