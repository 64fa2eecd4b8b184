# SPDX-License-Identifier: Apache-2.0
"""Which subnets a new network gets."""

from __future__ import annotations

import pytest

from lamina.container.network.addresses import Subnet, parse_ip6
from lamina.container.network.networks import NamedNetwork, NetworkConfig, read_subnet
from lamina.container.network.subnets import POOLS, Addressing, Wanted, choose
from lamina.errors import Kind, LaminaError
from lamina.store.ports import Document


def chosen(wanted: Wanted, *, taken: list[str] = [], routed: list[str] = []) -> Addressing:  # noqa: B006
    return choose(
        wanted,
        taken=[read_subnet(text) for text in taken],
        routed=[read_subnet(text) for text in routed],
        random=lambda count: b"\x11" * count,
    )


def test_pools_are_tried_in_order_and_do_not_overlap() -> None:
    assert not any(a.overlaps(b) for a in POOLS for b in POOLS if a is not b)
    assert chosen(Wanted()) == Addressing("172.18.0.0/16", "172.18.0.1")
    busy = ["172.18.0.0/16"]
    assert chosen(Wanted(), taken=busy, routed=["172.19.255.0/24"]).subnet == "172.20.0.0/16"
    assert chosen(Wanted(), routed=["172.16.0.0/12"]).subnet == "192.168.0.0/20"


def test_no_pool_left_is_said() -> None:
    with pytest.raises(LaminaError, match="fully subnetted") as caught:
        chosen(Wanted(), routed=["172.16.0.0/12", "192.168.0.0/16"])
    assert caught.value.kind is Kind.EXHAUSTED


def test_ipv6_is_a_unique_local_prefix() -> None:
    found = chosen(Wanted(ipv6=True))
    assert found.subnet6 == "fd11:1111:1111:1111::/64"
    assert found.gateway6 == "fd11:1111:1111:1111::1"


def test_what_was_asked_for_may_lie_in_a_wider_route() -> None:
    wanted = Wanted(subnets=("10.5.0.0/16",))
    assert chosen(wanted, routed=["10.0.0.0/8"]).subnet == "10.5.0.0/16"
    with pytest.raises(LaminaError, match="overlaps"):
        chosen(wanted, routed=["10.5.3.0/24"])
    with pytest.raises(LaminaError, match="of another network"):
        chosen(wanted, taken=["10.0.0.0/8"])


def test_gateways_go_to_the_subnet_of_their_family() -> None:
    found = chosen(
        Wanted(("fd00:1::/64", "10.5.0.0/16"), ("10.5.0.7", "fd00:1::7"), ipv6=True),
    )
    assert (found.gateway, found.gateway6) == ("10.5.0.7", "fd00:1::7")


@pytest.mark.parametrize("gateway", ["10.5.0.0", "10.5.255.255", "10.6.0.1"])
def test_a_gateway_is_a_hosts_address_of_the_subnet(gateway: str) -> None:
    with pytest.raises(LaminaError, match="no matching subnet for gateway"):
        chosen(Wanted(("10.5.0.0/16",), (gateway,)))


def test_the_ipv6_subnet_has_room_for_what_follows_from_ipv4() -> None:
    with pytest.raises(LaminaError, match="fewer addresses"):
        chosen(Wanted(("10.5.0.0/16", "fd00::/120"), ipv6=True))


def test_a_network_survives_its_document() -> None:
    config = NetworkConfig(
        "10.5.0.0/24", "10.5.0.1", subnet6="fd00::/64", gateway6="fd00::1",
        options=(("com.docker.network.bridge.enable_icc", "false"),), labels=(("a", "b"),),
    )  # fmt: skip
    network = NamedNetwork("ab" * 32, "x", 1.5, config)
    assert NamedNetwork.parse(network.document()) == network
    plan = network.plan()
    assert plan.name == "br-abababababab"
    assert plan.subnet6 == Subnet(parse_ip6("fd00::"), 64, 128)
    assert not plan.icc


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"format": 1, "subnet": "x"}', '{"format": 2}'])
def test_a_damaged_document_is_a_clear_error(body: str) -> None:
    with pytest.raises(LaminaError, match="network x"):
        NamedNetwork.parse(Document("network", "a" * 64, "x", body, 0.0))
