# SPDX-License-Identifier: Apache-2.0
"""Reservations on the loopback interface: who has the port, and in which words it is said."""

from __future__ import annotations

import errno
import socket

import pytest

from lamina.container.network.ports import reserve
from lamina.container.network.publish import PortMapping
from lamina.errors import Kind, LaminaError


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_every_address_means_both_families() -> None:
    mapping, sockets = reserve(PortMapping(80))

    ports = {bound.getsockname()[1] for bound in sockets}
    families = [bound.family for bound in sockets]
    for bound in sockets:
        bound.close()
    assert ports == {mapping.host_port}
    assert families[0] == socket.AF_INET
    assert families[1:] in ([socket.AF_INET6], [])


def test_one_address_means_one_socket() -> None:
    mapping, (bound,) = reserve(PortMapping(80, "udp", "127.0.0.1"))

    with bound:
        assert bound.getsockname() == ("127.0.0.1", mapping.host_port)
        assert not bound.getblocking()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_second_reservation_is_a_conflict(protocol: str) -> None:
    mapping, (bound,) = reserve(PortMapping(80, protocol, "127.0.0.1"))

    with bound, pytest.raises(LaminaError) as caught:
        reserve(mapping)

    assert str(caught.value) == (
        f"Bind for 127.0.0.1:{mapping.host_port} failed: port is already allocated"
    )
    assert caught.value.kind is Kind.CONFLICT


def test_one_port_of_both_protocols_is_no_conflict() -> None:
    mapping, (tcp,) = reserve(PortMapping(80, "tcp", "127.0.0.1"))
    _, (udp,) = reserve(PortMapping(80, "udp", "127.0.0.1", mapping.host_port))

    tcp.close()
    udp.close()


def test_port_that_just_had_connections_can_be_reserved_again() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as server:
        client = socket.create_connection(("127.0.0.1", port))
        inside, _ = server.accept()
        inside.close()  # the server's side closes first and stays in TIME_WAIT
        client.close()

    _, (bound,) = reserve(PortMapping(80, "tcp", "127.0.0.1", port))

    bound.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EACCES, Kind.DENIED),
        (errno.EADDRNOTAVAIL, Kind.USAGE),
        (errno.EMFILE, Kind.EXHAUSTED),
    ],
)
def test_refused_bind_is_explained(monkeypatch: pytest.MonkeyPatch, code: int, kind: Kind) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(code, "refused")

    monkeypatch.setattr("lamina.container.network.ports._bind", refuse)

    with pytest.raises(LaminaError, match=r"Bind for 127\.0\.0\.1:80 failed") as caught:
        reserve(PortMapping(80, "tcp", "127.0.0.1", 80))

    assert caught.value.kind is kind


def test_ipv4_is_enough_on_a_host_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    from lamina.container.network import ports

    real = ports._bind

    def without_ipv6(protocol: str, ip: str, port: int) -> socket.socket:
        if ":" in ip:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6")
        return real(protocol, "127.0.0.1", port)

    monkeypatch.setattr(ports, "_bind", without_ipv6)

    _, (bound,) = reserve(PortMapping(80))

    bound.close()
