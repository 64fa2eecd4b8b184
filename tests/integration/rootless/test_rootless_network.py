# SPDX-License-Identifier: Apache-2.0
"""Networks of an ordinary user: what leads out, what is published, and what nothing leads out of."""

from __future__ import annotations

import os
import re
import signal
import socket
import urllib.request

import pytest

from lamina.testing.network import ask, serving
from lamina.testing.ordinary import UID, OrdinaryLamina, OrdinaryUser
from lamina.testing.waiting import wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.root,
    pytest.mark.tool("crun", "nsenter", "setpriv", "newuidmap", "busybox"),
]

_HTTPD = ("httpd", "-f", "-p", "80", "-h", "/w")
PASTA, SLIRP = "/usr/bin/pasta", "/usr/bin/slirp4netns"
SHOW = "FROM busybox\nRUN ip -o -4 addr show > /addresses && ip route > /routes\n"
WAYS = [
    pytest.param([], marks=pytest.mark.tool("pasta"), id="pasta"),
    pytest.param([PASTA], marks=pytest.mark.tool("slirp4netns"), id="slirp4netns"),
]


@pytest.fixture(scope="module", params=WAYS)
def led(request: pytest.FixtureRequest) -> Iterator[OrdinaryLamina]:
    """A user whose containers pasta leads out, or slirp4netns."""
    hidden = [path for path in request.param if os.path.exists(path)]
    with OrdinaryUser(hidden=hidden) as user:
        lamina = user.with_busybox("led")
        yield lamina
        for id in lamina("ps", "-aq").stdout.split():
            lamina("rm", "-f", id)


