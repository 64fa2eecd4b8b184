# SPDX-License-Identifier: Apache-2.0
"""A container's monitor as a fork of the command that starts it: no interpreter has to start.

Only for lamina's own commands, whose memory is small and whose descriptors are known. What is left
of the command in the child is made harmless: its descriptors are closed, its objects are never
finalized (they could close numbers that mean something else by now), its arguments and environment,
where passwords may stand, are wiped, so that `ps` does not show them as long as the container runs.
"""

from __future__ import annotations

import gc
import os

from lamina.start.lowlevel import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_ARG_START = 48 - 3  # arg_start is field 48 of /proc/PID/stat; 3 is the first after the name


def can_fork() -> bool:
    """Whether this process has one thread: locks held by others would stay locked in a child."""
    return len(os.listdir("/proc/self/task")) == 1


def fork_detached(
    body: Callable[[], object],
    *,
    title: str,
    keep: Iterable[int],
    log: int,
    env: Mapping[str, str],
) -> None:
    """Run `body` in a process of its own, in a session of its own, with the descriptors `keep`,
    `log` as its standard output and error, and `env`; `ps` shows `title`.

    It is this process's child, which nobody waits for: commands end, and init takes it over. A
    second fork to be init's from the beginning costs 2 ms.
    """
    if os.fork():
        return
    try:
        os.setsid()
        _shed(keep, log, env)
        _overwrite_arguments(os.fsencode(title))
        body()
    except BaseException:  # noqa: BLE001  # nothing may return into the frames of the command
        import traceback

        traceback.print_exc()
    finally:
        os._exit(1)


def _shed(keep: Iterable[int], log: int, env: Mapping[str, str]) -> None:
    """Leave behind what belongs to the command."""
    gc.disable()
    gc.freeze()
    signal.set_wakeup_fd(-1)
    for caught in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH):
        signal.signal(caught, signal.SIG_DFL)
    os.chdir("/")
    os.umask(0o022)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    lowest = 3
    for number in sorted(keep):
        os.closerange(lowest, number)
        lowest = number + 1
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(env)


def _overwrite_arguments(title: bytes) -> None:
    """Put `title` where the arguments of this process were, and nothing where its first environment
    was: the two lie one after the other, and proc(5) shows a title that reaches into the second.
    """
    from lamina.start.libc import call

    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end, env_start, env_end = map(int, fields[_ARG_START : _ARG_START + 4])
    if not 0 < start < end:
        return
    call("memset", start, 0, end - start)
    if end <= env_start < env_end:
        call("memset", env_start, 0, env_end - env_start)
        end = env_end if env_start == end else end
    call("memmove", start, title, min(len(title), end - start - 1))
