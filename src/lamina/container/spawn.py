# SPDX-License-Identifier: Apache-2.0
"""lamina's side of the launcher: start it, hand it runtimes to run, read their output.

See `launcher.py` for the protocol and docs/adr/0031-launcher.md for the reason.
"""

from __future__ import annotations

import errno
import os
import select
import sys

from lamina.container.keeping import Kept
from lamina.container.launcher import TERMINAL_SIGNALS
from lamina.errors import Kind, LaminaError
from lamina.start.lowlevel import allocate_lock
from lamina.start.record import Record
from lamina.system.programs import memory_file
from lamina.system.sockets import Socket, packet_pair, send_descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from lamina.tasks import CancelToken

# Imported rather than run as a script, so that its compiled form is cached.
_BOOT = "import sys; sys.path.append({!r}); import launcher; launcher.main({!r})"
_CHUNK = 1 << 16  # bytes read from a pipe at once: the size of a pipe


class Launch(Record):
    """A runtime to run as process 1 of a PID namespace, in a mount namespace of its own.

    `keep` are paths inside overlay mounts the container uses; `binds` (source, target) are made
    before the runtime starts and while /proc is still the host's; `shield` is a cgroup2 mount
    point to cover, or empty. `id` names the container and its control groups.
    """

    id: str
    bundle: str
    argv: tuple[str, ...]
    keep: tuple[str, ...]
    binds: tuple[tuple[str, str], ...] = ()
    shield: str = ""


class Launcher:
    """The launcher process, started by `start` or the first `run`. Any thread may call `run`.

    It inherits the mount namespace of this process as it is *at each run*: mounts made later are
    seen. A context manager; `close` ends it and with it everything it runs. If this process dies,
    the launcher removes the directory `state` (empty for none).
    """

    def __init__(self, *, state: str = "") -> None:
        self._state = state
        self._lock = allocate_lock()
        self._control: Socket | None = None
        self._pid = 0

    def start(self) -> None:
        """Start the process now, so that its interpreter is ready when the first `run` comes."""
        with self._lock:
            if self._control is None:
                self._control = self._start()

    def run(
        self, launch: Launch, *, on_output: Callable[[int, bytes], None], cancel: CancelToken
    ) -> int:
        """Run to the end and return the wait status (os.waitstatus_to_exitcode understands it).

        Output arrives through `on_output(1 or 2, data)` in this thread. On cancel, or if
        `on_output` raises, every process of the container is dead when this returns.

        Raises:
            Cancelled: the token was set.
            LaminaError: kind DENIED without the right to create namespaces, SYSTEM if the
                runtime cannot be executed or the launcher died.
        """
        cancel.check()
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        readers, writers = [p[0] for p in pipes], [p[1] for p in pipes]
        try:
            try:
                self._send(_fields(launch), [null, *writers])
            finally:
                for descriptor in (null, *writers):
                    os.close(descriptor)
            answer = self._pump(launch.id, readers, on_output, cancel)
        finally:
            for descriptor in readers:
                os.close(descriptor)
        cancel.check()
        return _status(answer)

    def _pump(
        self,
        id: str,
        readers: list[int],
        on_output: Callable[[int, bytes], None],
        cancel: CancelToken,
    ) -> bytes:
        """Copy output until both streams and the reply have ended; the reply."""

        def kill() -> None:
            self._kill(id)

        finished = False
        cancel.on_cancel(kill)
        try:
            answer = _copy_output(readers, on_output)
            finished = True
        finally:
            cancel.forget(kill)
            if not finished:
                kill()
                _copy_output(readers, lambda _stream, _data: None)
        return answer

    def keep(self, id: str, argv: Sequence[str]) -> Kept:
        """See `ports.Helpers`. Any thread may call it."""
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        ended, reply = os.pipe2(os.O_CLOEXEC)
        kept = Kept(ended, memory_file(id))
        try:
            self._send(["keep", id, "\n".join(argv)], [null, kept.words, kept.words, reply])
        except BaseException:
            kept.close()
            raise
        finally:
            os.close(null)
            os.close(reply)
        return kept

    def drop(self, id: str) -> None:
        """See `ports.Helpers`."""
        self._kill(id)

    def _send(self, fields: list[str], descriptors: list[int]) -> None:
        """Hand a request over; a launcher that died since the last one is replaced, once."""
        data = "\0".join(fields).encode("utf-8", "surrogateescape")
        with self._lock:
            for _ in range(2):
                if self._control is None:
                    self._control = self._start()
                try:
                    send_descriptors(self._control, data, descriptors)
                    return
                except (BrokenPipeError, ConnectionResetError):
                    self._forget()
        raise LaminaError("the container launcher does not start")

    def _kill(self, id: str) -> None:
        """Kill container `id`, if it runs. A dead launcher has taken its containers with it."""
        with self._lock:
            if self._control is not None:
                try:
                    self._control.send(f"kill\0{id}".encode())
                except (BrokenPipeError, ConnectionResetError):
                    self._forget()

    def _start(self) -> Socket:
        """Start the process. The terminal's signals are held back until it is in its own session."""
        ours, theirs = packet_pair()
        boot = _BOOT.format(os.path.dirname(__file__), self._state)
        argv = [sys.executable, "-I", "-S", "-c", boot]
        with theirs:
            self._pid = os.posix_spawn(
                sys.executable,
                argv,
                {},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
                ],
                setsigmask=TERMINAL_SIGNALS,
            )
        return ours

    def close(self) -> None:
        """End the launcher and what it runs. Idempotent."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        """Close the socket, which ends the launcher, and wait for it."""
        if self._control is not None:
            self._control.close()
            self._control = None
            os.waitpid(self._pid, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _fields(launch: Launch) -> list[str]:
    return [
        "run",
        launch.id,
        launch.bundle,
        launch.shield,
        "\n".join(launch.keep),
        "\n".join(f"{source}\t{target}" for source, target in launch.binds),
        "\n".join(launch.argv),
    ]


def _copy_output(readers: list[int], on_output: Callable[[int, bytes], None]) -> bytes:
    """Read standard output, standard error and the reply to their ends; the reply."""
    streams = {readers[0]: 1, readers[1]: 2, readers[2]: 0}
    answer = b""
    poller = select.poll()
    for descriptor in streams:
        poller.register(descriptor, select.POLLIN)
    while streams:
        for descriptor, _ in poller.poll():
            data = os.read(descriptor, _CHUNK)
            if not data:
                poller.unregister(descriptor)
                del streams[descriptor]
            elif streams[descriptor]:
                on_output(streams[descriptor], data)
            else:
                answer += data
    return answer


def _status(answer: bytes) -> int:
    """The wait status in the launcher's answer. Raises LaminaError for a failure to start."""
    lines = answer.decode().splitlines()
    for line in lines:
        if line.startswith("e"):
            raise _failure(line[1:])
    if not lines:
        raise LaminaError("the container launcher has died while a container ran")
    return int(lines[-1][1:])


def _failure(text: str) -> LaminaError:
    number, _, what = text.partition(" ")
    error = int(number)
    reason = f"{what}: {os.strerror(error)}" if error else what
    if error in (errno.EPERM, errno.EACCES):
        return LaminaError(
            reason, kind=Kind.DENIED, hint="a sandbox around lamina refuses it: `lamina doctor`"
        )
    return LaminaError(reason)
