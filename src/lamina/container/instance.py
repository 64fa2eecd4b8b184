# SPDX-License-Identifier: Apache-2.0
"""One running instance of a container, seen from its monitor: mounts, network, runtime process.

`Instance.start` builds it up, `Instance.undo` takes it down in the reverse order; each step notes
what it did, so a start that fails half way is undone by the same function. `clean_up` undoes what
a killed monitor left behind, from any process.
"""

from __future__ import annotations

import errno
import os
import sys

from lamina.container import console, state
from lamina.container.bundle import write_bundle, write_etc_files, write_text
from lamina.container.console import StartFailed
from lamina.container.emulation import require_emulation
from lamina.container.errorlog import command_status, read_error
from lamina.container.filterprogram import hand_back
from lamina.container.host import check_limits, list_devices
from lamina.container.launcher import ENVIRONMENT, remove_cgroups_soon, sealed_copy
from lamina.container.ports import Mount
from lamina.container.profile import seccomp_for
from lamina.container.runtime import find_runtime
from lamina.container.spec import make_spec
from lamina.container.users import process_user
from lamina.errors import Kind, LaminaError
from lamina.start.jsontext import dumps
from lamina.start.lowlevel import signal
from lamina.start.record import Record, replace
from lamina.system import mounts
from lamina.system import process as processes
from lamina.system.paths import realpath_in_root, unlink_if_there
from lamina.system.programs import run_program
from lamina.system.removal import remove_tree as remove_whole_tree
from lamina.system.sockets import listen
from lamina.system.userns import is_namespaced, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.container.host import Runtime
    from lamina.container.networking import Networking
    from lamina.container.ports import ProcessSpec
    from lamina.container.state import ContainerConfig
    from lamina.store.ports import Store
    from lamina.system.sockets import Socket

FAILED = 125  # `docker run`: lamina itself failed

_ROOTFS, _RUNTIME, _CONSOLE, _PID, _RUNTIME_LOG = (
    "rootfs", "runtime", "console.sock", "pid", "runtime.log",
)  # fmt: skip
_TIOCGPTPEER = 0x5441  # asm-generic/ioctls.h: open the other side of a pty, whatever /dev/pts is


class Process:
    """A container's first process as its parent holds it: pid and our ends of its streams.

    `stdin` is -1 if it has none; `outputs` are what is still to be read; `terminal` is the pty's
    master, or -1.
    """

    def __init__(
        self, pid: int, *, stdin: int, stdout: int, stderr: int = -1, terminal: int = -1
    ) -> None:
        self.pid = pid
        self.started = state.start_ticks(pid)
        self.stdin = stdin
        self.outputs = [fd for fd in (stdout, stderr) if fd >= 0]
        self.terminal = terminal
        self._stderr = stderr

    def stream_of(self, descriptor: int) -> int:
        """1 or 2: what a frame and a log line call this output."""
        return console.STDERR if descriptor == self._stderr else console.STDOUT

    def ended(self, descriptor: int) -> None:
        """Note that an output has no more bytes; pipes are closed, a terminal stays."""
        if descriptor in self.outputs:
            self.outputs.remove(descriptor)
            if descriptor != self.terminal:
                os.close(descriptor)

    def close_stdin(self) -> None:
        """Give the container end of input. Idempotent."""
        if self.stdin >= 0 and self.stdin != self.terminal:
            os.close(self.stdin)
        self.stdin = -1


class _Streams:
    """Both ends of the pipes a container without terminal gets."""

    def __init__(self, *, with_stdin: bool) -> None:
        self.stdout, self.theirs_stdout = os.pipe2(os.O_CLOEXEC)
        self.stderr, self.theirs_stderr = os.pipe2(os.O_CLOEXEC)
        if with_stdin:
            self.theirs_stdin, self.stdin = os.pipe2(os.O_CLOEXEC)
        else:
            self.theirs_stdin, self.stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1

    def close_theirs(self) -> None:
        for descriptor in (self.theirs_stdin, self.theirs_stdout, self.theirs_stderr):
            os.close(descriptor)

    def close_ours(self) -> None:
        for descriptor in (self.stdin, self.stdout, self.stderr):
            if descriptor >= 0:
                os.close(descriptor)


