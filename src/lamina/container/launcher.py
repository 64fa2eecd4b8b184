# SPDX-License-Identifier: Apache-2.0
"""The launcher: a small process beside lamina that starts OCI runtimes so that none outlives it.

Run by `spawn.Launcher` with a SOCK_SEQPACKET socket to lamina as fd 3. It imports nothing of
lamina and has one thread, so that cloning it is cheap and safe, which cloning lamina itself
(threads, hundreds of MB) is not. docs/adr/0031-launcher.md says why it exists.

Rules
- A request is one datagram, fields of UTF-8 text joined by NUL: `run`, then what `Request` lists;
  `keep`, an id and arguments; or `kill <id>`. Descriptors of both: standard input, output, error, and
  the reply pipe.
- What is kept (a program that leads out of a network namespace) is a plain child that dies with this
  launcher, and has nothing to be removed.
- A runtime is process 1 of a PID namespace of its own: when it dies, for whatever reason, the
  kernel kills every process of its container. It dies with this launcher (PR_SET_PDEATHSIG).
- The end of the socket means lamina is gone (SIGKILL too): every runtime is killed and waited for,
  their control groups and bundles are removed, and the launcher ends.
- The answer on the reply pipe, in lines: `e<errno> <text>` if the runtime could not be started,
  and `s<wait status>` of the process if there was one.
"""

from __future__ import annotations

import errno
import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from socket import MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_PEEK, SCM_RIGHTS, SOL_SOCKET, socket
    from typing import NoReturn
else:
    # The C modules alone: `socket` and `signal` import enum and selectors (10 ms).
    import _signal as signal
    from _socket import MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_PEEK, SCM_RIGHTS, SOL_SOCKET, socket

CONTROL_FD = 3
TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP)
MAX_REQUEST = 1 << 18  # bytes; a request holds paths only
MAX_COPY = 4 << 20  # bytes
SYS_CLONE = {"x86_64": 56, "aarch64": 220, "riscv64": 220, "loongarch64": 220}  # others: 120
SYS_OPEN_TREE, SYS_MOVE_MOUNT = 428, 429  # the same everywhere; Linux 5.2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, MOVE_MOUNT_F_EMPTY_PATH = 1, os.O_CLOEXEC, 4
CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_SLAVE = 2, 4, 8, 16384, 1 << 19
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
PR_SET_PDEATHSIG = 1
MFD_CLOEXEC, MFD_ALLOW_SEALING = 1, 2
F_ADD_SEALS, ALL_SEALS = 1033, 0xF  # fcntl(2): no change, no more seals
CGROUP_ROOT = "/sys/fs/cgroup"
SYSTEM_PATHS = ("/bin", "/dev", "/etc", "/lib", "/lib64", "/sbin", "/usr")  # may be overlays too
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}  # of the runtime, not of the container

if TYPE_CHECKING or __name__ == "launcher":  # lamina imports this module for what it removes only
    import ctypes

    # PyDLL keeps the interpreter lock, so that the child of clone finds it as it was.
    libc = ctypes.PyDLL(None, use_errno=True)
copies: dict[str, int] = {}


class Request:
    """A `run` request: where everything is. Lists are joined by newlines (no path has one)."""

    def __init__(self, fields: list[str]) -> None:
        self.id, self.bundle, shield, keep, binds, argv = fields
        self.shield = shield  # a cgroup2 mount point to cover, or empty
        self.keep = keep.split("\n")  # paths whose overlay mounts the container needs
        self.binds = [tuple(line.split("\t")) for line in binds.split("\n") if line]
        self.argv = argv.split("\n")


class Running:
    """A started runtime, until it was waited for."""

    def __init__(self, request: Request, reply: int) -> None:
        self.request = request
        self.reply = reply


