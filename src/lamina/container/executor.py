# SPDX-License-Identifier: Apache-2.0
"""`RuntimeExecutor`: runs one process to its end in a mounted rootfs, for RUN steps.

Each run has a bundle of its own in the state directory and is started through the launcher, so
that nothing survives this process. State is `<state_dir>/<pid>-<start time>-<n>/`; the launcher
removes it when this process dies, and the next executor what is left of a killed launcher.
"""

from __future__ import annotations

import os
from itertools import count

from lamina.container.bundle import (
    CA_ENVIRONMENT,
    write_bundle,
    write_ca_files,
    write_etc_files,
)
from lamina.container.emulation import require_emulation
from lamina.container.errorlog import command_status, late_failure, read_error
from lamina.container.filterprogram import hand_back
from lamina.container.host import check_limits, list_devices
from lamina.container.launcher import remove_cgroups, remove_cgroups_soon, remove_tree
from lamina.container.profile import seccomp_for
from lamina.container.spawn import Launch, Launcher
from lamina.container.spec import (
    ROOT_GUARD,
    HostFacts,
    checked_path,
    default_mounts,
    make_spec,
)
from lamina.container.stubs import MountStubs
from lamina.container.users import process_user
from lamina.errors import Kind, LaminaError
from lamina.start.record import Record, replace
from lamina.system.mounts import tmpfs, unmount
from lamina.system.paths import open_in_root
from lamina.system.process import ProcessIdentity, this_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Any, Self

    from lamina.container.host import Runtime
    from lamina.container.ports import Helpers, Mount, ProcessSpec
    from lamina.tasks import CancelToken

__all__ = ["RuntimeExecutor", "command_status", "read_error", "sweep"]

BUNDLE_SIZE = 64 << 20  # bytes; the limit of a bundle in memory
MAX_TAIL = 1 << 12  # bytes kept of stream 2

_numbers = count(1)


