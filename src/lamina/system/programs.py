# SPDX-License-Identifier: Apache-2.0
"""Running a program to its end without `subprocess`, whose import takes 3 ms."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from signal import SIGPIPE, SIGXFSZ
else:
    from _signal import SIGPIPE, SIGXFSZ

__all__ = ["run_program"]


def run_program(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: int,
    stdout: int,
    stderr: int,
    copy: int = -1,
) -> int:
    """Run `argv[0]`, a path, in this working directory; its exit status, negative for a signal.

    With `copy`, a descriptor, that file is executed instead if the kernel takes it. The streams are descriptors; nothing else is inherited but what is marked so. The caller must
    have no other handler of SIGCHLD that waits for any child.

    Raises:
        OSError: it cannot be executed.
    """
    streams = [(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate((stdin, stdout, stderr))]
    # Python ignores these two; what is ignored stays so over an exec
    for path in (f"/proc/self/fd/{copy}", argv[0]) if copy >= 0 else (argv[0],):
        try:
            pid = os.posix_spawn(
                path, list(argv), env, file_actions=streams, setsigdef=(SIGPIPE, SIGXFSZ)
            )
            break
        except OSError:
            if path == argv[0]:
                raise
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
