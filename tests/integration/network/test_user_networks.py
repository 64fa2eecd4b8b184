# SPDX-License-Identifier: Apache-2.0
"""Containers in networks of a user: who reaches whom, by which name, and what is there afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lamina.store import open_store
from lamina.testing.busybox import processes_of
from lamina.testing.nameserver import answering, name_server
from lamina.testing.network import listen, neighbour, run, run_inside
from lamina.testing.waiting import wait_until

if TYPE_CHECKING:
    from lamina.testing.busybox import Lamina

pytestmark = [pytest.mark.root, pytest.mark.tool("crun", "busybox", "nft", "ip")]

SLEEP = ("bb", "sleep", "1000")


def start(lamina: Lamina, name: str, *flags: str) -> str:
    return lamina.out("run", "-d", "--name", name, *flags, *SLEEP)


def networks(lamina: Lamina, name: str) -> dict[str, Any]:
    found: dict[str, Any] = lamina.inspect(name)["NetworkSettings"]["Networks"]
    return found


def address(lamina: Lamina, name: str, network: str) -> str:
    return str(networks(lamina, name)[network]["IPAddress"])


def reaches(lamina: Lamina, name: str, target: str) -> bool:
    """Whether the target answers a ping: one packet is enough, three are for a busy host."""
    script = f"ping -c1 -W1 {target} || ping -c1 -W1 {target} || ping -c1 -W1 {target}"
    done = lamina.popen("exec", name, "sh", "-c", f"({script}) >/dev/null 2>&1")
    done.communicate()
    return done.returncode == 0


def resolved(lamina: Lamina, name: str, asked: str) -> list[str]:
    """The addresses that the container gets for a name."""
    process = lamina.popen("exec", name, "nslookup", asked)
    text = process.communicate()[0].decode()
    return [
        line.split()[-1]
        for line in text.partition("\n\n")[2].splitlines()
        if line.startswith("Address")
    ]


def test_containers_find_one_another_by_every_name(lamina: Lamina) -> None:
    lamina("network", "create", "net")
    id = start(
        lamina, "web", "--network=net", "--network-alias=www", "--net-alias=api", "-h", "box"
    )
    start(lamina, "client", "--network=net")
    here = address(lamina, "web", "net")
    for asked in ("web", "WWW", "api", "box", id[:12], "web.net", "www.net", "web."):
        assert resolved(lamina, "client", asked) == [here], asked
    assert resolved(lamina, "client", "nobody") == []
    assert resolved(lamina, "client", "web.other") == []
    assert "web.net" in lamina.out("exec", "client", "nslookup", here)
    assert reaches(lamina, "client", "web")
    resolv = lamina.out("exec", "client", "cat", "/etc/resolv.conf").splitlines()
    assert resolv[0] == "nameserver 127.0.0.11"
    assert "options ndots:0" in resolv[-1]


def test_names_follow_what_happens(lamina: Lamina) -> None:
    lamina("network", "create", "net")
    start(lamina, "client", "--network=net")
    start(lamina, "aa", "--network=net", "--network-alias=pool")
    start(lamina, "bb", "--network=net", "--network-alias=pool")
    both = {address(lamina, name, "net") for name in ("aa", "bb")}
    assert set(resolved(lamina, "client", "pool")) == both
    lamina("rename", "aa", "cc")
    assert resolved(lamina, "client", "cc") == [address(lamina, "cc", "net")]
    assert resolved(lamina, "client", "aa") == []
    lamina("rm", "-f", "cc")
    assert resolved(lamina, "client", "pool") == [address(lamina, "bb", "net")]
    assert resolved(lamina, "client", "cc") == []


def test_the_default_network_has_no_names(lamina: Lamina) -> None:
    start(lamina, "web")
    start(lamina, "client")
    assert "127.0.0.11" not in lamina.out("exec", "client", "cat", "/etc/resolv.conf")
    assert list(networks(lamina, "web")) == ["bridge"]


def test_networks_are_apart(lamina: Lamina) -> None:
    for name in ("one", "two"):
        lamina("network", "create", name)
        start(lamina, f"in-{name}", f"--network={name}")
    start(lamina, "in-default")
    start(lamina, "peer", "--network=one")
    addresses = {
        "in-one": address(lamina, "in-one", "one"),
        "in-two": address(lamina, "in-two", "two"),
        "in-default": address(lamina, "in-default", "bridge"),
    }
    assert reaches(lamina, "peer", addresses["in-one"])
    for name in addresses:
        for other, target in addresses.items():
            assert name == other or not reaches(lamina, name, target), (name, other)
    assert resolved(lamina, "in-two", "in-one") == []


def test_only_networks_that_are_not_internal_lead_out(lamina: Lamina) -> None:
    lamina("network", "create", "open")
    lamina("network", "create", "--internal", "shut")
    with neighbour(host_ip="192.0.2.1", ip="192.0.2.2"):
        run("ip route add default via 192.0.2.2")
        start(lamina, "out", "--network=open")
        start(lamina, "in", "--network=shut")
        start(lamina, "peer", "--network=shut", "-p", "8080:80")
        start(lamina, "both", "--network=shut", "--network=open")
        assert reaches(lamina, "out", "192.0.2.2")
        assert reaches(lamina, "both", "192.0.2.2")
        assert not reaches(lamina, "in", "192.0.2.2")
        assert reaches(lamina, "in", "peer")
        assert "default" not in lamina.out("exec", "in", "ip", "route")
        # also with a route of its own making
        lamina("rm", "-f", "in")
        start(lamina, "in", "--network=shut", "--cap-add=NET_ADMIN")
        gateway = networks(lamina, "in")["shut"]["Gateway"]
        lamina("exec", "in", "ip", "route", "add", "default", "via", gateway)
        assert not reaches(lamina, "in", "192.0.2.2")
        assert not reaches(lamina, "in", address(lamina, "out", "open"))
        assert lamina.out("port", "peer") == ""


def test_published_ports_are_reached(lamina: Lamina) -> None:
    lamina("network", "create", "net")
    lamina(
        "run", "-d", "--name=web", "--network=net", "-p", "8080:80", "bb",
        "sh", "-c", "while :; do echo hello | nc -l -p 80; done",
    )  # fmt: skip
    start(lamina, "elsewhere")

    def fetched(ip: str) -> str:
        process = lamina.popen("exec", "elsewhere", "nc", "-w2", ip, "8080")
        return process.communicate()[0].decode().strip()

    gateway = networks(lamina, "elsewhere")["bridge"]["Gateway"]
    wait_until(lambda: fetched(gateway) == "hello")
    assert lamina.out("port", "web") == "80/tcp -> 0.0.0.0:8080"
    assert "0.0.0.0:8080->80/tcp" in lamina.out("ps", "--format={{.Ports}}", "-f", "name=web")


def test_a_fixed_address_and_mac(lamina: Lamina) -> None:
    lamina("network", "create", "--subnet=10.9.0.0/24", "--ip-range=10.9.0.64/26", "net")
    start(lamina, "aa", "--network=net", "--ip=10.9.0.5", "--mac-address=92:d0:C6:0a:29:33")
    start(lamina, "bb", "--network", "name=net,ip=10.9.0.7,alias=x,alias=y")
    start(lamina, "cc", "--network=net")
    found = networks(lamina, "aa")["net"]
    assert (found["IPAddress"], found["MacAddress"]) == ("10.9.0.5", "92:d0:c6:0a:29:33")
    assert "92:d0:c6:0a:29:33" in lamina.out("exec", "aa", "cat", "/sys/class/net/eth0/address")
    assert found["IPAMConfig"] == {"IPv4Address": "10.9.0.5"}
    assert resolved(lamina, "cc", "y") == ["10.9.0.7"]
    assert address(lamina, "cc", "net") == "10.9.0.64"
    taken = lamina("run", "--rm", "--network=net", "--ip=10.9.0.5", "bb", "true", status=125)
    assert "Address already in use" in taken.stderr
    gateway = lamina("run", "--rm", "--network=net", "--ip=10.9.0.1", "bb", "true", status=125)
    assert "Address already in use" in gateway.stderr


def test_several_networks_are_several_interfaces(lamina: Lamina) -> None:
    for name in ("b-net", "a-net"):
        lamina("network", "create", name)
        start(lamina, f"in-{name}", f"--network={name}")
    start(lamina, "both", "--network=b-net", "--network=a-net")
    found = networks(lamina, "both")
    shown = lamina.out("exec", "both", "ip", "-o", "-4", "addr")
    assert f"eth0    inet {found['b-net']['IPAddress']}/" in shown
    assert f"eth1    inet {found['a-net']['IPAddress']}/" in shown
    gateway = found["a-net"]["Gateway"]  # the first by name, as in Docker
    assert f"default via {gateway} dev eth1" in lamina.out("exec", "both", "ip", "route")
    assert reaches(lamina, "both", "in-a-net")
    assert reaches(lamina, "both", "in-b-net")
    hosts = lamina.out("exec", "both", "cat", "/etc/hosts")
    assert all(each["IPAddress"] in hosts for each in found.values())
    names = lamina.out("ps", "--format={{.Networks}}", "-f", "name=both")
    assert names == "a-net,b-net"
    assert lamina.out("ps", "--format={{.Names}}", "-f", "network=a-net").split() == [
        "both",
        "in-a-net",
    ]


def test_connect_and_disconnect_while_it_runs(lamina: Lamina) -> None:
    lamina("network", "create", "net")
    start(lamina, "peer", "--network=net")
    start(lamina, "web", "-p", "8080:80")
    lamina("network", "connect", "--alias=www", "net", "web")
    assert sorted(networks(lamina, "web")) == ["bridge", "net"]
    assert resolved(lamina, "peer", "www") == [address(lamina, "web", "net")]
    assert resolved(lamina, "web", "peer") == [address(lamina, "peer", "net")]
    assert reaches(lamina, "web", "peer")
    assert address(lamina, "web", "net") in lamina.out("exec", "web", "cat", "/etc/hosts")
    again = lamina("network", "connect", "net", "web", status=1)
    assert "already exists in network net" in again.stderr
    lamina("network", "disconnect", "bridge", "web")  # the ports go where the gateway is
    assert list(networks(lamina, "web")) == ["net"]
    assert f"{address(lamina, 'web', 'net')} . 80" in run("nft list ruleset")
    assert lamina.out("port", "web") == "80/tcp -> 0.0.0.0:8080"
    lamina("network", "disconnect", "net", "web")
    assert networks(lamina, "web") == {}
    assert "eth" not in lamina.out("exec", "web", "ip", "-o", "link")
    assert not reaches(lamina, "peer", "www")
    lamina("network", "connect", "bridge", "web")
    assert list(networks(lamina, "web")) == ["bridge"]
    assert "127.0.0.11" not in lamina.out("exec", "web", "cat", "/etc/resolv.conf")
    said = lamina("network", "disconnect", "net", "web", status=1).stderr
    assert "container web is not connected to network net" in said


def test_connect_and_disconnect_while_it_is_stopped(lamina: Lamina) -> None:
    for name in ("one", "two"):
        lamina("network", "create", name)
    lamina("create", "--name=web", "--network=one", *SLEEP)
    lamina("network", "connect", "--ip", "172.19.7.7", "two", "web")
    lamina("network", "disconnect", "one", "web")
    lamina("start", "web")
    assert list(networks(lamina, "web")) == ["two"]
    assert address(lamina, "web", "two") == "172.19.7.7"
    lamina("stop", "-t0", "web")
    assert address(lamina, "web", "two") == ""


def test_a_failed_connect_leaves_the_container_as_it_was(lamina: Lamina) -> None:
    lamina("network", "create", "net")
    start(lamina, "aa", "--network=net")
    start(lamina, "bb")
    said = lamina("network", "connect", "--ip", address(lamina, "aa", "net"), "net", "bb", status=1)
    assert "Address already in use" in said.stderr
    assert list(networks(lamina, "bb")) == ["bridge"]
    assert "no configured subnet" in lamina(
        "network", "connect", "--ip=10.1.1.1", "net", "bb", status=1
    ).stderr  # fmt: skip


def test_the_network_of_another_container(lamina: Lamina) -> None:
    lamina("network", "create", "net")
    id = start(lamina, "aa", "--network=net", "-h", "box")
    start(lamina, "bb", "--network=container:aa")
    here = address(lamina, "aa", "net")
    assert here in lamina.out("exec", "bb", "ip", "addr")
    assert lamina.out("exec", "bb", "hostname") == "box"
    assert here in lamina.out("exec", "bb", "cat", "/etc/hosts")
    assert resolved(lamina, "bb", "aa") == [here]
    assert lamina.inspect("bb")["HostConfig"]["NetworkMode"] == f"container:{id}"
    assert networks(lamina, "bb") == {}
    lamina("stop", "-t0", "aa", "bb")
    said = lamina("start", "bb", status=1).stderr
    assert "cannot join network of a non running container: aa" in said
    lamina("rm", "aa")
    assert "No such container" in lamina("start", "bb", status=1).stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--network=nope"], "network nope not found"),
        (["--network=container:nope"], "No such container: nope"),
        (["--name=me", "--network=container:me"], "No such container: me"),
        (["--network=container:"], "invalid container format"),
        (["--network=container:x", "-p", "80:80"], "port publishing and the container type"),
        (["--network=container:x", "-h", "y"], "hostname and the network mode"),
        (["--network=container:x", "--network=net"], "cannot attach both"),
        (["--network=host", "--network=net"], "cannot attach both"),
        (["--network=net", "--network=net"], "specified multiple times"),
        (["--network=bridge", "--ip=10.1.1.1"], "user defined networks only"),
        (["--network=bridge", "--network-alias=x"], "user defined networks"),
        (["--network=net", "--ip=10.1.1.1"], "no configured subnet"),
        (["--network=net", "--ip6=fd00::9"], "no configured subnet"),
        (["--network=net", "--ip=nonsense"], "invalid IP address"),
        (["--network=net", "--mac-address=zz"], "not a valid mac address"),
        (["--network=net", "--mac-address=01:00:5e:00:00:01"], "address of a group"),
        (["--network=name=net,colour=red"], "invalid field key colour"),
        (["--network=alias=x"], "network name is not specified"),
        (["--link=x"], "--link is not supported"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    lamina: Lamina, flags: list[str], said: str
) -> None:
    lamina("network", "create", "net")
    process = lamina.popen("create", *flags, "bb", "true")
    assert said in process.communicate()[1].decode()
    assert process.returncode > 0
    assert lamina.out("ps", "-aq") == ""


def test_a_network_in_use_stays_and_one_that_is_gone_is_told(lamina: Lamina) -> None:
    lamina("network", "create", "net")
    start(lamina, "aa", "--network=net")
    assert "has active endpoints: aa" in lamina("network", "rm", "net", status=1).stderr
    assert lamina.out("network", "prune", "-f") == ""
    assert lamina.out("network", "ls", "-q", "-f", "dangling=true") == ""
    lamina("stop", "-t0", "aa")
    lamina("network", "rm", "net")  # as Docker: a container that does not run keeps none
    assert "not found" in lamina("start", "aa", status=1).stderr
    id = next(iter(networks(lamina, "aa")))
    lamina("network", "disconnect", id, "aa")
    lamina("network", "create", "other")
    lamina("network", "connect", "other", "aa")
    lamina("start", "aa")


def test_dns_flags(lamina: Lamina) -> None:
    lamina("network", "create", "net")
    flags = ("--dns-search=example.org", "--dns-option=timeout:1", "--domainname=corp")
    text = lamina.out(
        "run", "--rm", "--network=net", "-h", "box", *flags, "--add-host=gw:host-gateway", "bb",
        "cat", "/etc/resolv.conf", "/etc/hosts", "/proc/sys/kernel/domainname",
    )  # fmt: skip
    assert "nameserver 127.0.0.11\nsearch example.org\noptions timeout:1 ndots:0\n" in text
    assert "172.18.0.1\tgw\n" in text
    assert "172.18.0.2\tbox.corp box\n" in text
    assert text.endswith("\ncorp")
    plain = lamina.out("run", "--rm", *flags, "--dns=192.0.2.7", "bb", "cat", "/etc/resolv.conf")
    assert plain == "nameserver 192.0.2.7\nsearch example.org\noptions timeout:1"
    assert "search" not in lamina.out(
        "run", "--rm", "--dns-search=.", "bb", "cat", "/etc/resolv.conf"
    )


def test_other_names_are_asked_of_servers(lamina: Lamina) -> None:
    lamina("network", "create", "net")
    lamina("network", "create", "--internal", "shut")
    with name_server("0.0.0.0", answering("203.0.113.9")) as asked:
        start(lamina, "aa", "--network=net", "--dns=172.18.0.1")
        assert resolved(lamina, "aa", "www.example") == ["203.0.113.9"]
        assert "www.example" in asked
        start(lamina, "bb", "--network=shut", "--dns=172.19.0.1")
        assert resolved(lamina, "bb", "leak.example") == []
        assert "leak.example" not in asked


def test_a_name_server_in_the_container_has_port_53(lamina: Lamina) -> None:
    lamina("network", "create", "net")
    start(lamina, "aa", "--network=net")
    namespace = os.open(f"/proc/{lamina.inspect('aa')['State']['Pid']}/ns/net", os.O_RDONLY)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with listen(namespace, 53, kind=kind):
            assert resolved(lamina, "aa", "aa") == [address(lamina, "aa", "net")]
    os.close(namespace)


def test_ipv6(lamina: Lamina) -> None:
    lamina("network", "create", "--ipv6", "--subnet=fd00:7::/64", "net")
    lamina("network", "create", "--ipv6", "--subnet=fd00:8::/64", "other")
    start(lamina, "aa", "--network=net")
    start(lamina, "bb", "--network=net", "--ip6=fd00:7::99")
    start(lamina, "cc", "--network=other")
    assert networks(lamina, "aa")["net"]["GlobalIPv6Address"] == "fd00:7::2"
    assert networks(lamina, "bb")["net"]["GlobalIPv6Address"] == "fd00:7::99"
    lamina("exec", "aa", "ping", "-6", "-c1", "-W3", "bb")
    assert "fd00:7::99" in lamina.out("exec", "aa", "nslookup", "-type=aaaa", "bb")
    assert "default via fd00:7::1" in lamina.out("exec", "aa", "ip", "-6", "route")
    lamina("exec", "aa", "ping", "-6", "-c1", "-W3", "fd00:7::1")
    lamina("exec", "cc", "ping", "-6", "-c1", "-W1", "fd00:7::2", status=1)
    taken = lamina("run", "--rm", "--network=net", "--ip6=fd00:7::99", "bb", "true", status=125)
    assert "Address already in use" in taken.stderr


def test_ipv6_leads_out_masqueraded(lamina: Lamina) -> None:
    lamina("network", "create", "--ipv6", "net")
    lamina("network", "create", "--ipv6", "--internal", "shut")
    with neighbour(host_ip="192.0.2.1", ip="192.0.2.2") as far:
        run("ip -6 addr add 2001:db8::1/64 dev up0 nodad")
        run_inside(far, lambda: run("ip -6 addr add 2001:db8::2/64 dev cable nodad"))
        run("ip -6 route add default via 2001:db8::2")
        start(lamina, "aa", "--network=net")
        start(lamina, "bb", "--network=shut")
        lamina("exec", "aa", "ping", "-6", "-c1", "-W3", "2001:db8::2")
        assert "default" not in lamina.out("exec", "bb", "ip", "-6", "route")


def test_icc_and_masquerading_can_be_turned_off(lamina: Lamina) -> None:
    options = (
        "-o", "com.docker.network.bridge.enable_icc=false",
        "-o", "com.docker.network.bridge.enable_ip_masquerade=false",
        "-o", "com.docker.network.bridge.name=mybr", "-o", "com.docker.network.driver.mtu=1400",
        "-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1",
    )  # fmt: skip
    lamina("network", "create", *options, "net")
    with neighbour(host_ip="192.0.2.1", ip="192.0.2.2"):
        run("ip route add default via 192.0.2.2")
        start(lamina, "aa", "--network=net", "-p", "8080:80")
        start(lamina, "bb", "--network=net")
        assert not reaches(lamina, "bb", address(lamina, "aa", "net"))
        assert reaches(lamina, "bb", networks(lamina, "bb")["net"]["Gateway"])
        assert not reaches(lamina, "bb", "192.0.2.2")  # which has no way back
        assert lamina.out("exec", "aa", "cat", "/sys/class/net/eth0/mtu") == "1400"
        assert lamina.out("port", "aa") == "80/tcp -> 127.0.0.1:8080"
        assert "mybr" in run("ip -o link")


def monitor_of(root: str, id: str) -> int:
    return int(json.loads(Path(root, "containers", id, "state.json").read_text())["monitor_pid"])


def test_a_killed_monitor_takes_no_name_from_others(lamina: Lamina) -> None:
    lamina("network", "create", "net")
    first = start(lamina, "aa", "--network=net")
    start(lamina, "bb", "--network=net")
    start(lamina, "cc", "--network=net")
    os.kill(monitor_of(lamina.root, first), signal.SIGKILL)
    wait_until(lambda: resolved(lamina, "cc", "aa") == [])
    assert resolved(lamina, "cc", "bb") == [address(lamina, "bb", "net")]
    said = lamina("network", "connect", "bridge", "aa", status=1).stderr
    assert "monitor of container" in said
    start(lamina, "dd", "--network=net")
    assert resolved(lamina, "cc", "dd") == [address(lamina, "dd", "net")]
    lamina("rm", "-f", "aa", "bb", "cc", "dd")
    assert run("nft list ruleset") == ""


def test_what_the_last_killed_monitor_left_goes_with_the_network(lamina: Lamina) -> None:
    lamina("network", "create", "--ipv6", "net")
    id = start(lamina, "aa", "--network=net", "-p", "8080:80")
    os.kill(monitor_of(lamina.root, id), signal.SIGKILL)
    pid = lamina.inspect("aa")["State"]["Pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: processes_of(lamina.root) == [])
    assert "br-" in run("ip -o link")
    lamina("network", "rm", "net")
    assert "br-" not in run("ip -o link")
    assert run("nft list ruleset") == ""


def test_many_containers_at_once_leave_nothing(lamina: Lamina) -> None:
    lamina("network", "create", "net")
    lamina("network", "create", "other")
    started = [
        lamina.popen(
            "run", "--rm", "--network=net", "--network=other", "--name", f"c{n}", "bb",
            "nslookup", f"c{n}",
        )
        for n in range(8)
    ]  # fmt: skip
    for each in started:
        output, errors = each.communicate(timeout=60)
        assert each.returncode == 0, (output, errors)
    assert run("nft list ruleset") == ""


def test_kills_at_many_moments_leave_nothing_that_is_not_recovered(lamina: Lamina) -> None:
    """Of `run` and `network connect`, and of the monitors: whatever stays goes with `rm` and `prune`."""
    lamina("network", "create", "net")
    lamina("network", "create", "--ipv6", "other")
    stays = start(lamina, "stays", "--network=net")
    for number in range(8):
        running = lamina.popen(
            "run", "-d", "--network=net", "-p", "8080:80", "--name", f"k{number}", *SLEEP,
            start_new_session=True,
        )  # fmt: skip
        threading.Event().wait(number * 0.04)
        connecting = lamina.popen("network", "connect", "other", "stays", start_new_session=True)
        threading.Event().wait(0.05 + number * 0.02)
        for each in (running, connecting):
            os.killpg(each.pid, signal.SIGKILL)
            each.communicate()
        for pid in monitors(lamina.root) - {monitor_of(lamina.root, stays)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        lamina("ps", "-a")
        if names := lamina.out("ps", "-aq", "--filter", f"name=k{number}").split():
            lamina("rm", "-f", *names)
        lamina.popen("network", "disconnect", "other", "stays").communicate()
        assert list(networks(lamina, "stays")) == ["net"]
        start(lamina, "next", "--network=net", "-p", "8080:80")
        assert reaches(lamina, "next", "stays")
        lamina("rm", "-f", "next")
    lamina("container", "prune", "-f")


def monitors(root: str) -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(f"lamina-monitor {root}".encode()):
                found.add(int(path.parent.name))
    return found


def test_what_was_connected_by_a_failed_change_is_taken_back(lamina: Lamina) -> None:
    lamina(
        "network", "create", "-o", "com.docker.network.bridge.host_binding_ipv4=192.0.2.99", "aa"
    )
    start(lamina, "web", "-p", "8080:80")
    said = lamina(
        "network", "connect", "aa", "web", status=125
    ).stderr  # which has the gateway then
    assert "192.0.2.99" in said
    assert list(networks(lamina, "web")) == ["bridge"]
    assert lamina.out("port", "web") == "80/tcp -> 0.0.0.0:8080"
    assert f"{address(lamina, 'web', 'bridge')} . 80" in run("nft list ruleset")


def test_the_resolver_comes_again(lamina: Lamina) -> None:
    lamina("network", "create", "net")
    start(lamina, "web")
    for _ in range(3):
        lamina("network", "connect", "net", "web")
        assert resolved(lamina, "web", "web") == [address(lamina, "web", "net")]
        lamina("network", "disconnect", "net", "web")


def test_restarted_containers_are_found_again(lamina: Lamina) -> None:
    lamina("network", "create", "net")
    start(lamina, "aa", "--network=net")
    start(lamina, "client", "--network=net")
    lamina("restart", "-t0", "aa")
    assert resolved(lamina, "client", "aa") == [address(lamina, "aa", "net")]
    assert reaches(lamina, "client", "aa")


def test_the_default_network_keeps_off_the_subnets_of_others(lamina: Lamina) -> None:
    lamina("network", "create", "--subnet=10.88.0.0/16", "net")
    start(lamina, "aa")
    assert address(lamina, "aa", "bridge").startswith("10.89.")


def test_a_subnet_that_the_host_uses_by_now_is_told(lamina: Lamina) -> None:
    lamina("network", "create", "--subnet=10.7.0.0/16", "net")
    run("ip addr add 10.7.3.4/24 dev lo")
    said = lamina("run", "--rm", "--network=net", "bb", "true", status=125).stderr
    assert "10.7.0.0/16 overlaps with" in said
    run("ip addr del 10.7.3.4/24 dev lo")
    lamina("run", "--rm", "--network=net", "bb", "true")


def test_a_container_is_not_told_of_by_others_when_it_has_no_network(lamina: Lamina) -> None:
    lamina("network", "create", "net")
    for mode in ("host", "none"):
        start(lamina, f"in-{mode}", f"--network={mode}")
        said = lamina("network", "connect", "net", f"in-{mode}", status=1).stderr
        assert f"has no network of its own ({mode})" in said
        assert list(networks(lamina, f"in-{mode}")) == [mode]
    start(lamina, "follows", "--network=container:in-host")
    here = lamina.out("exec", "in-host", "readlink", "/proc/self/ns/net")
    assert lamina.out("exec", "follows", "readlink", "/proc/self/ns/net") == here


def test_a_network_that_is_removed_while_it_is_joined_leaves_nothing(lamina: Lamina) -> None:
    for number in range(6):
        lamina("network", "create", "net")
        lamina("create", "--name=aa", "--network=net", *SLEEP)
        starting = lamina.popen("start", "aa")
        threading.Event().wait(0.05 * number)
        removing = lamina.popen("network", "rm", "net")
        starting.communicate()
        removing.communicate()
        is_there = lamina.out("network", "ls", "-q", "-f", "name=net") != ""
        is_running = lamina.out("ps", "-q") != ""
        assert is_there or not is_running
        assert is_there == (removing.returncode != 0)
        lamina("rm", "-f", "aa")
        lamina("network", "rm", "-f", "net")
        assert run("nft list ruleset") == ""


def test_what_is_left_of_a_network_without_a_record_goes_with_its_container(lamina: Lamina) -> None:
    id = lamina.out("network", "create", "net")
    monitor = monitor_of(lamina.root, start(lamina, "aa", "--network=net"))
    store = open_store(lamina.root)
    store.documents.delete("network", id)
    store.close()
    os.kill(monitor, signal.SIGKILL)
    lamina("rm", "-f", "aa")
    assert "br-" not in run("ip -o link")
    assert run("nft list ruleset") == ""