def main(state: str) -> None:
    """Serve requests until lamina closes the socket; `state` is lamina's directory of bundles."""
    leave_terminal()
    control = socket(fileno=CONTROL_FD)
    os.set_inheritable(CONTROL_FD, False)
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, Running] = {}
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(wake_read, select.POLLIN)
    while True:
        ready = dict(poller.poll())
        if wake_read in ready:
            os.read(wake_read, 512)
            reap(running)
        if CONTROL_FD in ready and not serve(control, running):
            break
    end(running, state)


def leave_terminal() -> None:
    """Begin a session, which ^C on lamina's terminal does not reach.

    lamina started this process with the terminal's signals blocked; what came since then is dropped.
    (posix_spawn could begin it, but not in a Python that was built with an old C library.)
    """
    os.setsid()
    for number in TERMINAL_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TERMINAL_SIGNALS)


def serve(control: socket, running: dict[int, Running]) -> bool:
    """Handle one datagram; False when lamina has gone."""
    try:
        data, descriptors = receive(control)
    except ConnectionResetError:
        return False
    if not data:
        return False
    fields = data.decode("utf-8", "surrogateescape").split("\0")
    if fields[0] == "kill":
        kill(running, fields[1])
        return True
    if fields[0] == "keep":
        id, argv = fields[1:]
        keep(Request([id, "", "", "", "", argv]), descriptors, running)
        return True
    start(Request(fields[1:]), descriptors, running)
    return True


