# SPDX-License-Identifier: Apache-2.0
"""`lamina generate systemd`: what the unit's own commands do."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from lamina.testing.busybox import Lamina
from lamina.testing.waiting import wait_until


def command(unit: str, key: str) -> list[str]:
    (line,) = [line for line in unit.splitlines() if line.startswith(f"{key}=")]
    return shlex.split(line.partition("=")[2])


def bare(lamina: Lamina) -> dict[str, str]:
    """What a service manager gives a unit, and where this checkout's packages are."""
    return {"PATH": os.defpath + ":/usr/sbin:/sbin", "PYTHONPATH": lamina.env["PYTHONPATH"]}


@pytest.mark.host_root("this process starts it")
def test_a_units_commands_start_and_stop_the_container(lamina: Lamina) -> None:
    lamina("create", "--name", "web", "--network=none", "--stop-timeout", "0", "bb", "sleep", "600")
    unit = lamina.out("generate", "systemd", "--name", "web")
    env = bare(lamina)
    attached = subprocess.Popen(command(unit, "ExecStart"), env=env, stdin=subprocess.DEVNULL)
    wait_until(lambda: lamina.inspect("web")["State"]["Running"])
    assert subprocess.run(command(unit, "ExecStop"), env=env, check=False).returncode == 0
    assert attached.wait(timeout=20) == 137
    assert not lamina.inspect("web")["State"]["Running"]


@pytest.mark.host_root("this process starts it")
def test_one_with_a_policy_is_started_and_left_to_its_monitor(lamina: Lamina) -> None:
    lamina("create", "--name", "web", "--network=none", "--restart", "always", "--stop-timeout",
           "0", "bb", "sleep", "600")  # fmt: skip
    unit = lamina.out("generate", "systemd", "web")
    id = lamina.out("ps", "-aq", "--no-trunc")
    assert command(unit, "ExecStart")[-2:] == ["start", id]
    env = bare(lamina)
    subprocess.run(command(unit, "ExecStart"), env=env, check=True, stdin=subprocess.DEVNULL)
    assert lamina.inspect("web")["State"]["Running"]
    subprocess.run(command(unit, "ExecStop"), env=env, check=True)
    assert lamina.inspect("web")["State"]["Status"] == "exited"
    refused = lamina("generate", "systemd", "--restart-policy", "always", "web", status=4)
    assert "restart policy of its own" in refused.stderr


@pytest.mark.host_root("it writes into this process's directory")
def test_files_are_written_where_the_command_runs(lamina: Lamina, tmp_path: Path) -> None:
    lamina("create", "--name", "web", "bb")
    done = subprocess.run(
        lamina.argv("generate", "systemd", "--files", "--name", "web"),
        env=lamina.env, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"{tmp_path}/container-web.service\n"
    written = (tmp_path / "container-web.service").read_text()
    assert written == lamina.out("generate", "systemd", "--name", "web") + "\n"


def test_bad_input_is_one_error(lamina: Lamina) -> None:
    assert "No such container" in lamina("generate", "systemd", "gone", status=3).stderr
    lamina("create", "--name", "web", "bb")
    assert "not a valid restart policy" in lamina(
        "generate", "systemd", "--restart-policy", "maybe", "web", status=125
    ).stderr  # fmt: skip
    assert "--new" in lamina("generate", "systemd", "--new", "web", status=8).stderr
    assert "generate COMMAND" in lamina.out("generate", "--help")
