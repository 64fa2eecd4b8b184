# SPDX-License-Identifier: Apache-2.0
"""Between a container's monitor and those who look at it: frames over a stream socket, terminals.

A frame is one byte of type, four bytes of length (big endian), and that many bytes. The client
speaks first (HELLO); signals do not travel here: whoever may signal a container does so itself.

| from client | payload                                | | from monitor | payload                      |
|-------------|----------------------------------------|-|--------------|------------------------------|
| HELLO       | JSON {"mode": attach, follow, wait or  | | STDOUT       | bytes                        |
|             |       networks, "stdin": bool,         | | STDERR       | bytes                        |
|             |       "holds": bool}                   | | LOGGED       | empty: the log has grown     |
| STDIN       | bytes; empty: end of input             | | STARTED      | JSON {"pid": N}              |
| RESIZE      | rows, columns (two 16-bit numbers)     | | FAILED       | JSON {kind, what, hint,      |
|             |                                        | |              |  status}: it did not start   |
|             |                                        | | LOST         | JSON {"bytes": N}: left out  |
|             |                                        | |              |  here, the client was slow   |
|             |                                        | | EXIT         | JSON {"status": N}           |
|             |                                        | | RECONCILED   | empty: to `networks`, which  |
|             |                                        | |              |  may get FAILED instead      |

A client that `holds` gets every byte: the container waits for it, as for a pipe. docs/adr/0121.
"""

from __future__ import annotations

import errno
import os
import struct

from lamina.errors import Kind, LaminaError
from lamina.start.jsontext import dumps, loads
from lamina.start.lowlevel import signal
from lamina.system.sockets import READ, Poll, Socket, receive_descriptors, stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Self

    from lamina.container.detachkeys import DetachKeys

HELLO, STDIN, RESIZE = 0, 1, 2
STDOUT, STDERR, LOGGED, STARTED, FAILED, EXIT, RECONCILED, LOST = 1, 2, 3, 4, 5, 6, 7, 8
MAX_FRAME = 1 << 20
_HEADER = struct.Struct("!BI")
_SIZE = struct.Struct("!HH")


def frame(type: int, payload: bytes = b"") -> bytes:
    """The bytes of one frame."""
    return _HEADER.pack(type, len(payload)) + payload


def json_frame(type: int, document: dict[str, object]) -> bytes:
    """A frame with a JSON payload."""
    return frame(type, dumps(document).encode())


def size_frame(rows: int, columns: int) -> bytes:
    """A RESIZE frame."""
    return frame(RESIZE, _SIZE.pack(rows, columns))


def parse_size(payload: bytes) -> tuple[int, int]:
    """(rows, columns) of a RESIZE frame. Raises ValueError."""
    if len(payload) != _SIZE.size:
        raise ValueError("a RESIZE frame holds four bytes")
    rows, columns = _SIZE.unpack(payload)
    return rows, columns


class Frames:
    """Cuts a byte stream into frames, whatever the pieces it arrives in."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that are complete now. Raises ValueError if one is too long."""
        self._data += data
        while len(self._data) >= _HEADER.size:
            type, length = _HEADER.unpack_from(self._data)
            if length > MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes is too long")
            end = _HEADER.size + length
            if len(self._data) < end:
                return
            payload, self._data = self._data[_HEADER.size : end], self._data[end:]
            yield type, payload


def connect(directory: str, name: str) -> Socket | None:
    """A connection to the monitor that listens on `directory/name`, or None if nobody does."""
    path_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    client = stream()
    try:
        # through /proc: a socket's path may have only 107 bytes, a store's may have more
        client.connect(f"/proc/self/fd/{path_fd}/{name}")
        return client
    except OSError as error:
        client.close()
        if error.errno in {errno.ENOENT, errno.ECONNREFUSED, errno.ECONNRESET}:
            return None
        raise
    finally:
        os.close(path_fd)


def receive(connection: Socket) -> bytes:
    """Some bytes; none at the end, which is also what a monitor leaves that ends meanwhile."""
    try:
        return connection.recv(_BLOCK)
    except ConnectionResetError:
        return b""


