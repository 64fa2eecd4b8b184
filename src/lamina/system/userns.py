# SPDX-License-Identifier: Apache-2.0
"""Who this process is to the kernel: root of the host, root of a user namespace, or neither yet.

Mounting, giving files to others and making namespaces takes root. An ordinary user gets it in a user
namespace, for this process and its children: `enter` moves the process there, in place, when something
needs it. Root of the host has nothing to enter. docs/adr/0112-rootless.md says why it is done so.

Rules
- The kernel moves only a process with one thread: `enter` is called in the main thread of a command
  before others exist. It is idempotent.
- Ids on disk are the kernel's: what one process of the user wrote, another reads, inside or outside.
- What the process was before (`own_uid`) decides where its store and settings are, not uid 0.
"""

from __future__ import annotations

import errno
import os

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.system.subids import Ranges

# States
HOST = "host"  # uid 0 of the host (or whatever it takes for the host: a container)
MAPPED = "mapped"  # uid 0 of a user namespace with further ids
SINGLE = "single"  # uid 0 of a user namespace that knows this one id
OUTSIDE = "outside"  # an ordinary user

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_HOST_MAP = ["0", "0", "4294967295"]
SEARCH_PATH = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin"
_PATIENCE = 200  # times 5 ms: threads that have ended stay in the kernel's list for a moment


class _Here:
    """This process's place. `why_single` says why no further ids are mapped."""

    state = ""
    uid = -1
    why_single = ""
    is_told = False


def state() -> str:
    """One of the states above."""
    if not _Here.state:
        _Here.uid = os.geteuid()
        _Here.state = OUTSIDE if _Here.uid else _state_of_root()
    return _Here.state


def own_uid() -> int:
    """The uid that this process has, or had before it entered a namespace."""
    state()
    return _Here.uid


def is_host_root() -> bool:
    """Whether host-wide things may be tried: bridges, packet rules, EROFS, device nodes, trusted.*."""
    return state() == HOST


def can_mount() -> bool:
    """Whether this process can mount and give files to others, as far as is known."""
    return state() != OUTSIDE


def is_namespaced() -> bool:
    """Whether this process is root of a user namespace: overlays then keep their marks in user.*."""
    return state() in {MAPPED, SINGLE}


def is_possible() -> bool:
    """Enter if need be; whether that went well, so that what is optional may be done."""
    try:
        enter()
    except LaminaError:
        return False
    return True


def enter() -> None:
    """Make this process root of a user namespace with a mount namespace of its own, if it is an
    ordinary user's and not there yet.

    Raises:
        LaminaError: DENIED (the host refuses user namespaces), UNSUPPORTED (this process has
            threads), EXHAUSTED (too many namespaces).
    """
    if state() != OUTSIDE:
        return
    from lamina.system.subids import can_map, read_ranges, user_name

    _wait_for_threads()
    uid, gid = _Here.uid, os.getegid()
    ranges = read_ranges(uid, user_name(uid), search_path=SEARCH_PATH)
    why = can_map(search_path=SEARCH_PATH) if ranges else _no_ranges(uid)
    mapper = None if why else _Mapper(uid, gid, ranges)
    try:
        _unshare()
    except BaseException:
        if mapper is not None:
            mapper.stop()
        raise
    _Here.state = SINGLE
    if mapper is not None:
        why = mapper.map()
    if why:
        _Here.why_single = why
        _map_single(uid, gid)
    else:
        _Here.state = MAPPED


def join(pid: int) -> None:
    """Move this process into the user namespace of `pid`, a container's or monitor's of this user.

    Root of the host, and a process that is in it already, stays where it is.

    Raises:
        LaminaError: NOT_FOUND (the process has ended), DENIED.
    """
    if state() == HOST:
        return
    try:
        theirs = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LaminaError(f"process {pid} has ended", kind=Kind.NOT_FOUND) from error
    try:
        if os.path.samestat(os.fstat(theirs), os.stat("/proc/self/ns/user")):
            return
        _wait_for_threads()
        from lamina.system.netns import setns

        setns(theirs, _CLONE_NEWUSER)
    except OSError as error:
        raise LaminaError(
            f"cannot join the user namespace of process {pid}: {error.strerror}", kind=Kind.DENIED
        ) from error
    finally:
        os.close(theirs)
    _Here.state = _state_of_root()


def is_mapped(uid: int, gid: int) -> bool:
    """Whether files and processes here can have these ids."""
    return _in_map("uid_map", uid) and _in_map("gid_map", gid)


def mapped_count() -> int:
    """How many uids this process's namespace has."""
    return sum(int(line[2]) for line in _map("uid_map"))


def check_ids(uid: int, gid: int, *, what: str) -> None:
    """Raise LaminaError of kind UNSUPPORTED if the ids are not mapped, saying how they would be."""
    if not is_namespaced() or is_mapped(uid, gid):
        return
    raise LaminaError(
        f"{what}: {uid}:{gid} is not among the ids of your user namespace",
        kind=Kind.UNSUPPORTED,
        hint=ids_hint(),
    )