def helpers(lamina: OrdinaryLamina) -> list[int]:
    """Processes that lead out of the store's namespaces."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                text = file.read().decode()
            if os.stat(f"/proc/{pid}").st_uid == UID and re.search("pasta|slirp4netns", text):
                found += [int(pid)] if str(lamina.root) in text else []
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_until_none(lamina: OrdinaryLamina) -> None:
    wait_until(lambda: not helpers(lamina), "no process leads out of the user's namespaces")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def serve(lamina: OrdinaryLamina, *flags: str) -> tuple[str, int]:
    """A container whose web server is published; (its id, the port)."""
    lamina.write({"web/index.html": "hello\n"})
    flags = (*flags, "-p", "0:80", "-v", f"{lamina.directory}/web:/w:ro")
    id = lamina("run", "-d", *flags, "busybox", *_HTTPD).stdout.strip()
    return id, int(lamina("port", id, "80").stdout.split()[0].rpartition(":")[2])


def fetch(port: int, host: str = "127.0.0.1") -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def text() -> str:
        try:
            with opener.open(f"http://{host}:{port}/", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    return wait_until(text, f"an answer of port {port}")


def test_steps_and_containers_have_an_address_and_a_way_out(led: OrdinaryLamina) -> None:
    led.write({"Dockerfile": SHOW})
    led("build", "-t", "made", ".")
    out = led("run", "--rm", "made", "cat", "/addresses", "/routes").stdout
    assert "10.0.2.100/24" in out
    assert "default via 10.0.2.2 dev eth0" in out
    assert "10.0.2.100/24" in led("run", "--rm", "made", "ip", "-o", "-4", "addr").stdout
    wait_until_none(led)


def test_the_way_out_reaches_servers_of_the_host(led: OrdinaryLamina) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        address = probe.getsockname()[0]
    with socket.create_server((address, 0)) as server:
        port = server.getsockname()[1]
        server.settimeout(20)
        command = f"echo from-inside | nc -w 10 {address} {port}"
        id = led("run", "-d", "busybox", "sh", "-c", command).stdout.strip()
        with server.accept()[0] as connection:
            connection.settimeout(20)
            assert connection.recv(100) == b"from-inside\n"
        led("rm", "-f", id)


def test_the_gateway_is_no_way_to_the_hosts_loopback(led: OrdinaryLamina) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = led(
            "run", "--rm", "busybox", "nc", "-z", "-w", "2", "10.0.2.2", str(port), check=False
        )
        assert done.returncode != 0


def test_ports_are_published_and_taken_down(led: OrdinaryLamina) -> None:
    id, port = serve(led)
    assert fetch(port) == "hello\n"
    with socket.socket() as taken, pytest.raises(OSError, match="in use"):
        taken.bind(("0.0.0.0", port))
    failed = led("run", "--rm", "-p", f"{port}:80", "busybox", "true", check=False)
    assert failed.returncode == 125
    assert "port is already allocated" in failed.stderr
    led("rm", "-f", id)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))
    wait_until_none(led)


def test_udp_ports_are_published(led: OrdinaryLamina) -> None:
    id = led("run", "-d", "-p", "0:9/udp", "busybox", "sleep", "1000").stdout.strip()
    port = int(led("port", id, "9/udp").stdout.split()[0].rpartition(":")[2])
    pid = led("inspect", "-f", "{{.State.Pid}}", id).stdout.strip()
    inside = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with serving(inside, 9, "hello", udp=True):
            assert ask("127.0.0.1", port, udp=True) == "hello 10.0.2.100"
    finally:
        os.close(inside)
        led("rm", "-f", id)


def test_privileged_ports_are_explained(led: OrdinaryLamina) -> None:
    failed = led("run", "--rm", "-p", "80:80", "busybox", "true", check=False)
    assert failed.returncode == 125
    assert "ports below 1024 are root's" in failed.stderr
    assert "net.ipv4.ip_unprivileged_port_start=80" in failed.stderr


def test_killed_monitor_and_killed_build_leave_nothing_that_leads_out(led: OrdinaryLamina) -> None:
    id, _ = serve(led)
    (helper,) = helpers(led)
    with open(f"/proc/{helper}/stat", encoding="ascii") as file:
        monitor = int(file.read().rpartition(")")[2].split()[1])
    os.kill(monitor, signal.SIGKILL)
    wait_until_none(led)
    led("rm", "-f", id)


@pytest.mark.parametrize("reason", ["programs", "tun"])
def test_without_a_way_out_the_hosts_network_is_used_and_said(reason: str) -> None:
    hidden = [path for path in (PASTA, SLIRP) if os.path.exists(path)]
    with OrdinaryUser(hidden=hidden if reason == "programs" else (), tun=reason != "tun") as user:
        lamina = user.with_busybox("bare")
        why = "is installed" if reason == "programs" else "/dev/net/tun cannot be opened"
        lamina.write({"Dockerfile": "FROM busybox\nRUN ls /sys/class/net > /links\n"})
        built = lamina("build", "-t", "made", ".")
        assert built.stderr.count(why) == 1
        done = lamina("run", "--rm", "made", "readlink", "/proc/self/ns/net")
        assert done.stderr.count(why) == 1
        assert done.stdout.strip() == os.readlink("/proc/self/ns/net")
        id, port = serve(lamina)
        assert fetch(port) == "hello\n"
        assert "default" not in lamina("exec", id, "ip", "route").stdout
        lamina("rm", "-f", id)


@pytest.mark.tool("pasta")
def test_the_network_of_another_container_is_joined(lamina: OrdinaryLamina) -> None:
    lamina("run", "-d", "--name", "first", "-h", "box", "busybox", "sleep", "100")
    show = ("busybox", "sh", "-c", "readlink /proc/self/ns/net; hostname; cat /etc/hosts")
    shared = lamina("run", "--rm", "--network=container:first", *show).stdout
    assert shared == lamina("exec", "first", *show[1:]).stdout
    lamina("create", "--name", "second", "--network=container:first", "busybox", "sleep", "100")
    lamina("start", "second")
    lamina("stop", "-t0", "second", "first")
    said = lamina("start", "second", check=False).stderr
    assert "cannot join network of a non running container: first" in said


def test_networks_of_ones_own_are_refused_by_name(lamina: OrdinaryLamina) -> None:
    said = lamina("network", "create", "net", check=False).stderr
    assert "networks of one's own take root" in said
    assert "docs/rootless.md" in said
    names = lamina("network", "ls", "--format={{.Name}}").stdout.split()
    assert names == ["bridge", "host", "none"]
    said = lamina("run", "--rm", "--network=net", "busybox", "true", check=False).stderr
    assert "networks of one's own take root" in said
    lamina("run", "-d", "--name", "runs", "busybox", "sleep", "100")
    for verb in ("connect", "disconnect"):
        done = lamina("network", verb, "bridge", "runs", check=False)
        assert "networks of one's own take root" in done.stderr
        assert done.returncode == 1
    assert lamina("exec", "runs", "echo", "alive").stdout == "alive\n"
