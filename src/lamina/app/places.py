# SPDX-License-Identifier: Apache-2.0
"""Where containers are in networks, as records have it: nothing here loads how it is done."""

from __future__ import annotations

from sys import byteorder

from lamina.container.network.addresses import (
    Subnet,
    format_ip,
    gateway_of,
    mac_of,
    parse_ip,
)
from lamina.container.network.endpoints import Endpoint, endpoints_of, present
from lamina.container.network.networks import network_of_id, read_subnet
from lamina.container.network.plan import DEFAULT_BRIDGE
from lamina.container.network.told import PREDEFINED
from lamina.errors import LaminaError
from lamina.start.hashing import sha256
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.container.network.endpoints import Presence
    from lamina.store.ports import Store


class Membership(Record):
    """A container in a network: what it asked for, and where it is, None while it does not run."""

    name: str
    endpoint: Endpoint
    presence: Presence | None = None


def memberships(store: Store, id: str, *, mode: str) -> list[Membership]:
    """The networks of the container with this id, in the order of its interfaces; none if the network
    is another container's. `mode` is its configuration's `network`.
    """
    if mode in {"host", "none"}:
        return [Membership(mode, Endpoint(id, PREDEFINED[mode]))]
    if mode.startswith("container:"):
        return []
    now = {each.network: each for each in present(store.documents) if each.claim.owner == id}
    return [
        Membership(_name_of(store, each.network), each, now.get(each.network))
        for each in endpoints_of(store.documents, id, mode=mode)
    ]


def _name_of(store: Store, id: str) -> str:
    try:
        return network_of_id(store.documents, id).name
    except LaminaError:
        return id  # it was removed while the container did not run


def users_of(store: Store, id: str) -> list[Presence]:
    """The containers that are in the network now; for the host's network, none is known."""
    containers = {document.id for document in store.documents.list("container")}
    return [
        each
        for each in present(store.documents)
        if each.network == id and each.claim.owner in containers
    ]


def place_json(store: Store, member: Membership) -> dict[str, object]:
    """Where a container is in a network: the part of `EndpointSettings` that the network decides;
    empty values if it is not there now.
    """
    id, presence = member.endpoint.network, member.presence
    gateway, prefix, gateway6, prefix6 = "", 0, "", 0
    try:
        config = network_of_id(store.documents, id).config
    except LaminaError:
        config = None  # it was removed while the container did not run
    if presence is not None and config is not None:
        gateway, prefix = config.gateway, read_subnet(config.subnet).prefix
        if config.subnet6:
            gateway6, prefix6 = config.gateway6, read_subnet(config.subnet6).prefix
    elif presence is not None:
        gateway, prefix = _default_bridge()
    ip = presence.ip if presence is not None else ""
    claim = presence.claim if presence is not None else None
    mac = (claim.mac or mac_of(parse_ip(ip)).hex(":")) if claim is not None else ""
    return {
        "NetworkID": id,
        "EndpointID": _endpoint_id(claim.owner, id) if claim is not None else "",
        "Gateway": gateway,
        "IPAddress": ip,
        "IPPrefixLen": prefix,
        "IPv6Gateway": gateway6,
        "GlobalIPv6Address": claim.ip6 if claim is not None else "",
        "GlobalIPv6PrefixLen": prefix6,
        "MacAddress": mac,
    }


def _endpoint_id(container: str, network: str) -> str:
    return sha256(f"{container}:{network}".encode()).hexdigest()


def _default_bridge() -> tuple[str, int]:
    """Gateway and prefix length of the default network: its bridge has the first address."""
    try:
        with open("/proc/net/route", encoding="ascii") as file:
            routes = [line.split() for line in file]
    except OSError:
        return "", 0
    for name, destination, _, _, _, _, _, mask, *_ in routes[1:]:
        if name == DEFAULT_BRIDGE and destination != "00000000":
            first, bits = (_address(text) for text in (destination, mask))
            subnet = Subnet(first, bits.bit_count())
            return format_ip(gateway_of(subnet)), subnet.prefix
    return "", 0


def _address(text: str) -> int:
    """An address as the kernel prints it: the number that its bytes are in memory."""
    return int.from_bytes(int(text, 16).to_bytes(4, byteorder), "big")
