# SPDX-License-Identifier: Apache-2.0
"""One container in any number of networks: what its monitor holds for that.

There is one namespace, with an interface for each network. The default route leads to the gateway
network: of those that are not internal, the first by name, as in Docker; it also has the published
ports. Whoever is in a user's network has a resolver.
"""

from __future__ import annotations

import os

from lamina.container.etcfiles import upstream_servers
from lamina.container.network import bridge as host_bridge
from lamina.container.network import links
from lamina.container.network.addresses import parse_ip, parse_ip6
from lamina.container.network.attachment import Network
from lamina.container.network.bridge import explained
from lamina.container.network.endpoints import BRIDGE
from lamina.container.network.names import Names
from lamina.container.network.netlink import Netlink
from lamina.container.network.networks import HOST_BINDING, NamedNetwork, network_of_id
from lamina.container.network.plan import Place
from lamina.container.network.resolver import Resolver
from lamina.container.network.told import tell
from lamina.start.record import replace
from lamina.system.netns import create_namespace, in_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.container.network.attachment import Attachment
    from lamina.container.network.endpoints import Endpoint
    from lamina.container.network.publish import PortMapping
    from lamina.store.ports import Documents


class _Joined:
    """A network that the container is in."""

    def __init__(
        self, named: NamedNetwork, network: Network, attachment: Attachment, interface: str
    ) -> None:
        self.named = named
        self.network = network
        self.attachment = attachment
        self.interface = interface

    @property
    def is_internal(self) -> bool:
        return self.named.config is not None and self.named.config.internal