def failure_of(payload: bytes) -> tuple[LaminaError, int]:
    """(the error, the exit status for `run`) of a FAILED frame."""
    document = loads(payload.decode())
    error = LaminaError(
        document["what"], kind=Kind(document["kind"]), hint=document.get("hint", "")
    )
    return error, int(document.get("status", 125))


def failed_frame(error: LaminaError, status: int) -> bytes:
    """A FAILED frame."""
    document: dict[str, object] = {"kind": error.kind.value, "what": error.what}
    document.update({"hint": error.hint, "status": status})
    return json_frame(FAILED, document)


def window_size(descriptor: int) -> tuple[int, int] | None:
    """(rows, columns) of a terminal; None if it is not one."""
    try:
        columns, rows = os.get_terminal_size(descriptor)
    except OSError:
        return None
    return rows, columns


def set_window_size(descriptor: int, rows: int, columns: int) -> None:
    """Resize the terminal; its foreground processes get SIGWINCH from the kernel."""
    import fcntl
    import termios

    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def receive_terminal(listener: Socket) -> int:
    """The pty master that the runtime sends (runtime's --console-socket). Closes nothing.

    Raises LaminaError of kind SYSTEM if it sends none.
    """
    connection, _ = listener.accept()
    with connection:
        descriptors = receive_descriptors(connection)
    if not descriptors:
        raise LaminaError("the runtime sent no terminal", kind=Kind.SYSTEM)
    return descriptors[0]


class Session:
    """A client's end of an attached container: standard streams in, out, and the exit status.

    `stdin` is None when the container gets none; an output that is None is dropped, and without any
    the session ends with its input. `redraws`: what runs on the terminal should paint it anew, for it
    was there before us. Signals are caught for as long as `run` lasts if this is the main thread;
    `on_signal(number)` is called for each.
    """

    def __init__(
        self,
        connection: Socket,
        *,
        stdin: int | None,
        stdout: int | None,
        stderr: int | None,
        terminal: bool = False,
        redraws: bool = False,
        detach_keys: bytes = b"",
        on_signal: Callable[[int], None] | None = None,
    ) -> None:
        self._connection = connection
        self._stdin = stdin
        self._outputs = {STDOUT: stdout, STDERR: stderr}
        self._terminal = terminal
        self._redraws = redraws
        self._keys = _detach_keys(detach_keys) if terminal and detach_keys else None
        self._on_signal = on_signal
        self._frames = Frames()
        self._pending: list[tuple[int, bytes]] = []
        self.is_detached = False  # the detach keys were typed

    def await_start(self) -> None:
        """Wait until the container runs. Raises StartFailed."""
        while True:
            data = receive(self._connection)
            if not data:
                raise StartFailed(
                    LaminaError("the container's monitor died while starting it"), 125
                )
            for type, payload in self._frames.feed(data):
                if type == FAILED:
                    raise StartFailed(*failure_of(payload))
                self._pending.append((type, payload))
            if any(type == STARTED for type, _ in self._pending):
                return

    def run(self) -> int | None:
        """Pass bytes until the container exits: its exit status, or None if detached or lost."""
        with _Signals(self._on_signal is not None, self._terminal) as signals:
            if self._terminal and self._stdin is not None and os.isatty(self._stdin):
                from lamina.container.terminal import RawTerminal

                with RawTerminal(self._stdin):
                    return self._loop(signals)
            return self._loop(signals)

    def _loop(self, signals: _Signals) -> int | None:
        for type, payload in self._pending:
            status = self._handle(type, payload)
            if status is not None:
                return status
        self._send_size()
        poll = Poll()
        poll.watch(self._connection, READ)
        if signals.descriptor is not None:
            poll.watch(signals.descriptor, READ)
        if self._stdin is not None:
            poll.watch(self._stdin, READ)
        while True:
            ready = [source for source, _ in poll.wait()]
            if signals.descriptor in ready:
                self._signals(signals)
            if self._connection in ready:
                data = receive(self._connection)
                if not data:
                    return None
                for type, payload in self._frames.feed(data):
                    status = self._handle(type, payload)
                    if status is not None:
                        return status
            if self._stdin is not None and self._stdin in ready:
                verdict = self._read_stdin()
                if verdict == _DETACH:
                    self.is_detached = True
                    return None
                if verdict == _END:
                    poll.watch(self._stdin, 0)
                    self._stdin = None
                    if self._outputs == _NO_OUTPUTS:
                        return None

    def _handle(self, type: int, payload: bytes) -> int | None:
        if type in self._outputs:
            _write_all(self._outputs[type], payload)
        elif type == LOST:
            self._tell_of_loss(int(loads(payload.decode())["bytes"]))
        elif type == EXIT:
            return int(loads(payload.decode())["status"])
        return None

    def _tell_of_loss(self, count: int) -> None:
        text = f"lamina: {count} bytes of output are left out here: it was read too slowly"
        end = "\r\n" if self._terminal else "\n"  # the terminal is raw
        _write_all(
            self._outputs[STDOUT if self._terminal else STDERR], f"{end}{text}{end}".encode()
        )

    def _read_stdin(self) -> int:
        assert self._stdin is not None
        try:
            data = os.read(self._stdin, _BLOCK)
        except OSError as error:
            if error.errno != errno.EIO:  # the terminal has gone
                raise
            data = b""
        passed, detach = self._keys.feed(data) if self._keys is not None else (data, False)
        if (passed or not data) and not self._send(frame(STDIN, passed)):
            return _END
        if detach:
            return _DETACH
        return _PASSED if data else _END

    def _signals(self, signals: _Signals) -> None:
        for number in signals.read():
            if number == signal.SIGWINCH:
                self._send_size()
            elif self._on_signal is not None:
                self._on_signal(number)

    def _send_size(self) -> None:
        if not self._terminal:
            return
        for descriptor in (self._outputs[STDOUT], self._stdin):
            size = window_size(descriptor) if descriptor is not None else None
            if size is not None:
                rows, columns = size
                if (
                    self._redraws
                ):  # another size first: programs paint when it changes, as in Docker
                    self._redraws = False
                    self._send(size_frame(rows + 1, columns + 1))
                self._send(size_frame(rows, columns))
                return

    def _send(self, data: bytes) -> bool:
        """Send it; False if the monitor has ended, of which the next read tells."""
        try:
            self._connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True