class _Undo:
    """What was done, to be undone in the reverse order."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def callback(self, step: Callable[[], object]) -> None:
        self._steps.append(step)

    def close(self) -> None:
        """Undo everything, also after a step that failed, whose error is raised. Idempotent."""
        if self._steps:
            try:
                self._steps.pop()()
            finally:
                self.close()


class Instance:
    """See the module. `runtime` names an OCI runtime (empty: the one that was found to work)."""

    def __init__(
        self,
        store: Store,
        id: str,
        config: ContainerConfig,
        *,
        directory: str,
        runtime: str = "",
        subnet: str = "",
    ) -> None:
        self._store = store
        self._id = id
        self._config = config
        self._directory = directory
        self._runtime_name = runtime
        self._subnet = subnet
        self._undo = _Undo()
        self._cgroup = self._group = cgroup_name(id, config.process)
        self.networking: Networking | None = None

    def start(self, *, size: tuple[int, int] | None, again: bool = False) -> Process:
        """Mount, connect, start. `size` (rows, columns) of the terminal, if it has one. `again`:
        this process has done so before, and has its mount namespace.

        Raises StartFailed, with what was done so far left for `undo`.
        """
        try:
            self._approach()
            runtime = find_runtime(self._store.root, override=self._runtime_name, delegated=True)
            self._group = runtime.cgroup_path(self._cgroup).lstrip("/") or self._cgroup
            if not again:
                mounts.isolate()  # after the probe, whose containers would fill the shield's tmpfs
            check_limits(self._config.process, runtime)
            rootfs = self._mount()
            process = self._connect(self._config.process)
            process = replace(process, mounts=self._mounts(rootfs))
            self._write_bundle(process, runtime, rootfs, size)
            return self._run(runtime, size=size)
        except LaminaError as error:
            raise StartFailed(error, FAILED) from error

    def told(self, running: state.State) -> state.State:
        """The state with what is known of the network."""
        if self.networking is None:
            return running
        return replace(running, ip_address=self.networking.ip_address, ports=self.networking.ports)

    def reconcile(self, running: state.State) -> None:
        """Join and leave networks as the container's endpoints say now, and write it into the state.

        Raises LaminaError.
        """
        if self.networking is None:
            raise LaminaError("the container has no network of its own", kind=Kind.CONFLICT)
        try:
            self.networking.reconcile()
        finally:
            state.write_state(self._directory, self.told(running))

    def undo(self) -> bool:
        """Take everything down. Idempotent. True if the kernel killed for lack of memory."""
        killed = was_oom_killed(self._group) if self._config.process.memory else False
        self._undo.close()
        return killed

    def _approach(self) -> None:
        """Go where the network of another container can be joined, before anything is entered."""
        mode, _, other = self._config.network.partition(":")
        if mode == "container":
            from lamina.container.network.sharing import approach

            approach(self._store, other)

    def _mount(self) -> str:
        rootfs = f"{self._directory}/{_ROOTFS}"
        os.makedirs(rootfs, mode=0o700, exist_ok=True)
        privileged = self._config.process.privileged
        mounts.mount_overlay(self._store.snapshots.mount_of(self._id), rootfs, devices=privileged)
        self._undo.callback(lambda: mounts.unmount(rootfs))
        return rootfs

    def _connect(self, process: ProcessSpec) -> ProcessSpec:
        """Attach to the networks and publish the ports, if it has a network of its own."""
        mode = self._config.network
        if mode in {"host", "none"}:
            from lamina.container.network.told import PREDEFINED, tell

            place = (PREDEFINED[mode], mode)
            tell(self._store.root, "connect", *place, container=self._id)
            self._undo.callback(
                lambda: tell(self._store.root, "disconnect", *place, container=self._id)
            )
            return process
        from lamina.container.networking import Networking

        self.networking = networking = Networking(
            self._store, self._id, self._config, directory=self._directory, subnet=self._subnet
        )
        self._undo.callback(networking.close)
        return networking.connect(process)

    def _mounts(self, rootfs: str) -> tuple[Mount, ...]:
        """What the runtime is to mount: binds in the place of volumes."""
        if not (
            self._config.volumes or any(m.type == "volume" for m in self._config.process.mounts)
        ):
            return self._config.process.mounts
        from lamina.container.volumemounts import VolumeMounts, all_mounts

        volumes = VolumeMounts(
            self._store,
            rootfs,
            directory=self._directory,
            devices=self._config.process.privileged,
            container=self._id,
        )
        self._undo.callback(volumes.close)
        return volumes.binds(all_mounts(self._config, self._directory))

    def _write_bundle(
        self,
        process: ProcessSpec,
        runtime: Runtime,
        rootfs: str,
        size: tuple[int, int] | None,
    ) -> None:
        for mount in process.mounts:
            _check_source(mount)
        root_fd = os.open(rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            host = runtime.host.architecture
            require_emulation(process.architecture, host=host, root=root_fd)
            _make_working_dir(root_fd, process)
            user = process_user(root_fd, process.user, process.groups)
        finally:
            os.close(root_fd)
        seccomp = seccomp_for(process, runtime.host) if runtime.seccomp else None
        spec = make_spec(
            process,
            rootfs=rootfs,
            user=user,
            host=runtime.host,
            seccomp=seccomp,
            etc_mounts=self._etc_mounts(process),
            cgroup=runtime.cgroup_path(self._cgroup),
            devices=list_devices() if process.privileged else (),
        )
        if process.extras is not None:
            from lamina.container.refine import refine

            joined = refine(
                spec,
                process.extras,
                runtime,
                root=self._store.root,
                directory=self._directory,
            )
            self._undo.callback(joined.close)
        if size is not None:  # set before the first program looks; `_run` sees to other runtimes
            set_console_size(spec["process"], size)
        hand_back(runtime, spec, seccomp)
        write_bundle(self._directory, spec)

    def _etc_mounts(self, process: ProcessSpec) -> tuple[Mount, ...]:
        shared = self.networking.etc_mounts() if self.networking is not None else None
        return write_etc_files(self._directory, process) if shared is None else shared

    def _run(self, runtime: Runtime, *, size: tuple[int, int] | None) -> Process:
        """Create and start the container; the runtime has ended when this returns."""
        if os.path.isdir(f"{self._directory}/{_RUNTIME}"):
            # a monitor was killed; if before it wrote so, what it had started may still run
            unshielded = replace(runtime, shield="")
            delete_from_runtime(unshielded, self._id, directory=self._directory)
        arguments = ["--bundle", self._directory, "--detach"]
        arguments += ["--pid-file", f"{self._directory}/{_PID}"]
        self._undo.callback(lambda: _forget(self._group, directory=self._directory))
        if self._config.process.extras is not None and self._config.process.extras.pid:
            # the end of its first process is not the end of the others
            from lamina.container.groups import kill_all

            self._undo.callback(lambda: kill_all(self._group))
        if self._config.process.terminal:
            return self._run_on_terminal(runtime, arguments, size=size)
        streams = _Streams(with_stdin=self._config.stdin_open)
        try:
            theirs = (streams.theirs_stdin, streams.theirs_stdout, streams.theirs_stderr)
            pid = self._invoke(runtime, arguments, theirs)
        except BaseException:
            streams.close_ours()
            raise
        finally:
            streams.close_theirs()
        return Process(pid, stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr)

    def _run_on_terminal(
        self, runtime: Runtime, arguments: list[str], *, size: tuple[int, int] | None
    ) -> Process:
        with console_listener() as listener, open(os.devnull, "r+b") as null:
            # a relative name: a socket's path may have only 107 bytes; the runtime changes into
            # the bundle, which is our working directory
            arguments += ["--console-socket", _CONSOLE]
            streams = (null.fileno(),) * 3
            pid = self._invoke(runtime, arguments, streams)
            master = console.receive_terminal(listener)
        if size is not None:
            console.set_window_size(master, *size)
        # held open, so that reading never ends (EIO) while the container is between two programs
        peer = open_peer(master)
        self._undo.callback(lambda: os.close(peer))
        self._undo.callback(lambda: os.close(master))
        stdin = master if self._config.stdin_open else -1
        return Process(pid, stdin=stdin, stdout=master, terminal=master)

    def _invoke(self, runtime: Runtime, arguments: list[str], streams: tuple[int, int, int]) -> int:
        """Run `runtime run`; the pid of the container's first process, which is our child."""
        log = f"{self._directory}/{_RUNTIME_LOG}"
        unlink_if_there(log)
        argv = runtime.command(
            "run", *arguments, self._id, root=f"{self._directory}/{_RUNTIME}", log=log
        )
        stdin, stdout, stderr = streams
        # our working directory is the bundle
        program = sealed_copy(argv[0])
        try:
            status = run_program(
                argv, copy=program, env=ENVIRONMENT, stdin=stdin, stdout=stdout, stderr=stderr
            )
        finally:
            if program >= 0:
                os.close(program)
        if status != 0:
            message = read_error(log) or f"{runtime.name} ended with status {status}"
            # no shield: our mount namespace is the container's own monitor's, and has it
            unshielded = replace(runtime, shield="")
            delete_from_runtime(unshielded, self._id, directory=self._directory)
            raise start_failure(message)
        with open(f"{self._directory}/{_PID}", encoding="utf-8") as file:
            return int(file.read())


