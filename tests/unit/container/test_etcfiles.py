# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from lamina.container.etcfiles import hosts_file, resolv_conf
from lamina.errors import Kind, LaminaError


def servers(text: str) -> list[str]:
    return [line.split()[1] for line in text.splitlines() if line.startswith("nameserver")]


def test_hosts_have_loopback_and_the_container() -> None:
    text = hosts_file(hostname="box", address="10.88.0.2")
    assert text.startswith("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
    assert text.endswith("10.88.0.2\tbox\n")


def test_container_without_address_is_loopback() -> None:
    assert hosts_file(hostname="box").endswith("127.0.1.1\tbox\n")


def test_extra_hosts_and_gateway() -> None:
    text = hosts_file(
        hostname="b",
        extra_hosts=(("db", "[2001:db8::1]"), ("host.internal", "host-gateway")),
        host_gateway="10.88.0.1",
    )
    assert "2001:db8::1\tdb\n10.88.0.1\thost.internal\n" in text


@pytest.mark.parametrize(
    "extra", [("db", "nonsense"), ("a b", "10.0.0.1"), ("x\n10.9.9.9 y", "10.0.0.1"), ("", "::1")]
)
def test_bad_extra_host_is_a_usage_error(extra: tuple[str, str]) -> None:
    with pytest.raises(LaminaError) as caught:
        hosts_file(hostname="b", extra_hosts=(extra,))
    assert caught.value.kind is Kind.USAGE


def test_gateway_that_is_not_known_is_an_error() -> None:
    with pytest.raises(LaminaError, match="host-gateway"):
        hosts_file(hostname="b", extra_hosts=(("x", "host-gateway"),))


HOST = "# c\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch example.org\noptions edns0\n"
STUB = "nameserver 127.0.0.53\noptions trust-ad\nsearch lan\n"


def test_loopback_servers_are_left_out_and_the_rest_kept() -> None:
    found = resolv_conf(HOST)
    assert found.text == "nameserver 192.0.2.1\nsearch example.org\noptions edns0\n"
    assert not found.fallback


def test_stub_resolver_is_replaced_by_its_own_servers() -> None:
    found = resolv_conf(STUB, systemd="nameserver 192.0.2.7\nsearch corp\n")
    assert found.text == "nameserver 192.0.2.7\nsearch corp\n"


@pytest.mark.parametrize("host", ["", STUB, "nameserver ::1\n", "nameserver\n", "junk 1\n"])
def test_public_servers_are_the_last_resort(host: str) -> None:
    found = resolv_conf(host, systemd="nameserver 127.0.0.1\n")
    assert servers(found.text) == ["8.8.8.8", "8.8.4.4"]
    assert found.fallback


def test_host_network_keeps_the_hosts_file() -> None:
    assert resolv_conf(STUB, host_network=True).text == STUB


def test_asked_servers_replace_the_hosts() -> None:
    found = resolv_conf(HOST, dns=("192.0.2.9", "2001:db8::53"), host_network=True)
    assert found.text.startswith("nameserver 192.0.2.9\nnameserver 2001:db8::53\nsearch")


def test_asked_server_that_is_no_address_is_a_usage_error() -> None:
    with pytest.raises(LaminaError, match=r"'dns\.example'"):
        resolv_conf(HOST, dns=("dns.example",))
