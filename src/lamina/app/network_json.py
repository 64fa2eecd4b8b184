# SPDX-License-Identifier: Apache-2.0
"""A network as `docker network inspect` shows it."""

from __future__ import annotations

from lamina.app.places import Membership, place_json, users_of
from lamina.container.logs import NANOSECONDS, format_time
from lamina.container.network.endpoints import Endpoint
from lamina.container.network.networks import find_network

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
