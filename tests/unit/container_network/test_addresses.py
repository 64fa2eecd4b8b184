# SPDX-License-Identifier: Apache-2.0
"""Which subnet and which address."""

from __future__ import annotations

import pytest

from lamina.container.network.addresses import (
    CANDIDATES,
    Subnet,
    candidates,
    choose_subnet,
    format_ip,
    gateway_of,
    interface_of,
    mac_of,
    parse_ip,
    parse_subnet,
)
from lamina.errors import Kind, LaminaError


def test_first_candidate_is_chosen_on_a_host_without_routes() -> None:
    assert str(choose_subnet([])) == "10.88.0.0/16"


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        (["10.88.3.0/24"], "10.89.0.0/16"),
        (["10.0.0.0/8"], "172.24.0.0/16"),
        (["10.0.0.0/8", "172.16.0.0/12"], "192.168.200.0/24"),
        (["192.0.2.0/24"], "10.88.0.0/16"),
    ],
)
def test_subnet_that_the_host_routes_is_avoided(taken: list[str], expected: str) -> None:
    assert str(choose_subnet([parse_subnet(text) for text in taken])) == expected


def test_no_free_subnet_is_a_clear_error() -> None:
    with pytest.raises(LaminaError) as caught:
        choose_subnet(CANDIDATES)

    assert caught.value.kind is Kind.UNSUPPORTED
    assert "--network host" in caught.value.hint


def test_candidate_subnets_do_not_overlap() -> None:
    pairs = [(a, b) for a in CANDIDATES for b in CANDIDATES if a is not b]

    assert not any(a.overlaps(b) for a, b in pairs)


def test_addresses_go_round_from_the_latest() -> None:
    subnet = parse_subnet("10.1.0.0/29")

    found = [format_ip(ip) for ip in candidates(subnet, after=parse_ip("10.1.0.4"))]

    assert found == ["10.1.0.5", "10.1.0.6", "10.1.0.2", "10.1.0.3", "10.1.0.4"]


@pytest.mark.parametrize("after", [None, parse_ip("10.1.0.6"), parse_ip("10.9.9.9")])
def test_addresses_start_behind_the_gateway(after: int | None) -> None:
    found = [format_ip(ip) for ip in candidates(parse_subnet("10.1.0.0/29"), after=after)]

    assert found == ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]


def test_names_follow_from_the_address() -> None:
    ip = parse_ip("10.88.0.2")

    assert interface_of(ip) == "lam0a580002"
    assert mac_of(ip).hex(":") == "02:4c:0a:58:00:02"
    assert len(interface_of(parse_ip("255.255.255.255"))) <= 15  # IFNAMSIZ less the terminator
    assert format_ip(gateway_of(Subnet(ip, 16))) == "10.88.0.1"


@pytest.mark.parametrize(
    "text", ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/7", "10.0.0.0/30", "10.0.0/16", "::/64", "a/16"]
)
def test_malformed_subnet_is_refused(text: str) -> None:
    with pytest.raises(LaminaError, match="invalid subnet") as caught:
        parse_subnet(text)

    assert caught.value.kind is Kind.USAGE


def test_subnet_is_named_by_its_first_address() -> None:
    assert str(parse_subnet("10.1.2.3/24")) == "10.1.2.0/24"
