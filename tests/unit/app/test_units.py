# SPDX-License-Identifier: Apache-2.0
"""systemd units: every line, and what systemd itself thinks of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lamina.app.units import UnitRequest, file_name, unit
from lamina.errors import LaminaError
from lamina.start.record import replace
from lamina.testing.skips import host_lacks

PLAIN = UnitRequest(
    program=("/usr/bin/lamina",),
    root="/var/lib/lamina",
    name="web",
    subject="web",
    stop_timeout=10,
    stop_signal=15,
    is_user=False,
    restarts_itself=False,
)


def test_a_container_without_a_policy_is_watched_by_systemd() -> None:
    assert unit(PLAIN).splitlines() == [
        "[Unit]",
        "Description=lamina container web",
        "Wants=network-online.target",
        "After=network-online.target",
        "RequiresMountsFor=/var/lib/lamina",
        "",
        "[Service]",
        "Type=exec",
        "Restart=on-failure",
        "StandardOutput=null",
        "ExecStart=/usr/bin/lamina --root /var/lib/lamina start --attach web",
        "SuccessExitStatus=143",
        "ExecStop=/usr/bin/lamina --root /var/lib/lamina stop web",
        "TimeoutStopSec=20",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]


def test_one_with_a_policy_is_only_started_and_stopped() -> None:
    lines = unit(replace(PLAIN, restarts_itself=True)).splitlines()
    start = lines.index("[Service]") + 1
    assert lines[start : start + 4] == [
        "Type=oneshot",
        "RemainAfterExit=yes",
        "ExecStart=/usr/bin/lamina --root /var/lib/lamina start web",
        "ExecStop=/usr/bin/lamina --root /var/lib/lamina stop web",
    ]
    assert not any(line.startswith("Restart=") for line in lines)


def test_a_users_unit_waits_for_no_system_target() -> None:
    text = unit(replace(PLAIN, is_user=True))
    assert "network-online" not in text
    assert text.endswith("WantedBy=default.target\n")


def test_systemds_policy_can_be_chosen() -> None:
    assert "Restart=always\n" in unit(replace(PLAIN, policy="always"))
    with pytest.raises(LaminaError, match="sometimes is not a valid restart policy"):
        unit(replace(PLAIN, policy="sometimes"))
    with pytest.raises(LaminaError, match="has a restart policy of its own"):
        unit(replace(PLAIN, policy="always", restarts_itself=True))


def test_one_that_is_never_killed_is_waited_for() -> None:
    assert "TimeoutStopSec=infinity\n" in unit(replace(PLAIN, stop_timeout=-1))


def test_words_are_quoted_for_systemd() -> None:
    strange = unit(replace(PLAIN, root='/home/a "b" 100% $HOME\\x', program=("/opt/my lamina",)))
    assert (
        r'ExecStart="/opt/my lamina" --root "/home/a \"b\" 100%% $$HOME\\x" start --attach web'
        in strange
    )
    with pytest.raises(LaminaError, match="cannot stand in a unit"):
        unit(replace(PLAIN, root="/a\nExecStart=/bin/evil"))


@pytest.mark.parametrize("is_user", [False, True], ids=["system", "user"])
@pytest.mark.parametrize("restarts_itself", [False, True], ids=["watched", "restarts"])
@pytest.mark.parametrize("root", ["/var/lib/lamina", "/tmp/a b%c"])
def test_systemd_takes_them(
    tmp_path: Path, *, is_user: bool, restarts_itself: bool, root: str
) -> None:
    if shutil.which("systemd-analyze") is None:
        host_lacks("systemd")
    path = tmp_path / file_name("web")
    path.write_text(
        unit(
            replace(
                PLAIN,
                program=("/bin/true",),
                root=root,
                is_user=is_user,
                restarts_itself=restarts_itself,
            )
        )
    )
    manager = "--user" if is_user else "--system"
    done = subprocess.run(
        ["systemd-analyze", manager, "--man=no", "verify", str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )
    said = [line for line in done.stderr.splitlines() if path.name in line]
    assert (done.returncode, said) == (0, []), done.stderr
