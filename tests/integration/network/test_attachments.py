# SPDX-License-Identifier: Apache-2.0
"""Namespaces on the bridge: who reaches whom, and what is left afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from lamina.container.network.attachment import Network, PortMapping
from lamina.container.network.pool import NetworkPool
from lamina.errors import Kind, LaminaError
from lamina.store.local import open_store
from lamina.testing.network import (
    BRIDGE,
    ask,
    neighbour,
    run,
    run_inside,
    serving,
)
from lamina.testing.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from lamina.container.network.attachment import Attachment
    from lamina.store.ports import Documents

pytestmark = [pytest.mark.root, pytest.mark.tool("nft", "ip")]


def attach(network: Network, owner: str = "c1") -> Attachment:
    return network.attach(owner, hold_pid=os.getpid())


def child(directory: Path, owner: str, count: int, port: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "lamina.testing.network"),
            *(str(directory), owner, str(count), str(port)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def report(process: subprocess.Popen[str]) -> dict[str, list[str]]:
    assert process.stdout is not None
    found: dict[str, list[str]] = json.loads(process.stdout.readline())
    return found


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_namespace_has_loopback_an_address_and_a_default_route(network: Network) -> None:
    attachment = attach(network)

    seen = run(f"nsenter --net={attachment.ns_path} sh -c 'ip -o addr; ip route'")

    assert "inet 127.0.0.1/8" in seen
    assert f"inet {attachment.ip}/{attachment.prefix}" in seen
    assert f"default via {attachment.gateway} dev eth0" in seen
    assert attachment.mac in run(f"nsenter --net={attachment.ns_path} ip link show eth0")


def test_two_containers_reach_each_other(network: Network) -> None:
    one, two = attach(network, "one"), attach(network, "two")

    with serving(two.ns_fd, 80, "two"):
        assert run_inside(one.ns_fd, lambda: ask(two.ip, 80)) == f"two {one.ip}"


@pytest.mark.parametrize("bridge_netfilter", ["0", "1"])
def test_containers_reach_each_other_whatever_br_netfilter_says(
    network: Network, bridge_netfilter: str
) -> None:
    one, two = attach(network, "one"), attach(network, "two")
    with open("/proc/sys/net/bridge/bridge-nf-call-iptables", "w") as sysctl:
        sysctl.write(bridge_netfilter)

    with serving(two.ns_fd, 80, "two"):
        assert run_inside(one.ns_fd, lambda: ask(two.ip, 80)) == f"two {one.ip}"


def test_container_reaches_another_host_masqueraded(network: Network) -> None:
    with neighbour(host_ip="198.51.100.1", ip="198.51.100.2") as far:
        attachment = attach(network)
        with serving(far, 80, "far"):
            answer = run_inside(attachment.ns_fd, lambda: ask("198.51.100.2", 80))
        network.release(attachment)

    assert answer == "far 198.51.100.1"


def test_unpublished_port_is_not_reachable_from_another_host(network: Network) -> None:
    with neighbour(host_ip="198.51.100.1", ip="198.51.100.2") as far:
        attachment = attach(network)
        run_inside(far, lambda: run("ip route add default via 198.51.100.1"))
        with serving(attachment.ns_fd, 80, "inside"), socket.socket() as client:
            client.settimeout(0.5)
            with pytest.raises(TimeoutError):
                run_inside(far, lambda: ask_within(attachment.ip, 0.5))
        network.release(attachment)


def ask_within(ip: str, seconds: float) -> None:
    with socket.socket() as client:
        client.settimeout(seconds)
        client.connect((ip, 80))


def test_container_cannot_reach_the_loopback_of_the_host(network: Network) -> None:
    attachment = attach(network)
    run(f"nsenter --net={attachment.ns_path} sh -c 'ip addr del 127.0.0.1/8 dev lo; "
        "ip route add 127.0.0.0/8 via " + attachment.gateway + "; "
        "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet'")  # fmt: skip
    host = os.open("/proc/thread-self/ns/net", os.O_RDONLY)

    with serving(host, 9999, "host"), pytest.raises((TimeoutError, OSError)):
        run_inside(attachment.ns_fd, lambda: ask_loopback(attachment.ip))
    os.close(host)


def ask_loopback(ip: str) -> None:
    with socket.socket() as client:
        client.settimeout(0.5)
        client.bind((ip, 0))
        client.connect(("127.0.0.1", 9999))


def test_mtu_is_that_of_the_way_out(network: Network) -> None:
    with neighbour(host_ip="198.51.100.1", ip="198.51.100.2", mtu=1400):
        run("ip route add default via 198.51.100.2")
        attachment = attach(network)
        seen = run(f"nsenter --net={attachment.ns_path} ip link show eth0")
        network.release(attachment)

    assert attachment.mtu == 1400
    assert "mtu 1400" in seen


def test_subnet_avoids_the_routes_of_the_host(network: Network) -> None:
    with neighbour(host_ip="10.88.5.1", ip="10.88.5.2"):
        attachment = attach(network)
        network.release(attachment)

    assert attachment.ip.startswith("10.89.")


def test_another_subnet_than_the_bridge_has_is_refused(
    network: Network, documents: Documents, tmp_path: Path
) -> None:
    attach(network)
    other = Network(
        documents,
        root=str(tmp_path),
        bridge=BRIDGE,
        lock_path=str(tmp_path / "lock"),
        subnet="10.99.0.0/24",
    )

    with pytest.raises(LaminaError, match="already has the subnet") as caught:
        attach(other)

    assert caught.value.kind is Kind.CONFLICT


def test_small_subnet_runs_out_with_a_clear_error(
    host: None, documents: Documents, tmp_path: Path
) -> None:
    network = Network(
        documents,
        root=str(tmp_path),
        bridge=BRIDGE,
        lock_path=str(tmp_path / "lock"),
        subnet="10.99.0.0/29",
    )
    found = [attach(network).ip for _ in range(5)]

    with pytest.raises(LaminaError, match=r"no address is left in 10\.99\.0\.0/29") as caught:
        attach(network)
    network.close()

    assert found == [f"10.99.0.{n}" for n in range(2, 7)]
    assert caught.value.kind is Kind.EXHAUSTED


def test_address_is_free_again_after_release(network: Network) -> None:
    first = attach(network)
    network.release(first)
    network.release(first)  # idempotent

    assert attach(network).ip == first.ip


def test_bridge_and_rules_stay_while_anybody_is_attached(network: Network) -> None:
    one, two = attach(network, "one"), attach(network, "two")

    network.release(one)

    assert BRIDGE in run("ip -o link")
    assert f"table ip {BRIDGE}" in run("nft list tables")
    network.release(two)
    assert BRIDGE not in run("ip -o link")
    assert BRIDGE not in run("nft list tables")


def test_twenty_attachments_from_four_processes_do_not_collide(
    host: None, documents: Documents, tmp_path: Path
) -> None:
    children = [child(tmp_path, f"process{n}", 5) for n in range(4)]
    ips = [ip for process in children for ip in report(process)["ips"]]
    for process in children:
        finish(process)

    assert len(ips) == len(set(ips)) == 20
    assert documents.list("address") == []
    assert BRIDGE not in run("ip -o link; nft list tables")


def test_two_stores_share_the_bridge_without_collision(network: Network, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "other"))
    other = Network(store.documents, root="/other", bridge=BRIDGE, lock_path=str(tmp_path / "lock"))

    one, two = attach(network, "one"), attach(other, "two")

    assert one.ip != two.ip
    network.release(one)
    assert BRIDGE in run("ip -o link")
    with serving(two.ns_fd, 80, "two"):
        assert ask(two.ip, 80).startswith("two")
    other.close()
    store.close()


def test_killed_holder_leaves_nothing_that_the_next_one_keeps(
    network: Network, documents: Documents, tmp_path: Path
) -> None:
    killed = child(tmp_path, "killed", 1, port=8000)
    before = report(killed)
    assert "8000" in run(f"nft list map ip {BRIDGE} published")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()

    wait_until(lambda: before["interfaces"][0] not in run("ip -o link"))
    attachment = attach(network)

    assert [document.name for document in documents.list("address")] == [attachment.ip]
    assert "8000" not in run(f"nft list map ip {BRIDGE} published")
    (mapping,) = network.publish(attachment, [PortMapping(80, host_port=8000)])
    assert mapping.host_port == 8000


def test_reap_after_a_kill_removes_bridge_and_rules(
    network: Network, documents: Documents, tmp_path: Path
) -> None:
    killed = child(tmp_path, "killed", 2, port=8000)
    report(killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert network.reap() == ("killed", "killed")

    assert BRIDGE not in run("ip -o link; nft list tables")
    assert network.reap() == ()


def test_processes_that_outlive_their_killed_holder_lose_its_address(
    network: Network, tmp_path: Path
) -> None:
    killed = child(tmp_path, "killed", 1)
    (interface,) = report(killed)["interfaces"]
    fds = f"/proc/{killed.pid}/fd"
    path = next(f"{fds}/{n}" for n in os.listdir(fds) if os.readlink(f"{fds}/{n}")[:4] == "net:")
    orphan = subprocess.Popen(["nsenter", f"--net={path}", "sleep", "60"])
    wait_until(
        lambda: os.readlink(f"/proc/{orphan.pid}/ns/net") != os.readlink("/proc/thread-self/ns/net")
    )
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert interface in run("ip -o link")

    attachment = attach(network)

    orphan.kill()
    orphan.wait()
    assert attachment.interface in run("ip -o link")
    assert run("ip -o link | grep -c lam0a58").strip() == "1"


def test_interface_of_another_store_is_not_reaped(network: Network, documents: Documents) -> None:
    theirs = attach(network, "theirs")
    run(f"ip link set dev {theirs.interface} alias 'lamina theirs in /another'")
    (document,) = documents.list("address")
    documents.update(
        "address", document.id, '{"owner": "theirs", "pid": 0, "start": 0, "ports": []}'
    )

    assert network.reap() == ("theirs",)

    assert theirs.interface in run("ip -o link")


def test_flushed_ruleset_is_restored_with_its_ports(network: Network) -> None:
    one = attach(network, "one")
    network.publish(one, [PortMapping(80, host_port=8000)])
    run("nft flush ruleset")

    attach(network, "two")

    assert f"tcp . 8000 : {one.ip} . 80" in run(f"nft list map ip {BRIDGE} published")


def test_half_made_bridge_is_completed(network: Network) -> None:
    run(f"ip link add {BRIDGE} type bridge")

    attachment = attach(network)

    with serving(attachment.ns_fd, 80, "inside"):
        assert ask(attachment.ip, 80) == f"inside {attachment.gateway}"


def test_bridge_whose_removal_was_interrupted_outlives_the_next_release(network: Network) -> None:
    attach(network, "one")
    run(f"ip link set dev {BRIDGE} group {0x6C616D00}")
    two, three = attach(network, "two"), attach(network, "three")

    network.release(two)

    with serving(three.ns_fd, 80, "three"):
        assert ask(three.ip, 80).startswith("three")


def test_several_are_released_at_once(network: Network, documents: Documents) -> None:
    attachments = [attach(network, f"c{n}") for n in range(3)]
    network.publish(attachments[0], [PortMapping(80, host_port=8000)])

    network.release_all(attachments[:2])

    assert [document.name for document in documents.list("address")] == [attachments[2].ip]
    assert "8000" not in run(f"nft list map ip {BRIDGE} published")
    assert run("ip -o link | grep -c lam0a58").strip() == "1"


def test_pool_uses_a_namespace_again_and_never_at_the_same_time(network: Network) -> None:
    with NetworkPool(network, "build", hold_pid=os.getpid()) as pool:
        with pool.namespace() as one, pool.namespace() as two:
            assert one != two
        with pool.namespace() as three:
            assert three in {one, two}
        with pool.namespace(reuse=False) as fresh:
            assert fresh not in {one, two}


def test_pool_serves_threads_at_the_same_time(network: Network) -> None:
    barrier = threading.Barrier(4)
    found: list[str] = []
    with NetworkPool(network, "build", hold_pid=os.getpid()) as pool:

        def step() -> None:
            with pool.namespace() as path:
                found.append(path)
                barrier.wait(20)

        threads = [threading.Thread(target=step) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(set(found)) == 4


@pytest.mark.tool("iptables")
def test_host_whose_forward_policy_drops_lets_the_bridge_through(network: Network) -> None:
    run("iptables -P FORWARD DROP")
    with neighbour(host_ip="198.51.100.1", ip="198.51.100.2") as far:
        attachment = attach(network)
        with serving(far, 80, "far"):
            answer = run_inside(attachment.ns_fd, lambda: ask("198.51.100.2", 80))
        assert BRIDGE in run("iptables -S FORWARD")
        network.release(attachment)

    assert answer == "far 198.51.100.1"
    assert BRIDGE not in run("iptables -S")


@pytest.mark.tool("iptables")
def test_rules_go_into_dockers_own_chain_for_them(network: Network) -> None:
    run("iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER")

    attachment = attach(network)

    assert BRIDGE in run("iptables -S DOCKER-USER")
    network.release(attachment)
    assert BRIDGE not in run("iptables -S")
    run("iptables -F; iptables -X DOCKER-USER; iptables -P FORWARD ACCEPT")


def test_without_privilege_the_hint_names_the_host_network(tmp_path: Path) -> None:
    code = (
        "import ctypes, os, sys\n"
        "from lamina.store.local import open_store\n"
        "from lamina.container.network.attachment import Network\n"
        "from lamina.errors import LaminaError\n"
        "network = Network(open_store(sys.argv[1]).documents, root='/', lock_path='/nowhere')\n"
        "os.setuid(65534)\n"
        "try:\n"
        "    network.attach('c', hold_pid=os.getpid())\n"
        "except LaminaError as error:\n"
        "    print(error.kind.value, '|', error.hint)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.startswith("denied | ")
    assert "--network host" in done.stdout