def set_console_size(process: object, size: tuple[int, int]) -> None:
    """Put the terminal's (rows, columns) into a runtime spec's process."""
    assert isinstance(process, dict)
    process["consoleSize"] = {"height": size[0], "width": size[1]}


def _check_source(mount: Mount) -> None:
    """Docker's `-v` makes a missing host directory; whoever wanted an error was told earlier."""
    if mount.type == "bind" and not os.path.lexists(mount.source):
        try:
            os.makedirs(mount.source, mode=0o755)
        except OSError as error:
            raise LaminaError(
                f"cannot make the mount source {mount.source}: {error.strerror}"
            ) from error


def _make_working_dir(root_fd: int, process: ProcessSpec) -> None:
    """Create the working directory in the rootfs, as Docker does; nothing leaves the rootfs.

    What leads into /proc is refused: there a directory may be the host's (CVE-2024-21626).
    """
    wanted = os.fsencode(process.cwd or "/")
    path = realpath_in_root(root_fd, wanted)
    top = path.split(b"/")[0]
    if top == b"proc" and path != b"proc":
        raise LaminaError(f"the working directory {process.cwd} lies in /proc", kind=Kind.INVALID)
    within = [m.destination.strip("/").encode() for m in process.mounts]
    if top in {b"sys", b"dev"} or any((path + b"/").startswith(m + b"/") for m in within):
        return
    parent = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
    try:
        for name in path.split(b"/") if path else ():
            try:
                _make_directory(name, parent)
                flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                child = os.open(name, flags, dir_fd=parent)
            except OSError as error:
                raise LaminaError(
                    f"cannot create the working directory {process.cwd}: {error.strerror}",
                    kind=Kind.INVALID,
                ) from error
            os.close(parent)
            parent = child
    finally:
        os.close(parent)


