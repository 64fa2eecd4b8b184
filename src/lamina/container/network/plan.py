# SPDX-License-Identifier: Apache-2.0
"""What a bridge is to be, and what a container is to have on it: values, decided before anything is done."""

from __future__ import annotations

from lamina.container.network.addresses import Subnet
from lamina.start.record import Record

DEFAULT_BRIDGE = "lamina0"


class BridgePlan(Record):
    """A bridge and its rules. `network` is the id of the user's network, empty for the default one.

    Without `subnet` one is found that the host has no route to, and none of `avoid`; `gateway` 0 is the
    first address; dynamic addresses are of `ip_range`, if given. `subnet6` is for IPv6, its addresses
    follow from those of IPv4. `mtu` 0 is that of the way out. `internal`: nothing leads out or in.
    `icc`: containers reach one another. `table` is the name of the rules' table.
    """

    name: str = DEFAULT_BRIDGE
    network: str = ""
    subnet: Subnet | None = None
    gateway: int = 0
    ip_range: Subnet | None = None
    subnet6: Subnet | None = None
    gateway6: int = 0
    mtu: int = 0
    internal: bool = False
    icc: bool = True
    masquerade: bool = True
    avoid: tuple[Subnet, ...] = ()

    @property
    def table(self) -> str:
        """The name of the rules' table. A user's bridge may be called like a word of nft's language."""
        return f"lamina-{self.name}" if self.network else self.name


class Place(Record):
    """What a container is to have on a bridge. `namespace` is a descriptor of the one it has, -1 makes
    one. `ip`, `ip6` and `mac` empty: found. `default_route` is to lead to this bridge's gateway.
    """

    namespace: int = -1
    interface: str = "eth0"
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    default_route: bool = True
