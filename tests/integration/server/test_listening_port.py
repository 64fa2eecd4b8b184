# SPDX-License-Identifier: Apache-2.0
"""The port that a registry listens on: whose it may have been, and that it has one owner."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lamina.testing.registry import RegistryServer


def port_in_time_wait() -> int:
    """A port on which a server has closed a connection a moment ago.

    It is set up as most servers do it (SO_REUSEADDR alone), docker-registry among them.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            inside, _ = server.accept()
            inside.close()  # who closes first keeps the connection, for a minute
            assert client.recv(1) == b""
    return port


def start_on(port: int, root: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "lamina.cli.main", "serve"]
    return subprocess.Popen(
        [*argv, "--listen", f"127.0.0.1:{port}", "--root", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_port_of_a_registry_that_has_just_ended_can_be_used(tmp_path: Path) -> None:
    server = RegistryServer(tmp_path / "registry")
    server.port = port_in_time_wait()

    with server:
        assert server.client()("GET", "/v2/").status == 200


@pytest.mark.parametrize("used", [False, True], ids=["unused port", "port with past connections"])
def test_one_of_several_registries_that_start_at_once_gets_the_port(
    tmp_path: Path, used: bool
) -> None:
    port = port_in_time_wait()
    if not used:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    started = [start_on(port, tmp_path / f"r{number}") for number in range(4)]
    try:
        lines = []
        for process in started:
            assert process.stdout is not None
            lines.append(process.stdout.readline())

        assert sum(" at http" in line for line in lines) == 1
    finally:
        for process in started:
            process.terminate()
        errors = [process.communicate()[1] for process in started]
    assert sum("Address already in use" in error for error in errors) == 3
