# SPDX-License-Identifier: Apache-2.0
"""Work done by a child whose root directory is a container's: no path it uses can leave that.

A running container changes its files while they are read: a directory becomes a link between two
looks (CVE-2018-15664). After chroot(2) such a link stays inside whatever happens. The child imports
nothing any more, as modules would come from the container's files (CVE-2019-14271 was that).
"""

from __future__ import annotations

import os
import sys

import lamina.redaction  # noqa: F401  # what an error needs to say itself
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class NobodyReads(Exception):
    """The other end of a pipe has been closed. No OSError: that would be taken for a file's."""


def pipe_writer(descriptor: int) -> Callable[[bytes], None]:
    """A function that writes all it is given. Raises NobodyReads."""

    def write(data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except BrokenPipeError:
            raise NobodyReads from None

    return write


class Inside:
    """A child that does `work` in the directory `root_fd`; `finish` waits for it.

    What `work` needs must be imported before. The caller has one thread.
    """

    def __init__(self, root_fd: int, work: Callable[[], object], *, close: int = -1) -> None:
        """`close` is a descriptor of the caller's that the child must not hold open."""
        self._answer, answer = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            _be_child(root_fd, work, answer, close)
        os.close(answer)

    def finish(self) -> None:
        """Wait until it has ended. Raises what the work raised."""
        with open(self._answer, "rb") as file:
            said = file.read()
        _, status = os.waitpid(self._pid, 0)
        if said:
            kind, hint, what = said.decode("utf-8", "replace").split("\0", 2)
            raise LaminaError(what, kind=Kind(kind), hint=hint)
        if status:
            raise LaminaError("a child process was killed", kind=Kind.SYSTEM)


def _be_child(root_fd: int, work: Callable[[], object], answer: int, close: int) -> None:
    status = 1
    try:
        if close >= 0:
            os.close(close)
        os.fchdir(root_fd)
        os.chroot(".")
        sys.meta_path.clear()
        sys.path.clear()
        work()
        status = 0
    except LaminaError as error:
        _say(answer, error.what, error.kind, error.hint)
    except NobodyReads:
        status = 0  # the caller knows why
    except OSError as error:
        name = f": {error.filename!r}" if error.filename else ""
        _say(answer, f"{error.strerror}{name}", Kind.SYSTEM, "")
    except BaseException as error:  # noqa: BLE001  # a child ends here
        _say(answer, f"{type(error).__name__}: {error}", Kind.SYSTEM, "")
    finally:
        os._exit(status)


def _say(answer: int, what: str, kind: Kind, hint: str) -> None:
    os.write(answer, f"{kind.value}\0{hint}\0{what}".encode("utf-8", "backslashreplace"))
