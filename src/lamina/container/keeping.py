# SPDX-License-Identifier: Apache-2.0
"""Programs that run beside a process with one thread, and no longer than it, kill -9 included.

For monitors. In a build, whose threads come and go, the launcher keeps them (`spawn.Launcher`): the
kernel's signal at a parent's death is about the thread that forked.
"""

from __future__ import annotations

import os

from lamina.container.launcher import ENVIRONMENT
from lamina.start.libc import call
from lamina.start.lowlevel import signal
from lamina.start.record import Record
from lamina.system.process import open_pidfd, signal_pidfd
from lamina.system.programs import memory_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

_PR_SET_PDEATHSIG = 1


class Kept(Record):
    """A program that runs beside this process: a descriptor that is ready for reading when it has
    ended, and one of a file with all that it said.
    """

    ended: int
    words: int

    def close(self) -> None:
        """Close the descriptors; the program runs on."""
        os.close(self.ended)
        os.close(self.words)


class ForkedHelpers:
    """`ports.Helpers` by fork. Called in the main thread only."""

    def __init__(self) -> None:
        self._pidfds: dict[str, tuple[int, int]] = {}

    def keep(self, id: str, argv: Sequence[str]) -> Kept:
        words = memory_file(id)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            become(argv, words, parent)
        self._pidfds[id] = (pid, open_pidfd(pid))
        return Kept(open_pidfd(pid), words)

    def drop(self, id: str) -> None:
        pid, pidfd = self._pidfds.pop(id)
        try:
            signal_pidfd(pidfd, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # it has ended, and was waited for
        finally:
            os.close(pidfd)


def become(argv: Sequence[str], words: int, parent: int) -> NoReturn:
    """In a child of `parent`: become `argv`, whose words go to the descriptor, and end with it."""
    try:
        call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        # pasta takes a signal that is ignored already for an error
        for name in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(name, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY)
        for number, descriptor in enumerate((null, words, words)):
            os.dup2(descriptor, number)
        os.execve(argv[0], list(argv), ENVIRONMENT)  # noqa: S606  # no shell wanted
    except OSError as error:
        os.write(words, f"{argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)
