# SPDX-License-Identifier: Apache-2.0
"""A program of an ordinary user's that has threads, as notebooks have: it builds and runs all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from lamina.testing.ordinary import OrdinaryLamina
from lamina.testing.waiting import wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.tool("crun", "nsenter", "setpriv", "newuidmap", "busybox"),
]

WITH_A_THREAD = """
import os, threading
done = threading.Event()
threading.Thread(target=done.wait, daemon=True).start()
import lamina
before = os.readlink("/proc/self/ns/user")
"""
DOCKERFILE = (
    "FROM busybox\nCOPY --chown=33:33 file /file\nRUN chown 77:77 /bin/true && id -u > /id\n"
    'CMD ["cat", "/file", "/id"]\n'
)


def program(lamina: OrdinaryLamina, code: str) -> list[str]:
    return lamina.user.command(sys.executable, "-c", WITH_A_THREAD + code, cwd=lamina.directory)


def run(lamina: OrdinaryLamina, code: str) -> str:
    """What the program prints; it fails the test if it fails."""
    argv = program(lamina, code + "\nassert os.readlink('/proc/self/ns/user') == before\n")
    done = subprocess.run(argv, env=lamina.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def running(command: str) -> list[str]:
    """Processes with that command line."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError):
            if command in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
    return found


def working_in(directory: str) -> list[str]:
    """Processes with that working directory, as they see it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if os.readlink(f"/proc/{pid}/cwd") == directory:
                found.append(pid)
    return found


def test_threads_do_not_keep_a_program_from_building(lamina: OrdinaryLamina) -> None:
    lamina.write({"Dockerfile": DOCKERFILE, "file": "copied\n"})
    code = """
events = []
image = lamina.build(".", tags=["app"], on_event=events.append)
assert image.tags == ("app:latest",), image
assert any(type(event).__name__ == "VertexDone" for event in events), events
assert lamina.build(".").id == image.id  # cached
print(lamina.containers.run(image).decode(), end="")
"""
    assert run(lamina, code) == "copied\n0\n"
    assert lamina("images", "-q", "app").stdout.strip()


def test_threads_do_not_keep_a_program_from_its_containers(lamina: OrdinaryLamina) -> None:
    lamina("save", "-o", f"{lamina.directory}/b.tar", "busybox")
    lamina("rmi", "-f", "busybox")
    code = """
[image] = lamina.images.load("b.tar")  # not unpacked yet
with lamina.containers.run(image, ["sleep", "600"], detach=True) as container:
    done = container.exec(["sh", "-c", "cat; id -u; touch /f; chown 77 /f"], input=b"in ")
    assert done == lamina.ExecResult(0, b"in 0\\n", b""), done
    assert container.exec("false").status == 1
    try:
        container.exec("nosuch")
    except lamina.LaminaError as error:
        assert "nosuch" in str(error)
    else:
        raise AssertionError
assert lamina.containers.list(all=True) == []
"""
    run(lamina, code)
    assert lamina("ps", "-aq").stdout == ""


def test_errors_are_the_same_from_another_process(lamina: OrdinaryLamina) -> None:
    lamina.write(
        {"Dockerfile": "FROM busybox\nRUN exit 3\n", "bad/Dockerfile": "FROM busybox\nNO\n"}
    )
    code = """
for context in (".", "bad", "nosuch"):
    try:
        lamina.build(context)
    except lamina.SourceError as error:
        print(type(error).__name__, error.kind.name, error.span.start)
    except lamina.LaminaError as error:
        print(type(error).__name__, error.kind.name)
def fail(event):
    raise ZeroDivisionError
try:
    lamina.build(".", on_event=fail)
except ZeroDivisionError:
    print("mine")
token = lamina.CancelToken()
token.cancel()
try:
    lamina.build(".", no_cache=True, cancel=token)
except lamina.Cancelled:
    print("cancelled")
"""
    lines = run(lamina, code).splitlines()
    assert lines[0].endswith("STEP_FAILED 2") or lines[0].startswith("SourceError"), lines
    assert lines[1].startswith("SourceError INVALID"), lines
    assert lines[2].endswith("NOT_FOUND"), lines
    assert lines[3:] == ["mine", "cancelled"]


def test_killed_program_ends_its_build(lamina: OrdinaryLamina) -> None:
    lamina.write({"Dockerfile": "FROM busybox\nRUN echo going; sleep 613\n"})
    code = """
def tell(event):
    if type(event).__name__ == "VertexLog":
        print("going", flush=True)
lamina.build(".", on_event=tell)
"""
    process = subprocess.Popen(program(lamina, code), env=lamina.env, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"going\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    wait_until(lambda: running("sleep\x00613") == [], seconds=30)
    wait_until(lambda: working_in(lamina.directory) == [], seconds=30)