def receive(control: socket) -> tuple[bytes, list[int]]:
    """One datagram and the descriptors that came with it, closed on execution."""
    room = 4 * 8  # four descriptors and the header fit
    data, ancillary, _, _ = control.recvmsg(MAX_REQUEST, room + 32, MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, packed in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            view = memoryview(packed[: len(packed) // 4 * 4]).cast("i")
            descriptors += view.tolist()
    return data, descriptors


def kill(running: dict[int, Running], wanted: str) -> None:
    for pid, process in running.items():
        if process.request.id == wanted:
            os.kill(pid, signal.SIGKILL)


def keep(request: Request, descriptors: list[int], running: dict[int, Running]) -> None:
    """Start a program as a child that dies with this process."""
    *streams, reply = descriptors
    pid = os.fork()
    if pid == 0:
        try:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            become(request.argv, streams)
        except OSError as error:
            os.write(2, f"{request.argv[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)
    running[pid] = Running(request, reply)
    for descriptor in streams:
        os.close(descriptor)


def start(request: Request, descriptors: list[int], running: dict[int, Running]) -> None:
    """Clone a child into new PID and mount namespaces, which becomes the runtime."""
    *streams, reply = descriptors
    trees: list[tuple[int, str]] = []
    try:
        # Here, in lamina's mount namespace: a mount of another namespace cannot be bound.
        for source, target in request.binds:
            trees.append((clone_tree(source), target))
        clone(request, streams, reply, trees, running)
    except OSError as error:
        answer(reply, f"e{error.errno} cannot mount {error.filename}")
    for descriptor in (*streams, *(tree for tree, _ in trees)):
        os.close(descriptor)


def clone(
    request: Request,
    streams: list[int],
    reply: int,
    trees: list[tuple[int, str]],
    running: dict[int, Running],
) -> None:
    flags = CLONE_NEWNS | CLONE_NEWPID | signal.SIGCHLD
    machine = os.uname().machine
    first, second = (0, flags) if machine == "s390x" else (flags, 0)
    number = SYS_CLONE.get(machine, 120)
    program = program_of(request.argv[0])
    pid = libc.syscall(number, first, second, 0, 0, 0)
    if pid == 0:
        become_runtime(request, streams, reply, trees, program)
    if pid < 0:
        answer(reply, f"e{ctypes.get_errno()} cannot create PID and mount namespaces")
    else:
        running[pid] = Running(request, reply)


def become_runtime(
    request: Request,
    streams: list[int],
    reply: int,
    trees: list[tuple[int, str]],
    program: int,
) -> NoReturn:
    """In the child: prepare the mount namespace and execute the runtime. Never returns."""
    step = "prepare a process"
    try:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if select.select([CONTROL_FD], [], [], 0)[0] and gone():
            os._exit(1)
        step = "prepare mounts"
        prepare_mounts(request, trees)
        step = f"execute {request.argv[0]}"
        os.chdir(request.bundle)
        become(request.argv, streams, program)
    except OSError as error:
        os.write(reply, f"e{error.errno} cannot {step}\n".encode())
    except BaseException as error:  # noqa: BLE001  # a forked child must never return
        os.write(reply, f"e0 cannot {step}: {error!r}\n".encode())
    os._exit(1)


def become(argv: list[str], streams: list[int], program: int = -1) -> None:
    """`execute` with these streams. Raises OSError."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    # Python ignores these; an ignored signal would stay ignored in the container.
    for name in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        signal.signal(name, signal.SIG_DFL)
    execute(argv, program)


def execute(argv: list[str], program: int) -> None:
    """Become `argv`, from the copy `program` if there is one and the kernel takes it. Raises OSError."""
    if program >= 0:
        try:  # noqa: SIM105
            os.execve(program, argv, ENVIRONMENT)  # noqa: S606  # no shell wanted
        except OSError:
            pass
    os.execve(argv[0], argv, ENVIRONMENT)  # noqa: S606  # no shell wanted


def sealed_copy(path: str) -> int:
    """A descriptor of a copy of a program, in memory, that nothing can change; -1 if that is no use.

    crun makes sure that no container can write to its binary (CVE-2019-5736): run from a file it
    copies or binds it and starts once more, which takes a sixth of its time. Run from such a copy it
    sees that this is done. Programs larger than `MAX_COPY` (runc) take longer to copy.
    """
    import fcntl

    copy = -1
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(source).st_size
            if size > MAX_COPY or os.pread(source, 4, 0) != b"\x7fELF":
                return -1
            copy = sealable_file()
            while size > 0 and (sent := os.sendfile(copy, source, None, size)):
                size -= sent
            if size > 0:  # it is being written at this moment
                raise OSError(errno.ETXTBSY, "incomplete", path)
            fcntl.fcntl(copy, F_ADD_SEALS, ALL_SEALS)
        finally:
            os.close(source)
    except OSError:  # the file itself is run
        if copy >= 0:
            os.close(copy)
        return -1
    return copy


def sealable_file() -> int:
    """A descriptor of an empty file in memory. Raises OSError."""
    name, flags = "lamina-runtime", MFD_CLOEXEC | MFD_ALLOW_SEALING
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, flags)
    import ctypes  # Python was built with an old C library, as those of uv and conda are

    descriptor: int = ctypes.CDLL(None, use_errno=True).memfd_create(name.encode(), flags)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "memfd_create")
    return descriptor


def program_of(path: str) -> int:
    """`sealed_copy`, made once for each path."""
    if path not in copies:
        copies[path] = sealed_copy(path)
    return copies[path]


def gone() -> bool:
    """Whether lamina closed the socket (without taking a request that waits in it)."""
    control = socket(fileno=os.dup(CONTROL_FD))
    try:
        return not control.recv(1, MSG_PEEK | MSG_DONTWAIT)
    except BlockingIOError:
        return False
    finally:
        control.close()


def prepare_mounts(request: Request, trees: list[tuple[int, str]]) -> None:
    """Make this mount namespace private, free of other steps' mounts, with its own /proc."""
    mount("", "/", "", MS_REC | MS_SLAVE)
    for tree, target in trees:
        move_mount(tree, target)
    # Another step's overlay, copied by the clone, would stay mounted while this step runs.
    for point in foreign_overlays([*request.keep, request.argv[0], *SYSTEM_PATHS]):
        libc.umount2(os.fsencode(point), MNT_DETACH | UMOUNT_NOFOLLOW)
    if request.shield:
        mount("tmpfs", request.shield, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def foreign_overlays(keep: list[str]) -> list[str]:
    """Mount points of overlays that hold none of the paths in `keep`, the last mounted first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        lines = table.read().splitlines()
    found = []
    for line in lines:
        before, _, after = line.partition(" - ")
        if after.startswith("overlay "):
            point = unescape(before.split(" ")[4])
            if not any(path == point or path.startswith(point.rstrip("/") + "/") for path in keep):
                found.append(point)
    return found[::-1]


def unescape(text: str) -> str:
    """A path of mountinfo, which writes space, tab, newline and backslash in octal."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def mount(source: str, target: str, kind: str, flags: int) -> None:
    """Mount, as the system call does. Raises OSError."""
    arguments = [os.fsencode(text) for text in (source, target, kind)]
    if libc.mount(*arguments, ctypes.c_ulong(flags), None) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), target)


def clone_tree(source: str) -> int:
    """A descriptor of a copy of the mount at `source`, not attached anywhere. Raises OSError."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE
    tree: int = libc.syscall(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(source), flags)
    if tree < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), source)
    return tree


def move_mount(tree: int, target: str) -> None:
    """Attach a mount from `clone_tree` at `target`. Raises OSError."""
    path = os.fsencode(target)
    if libc.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), target)


def reap(running: dict[int, Running]) -> None:
    """Answer for every runtime that has ended."""
    while running:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        process = running.pop(pid, None)
        if process is None:
            continue
        if os.WIFSIGNALED(status):
            remove_cgroups(process.request.id)
        answer(process.reply, f"s{status}")


def answer(reply: int, text: str) -> None:
    try:  # noqa: SIM105  # contextlib would cost start-up time, here and below
        os.write(reply, f"{text}\n".encode())
    except BrokenPipeError:
        pass  # nobody waits any more
    os.close(reply)


def end(running: dict[int, Running], state: str) -> None:
    """Kill what runs, wait for it, and remove what it leaves on the host."""
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    for pid, process in running.items():
        os.waitpid(pid, 0)
        remove_cgroups(process.request.id)
    if state:
        for name in os.listdir(state) if os.path.isdir(state) else ():
            if name.startswith("netns-"):  # a file on which lamina mounted a namespace
                libc.umount2(os.fsencode(f"{state}/{name}"), MNT_DETACH)
        remove_tree(state)


def remove_cgroups(name: str) -> bool:
    """Remove the control groups of container `name` from every hierarchy; whether none is left.

    A group whose last process has not quite ended yet stays.
    """
    try:
        hierarchies = os.listdir(CGROUP_ROOT)
    except OSError:
        return True
    tops = [f"{CGROUP_ROOT}/{name}", *(f"{CGROUP_ROOT}/{entry}/{name}" for entry in hierarchies)]
    for top in tops:
        try:  # nearly always: the container made no groups of its own
            os.rmdir(top)
            continue
        except FileNotFoundError:
            continue
        except OSError:
            pass
        for directory, _, files in os.walk(top, topdown=False):
            try:
                os.rmdir(directory)
            except OSError as error:
                # Busy stays for the next try. "Not empty" no control group says: it is the tmpfs
                # that shields a hybrid host's cgroup2 mount, where the runtime made plain files.
                if error.errno == errno.ENOTEMPTY:
                    for file in files:
                        os.unlink(f"{directory}/{file}")
                    os.rmdir(directory)
    return not any(os.path.isdir(top) for top in tops)


def remove_cgroups_soon(name: str) -> None:
    """`remove_cgroups` of a container that is dying: for a moment its groups may be busy."""
    for _ in range(100):
        if remove_cgroups(name):
            return
        time.sleep(0.01)


def remove_tree(top: str) -> None:
    """Remove a bundle: regular files and directories of lamina's own making."""
    for directory, directories, files in os.walk(top, topdown=False):
        try:
            for name in files:
                os.unlink(f"{directory}/{name}")
            for name in directories:
                os.rmdir(f"{directory}/{name}")
        except OSError:
            return  # the next start sweeps again
    try:  # noqa: SIM105
        os.rmdir(top)
    except OSError:
        pass