def _make_directory(name: bytes, parent: int) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        return
    os.chmod(name, 0o755, dir_fd=parent)  # noqa: S103  # Docker's mode, whatever the umask


def open_peer(master: int) -> int:
    import fcntl

    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    return fcntl.ioctl(master, _TIOCGPTPEER, flags)


class ExecRequest(Record):
    """A process to run beside a container's first one. `env` is added to the container's."""

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    user: str = ""
    working_dir: str = ""
    privileged: bool = False
    terminal: bool = False
    detach: bool = False


def execute(
    store: Store,
    id: str,
    config: ContainerConfig,
    request: ExecRequest,
    *,
    pid: int,
    runtime_name: str,
    streams: tuple[int | None, int | None, int | None],
) -> int:
    """Run a process in the container whose first process is `pid`; its exit status.

    The runtime stays in the foreground and passes a terminal's bytes and size itself. `streams`
    are descriptors, None is /dev/null. With `detach` it returns 0 once the process runs.

    Raises StartFailed if it cannot be run.
    """
    import subprocess
    import tempfile

    join(pid)
    runtime = find_runtime(store.root, override=runtime_name, delegated=True)
    directory = state.directory_of(store.root, id)
    with tempfile.TemporaryDirectory(prefix="exec-", dir=directory) as scratch:
        document = exec_process(config, request, runtime, pid=pid)
        write_text(f"{scratch}/process.json", dumps(document))
        log = f"{scratch}/log.json"
        argv = exec_command(
            runtime,
            id,
            directory=directory,
            process=f"{scratch}/process.json",
            log=log,
            more=("--detach",) if request.detach else (),
        )
        null = subprocess.DEVNULL
        stdin, stdout, stderr = (null if fd is None else fd for fd in streams)
        status = subprocess.run(
            shielded(tuple(argv), runtime), stdin=stdin, stdout=stdout, stderr=stderr, check=False
        ).returncode
        message = read_error(log) if status else ""
    if message:
        raise start_failure(message, doing="cannot run the command")
    return status if status >= 0 else 128 - status


