# SPDX-License-Identifier: Apache-2.0
"""The network side of one running container, as its monitor holds it.

`connect` gives it what its configuration and its endpoints say; `reconcile` does so again while it runs,
when somebody has changed the endpoints; `close` takes it all back. A container in the default network
alone needs none of what user networks do (`container.network.connections`).
"""

from __future__ import annotations

import os

from lamina.container import state
from lamina.container.bundle import etc_mounts, etc_texts, write_text
from lamina.container.keeping import ForkedHelpers
from lamina.container.network.attachment import Network
from lamina.container.network.connections import Connections
from lamina.container.network.endpoints import endpoints_of
from lamina.container.network.resolver import ADDRESS
from lamina.container.network.sharing import namespace_of
from lamina.container.network.told import PREDEFINED, tell
from lamina.container.network.usernet import UserNetwork, find_way
from lamina.errors import Kind, LaminaError
from lamina.start.record import replace
from lamina.system.userns import is_namespaced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.container.network.attachment import Attachment
    from lamina.container.network.endpoints import Endpoint
    from lamina.container.network.publish import PortMapping
    from lamina.container.ports import Mount, ProcessSpec
    from lamina.container.state import ContainerConfig
    from lamina.store.ports import Store

_ETC = ("hosts", "hostname", "resolv.conf")


class Networking:
    """See the module. `ip_address` and `ports` are what `state.json` tells."""

    def __init__(
        self, store: Store, id: str, config: ContainerConfig, *, directory: str, subnet: str
    ) -> None:
        self._store = store
        self._id = id
        self._config = config
        self._directory = directory
        self._subnet = subnet
        self._network: Network | UserNetwork | None = None
        self._attachment: Attachment | None = None
        self._connections: Connections | None = None
        self._process: ProcessSpec | None = None
        self._shared = ""
        self._is_told = False  # that the container is in the default network
        self.ip_address = ""
        self.ports: tuple[PortMapping, ...] = ()

    def connect(self, process: ProcessSpec) -> ProcessSpec:
        """Attach to the networks and publish the ports; the process with what it must know of it.

        Raises LaminaError.
        """
        mode = self._config.network
        if mode.startswith("container:"):
            return self._share(process, mode.removeprefix("container:"))
        self._process = process
        if mode != "bridge" or self._store.documents.find(state.ENDPOINT, f"{self._id}:"):
            connections = self._open()
            connections.reconcile(self._endpoints())
            return self._told(connections)
        self._network = network = self._default_network()
        if network is None:
            self._tell("connect")
            return replace(process, host_network=True)
        self._attachment = attachment = network.attach(self._id, hold_pid=os.getpid())
        self.ip_address = attachment.ip
        self._tell("connect")
        if self._config.ports:
            self.ports = network.publish(attachment, self._config.ports)
        return replace(
            process,
            network_ns=attachment.ns_path,
            address=attachment.ip,
            host_gateway=attachment.gateway,
        )

    def reconcile(self) -> None:
        """Make the running container's networks those of its endpoints now. Raises LaminaError, with
        what could be done done.
        """
        connections = self._connections
        if self._shared:
            raise LaminaError("the network is another container's", kind=Kind.CONFLICT)
        if connections is None:
            if not isinstance(self._network, Network) or self._attachment is None:
                raise LaminaError(
                    "an ordinary user's container has one network, for good", kind=Kind.UNSUPPORTED
                )
            connections = self._open()
            connections.adopt(self._network, self._attachment, self.ports)
            self._network = self._attachment = None
            self._is_told = False  # they tell
        before = self._told(connections)
        try:
            connections.reconcile(self._endpoints())
        finally:
            self._rewrite(before, self._told(connections))

    def close(self) -> None:
        """Leave every network. Idempotent."""
        if self._connections is not None:
            self._connections.close()
        if self._network is not None:
            self._network.close()
            self._network = None
        if self._is_told:
            self._tell("disconnect")

    def etc_mounts(self) -> tuple[Mount, ...] | None:
        """The other container's files, if the network is another one's; else None."""
        if not self._shared:
            return None
        return etc_mounts(self._shared, _ETC, read_only=self._config.process.read_only)

    def _tell(self, action: str) -> None:
        """Note that the container comes into the default network, or leaves it."""
        self._is_told = action == "connect"
        tell(self._store.root, action, PREDEFINED["bridge"], "bridge", container=self._id)

    def _open(self) -> Connections:
        self._connections = Connections(
            self._store.documents,
            owner=self._id,
            root=self._store.root,
            subnet=self._subnet,
            ports=self._config.ports,
            dns=self._config.process.dns,
        )
        return self._connections

    def _endpoints(self) -> list[Endpoint]:
        return endpoints_of(self._store.documents, self._id, mode=self._config.network)

    def _told(self, connections: Connections) -> ProcessSpec:
        """The process as the connections are now; notes what `state.json` tells."""
        assert self._process is not None
        addresses = connections.addresses
        self.ip_address = addresses[0] if addresses else ""
        self.ports = connections.published
        process = replace(
            self._process,
            network_ns=connections.ns_path,
            address=self.ip_address,
            more_addresses=tuple(addresses[1:]),
            host_gateway=connections.gateway,
        )
        if not connections.resolves:
            return process
        options = process.dns_options
        if not any(option.startswith("ndots:") for option in options):
            options = (*options, "ndots:0")  # as Docker: names of containers have no dot
        return replace(process, dns=(ADDRESS,), dns_options=options)

    def _rewrite(self, before: ProcessSpec, after: ProcessSpec) -> None:
        """Say in /etc what has changed; a file that the container wrote to itself stays as it is."""
        old, new = etc_texts(before), etc_texts(after)
        for name in _ETC:
            path = f"{self._directory}/{name}"
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                is_ours = file.read() == old[name]
            if is_ours and new[name] != old[name]:
                write_text(path, new[name])

    def _default_network(self) -> Network | UserNetwork | None:
        """The network to attach to; None for the host's, which has no way into another one."""
        if not is_namespaced():
            return Network(self._store.documents, root=self._store.root, subnet=self._subnet)
        way = find_way()
        if not way.programs and not self._config.ports:
            return None
        return UserNetwork(ForkedHelpers(), directory=self._directory, way=way)

    def _share(self, process: ProcessSpec, other: str) -> ProcessSpec:
        """Join the network of another container, which runs; its descriptor is this process's."""
        found = namespace_of(self._store, other)
        self._shared = found.directory
        if found.is_hosts:
            return replace(process, hostname=found.hostname, host_network=True)
        return replace(
            process,
            hostname=found.hostname,
            network_ns=f"/proc/{os.getpid()}/fd/{found.descriptor}",
        )
