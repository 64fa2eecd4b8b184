# SPDX-License-Identifier: Apache-2.0
"""Running a program to its end without `subprocess`, whose import takes 3 ms."""

from __future__ import annotations

import os

from lamina.start.lowlevel import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["find_program", "memory_file", "output_of", "run_program"]

_MFD_CLOEXEC = 1


def find_program(name: str, *, search_path: str) -> str:
    """The first executable file of that name in the directories of `search_path`; empty for none."""
    for directory in search_path.split(":"):
        path = f"{directory}/{name}"
        if directory and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


def memory_file(name: str) -> int:
    """A descriptor (close-on-exec) of an empty file in memory. Raises OSError."""
    from lamina.start.libc import checked

    return checked("memfd_create", name.encode(), _MFD_CLOEXEC)


def output_of(
    argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes = b""
) -> tuple[int, bytes, bytes]:
    """(exit status, standard output, standard error) of `argv` with `stdin` as its input.

    The three are files in memory: nothing can block, however much is written. Raises as
    `run_program`.
    """
    files = [memory_file(name) for name in ("stdin", "stdout", "stderr")]
    try:
        with open(files[0], "wb", closefd=False) as file:
            file.write(stdin)
        os.lseek(files[0], 0, os.SEEK_SET)
        status = run_program(argv, env=env, stdin=files[0], stdout=files[1], stderr=files[2])
        return status, _content(files[1]), _content(files[2])
    finally:
        for number in files:
            os.close(number)


def _content(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()


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

    With `copy`, a descriptor, that file is executed instead if the kernel takes it. The streams are
    descriptors; nothing else is inherited but what is marked so. No other thread may wait for any child.

    Raises:
        OSError: it cannot be executed.
    """
    streams = [(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate((stdin, stdout, stderr))]
    # Python ignores these two; what is ignored stays so over an exec
    for path in (f"/proc/self/fd/{copy}", argv[0]) if copy >= 0 else (argv[0],):
        try:
            pid = os.posix_spawn(
                path,
                list(argv),
                env,
                file_actions=streams,
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
            break
        except OSError:
            if path == argv[0]:
                raise
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