_BLOCK = 64 * 1024
_PASSED, _END, _DETACH = 0, 1, 2
_NO_OUTPUTS = {STDOUT: None, STDERR: None}


def _detach_keys(keys: bytes) -> DetachKeys:
    from lamina.container.detachkeys import DetachKeys

    return DetachKeys(keys)


class StartFailed(Exception):
    """The container did not start: `error` says why, `status` is what `run` exits with."""

    def __init__(self, error: LaminaError, status: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.status = status


class Detached(Exception):
    """The detach keys were typed: the command runs on, and nobody will learn its status."""


class _Signals:
    """Turns signals into bytes on a descriptor while inside a `with`."""

    def __init__(self, proxied: bool, terminal: bool) -> None:  # noqa: FBT001
        wanted: list[int] = [signal.SIGWINCH] if terminal else []
        if proxied:
            wanted += [
                signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1,
                signal.SIGUSR2, signal.SIGALRM, signal.SIGCONT,
            ]  # fmt: skip
        self._wanted = wanted
        self._saved: dict[int, Any] = {}
        self.descriptor: int | None = None
        self._write_end = -1

    def __enter__(self) -> Self:
        if not self._wanted:
            return self
        descriptor, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._old_wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        except ValueError:  # not the main thread
            os.close(descriptor)
            os.close(self._write_end)
            return self
        self.descriptor = descriptor
        for number in self._wanted:
            self._saved[number] = signal.signal(number, _noted)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.descriptor is None:
            return
        for number, handler in self._saved.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self.descriptor)
        os.close(self._write_end)

    def read(self) -> bytes:
        """The numbers of the signals that came."""
        assert self.descriptor is not None
        return os.read(self.descriptor, 4096)


def _noted(number: int, frame: object) -> None:
    """The byte on the wake-up descriptor says it all."""


def _write_all(descriptor: int | None, data: bytes) -> None:
    if descriptor is None:
        return
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # somebody else made our terminal non-blocking
            import select

            select.select([], [descriptor], [])