def ids_hint() -> str:
    """What to do about ids that are missing here; empty where none are."""
    if not is_namespaced():
        return ""
    from lamina.system.subids import mending_command

    why = _Here.why_single or "the ranges in /etc/subuid and /etc/subgid end below it"
    return f"{why}; more ids: {mending_command(own_uid())}"


def notice() -> str:
    """What the user should know about this process's namespace; empty if nothing, or told before."""
    if state() != SINGLE or _Here.is_told or not _Here.why_single:
        return ""
    _Here.is_told = True
    from lamina.system.subids import mending_command

    return (
        f"only your own id is mapped, because {_Here.why_single}: images with files of other owners, "
        f"chown, USER and packages that make users will fail; {mending_command(own_uid())}"
    )


def _no_ranges(uid: int) -> str:
    from lamina.system.subids import SUBGID, SUBUID, user_name

    return f"{user_name(uid) or uid} has no ranges in {SUBUID} and {SUBGID}"


class _Mapper:
    """A child outside of the namespace, which maps ids into it once this process is there."""

    def __init__(self, uid: int, gid: int, ranges: Ranges) -> None:
        from lamina.system.programs import find_program
        from lamina.system.subids import map_arguments

        pid = str(os.getpid())
        self._commands = [
            [find_program(name, search_path=SEARCH_PATH), pid, *map_arguments(own, found)]
            for name, own, found in (
                ("newuidmap", uid, ranges.uids),
                ("newgidmap", gid, ranges.gids),
            )
        ]
        self._reply, reply = os.pipe2(os.O_CLOEXEC)
        go, self._go = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._go)
            self._serve(go, reply)
        os.close(reply)
        os.close(go)

    def _serve(self, go: int, reply: int) -> None:
        """In the child: wait for the word, run both programs, end."""
        status = 1
        try:
            if os.read(go, 1):
                null = os.open(os.devnull, os.O_RDWR)
                files = [(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate((null, reply, reply))]
                children = [
                    os.posix_spawn(argv[0], argv, {}, file_actions=files) for argv in self._commands
                ]
                ends = [os.waitpid(child, 0)[1] for child in children]
                status = 1 if any(ends) else 0
        finally:
            os._exit(status)

    def map(self) -> str:
        """Map the ids; why it failed, empty if it did not."""
        os.write(self._go, b"g")
        said = b""
        while data := os.read(self._reply, 4096):
            said += data
        status = self.stop()
        if status == 0:
            return ""
        lines = said.decode("utf-8", "replace").split("\n")
        return lines[0] or "newuidmap failed"

    def stop(self) -> int:
        """End the child; its wait status."""
        os.close(self._go)
        os.close(self._reply)
        return os.waitpid(self._pid, 0)[1]


def _unshare() -> None:
    from lamina.system.netns import unshare

    try:
        unshare(_CLONE_NEWUSER | _CLONE_NEWNS)
    except OSError as error:
        raise _refused(error.errno or 0) from error


def _refused(number: int) -> LaminaError:
    from lamina.system.nsswitches import refusals

    against = refusals()
    what = "cannot make a user namespace"
    hint = "; ".join(f"{each.why}: {each.mend}" for each in against)
    if number in {errno.ENOSPC, errno.EUSERS} and not against:
        return LaminaError(
            f"{what}: there are too many",
            kind=Kind.EXHAUSTED,
            hint="raise /proc/sys/user/max_user_namespaces",
        )
    if number == errno.EINVAL and not against:
        hint = "this kernel was built without them (CONFIG_USER_NS)"
    hint = hint or "a container or sandbox around this process refuses them; run it as root there"
    return LaminaError(f"{what}: {os.strerror(number)}", kind=Kind.DENIED, hint=hint)


def _map_single(uid: int, gid: int) -> None:
    """Map the user's own id alone, which needs no privilege. What is mapped already stays."""
    try:
        for name, text in (("uid_map", f"0 {uid} 1\n"), ("gid_map", f"0 {gid} 1\n")):
            if _map(name):
                continue
            if name == "gid_map":
                _write("setgroups", "deny")  # user_namespaces(7): else a group could be left
            _write(name, text)
    except OSError as error:
        raise _refused(error.errno or 0) from error


def _write(name: str, text: str) -> None:
    fd = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _wait_for_threads() -> None:
    """Wait a moment until this process has one thread. Raises LaminaError if it keeps others."""
    for _ in range(_PATIENCE):
        if len(os.listdir("/proc/self/task")) == 1:
            return
        import time

        time.sleep(0.005)
    raise LaminaError(
        "an ordinary user's process with threads cannot enter a user namespace",
        kind=Kind.UNSUPPORTED,
        hint="use the command `lamina`, or call lamina.enter_namespace() before threads start",
    )


def _state_of_root() -> str:
    lines = _map("uid_map")
    if not lines or lines == [_HOST_MAP]:
        return HOST
    return MAPPED if sum(int(line[2]) for line in lines) > 1 else SINGLE


def _map(name: str) -> list[list[str]]:
    try:
        fd = os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        text = os.read(fd, 1 << 16)  # at most 340 lines
    finally:
        os.close(fd)
    return [line.split() for line in text.decode("ascii").splitlines()]


def _in_map(name: str, id: int) -> bool:
    return any(int(line[0]) <= id < int(line[0]) + int(line[2]) for line in _map(name))