class Connections:
    """The networks of the container `owner` while it runs. For one thread.

    `ports` are published by the gateway network; `published` says where, `gateway` is its address.
    `dns` are the servers that the resolver asks; without any, the host's.
    """

    def __init__(
        self,
        documents: Documents,
        *,
        owner: str,
        root: str,
        subnet: str,
        ports: Sequence[PortMapping],
        dns: Sequence[str],
    ) -> None:
        self._documents = documents
        self._owner = owner
        self._root = root
        self._subnet = subnet
        self._ports = tuple(ports)
        self._dns = tuple(dns)
        self._namespace = -1
        self._joined: dict[str, _Joined] = {}
        self._publisher = ""  # the id of the network that has the ports
        self._resolver: Resolver | None = None
        self.published: tuple[PortMapping, ...] = ()
        self.gateway = ""

    @property
    def ns_path(self) -> str:
        """What an OCI runtime joins."""
        return f"/proc/{os.getpid()}/fd/{self._namespace}"

    @property
    def addresses(self) -> list[str]:
        """The container's addresses, by interface; IPv6 after all of IPv4."""
        joined = list(self._joined.values())
        found = [each.attachment.ip for each in joined]
        return found + [each.attachment.ip6 for each in joined if each.attachment.ip6]

    @property
    def resolves(self) -> bool:
        """Whether the container has a resolver."""
        return self._resolver is not None

    def adopt(
        self, network: Network, attachment: Attachment, published: tuple[PortMapping, ...]
    ) -> None:
        """Take over what a container in the default network alone has."""
        self._namespace = os.dup(attachment.ns_fd)
        self._joined[BRIDGE] = _Joined(
            NamedNetwork(BRIDGE, "bridge"), network, attachment, interface="eth0"
        )
        self._publisher, self.published = BRIDGE, published

    def reconcile(self, endpoints: Sequence[Endpoint]) -> None:
        """Be in these networks and in no other, as far as that goes.

        Raises LaminaError: NOT_FOUND (a network is gone), and as `Network.attach` and `publish`; what
        was joined before stays, and `close` leaves it.
        """
        if self._namespace < 0:
            with explained("set up the network"):
                self._namespace, inner = create_namespace(host_bridge.enter_namespace)
            inner.close()
        wanted = {each.network: each for each in endpoints}
        for id in [id for id in self._joined if id not in wanted]:
            self._leave(id)
        try:
            for id, endpoint in wanted.items():
                if id not in self._joined:
                    self._join(endpoint)
        finally:
            self._route()
            self._resolve()
        self._publish()

    def close(self) -> None:
        """Leave every network. Idempotent."""
        if self._resolver is not None:
            self._resolver.close()
            self._resolver = None
        for id in list(self._joined):
            self._leave(id)
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1

    def _join(self, endpoint: Endpoint) -> None:
        named = network_of_id(self._documents, endpoint.network)
        if named.config is None:
            network = Network(self._documents, root=self._root, subnet=self._subnet)
        else:
            network = Network(self._documents, root=self._root, plan=named.plan())
        taken = {each.interface for each in self._joined.values()}
        interface = next(f"eth{n}" for n in range(len(taken) + 1) if f"eth{n}" not in taken)
        place = Place(
            self._namespace,
            interface,
            ip=endpoint.ip,
            ip6=endpoint.ip6,
            mac=endpoint.mac,
            default_route=False,
        )
        try:
            attachment = network.attach(self._owner, hold_pid=os.getpid(), place=place)
            network_of_id(self._documents, endpoint.network)  # else it was removed meanwhile
        except BaseException:
            network.close()
            raise
        self._joined[endpoint.network] = _Joined(named, network, attachment, interface)
        tell(self._root, "connect", named.id, named.name, container=self._owner)

    def _leave(self, id: str) -> None:
        joined = self._joined.pop(id)
        if id == self._publisher:
            self._publisher = ""
        joined.network.close()
        tell(self._root, "disconnect", id, joined.named.name, container=self._owner)

    def _gateway_network(self) -> _Joined | None:
        outer = [each for each in self._joined.values() if not each.is_internal]
        return min(outer, key=lambda each: each.named.name, default=None)

    def _route(self) -> None:
        """Lead the default routes to the gateway network: of IPv6, the first that has it."""
        chosen = self._gateway_network()
        self.gateway = chosen.attachment.gateway if chosen is not None else ""
        six = sorted(
            (each.named.name, each.attachment.gateway6)
            for each in self._joined.values()
            if each.attachment.gateway6 and not each.is_internal
        )
        with explained("set the default route"), in_namespace(self._namespace, Netlink) as inner:
            if chosen is not None:
                links.set_default_route(inner, gateway=parse_ip(self.gateway))
            else:
                links.drop_default_route(inner)
            if six:
                links.set_default_route(inner, gateway=parse_ip6(six[0][1]), bits=128)
            else:
                links.drop_default_route(inner, bits=128)

    def _publish(self) -> None:
        """Have the ports published by the gateway network, and by no other; ports that were chosen for
        the container stay.
        """
        chosen = self._gateway_network()
        if chosen is None or chosen.named.id == self._publisher or not self._ports:
            self.published = self.published if chosen is not None else ()
            return
        binding = dict(chosen.named.config.options if chosen.named.config else ()).get(HOST_BINDING)
        ports = self.published or self._ports
        if binding:
            ports = tuple(
                port if port.host_ip else replace(port, host_ip=binding) for port in ports
            )
        former = self._joined.get(self._publisher)
        if former is not None:
            former.network.withdraw(former.attachment)
            self._publisher = ""
        self.published = chosen.network.publish(chosen.attachment, ports)
        self._publisher = chosen.named.id

    def _resolve(self) -> None:
        """Have a resolver in a user's network; out of internal ones no question leads."""
        in_users = any(id != BRIDGE for id in self._joined)
        if not in_users:
            if self._resolver is not None:
                self._resolver.close()
                self._resolver = None
            return
        servers = self._servers() if self._gateway_network() is not None else ()
        if self._resolver is not None:
            self._resolver.ask(servers)
            return
        names = Names(self._documents, self._owner)
        self._resolver = Resolver(
            names, namespace=self._namespace, servers=servers, inside=bool(self._dns)
        )

    def _servers(self) -> tuple[str, ...]:
        if self._dns:
            return self._dns
        try:
            with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
                return tuple(upstream_servers(file.read(1 << 20)))
        except OSError:
            return ()
