# SPDX-License-Identifier: Apache-2.0
"""The launcher is in a session of its own, out of reach of the terminal that lamina runs on."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from lamina.container.spawn import Launch, Launcher
from lamina.errors import LaminaError
from lamina.tasks import CancelToken

TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP)


@pytest.fixture
def _old_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spawns as a Python does that was built with one, as uv's and conda's were."""
    spawn = os.posix_spawn

    def without_setsid(*words: Any, **flags: Any) -> int:
        if flags.get("setsid"):
            raise NotImplementedError("posix_spawn: setsid unavailable on this platform")
        return spawn(*words, **flags)

    monkeypatch.setattr(os, "posix_spawn", without_setsid)


@pytest.mark.usefixtures("_old_c_library")
def test_the_launcher_leaves_the_session_and_blocks_no_signal(tmp_path: Path) -> None:
    launch = Launch("id", str(tmp_path), ("/bin/true",), ())
    with Launcher() as launcher:
        with contextlib.suppress(LaminaError):  # without the right to make namespaces
            launcher.run(launch, on_output=lambda *_: None, cancel=CancelToken())
        # it has answered, so it has begun
        assert os.getsid(launcher._pid) == launcher._pid != os.getsid(0)
        status = Path(f"/proc/{launcher._pid}/status").read_text()
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
    terminal = sum(1 << (number - 1) for number in TERMINAL)
    assert int(masks["SigBlk"], 16) == 0
    assert int(masks["SigIgn"], 16) & terminal == 0
