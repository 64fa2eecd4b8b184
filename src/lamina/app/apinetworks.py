# SPDX-License-Identifier: Apache-2.0
"""`lamina.networks`: networks of one's own as Python programs use them; they take root."""

from __future__ import annotations

import builtins

from lamina.app import containers, network_json, networks
from lamina.app.apicontainers import Container
from lamina.app.apistore import host, open_store
from lamina.app.disk import PruneFilter
from lamina.app.runnetworks import network_request
from lamina.container.network.networks import find_network
from lamina.container.network.subnets import Wanted
from lamina.image.notebook import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from lamina.app.settings import Settings
    from lamina.container.network.networks import NamedNetwork
    from lamina.store.ports import Store

__all__ = ["Network", "Networks", "networks_api"]


class Network:
    """A network in a store: a handle, which may outlive what it names."""

    def __init__(self, base: NamedNetwork, store: Store) -> None:
        self._base = base
        self._store = store

    def __repr__(self) -> str:
        return f"<Network {self.short_id} {self.name} {self._base.driver}>"

    def _repr_html_(self) -> str:
        """The network in a notebook."""
        config = self._base.config
        row = (self.short_id, self.name, self._base.driver, config.subnet if config else "")
        return table(("Network", "Name", "Driver", "Subnet"), [row])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and (other.id, other._store) == (self.id, self._store)

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def id(self) -> str:
        """The whole id: 64 hex digits."""
        return self._base.id

    @property
    def short_id(self) -> str:
        """The first twelve of them."""
        return self._base.id[:12]

    @property
    def name(self) -> str:
        """Its name."""
        return self._base.name

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict(self._base.config.labels) if self._base.config else {}

    @property
    def attrs(self) -> dict[str, Any]:
        """All that `docker network inspect` shows, now. Raises LaminaError (NOT_FOUND) if it is gone."""
        return network_json.inspect(self._store, self.id)

    @property
    def containers(self) -> list[Container]:
        """The containers that are in it now."""
        ids = self.attrs["Containers"]
        return [Container(containers.get(self._store, id), self._store) for id in ids]

    def connect(
        self,
        container: Container,
        *,
        aliases: Sequence[str] = (),
        ip: str = "",
        ip6: str = "",
    ) -> None:
        """Put a container into it, now if it runs.

        Raises:
            LaminaError: CONFLICT (it is in it, or an address is taken), USAGE, INVALID (no address
                of the network's), UNSUPPORTED (an ordinary user).
        """
        request = network_request(self.name, aliases=aliases, ip=ip, ip6=ip6)
        containers.get(self._store, container.id).connect(request)

    def disconnect(self, container: Container, *, force: bool = False) -> None:
        """Take a container out of it, now if it runs. Raises LaminaError (CONFLICT) if it is not in it."""
        containers.get(self._store, container.id).disconnect(self.id, force=force)

    def remove(self) -> None:
        """Delete it.

        Raises:
            LaminaError: CONFLICT if a container is in it, DENIED for a predefined one, NOT_FOUND if
                it is gone.
        """
        networks.remove(self._store, self.id)


class Networks:
    """The networks of a store, which is the user's unless a `root` is given."""

    def __repr__(self) -> str:
        return "<lamina.networks: list, get, create, remove, prune>"

    def list(self, *, root: str = "") -> builtins.list[Network]:
        """All of them, the predefined ones too, by name."""
        store = open_store(root)
        return [Network(each, store) for each in networks.every_network(store)]

    def get(self, name: str, *, root: str = "") -> Network:
        """The network of this name, id or beginning of an id.

        Raises:
            LaminaError: NOT_FOUND, or INVALID if several ids begin so.
        """
        store = open_store(root)
        return Network(find_network(store.documents, name), store)

    def create(
        self,
        name: str,
        *,
        subnet: str = "",
        gateway: str = "",
        ip_range: str = "",
        ipv6: bool = False,
        internal: bool = False,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        root: str = "",
        settings: Settings | None = None,
    ) -> Network:
        """A new network; `options` are those of `network create -o`, addresses are texts.

        Raises:
            LaminaError: CONFLICT (name or subnet is taken), INVALID, UNSUPPORTED (an option that lamina
                has not; an ordinary user), EXHAUSTED (no subnet is left).
        """
        store = open_store(root)
        given = [(text,) if text else () for text in (subnet, gateway, ip_range)]
        wanted = Wanted(given[0], given[1], given[2], ipv6)
        asked = networks.NetworkOptions(
            wanted=wanted,
            internal=internal,
            options=tuple((options or {}).items()),
            labels=tuple((labels or {}).items()),
        )
        reserved = host(settings).subnet
        return Network(networks.create(store, name, asked, reserved=reserved), store)

    def remove(self, network: Network | str, *, root: str = "") -> None:
        """Delete a network. Raises LaminaError as `Network.remove`."""
        store = network._store if isinstance(network, Network) else open_store(root)
        networks.remove(store, network.id if isinstance(network, Network) else network)

    def prune(self, *, root: str = "") -> builtins.list[str]:
        """Delete the networks that no container is in; their names."""
        return networks.prune(open_store(root), takes=PruneFilter().takes)


networks_api = Networks()