def exec_command(
    runtime: Runtime,
    id: str,
    *,
    directory: str,
    process: str,
    log: str,
    more: tuple[str, ...] = (),
) -> list[str]:
    """The command that runs what the file `process` describes in the container."""
    arguments = ("--process", process, *more, id)
    return list(runtime.command("exec", *arguments, root=f"{directory}/{_RUNTIME}", log=log))


def exec_process(
    config: ContainerConfig, request: ExecRequest, runtime: Runtime, *, pid: int
) -> dict[str, object]:
    """The runtime spec's `process`: what the container itself gets, with the request's changes."""
    base = config.process
    process = replace(
        base,
        argv=request.command,
        env=tuple({**dict(base.env), **dict(request.env)}.items()),
        cwd=request.working_dir or base.cwd,
        user=request.user or base.user,
        terminal=request.terminal,
        privileged=request.privileged or base.privileged,
        mounts=(),
    )
    root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        user = process_user(root_fd, process.user, process.groups)
    finally:
        os.close(root_fd)
    spec = make_spec(process, rootfs="/", user=user, host=runtime.host, seccomp=None)
    document = spec["process"]
    assert isinstance(document, dict)
    return document


def shielded(argv: tuple[str, ...], runtime: Runtime) -> list[str]:
    """The command, in a mount namespace of its own where crun needs that (hybrid control groups).

    Not in our own: we may be a Python program that imports lamina.
    """
    if not runtime.shield:
        return list(argv)
    return lean_python(
        "import os; from lamina.system.mounts import isolate; "
        f"isolate(); os.execv({argv[0]!r}, {list(argv)!r})"
    )


def runtime_command(
    runtime: Runtime, verb: str, *arguments: str, directory: str, log: str
) -> list[str]:
    """The command that does `verb` to the container of this directory."""
    command = runtime.command(verb, *arguments, root=f"{directory}/{_RUNTIME}", log=log)
    return shielded(command, runtime)


def lean_python(code: str) -> list[str]:
    """The command that runs `code` with lamina importable and nothing else beside the library.

    -I -S: nothing of the caller's environment or site-packages counts, and it starts in 10 ms.
    """
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    prelude = f"import sys; sys.path.insert(0, {source!r}); "
    return [sys.executable, "-I", "-S", "-c", prelude + code]


def runtime_root(directory: str) -> str:
    """Where the runtime keeps its state of the container in `directory`."""
    return f"{directory}/{_RUNTIME}"


def delete_from_runtime(runtime: Runtime, id: str, *, directory: str) -> None:
    """Make the runtime forget the container: its state, its control groups, its processes."""
    from lamina.container.groups import group_of_bundle, kill_all

    group = group_of_bundle(directory, id)
    root = f"{directory}/{_RUNTIME}"
    if os.path.isdir(root):
        command = shielded(runtime.command("delete", "--force", id, root=root), runtime)
        with open(os.devnull, "r+b") as null:
            streams = null.fileno()
            # whatever it could not do, the next line does
            run_program(command, env=ENVIRONMENT, stdin=streams, stdout=streams, stderr=streams)
    kill_all(group)  # runtimes leave what shares another's pid namespace
    _forget(group, directory=directory)


def cgroup_name(id: str, process: ProcessSpec) -> str:
    """The control group of container `id`, without its first slash."""
    parent = process.extras.cgroup_parent if process.extras is not None else ""
    return f"{parent}/{id}" if parent else id


def _forget(group: str, *, directory: str) -> None:
    """Remove the runtime's state and the control groups of a container that is dead.

    What `runtime delete` would do, without starting it (10 ms).
    """
    remove_tree(f"{directory}/{_RUNTIME}")
    remove_cgroups_soon(group)  # a process of `exec` may be leaving at this moment


