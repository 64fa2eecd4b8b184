# SPDX-License-Identifier: Apache-2.0
"""A network as `docker network inspect` shows it, and a container's place in it."""

from __future__ import annotations

from lamina.app.membership import Membership
from lamina.app.networks import users_of
from lamina.container.logs import NANOSECONDS, format_time
from lamina.container.network.addresses import format_ip, mac_of, parse_ip
from lamina.container.network.endpoints import Endpoint
from lamina.container.network.links import address_of, find_link
from lamina.container.network.netlink import Netlink
from lamina.container.network.networks import find_network, network_of_id, read_subnet
from lamina.container.network.plan import DEFAULT_BRIDGE
from lamina.errors import LaminaError
from lamina.start.hashing import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.container.network.endpoints import Presence
    from lamina.container.network.networks import NamedNetwork
    from lamina.store.ports import Store

_NEVER = "0001-01-01T00:00:00Z"  # Go's zero time


def inspect(store: Store, text: str) -> dict[str, object]:
    """The network of this name or id. Raises LaminaError of kind NOT_FOUND."""
    return network_json(store, find_network(store.documents, text))


def network_json(store: Store, network: NamedNetwork) -> dict[str, object]:
    """The document; everything in it is JSON."""
    config = network.config
    names = {document.id: document.name for document in store.documents.list("container")}
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": format_time(round(network.created * NANOSECONDS)) if config else _NEVER,
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": True,
        "EnableIPv6": bool(config and config.subnet6),
        "IPAM": {"Driver": "default", "Options": {} if config else None, "Config": _ipam(network)},
        "Internal": bool(config and config.internal),
        "Attachable": bool(config and config.attachable),
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            each.claim.owner: _user(store, network, each, name=names.get(each.claim.owner, ""))
            for each in users_of(store, network.id)
        },
        "Options": dict(config.options) if config else {},
        "Labels": dict(config.labels) if config else {},
    }


def _ipam(network: NamedNetwork) -> list[dict[str, str]]:
    config = network.config
    if config is None:
        return []
    first = {"Subnet": config.subnet, "Gateway": config.gateway}
    if config.ip_range:
        first["IPRange"] = config.ip_range
    return [
        first,
        *([{"Subnet": config.subnet6, "Gateway": config.gateway6}] if config.subnet6 else []),
    ]


def _user(
    store: Store, network: NamedNetwork, presence: Presence, *, name: str
) -> dict[str, object]:
    asked = Endpoint(presence.claim.owner, network.id)
    place = place_json(store, Membership(network.name, asked, presence))
    ip, ip6 = place["IPAddress"], place["GlobalIPv6Address"]
    return {
        "Name": name,
        "EndpointID": place["EndpointID"],
        "MacAddress": place["MacAddress"],
        "IPv4Address": f"{ip}/{place['IPPrefixLen']}",
        "IPv6Address": f"{ip6}/{place['GlobalIPv6PrefixLen']}" if ip6 else "",
    }


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
    """Gateway and prefix length of the default network, as they are on the host."""
    try:
        with Netlink() as netlink:
            link = find_link(netlink, DEFAULT_BRIDGE)
            address = address_of(netlink, link.index) if link is not None else None
    except OSError:
        return "", 0
    return (format_ip(address.ip), address.prefix) if address is not None else ("", 0)