class RuntimeExecutor:
    """The Executor on an OCI runtime. Any thread may call `run`; runs are independent.

    `ca_bundle` is a file of certificates that steps see without it staying in the image. A
    context manager: `close` ends the launcher and removes the state.
    """

    def __init__(self, runtime: Runtime, *, state_dir: str, ca_bundle: str | None = None) -> None:
        self._runtime = runtime
        self._state_dir = state_dir
        self._ca_bundle = ca_bundle
        own = this_process()
        self._name = f"{own.pid}-{own.start_ticks}-{next(_numbers)}"
        self._launcher = Launcher(state=f"{state_dir}/{self._name}")
        self._swept = False

    @property
    def helpers(self) -> Helpers:
        """What keeps programs beside the steps, until `close`."""
        return self._launcher

    @property
    def directory(self) -> str:
        """This executor's own directory, which the launcher removes."""
        top = f"{self._state_dir}/{self._name}"
        os.makedirs(top, mode=0o700, exist_ok=True)
        return top

    def start(self) -> None:
        """Start the launcher, which takes a moment, before the first step needs it."""
        self._launcher.start()

    def run(
        self,
        process: ProcessSpec,
        rootfs: str,
        *,
        on_output: Callable[[int, bytes], None],
        cancel: CancelToken,
    ) -> int:
        """As `ports.Executor.run`. A command that is not found ends with status 127, one that
        cannot be executed with 126, and the reason on stream 2.
        """
        if process.terminal:
            raise LaminaError("a RUN step has no terminal", kind=Kind.UNSUPPORTED)
        cancel.check()
        check_limits(process, self._runtime)
        step = _Step(id=f"lamina-{self._name}-{next(_numbers)}", rootfs=rootfs)
        step = replace(step, bundle=self._make_bundle(step.id))
        try:
            if not process.secret_env:
                return self._run_in(step, process, on_output, cancel)
            with _InMemory(step.bundle):
                return self._run_in(step, process, on_output, cancel)
        except BaseException:
            remove_cgroups_soon(step.id)  # the launcher may be dead too
            raise
        finally:
            remove_tree(step.bundle)

    def _run_in(
        self,
        step: _Step,
        process: ProcessSpec,
        on_output: Callable[[int, bytes], None],
        cancel: CancelToken,
    ) -> int:
        root_fd = _open_rootfs(step.rootfs)
        stubs = MountStubs()
        output = _Output(on_output)
        try:
            spec, launch = self._prepare(step, process, root_fd)
            write_bundle(step.bundle, spec)
            stubs.make(root_fd, _stub_destinations(spec), modes=_tmpfs_modes(spec))
            status = self._launcher.run(launch, on_output=output.write, cancel=cancel)
        finally:
            stubs.remove()
            os.close(root_fd)
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return 128 - code
        return code and _explain(code, f"{step.bundle}/log.json", output)

    def _prepare(
        self, step: _Step, process: ProcessSpec, root_fd: int
    ) -> tuple[dict[str, Any], Launch]:
        """Everything that can fail because of the image or the command, before anything runs."""
        require_emulation(process.architecture, host=self._runtime.host.architecture, root=root_fd)
        user = process_user(root_fd, process.user, process.groups)
        _check_cwd(root_fd, process, self._runtime.host)
        etc = list(write_etc_files(step.bundle, process, for_step=True))
        if self._ca_bundle is not None:
            etc.append(self._ca_mount(step.bundle, self._ca_bundle))
            process = _with_ca(process)
        process, binds = _rebind_proc(process, step.bundle)
        runtime = self._runtime
        seccomp = seccomp_for(process, runtime.host) if runtime.seccomp else None
        spec = make_spec(
            process,
            rootfs=step.rootfs,
            user=user,
            host=runtime.host,
            seccomp=seccomp,
            etc_mounts=etc,
            cgroup=runtime.cgroup_path(step.id),
            devices=_devices(process),
        )
        hand_back(runtime, spec, seccomp)
        argv = runtime.command(
            "run",
            "--bundle",
            step.bundle,
            step.id,
            root=f"{step.bundle}/state",
            log=f"{step.bundle}/log.json",
        )
        sources = [mount.source for mount in process.mounts if mount.source]
        launch = Launch(
            id=step.id,
            bundle=step.bundle,
            argv=argv,
            keep=(step.rootfs, step.bundle, *sources),
            binds=binds,
            shield=runtime.shield,
        )
        return spec, launch

    def _ca_mount(self, bundle: str, path: str) -> Mount:
        try:
            return write_ca_files(bundle, path)
        except OSError as error:
            raise LaminaError(
                f"cannot read the CA bundle {path}: {error.strerror}", kind=Kind.NOT_FOUND
            ) from error

    def _make_bundle(self, id: str) -> str:
        top = f"{self._state_dir}/{self._name}"
        if not self._swept:
            os.makedirs(top, mode=0o700, exist_ok=True)
            sweep(self._state_dir)
            self._swept = True
        bundle = f"{top}/{id}"
        os.mkdir(bundle, 0o700)
        return bundle

    def close(self) -> None:
        """End the launcher, and remove this process's state. Idempotent."""
        self._launcher.close()
        try:
            os.rmdir(f"{self._state_dir}/{self._name}")
        except OSError:
            return  # never made, or removed by the launcher

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _InMemory:
    """A tmpfs over the bundle: config.json and the runtime's copy of it hold the environment, and a
    secret of it must not be written to a disk. It goes with this process's mount namespace.
    """

    def __init__(self, bundle: str) -> None:
        self._bundle = bundle

    def __enter__(self) -> None:
        tmpfs(self._bundle, size=BUNDLE_SIZE, mode=0o700)

    def __exit__(self, *exc: object) -> None:
        unmount(self._bundle)


class _Step(Record):
    """One run: its container id, where its root is, and its bundle directory."""

    id: str
    rootfs: str
    bundle: str = ""


def sweep(state_dir: str) -> None:
    """Remove the state and the control groups of processes that no longer exist."""
    for name in os.listdir(state_dir):
        if not os.path.isdir(f"{state_dir}/{name}"):
            continue
        parts = name.split("-")
        if len(parts) != 3 or not all(part.isdigit() for part in parts):
            continue
        if ProcessIdentity(int(parts[0]), int(parts[1])).alive():
            continue
        try:
            removed = [remove_cgroups(id) for id in os.listdir(f"{state_dir}/{name}")]
        except FileNotFoundError:
            continue  # another process sweeps at the same time
        if all(removed):  # else the names are kept, for the next sweep
            remove_tree(f"{state_dir}/{name}")


