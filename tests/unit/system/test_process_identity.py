# SPDX-License-Identifier: Apache-2.0
"""Pid and start time."""

from __future__ import annotations

import os
import subprocess

import pytest

from lamina.start.record import replace
from lamina.system.process import identify, open_pidfd, signal_pidfd, this_process


def test_this_process_is_alive() -> None:
    assert this_process().pid == os.getpid()
    assert this_process().alive()


def test_same_pid_started_at_another_time_is_not_alive() -> None:
    now = this_process()
    assert not replace(now, start_ticks=now.start_ticks - 1).alive()


def test_ended_process_is_not_alive_even_as_a_zombie() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        identity = identify(child.pid)
        assert identity is not None
        assert identity.alive()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not identity.alive()
    assert not identity.alive()
    assert identify(child.pid) is None


def test_name_with_spaces_and_parentheses_is_no_trouble(tmp_path: object) -> None:
    program = os.path.join(str(tmp_path), "a) R 1 (b")
    os.symlink("/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as child:
        identity = identify(child.pid)
        assert identity is not None
        assert identity.alive()
        child.kill()


def test_a_pidfd_is_of_one_process_until_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)  # a Python for old C libraries has none
    with subprocess.Popen(["sleep", "60"]) as child:
        pidfd = open_pidfd(child.pid)
        try:
            assert not os.get_inheritable(pidfd)
            signal_pidfd(pidfd, 15)
            assert child.wait() == -15
            with pytest.raises(ProcessLookupError):
                signal_pidfd(pidfd, 0)
        finally:
            os.close(pidfd)
    with pytest.raises(ProcessLookupError):
        open_pidfd(child.pid)
