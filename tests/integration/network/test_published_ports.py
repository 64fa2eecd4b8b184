# SPDX-License-Identifier: Apache-2.0
"""Published ports: from where they are reached, and what happens when one is taken."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lamina.container.network.attachment import PortMapping, parse_publish
from lamina.errors import Kind, LaminaError
from lamina.testing.network import BRIDGE, ask, neighbour, run, run_inside, serving

if TYPE_CHECKING:
    from pathlib import Path

    from lamina.container.network.attachment import Attachment, Network
    from lamina.store.ports import Documents

pytestmark = [pytest.mark.root, pytest.mark.tool("nft", "ip")]


def attach(network: Network, owner: str = "c1") -> Attachment:
    return network.attach(owner, hold_pid=os.getpid())


@pytest.fixture(params=["nft", "iptables"])
def rules(request: pytest.FixtureRequest, tmp_path: Path, network: Network) -> str:
    """Both ways: with nft, and on a host that only has iptables (then the forwarder serves)."""
    program: str = request.param
    if program == "iptables":
        tools = tmp_path / "tools"
        tools.mkdir()
        found = shutil.which("iptables")
        assert found is not None
        (tools / "iptables").symlink_to(found)
        network._search_path = str(tools)
    return program


@pytest.mark.tool("iptables")
@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_port_is_reached_from_everywhere(rules: str, network: Network, *, udp: bool) -> None:
    protocol = "udp" if udp else "tcp"
    with neighbour(host_ip="198.51.100.1", ip="198.51.100.2") as far:
        server, other = attach(network, "server"), attach(network, "other")
        network.publish(server, [PortMapping(80, protocol, host_port=8000)])
        with serving(server.ns_fd, 80, "hello", udp=udp):
            answers = {
                "loopback": ask("127.0.0.1", 8000, udp=udp),
                "IPv6 loopback": ask("::1", 8000, udp=udp),
                "own address": ask("198.51.100.1", 8000, udp=udp),
                "bridge address": ask(server.gateway, 8000, udp=udp),
                "other host": run_inside(far, lambda: ask("198.51.100.1", 8000, udp=udp)),
                "other container": run_inside(
                    other.ns_fd, lambda: ask(server.gateway, 8000, udp=udp)
                ),
                "itself": run_inside(server.ns_fd, lambda: ask("198.51.100.1", 8000, udp=udp)),
            }
        assert run("nft list ruleset").count(f"table ip {BRIDGE}") == (rules == "nft")
        with open(f"/proc/sys/net/ipv4/conf/{BRIDGE}/route_localnet") as sysctl:
            assert sysctl.read().strip() == ("1" if rules == "nft" else "0")
        network.close()

    assert {who for who, text in answers.items() if not text.startswith("hello ")} == set()
    if rules == "nft":
        assert answers["other host"] == "hello 198.51.100.2"  # the client's address is kept


def test_port_of_one_address_is_not_reached_at_another(network: Network) -> None:
    with neighbour(host_ip="198.51.100.1", ip="198.51.100.2"):
        server = attach(network)
        network.publish(server, parse_publish("127.0.0.1:8000:80"))
        with serving(server.ns_fd, 80, "hello"):
            assert ask("127.0.0.1", 8000).startswith("hello")
            with pytest.raises(ConnectionRefusedError):
                ask("198.51.100.1", 8000)
        network.close()


def test_ipv6_address_is_served_by_the_forwarder(network: Network) -> None:
    server = attach(network)
    network.publish(server, parse_publish("[::1]:8000:80"))

    with serving(server.ns_fd, 80, "hello"):
        assert ask("::1", 8000) == f"hello {server.gateway}"
        with pytest.raises(ConnectionRefusedError):
            ask("127.0.0.1", 8000)


def test_server_that_listens_only_inside_the_loopback_is_not_reached(network: Network) -> None:
    server = attach(network)
    network.publish(server, [PortMapping(80, host_port=8000)])

    with pytest.raises(ConnectionRefusedError):
        ask("127.0.0.1", 8000)


def test_taken_port_names_the_container_that_has_it(network: Network) -> None:
    one, two = attach(network, "one"), attach(network, "two")
    network.publish(one, [PortMapping(80, host_port=8000)])

    with pytest.raises(LaminaError) as caught:
        network.publish(two, [PortMapping(80, host_port=8000)])

    assert str(caught.value) == "Bind for 0.0.0.0:8000 failed: port is already allocated"
    assert caught.value.kind is Kind.CONFLICT
    assert "container one" in caught.value.hint


@pytest.mark.parametrize("where", ["0.0.0.0", "127.0.0.1", "::1"])
def test_port_that_another_program_has_is_a_conflict(network: Network, where: str) -> None:
    server = attach(network)
    family = socket.AF_INET6 if ":" in where else socket.AF_INET
    with socket.socket(family) as program:
        program.bind((where, 8000))
        program.listen()

        with pytest.raises(LaminaError, match="8000 failed: port is already allocated") as caught:
            network.publish(server, [PortMapping(80, host_port=8000)])

    assert caught.value.kind is Kind.CONFLICT
    assert "ss -Hlnp" in caught.value.hint
    network.publish(server, [PortMapping(80, host_port=8000)])


def test_published_port_is_taken_for_other_programs(network: Network) -> None:
    server = attach(network)
    network.publish(
        server, [PortMapping(80, host_port=8000), PortMapping(53, "udp", host_port=5300)]
    )

    for kind, port in ((socket.SOCK_STREAM, 8000), (socket.SOCK_DGRAM, 5300)):
        with socket.socket(socket.AF_INET, kind) as program, pytest.raises(OSError, match="in use"):
            program.bind(("0.0.0.0", port))


def test_failed_publish_publishes_nothing(network: Network) -> None:
    one, two = attach(network, "one"), attach(network, "two")
    network.publish(one, [PortMapping(80, host_port=8002)])

    with pytest.raises(LaminaError):
        network.publish(two, parse_publish("8001-8002:8001-8002"))

    assert network.published("two") == ()
    assert "8001" not in run(f"nft list map ip {BRIDGE} published")
    network.publish(two, [PortMapping(80, host_port=8001)])


def test_refused_rule_undoes_reservation_and_record(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = attach(network)
    mapping = PortMapping(80, host_ip="127.0.0.1", host_port=8000)
    monkeypatch.setattr(
        "lamina.container.network.firewall.Nftables._element", lambda *_: "nonsense"
    )

    with pytest.raises(LaminaError, match="setting packet rules failed"):
        network.publish(server, [mapping])

    assert network.published("c1") == ()
    monkeypatch.undo()
    network.publish(server, [mapping])


def test_free_port_is_chosen_and_reported(network: Network) -> None:
    server = attach(network)

    one, two = network.publish(server, [PortMapping(80), PortMapping(81)])

    assert one.host_port != two.host_port
    assert min(one.host_port, two.host_port) > 1023
    assert network.published("c1") == (one, two)
    with serving(server.ns_fd, 81, "hello"):
        assert ask("127.0.0.1", two.host_port).startswith("hello")


def test_range_is_published_port_by_port(network: Network) -> None:
    server = attach(network)

    found = network.publish(server, parse_publish("8000-8002:80-82"))

    assert [(m.host_port, m.container_port) for m in found] == [(8000, 80), (8001, 81), (8002, 82)]
    with serving(server.ns_fd, 82, "hello"):
        assert ask("127.0.0.1", 8002).startswith("hello")


def test_first_free_port_of_a_range_is_chosen(network: Network) -> None:
    server = attach(network)
    network.publish(server, [PortMapping(79, host_port=8000)])

    (found,) = network.publish(server, parse_publish("8000-8002:80"))

    assert (found.host_port, found.host_port_end) == (8001, 0)
    network.publish(server, parse_publish("8000-8002:80"))
    with pytest.raises(LaminaError, match="already allocated"):
        network.publish(server, parse_publish("8000-8002:80"))


def test_address_that_the_host_does_not_have_is_refused(network: Network) -> None:
    server = attach(network)

    with pytest.raises(LaminaError, match="no interface of this host") as caught:
        network.publish(server, parse_publish("203.0.113.9:8000:80"))

    assert caught.value.kind is Kind.USAGE


def test_released_attachment_cannot_publish(network: Network) -> None:
    server = attach(network)
    network.release(server)

    with pytest.raises(LaminaError, match="not attached") as caught:
        network.publish(server, [PortMapping(80)])

    assert caught.value.kind is Kind.NOT_FOUND


def test_released_port_refuses_connections(network: Network) -> None:
    server, other = attach(network, "server"), attach(network, "other")
    network.publish(server, [PortMapping(80, host_port=8000)])

    network.release(server)

    with pytest.raises(ConnectionRefusedError):
        ask("127.0.0.1", 8000)
    assert network.publish(other, [PortMapping(80, host_port=8000)])[0].host_port == 8000


def test_port_moves_to_another_container_for_a_client_that_keeps_its_udp_port(
    network: Network,
) -> None:
    with neighbour(host_ip="198.51.100.1", ip="198.51.100.2") as far:
        one, two = attach(network, "one"), attach(network, "two")

        def make_client() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.settimeout(5)
            made.connect(("198.51.100.1", 5300))
            return made

        client = run_inside(far, make_client)
        answers = []
        for server, text in ((one, "one"), (two, "two")):
            network.publish(server, [PortMapping(53, "udp", host_port=5300)])
            with serving(server.ns_fd, 53, text, udp=True):
                client.send(b"?")
                answers.append(client.recv(100).decode().split()[0])
            network.release(server)
        client.close()
        network.close()

    assert answers == ["one", "two"]


def test_stale_rule_of_the_same_port_is_replaced(network: Network) -> None:
    server = attach(network)
    stale = "tcp . 8000 : 10.88.77.77 . 1"
    run(f"nft 'add element ip {BRIDGE} published {{ {stale} }}'")

    network.publish(server, [PortMapping(80, host_port=8000)])

    assert f"tcp . 8000 : {server.ip} . 80" in run(f"nft list map ip {BRIDGE} published")


def test_large_transfer_arrives_whole_both_ways_through_the_forwarder(network: Network) -> None:
    server = attach(network)
    network.publish(server, parse_publish("[::1]:8000:80"))
    code = (
        "import socket\n"
        "s = socket.create_server(('', 80)); print('ready', flush=True); c, _ = s.accept()\n"
        "data = b''.join(iter(lambda: c.recv(65536), b''))\n"  # ends by the client's half-close
        "c.sendall(data[::-1]); c.close()\n"
    )
    process = subprocess.Popen(
        ["nsenter", f"--net={server.ns_path}", sys.executable, "-c", code], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    sent = bytes(range(256)) * 32768  # 8 MiB
    with socket.create_connection(("::1", 8000), 20) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: client.recv(65536), b""))
    process.communicate()

    assert received == sent[::-1]


def test_ports_of_a_dead_holder_are_not_reported(network: Network, documents: Documents) -> None:
    server = attach(network)
    network.publish(server, [PortMapping(80, host_port=8000)])
    (document,) = documents.list("address")
    body = document.body.replace('"start": ', '"start": 9')
    documents.update("address", document.id, body)

    assert network.published("c1") == ()
    documents.update("address", document.id, document.body)
