# SPDX-License-Identifier: Apache-2.0
"""Between a container's monitor and those who look at it: frames over a stream socket, terminals.

A frame is one byte of type, four bytes of length (big endian), and that many bytes. The client
speaks first (HELLO); signals do not travel here: whoever may signal a container does so itself.

| from client | payload                                | | from monitor | payload                      |
|-------------|----------------------------------------|-|--------------|------------------------------|
| HELLO       | JSON {"mode": attach, follow, wait or  | | STDOUT       | bytes                        |
|             |       networks, "stdin": bool}         | | STDERR       | bytes                        |
| STDIN       | bytes; empty: end of input             | | LOGGED       | empty: the log has grown     |
| RESIZE      | rows, columns (two 16-bit numbers)     | | STARTED      | JSON {"pid": N}              |
|             |                                        | | FAILED       | JSON {kind, what, hint,      |
|             |                                        | |              |  status}: it did not start   |
|             |                                        | | EXIT         | JSON {"status": N}           |
|             |                                        | | RECONCILED   | empty: to `networks`, which  |
|             |                                        | |              |  may get FAILED instead      |
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

HELLO, STDIN, RESIZE = 0, 1, 2
STDOUT, STDERR, LOGGED, STARTED, FAILED, EXIT, RECONCILED = 1, 2, 3, 4, 5, 6, 7
MAX_FRAME = 1 << 20
DETACH_KEYS = b"\x10\x11"  # ctrl-p ctrl-q, Docker's default
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


class RawTerminal:
    """The terminal in raw mode inside a `with`; restored however it ends."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._saved: list[Any] | None = None

    def __enter__(self) -> Self:
        import termios
        import tty

        self._saved = termios.tcgetattr(self.descriptor)
        tty.setraw(self.descriptor, termios.TCSANOW)
        return self

    def __exit__(self, *exc: object) -> None:
        import termios

        if self._saved is not None:
            termios.tcsetattr(self.descriptor, termios.TCSADRAIN, self._saved)


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


class DetachKeys:
    """Finds the detach sequence in typed bytes, also when it arrives in pieces."""

    def __init__(self, keys: bytes) -> None:
        self.keys = keys
        self._held = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(the bytes to pass on, whether the sequence is complete)."""
        passed = bytearray()
        for byte in data:
            if self.keys and byte == self.keys[self._held]:
                self._held += 1
                if self._held == len(self.keys):
                    return bytes(passed), True
                continue
            passed += self.keys[: self._held]
            self._held = 0
            if self.keys and byte == self.keys[0]:
                self._held = 1
                continue
            passed.append(byte)
        return bytes(passed), False


def parse_detach_keys(text: str) -> bytes:
    """Docker's `--detach-keys`: letters and `ctrl-x`, comma separated. Raises kind USAGE."""
    keys = bytearray()
    for word in text.split(","):
        letter = word.removeprefix("ctrl-")
        if len(letter) != 1 or not letter.isascii():
            raise LaminaError(f"invalid detach keys: unknown key {word!r}", kind=Kind.USAGE)
        code = ord(letter)
        keys.append(code & 0x1F if letter != word else code)
    return bytes(keys)


class Session:
    """A client's end of an attached container: standard streams in, out, and the exit status.

    `stdin` is None when the container gets none. Signals are caught for as long as `run` lasts
    if this is the main thread; `on_signal(number)` is called for each.
    """

    def __init__(
        self,
        connection: Socket,
        *,
        stdin: int | None,
        stdout: int,
        stderr: int,
        terminal: bool = False,
        detach_keys: bytes = DETACH_KEYS,
        on_signal: Callable[[int], None] | None = None,
    ) -> None:
        self._connection = connection
        self._stdin = stdin
        self._outputs = {STDOUT: stdout, STDERR: stderr}
        self._terminal = terminal
        self._keys = DetachKeys(detach_keys if terminal else b"")
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

    def _handle(self, type: int, payload: bytes) -> int | None:
        if type in self._outputs:
            _write_all(self._outputs[type], payload)
        elif type == EXIT:
            return int(loads(payload.decode())["status"])
        return None

    def _read_stdin(self) -> int:
        assert self._stdin is not None
        try:
            data = os.read(self._stdin, _BLOCK)
        except OSError as error:
            if error.errno != errno.EIO:  # the terminal has gone
                raise
            data = b""
        passed, detach = self._keys.feed(data)
        if detach:
            return _DETACH
        if passed or not data:
            try:
                self._connection.sendall(frame(STDIN, passed))
            except (BrokenPipeError, ConnectionResetError):
                return _END
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
                self._connection.sendall(size_frame(*size))
                return


_BLOCK = 64 * 1024
_PASSED, _END, _DETACH = 0, 1, 2


class StartFailed(Exception):
    """The container did not start: `error` says why, `status` is what `run` exits with."""

    def __init__(self, error: LaminaError, status: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.status = status


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


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # somebody else made our terminal non-blocking
            import select

            select.select([], [descriptor], [])
