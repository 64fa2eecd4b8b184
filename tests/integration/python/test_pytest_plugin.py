# SPDX-License-Identifier: Apache-2.0
"""The fixtures for other projects' tests: what they wait for, what they report, what they leave."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import lamina


def project(place: Path, code: str) -> tuple[int, str]:
    """(exit status, output) of a project's tests."""
    (place / "test_it.py").write_text(f"import pytest\nimport lamina\n\n{code}")
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "lamina.testing.plugin", "test_it.py"],
        cwd=place,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_failing_test_shows_the_log_and_leaves_nothing(root: str, tmp_path: Path) -> None:
    status, said = project(
        tmp_path,
        """
def test_fails(lamina_container):
    container = lamina_container("busybox", ["sh", "-c", "echo said it; sleep 600"], name="one")
    for line in container.logs(follow=True):
        break
    lamina_container("busybox", ["sleep", "600"], name="two")
    assert container.status == "stopped"

def test_before_was_cleaned(lamina_container):
    assert lamina.containers.list(all=True) == []
""",
    )
    assert status == 1
    assert "1 failed, 1 passed" in said
    assert re.search(r"-+ lamina container one -+\nsaid it\n", said)
    assert "lamina container two" in said
    assert lamina.containers.list(all=True) == []


def test_container_that_ends_while_it_is_awaited_fails_the_test(root: str, tmp_path: Path) -> None:
    status, said = project(
        tmp_path,
        """
def test_port(lamina_container):
    lamina_container("busybox", ["sh", "-c", "echo cannot bind; exit 4"], wait_for=8000, name="web")

def test_time(lamina_container):
    lamina_container("busybox", ["sleep", "600"], wait_for=8000, name="slow", timeout=0.1)

def test_health(lamina_container):
    lamina_container("busybox", ["sleep", "600"], wait_for="healthy", name="none")

def test_nonsense(lamina_container):
    lamina_container("busybox", ["sleep", "600"], wait_for="tomorrow")
""",
    )
    assert status == 1
    assert "4 failed" in said
    assert "container web ended with status 4" in said
    assert re.search(r"-+ lamina container web -+\ncannot bind\n", said)
    assert "container slow was not ready in 0.1 s (8000)" in said
    assert "container none has no health check" in said
    assert "wait_for is a port, 'healthy' or a function" in said
    assert lamina.containers.list(all=True) == []


def test_what_is_awaited_is_there(root: str, tmp_path: Path) -> None:
    status, said = project(
        tmp_path,
        r"""
LISTEN = ["nc", "-ll", "-p", "8000", "-e", "echo", "hi"]

def test_port_and_function(lamina_container):
    container = lamina_container("busybox", LISTEN, ports={8000: 0}, wait_for=8000)
    assert container.host_port(8000)
    script = "echo up; sleep 600"
    lamina_container(
        "busybox", ["sh", "-c", script], wait_for=lambda c: c.output() == b"up\n"
    )

def test_image(lamina_image, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCMD [\"echo\", \"dir\"]\n")
    assert lamina.containers.run(lamina_image(tmp_path)) == b"dir\n"
    image = lamina_image("FROM busybox AS a\nARG W\nCOPY d/f /\nRUN echo $W >> /f\n"
                         "FROM busybox\n", files={"d/f": b"file "}, target="a",
                         build_args={"W": "arg"}, tag="made")
    assert lamina.containers.run("made", "cat /f") == b"file arg\n"
    with pytest.raises(lamina.SourceError):
        lamina_image("FROM busybox\nNONSENSE\n")
    with pytest.raises(lamina.LaminaError, match="a directory has its own"):
        lamina_image(tmp_path, files={"x": ""})
""",
    )
    assert status == 0, said


def test_unused_plugin_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    code = (
        "import pytest, sys; pytest.main(['-q', '-p', 'lamina.testing.plugin', 'test_it.py']); "
        "print(*sorted(name for name in sys.modules if name.startswith('lamina')))"
    )
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    used = done.stdout.splitlines()[-1].split()
    assert used == ["lamina", "lamina.testing", "lamina.testing.plugin", "lamina.version"]


def test_pytest_finds_the_plugin_by_its_entry_point() -> None:
    found = {each.name: each.value for each in entry_points(group="pytest11")}
    assert found["lamina"] == "lamina.testing.plugin"


def test_fixtures_say_what_they_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--fixtures", "-p", "lamina.testing.plugin"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    for name in ("lamina_image", "lamina_container", "lamina_registry"):
        assert re.search(rf"^{name}\b.*\n    \w", done.stdout, re.MULTILINE), done.stdout


def test_healthy_is_waited_for(root: str, tmp_path: Path) -> None:
    status, said = project(
        tmp_path,
        """
DOCKERFILE = '''
FROM busybox
HEALTHCHECK --interval=100ms --retries=1 CMD test -e /ready
CMD ["sh", "-c", "sleep 0.3; touch /ready; exec sleep 600"]
'''

def test_image(lamina_image, lamina_container):
    container = lamina_container(lamina_image(DOCKERFILE), wait_for="healthy")
    assert container.exec("test -e /ready").status == 0
    assert container.attrs["State"]["Health"]["Status"] == "healthy"

def test_option(lamina_container):
    options = lamina.RunOptions(health=lamina.health_check("true", interval=0.1))
    lamina_container("busybox", ["sleep", "600"], options=options, wait_for="healthy")

def test_time(lamina_container):
    options = lamina.RunOptions(health=lamina.health_check("false", interval=0.1))
    lamina_container("busybox", ["sleep", "600"], options=options, wait_for="healthy", timeout=1)

def test_without(lamina_container):
    lamina_container("busybox", ["sleep", "600"], wait_for="healthy")
""",
    )
    assert status == 1
    assert "2 failed, 2 passed" in said
    assert "was not ready in 1 s (healthy)" in said
    assert "has no health check" in said
