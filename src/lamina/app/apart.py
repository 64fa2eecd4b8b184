# SPDX-License-Identifier: Apache-2.0
"""A call in a process of its own, for programs whose own process may not enter a user namespace.

The kernel moves only a process with one thread, and a notebook has several. The child is a new
interpreter: it calls the function by its name and sends what it says (events), then what it returns or
raises. Both sides are this program, so what travels is pickled; nobody else has the socket.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress

from lamina.container.forking import can_fork
from lamina.errors import Cancelled, Kind, LaminaError
from lamina.start.libc import call as libc
from lamina.start.lowlevel import allocate_lock
from lamina.system import userns
from lamina.tasks import CancelToken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from lamina.events import Event

_LENGTH = struct.Struct("!Q")
_EVENT, _RESULT, _ERROR = "event", "result", "error"
_PR_SET_PDEATHSIG = 1


def is_needed() -> bool:
    """Whether this process is an ordinary user's that cannot enter a namespace: it has threads."""
    return userns.state() == userns.OUTSIDE and not can_fork()


def call(
    function: str,
    arguments: dict[str, object],
    *,
    on_event: Callable[[Event], object] | None = None,
    cancel: CancelToken | None = None,
) -> Any:
    """What `module:function` gives for the keyword arguments in a process of its own, in this working
    directory. It gets `cancel` and, if events are wanted, `on_event` too; they come in this thread.

    Whatever interrupts this one (KeyboardInterrupt, an error of `on_event`) cancels the other, too.

    Raises:
        What the function raised; LaminaError of kind SYSTEM if its process died.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            child = subprocess.Popen(
                _command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # ^C is for us: we tell the child
            )
        try:
            if cancel is not None:
                cancel.on_cancel(child.terminate)
            with suppress(BrokenPipeError):  # it was cancelled before it could read: see below
                _send(ours, (function, arguments, on_event is not None))
            kind, value = _await(ours, on_event)
        except BaseException:
            child.terminate()
            raise
        finally:
            ours.close()  # or it might wait for us to read
            child.wait()
    if kind == _RESULT:
        return value
    if kind == _ERROR:
        raise value
    if cancel is not None:
        cancel.check()  # it may have come before the child could take it in
    raise LaminaError(f"the process that did the work died: status {child.returncode}")


def _await(
    connection: socket.socket, on_event: Callable[[Event], object] | None
) -> tuple[str, Any]:
    """(kind, value) of the last word; kind is empty if there was none."""
    while (found := _receive(connection)) is not None:
        kind, value = found
        if kind != _EVENT:
            return kind, value
        if on_event is not None:
            on_event(value)
    return "", None


def _command(descriptor: int) -> list[str]:
    """A new interpreter with this one's modules to choose from; nothing else of its environment."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from lamina.app.apart import main; "
    return [sys.executable, "-I", "-S", "-c", f"{code}main({descriptor}, {os.getpid()})"]


def main(descriptor: int, parent: int) -> NoReturn:
    """The child: do one call, end."""
    token = CancelToken()
    signal.signal(signal.SIGTERM, lambda *_: token.cancel())
    libc("prctl", _PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    os.set_inheritable(descriptor, False)
    with socket.socket(fileno=descriptor) as connection:
        request = _receive(connection)
        assert request is not None
        function, arguments, tells = request
        if tells:
            arguments["on_event"] = _Sender(connection, token)
        try:
            module, _, name = function.partition(":")
            target = getattr(importlib.import_module(module), name)
            answer = (_RESULT, target(**arguments, cancel=token))
        except (Exception, Cancelled) as error:  # noqa: BLE001  # it is raised on the other side
            answer = (_ERROR, error)
        with suppress(BrokenPipeError):  # nobody waits for it any more
            _send(connection, answer)
    sys.exit(0)


class _Sender:
    """An emitter that passes events on; builds call it from several threads. Who does not take them
    wants no more.
    """

    def __init__(self, connection: socket.socket, token: CancelToken) -> None:
        self._connection = connection
        self._token = token
        self._lock = allocate_lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            try:
                _send(self._connection, (_EVENT, event))
            except BrokenPipeError:
                self._token.cancel()


class _Pickler(pickle.Pickler):
    """Exceptions as what they hold: their constructors take other arguments than `args`."""

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, BaseException):
            return _remade, (type(value), value.args), value.__dict__
        return NotImplemented


def _remade(cls: type[BaseException], args: tuple[object, ...]) -> BaseException:
    return cls.__new__(cls, *args)


def _send(connection: socket.socket, value: object) -> None:
    buffer = io.BytesIO()
    try:
        _Pickler(buffer).dump(value)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise LaminaError(
            f"cannot be passed to the process that does the work: {error}", kind=Kind.UNSUPPORTED
        ) from error
    data = buffer.getvalue()
    connection.sendall(_LENGTH.pack(len(data)) + data)


def _receive(connection: socket.socket) -> Any:
    """The next value; None at the end."""
    head = _read(connection, _LENGTH.size)
    body = _read(connection, _LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""
    return pickle.loads(body) if body else None  # noqa: S301  # from ourselves


def _read(connection: socket.socket, count: int) -> bytes:
    """That many bytes, or fewer at the end."""
    data = bytearray()
    while len(data) < count:
        try:
            piece = connection.recv(min(count - len(data), 1 << 20))
        except ConnectionResetError:
            break
        if not piece:
            break
        data += piece
    return bytes(data) if len(data) == count else b""