def remove_tree(path: str) -> None:
    """Remove a directory and all in it; no error if it is not there.

    What a container wrote there (a volume) is not trusted: descriptors are used and no links
    followed. Raises LaminaError if something stays.
    """
    if os.path.lexists(path):
        remove_whole_tree(path)


def was_oom_killed(group: str) -> bool:
    """Whether the kernel killed in the container's memory control group (v1, v2)."""
    for path in (
        f"/sys/fs/cgroup/memory/{group}/memory.oom_control",
        f"/sys/fs/cgroup/{group}/memory.events",
    ):
        try:
            with open(path, encoding="utf-8") as file:
                counts = dict(line.split() for line in file)
        except (OSError, ValueError):
            continue
        return int(counts.get("oom_kill", "0")) > 0
    return False


def send_signal(pid: int, number: int, *, started: int = 0) -> bool:
    """Send a signal to a process; with `started` (clock ticks), only if it is that one.

    False if it is gone.
    """
    pidfd = open_pidfd(pid, started=started)
    if pidfd is None:
        return False
    try:
        processes.signal_pidfd(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def open_pidfd(pid: int, *, started: int = 0) -> int | None:
    """A pidfd of the process; None if it is gone, or another one has its pid (`started`)."""
    try:
        pidfd = processes.open_pidfd(pid)
    except OSError as error:
        if error.errno in {errno.ESRCH, errno.EINVAL}:
            return None
        raise
    # checked after opening: from here on the pidfd is the process that was looked at
    if started and state.start_ticks(pid) != started:
        os.close(pidfd)
        return None
    return pidfd


def signal_number(text: str) -> int:
    """The number of `TERM`, `SIGTERM`, `RTMIN+3` or `15`. Raises LaminaError of kind USAGE."""
    name = text.upper().removeprefix("SIG")
    if text.isascii() and text.isdigit() and 1 <= int(text) <= signal.SIGRTMAX:
        return int(text)
    base, plus, offset = name.partition("+")
    if plus and base == "RTMIN" and offset.isdigit() and int(offset) <= 30:
        return signal.SIGRTMIN + int(offset)
    # a name like SIG_BLOCK is not one of a signal
    found = getattr(signal, f"SIG{name}", None) if name.isalnum() else None
    if found is None:
        raise LaminaError(f"invalid signal: {text}", kind=Kind.USAGE)
    return int(found)


def start_failure(message: str, *, doing: str = "cannot start the container") -> StartFailed:
    """What a runtime said (crun's and runc's words), with Docker's exit status for it."""
    status = command_status(message)
    is_mount = message.startswith("mount") or "to rootfs at" in message  # crun's and runc's words
    error = LaminaError(
        f"{doing}: {message}",
        hint="a directory is mounted on a file, or a file on a directory: look at both"
        if is_mount and "not a directory" in message.lower()
        else "",
    )
    return StartFailed(error, FAILED if status is None else status)


def become_subreaper() -> None:
    """Make orphans among our descendants our children: so the container's first process is ours
    to wait for, although the runtime that made it has ended.
    """
    from lamina.start.libc import call

    if call("prctl", 36, 1, 0, 0, 0) != 0:  # PR_SET_CHILD_SUBREAPER
        raise LaminaError("cannot become a subreaper", kind=Kind.SYSTEM)


def console_listener() -> Socket:
    """The socket on which the runtime hands over the pty, in the working directory."""
    unlink_if_there(_CONSOLE)
    return listen(_CONSOLE, backlog=1)


def clean_up(store: Store, id: str, *, directory: str, runtime: str) -> None:
    """Undo what a killed monitor left: processes, runtime state, control groups, address, rules.

    Mounts need nothing: they were in the monitor's mount namespace.
    """
    if os.path.isdir(f"{directory}/{_RUNTIME}"):
        delete_from_runtime(find_runtime(store.root, override=runtime), id, directory=directory)
        if is_namespaced():
            return
        from lamina.container.network.attachment import Network

        Network(store.documents, root=store.root).reap()
        if store.documents.find(state.ENDPOINT, f"{id}:"):
            from lamina.container.network.networks import plans_to_reap

            for plan in plans_to_reap(store.documents):
                Network(store.documents, root=store.root, plan=plan).reap()