def _open_rootfs(rootfs: str) -> int:
    try:
        return os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise LaminaError(f"cannot open the root file system {rootfs}: {error.strerror}") from error


def _check_cwd(root_fd: int, process: ProcessSpec, host: HostFacts) -> None:
    """Raise unless the working directory is a directory of the image or of a mount into it.

    A path that leads into /proc (CVE-2024-21626: /proc/self/fd/N, also by a link) never is: the
    image's own /proc is an empty directory, and nothing else in /proc is accepted.
    """
    cwd = checked_path(process.cwd or "/", what="working directory")
    mounts = [checked_path(mount.destination, what="mount") for mount in process.mounts]
    defaults = [str(mount["destination"]) for mount in default_mounts(process, host)]
    if cwd in defaults or any((cwd + "/").startswith(path + "/") for path in mounts):
        return
    try:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        os.close(open_in_root(root_fd, os.fsencode(cwd.lstrip("/") or "."), flags))
    except (OSError, LaminaError) as error:
        raise LaminaError(
            f"the working directory {cwd} does not exist in the image",
            kind=Kind.INVALID,
            hint="WORKDIR creates it",
        ) from error


def _with_ca(process: ProcessSpec) -> ProcessSpec:
    present = {name for name, _ in process.env}
    added = tuple((name, value) for name, value in CA_ENVIRONMENT if name not in present)
    return replace(process, env=process.env + added)


def _rebind_proc(
    process: ProcessSpec, bundle: str
) -> tuple[ProcessSpec, tuple[tuple[str, str], ...]]:
    """Give paths in this process's /proc (a namespace, an open directory) a place of their own.

    The runtime has another /proc, so the launcher binds them into the bundle first.
    """
    binds: list[tuple[str, str]] = []

    def place(path: str) -> str:
        if not path.startswith("/proc/"):
            return path
        target = f"{bundle}/bind-{len(binds)}"
        source = path.replace("/proc/self/", f"/proc/{os.getpid()}/", 1)
        if os.path.isdir(source):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        binds.append((source, target))
        return target

    network_ns = place(process.network_ns)
    mounts = tuple(replace(mount, source=place(mount.source)) for mount in process.mounts)
    return replace(process, network_ns=network_ns, mounts=mounts), tuple(binds)


def _devices(process: ProcessSpec) -> Sequence[Any]:
    if not process.privileged:
        return ()
    return list_devices()


def _stub_destinations(spec: dict[str, Any]) -> list[tuple[str, bool]]:
    """(destination, whether a directory) of the mounts that the rootfs itself must have."""
    inside = ("/dev/", "/proc/", "/sys/")  # these lie in mounts, not in the rootfs
    return [
        (mount["destination"], mount["type"] != "bind" or os.path.isdir(mount["source"]))
        for mount in spec["mounts"]
        if mount["destination"] != ROOT_GUARD and not mount["destination"].startswith(inside)
    ]


def _tmpfs_modes(spec: dict[str, Any]) -> dict[str, int]:
    """The modes that tmpfs mounts ask for, by destination."""
    return {
        mount["destination"]: int(option.removeprefix("mode="), 8)
        for mount in spec["mounts"]
        if mount["type"] == "tmpfs"
        for option in mount["options"]
        if option.startswith("mode=")
    }


class _Output:
    """Passes output on and remembers the end of stream 2, where a runtime may report too."""

    def __init__(self, on_output: Callable[[int, bytes], None]) -> None:
        self._on_output = on_output
        self.tail = b""

    def write(self, stream: int, data: bytes) -> None:
        self._on_output(stream, data)
        if stream == 2:
            self.tail = (self.tail + data)[-MAX_TAIL:]

    def report(self, message: str) -> None:
        """Put `message` on stream 2 unless the runtime did."""
        if message.encode() not in self.tail:
            self._on_output(2, f"{message}\n".encode())


def _explain(code: int, log: str, output: _Output) -> int:
    """The exit status, seen in the light of what the runtime logged.

    Raises:
        LaminaError: kind SYSTEM, the runtime failed for another reason than the command.
    """
    message = read_error(log)
    if not message:
        return (late_failure(output.tail) if code == 1 else None) or code
    status = command_status(message)
    if status is None:
        raise LaminaError(f"the OCI runtime failed: {message}")
    output.report(message)
    return status
