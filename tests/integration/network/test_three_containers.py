# SPDX-License-Identifier: Apache-2.0
"""An application of three containers: a store on a named volume, a program with a health check, and a
front that is published; on a network of their own, under restart policies, through every kill.
"""

from __future__ import annotations

import os
import signal
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lamina.testing.waiting import wait_until

if TYPE_CHECKING:
    from lamina.testing.busybox import Lamina

pytestmark = [pytest.mark.root, pytest.mark.tool("crun", "busybox", "nft", "ip")]

DOCKERFILE = """\
FROM bb
COPY --chmod=755 page /www/cgi-bin/page
HEALTHCHECK --interval=200ms --timeout=5s --retries=2 CMD wget -qO /dev/null http://localhost/cgi-bin/page
CMD ["httpd", "-f", "-p", "80", "-h", "/www"]
"""
PAGE = """\
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
exec wget -qO- "http://$UPSTREAM"
"""
NAMES = ("store", "program", "front")


def container(lamina: Lamina, name: str) -> dict[str, Any]:
    found: dict[str, Any] = lamina.inspect(name)
    return found


def page(lamina: Lamina) -> str:
    """What the front answers; empty if it does not. A port that nobody chose is another after a restart."""
    port = lamina.popen("port", "front", "80").communicate()[0].decode().strip().rpartition(":")[2]
    if not port:
        return ""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/cgi-bin/page", timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def is_whole(lamina: Lamina) -> bool:
    """Whether the front answers with what is in the store, and both programs are healthy."""
    return page(lamina) == "kept\n" and all(
        container(lamina, name)["State"]["Health"]["Status"] == "healthy"
        for name in ("program", "front")
    )


@pytest.fixture
def application(lamina: Lamina, tmp_path: Path) -> Lamina:
    """The command line on a store where the three run."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "context/page").write_text(PAGE)
    lamina("build", "-q", "-t", "app", str(tmp_path / "context"))
    lamina("network", "create", "inside")
    lamina("volume", "create", "data")
    run = ("run", "-d", "--network", "inside", "--name")
    lamina(
        *run,
        "store",
        "--restart",
        "always",
        "-v",
        "data:/www",
        "bb",
        *["httpd", "-f", "-p", "80", "-h", "/www"],
    )
    lamina("exec", "store", "sh", "-c", "echo kept > /www/value")
    lamina(*run, "program", "--restart", "on-failure", "-e", "UPSTREAM=store/value", "app")
    published = ("--restart", "unless-stopped", "-p", "127.0.0.1:0:80")
    lamina(*run, "front", *published, "-e", "UPSTREAM=program/cgi-bin/page", "app")
    wait_until(lambda: is_whole(lamina), "all are healthy")
    return lamina


def test_the_application_is_whole_again_after_each_is_killed(application: Lamina) -> None:
    lamina = application
    assert "(healthy)" in lamina.out("ps", "--filter", "name=program", "--format", "{{.Status}}")
    for name in NAMES:
        before = container(lamina, name)
        os.kill(before["State"]["Pid"], signal.SIGKILL)

        def is_back(name: str = name, count: int = before["RestartCount"]) -> bool:
            found = container(lamina, name)
            return bool(found["State"]["Running"] and found["RestartCount"] == count + 1)

        wait_until(is_back, f"{name} runs again")
        wait_until(lambda: is_whole(lamina), f"all are healthy after the end of {name}")
    lamina("rm", "-f", *NAMES)
    lamina("volume", "rm", "data")
    lamina("network", "rm", "inside")


def test_a_killed_monitor_is_recovered_from(application: Lamina) -> None:
    lamina = application
    pid = container(lamina, "program")["State"]["Pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    os.kill(int(status.partition("PPid:")[2].split()[0]), signal.SIGKILL)
    wait_until(lambda: "orphaned" in lamina.out("ps", "--filter", "name=program"), "ps tells of it")
    lamina("stop", "-t", "0", "program")
    lamina("start", "program")
    wait_until(lambda: is_whole(lamina), "all are healthy again")
    lamina("rm", "-f", *NAMES)
    lamina("volume", "rm", "data")
    assert lamina.out("volume", "ls", "-q") == ""
