# SPDX-License-Identifier: Apache-2.0
"""Networks by name: the documents of a user's, and the three that every store has.

A network is a document: nothing of it is on the host before a container is in it, and after the last
(`attachment`). Who makes or removes one, or makes a container for one, holds the store's lock `LOCK`, so
that subnets do not overlap and no network goes while a container is made for it.
"""

from __future__ import annotations

from lamina.container.network.addresses import (
    Subnet,
    format_ip,
    format_ip6,
    gateway_of,
    parse_ip,
    parse_ip6,
)
from lamina.container.network.claims import ADDRESS, Claim
from lamina.container.network.plan import BridgePlan
from lamina.container.network.told import PREDEFINED, driver_of
from lamina.errors import Kind, LaminaError
from lamina.start.jsontext import dumps, loads
from lamina.start.record import Record, fields
from lamina.store.ports import Document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.store.ports import Documents

KIND = "network"
LOCK = "networks"
FORMAT = 1

NAME_OF_BRIDGE = "com.docker.network.bridge.name"
MTU = "com.docker.network.driver.mtu"
ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"

_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


class NetworkNotFound(LaminaError):
    kind = Kind.NOT_FOUND


class NetworkConfig(Record):
    """What a network was made with; texts as a user writes them, empty for what it has not."""

    subnet: str
    gateway: str
    ip_range: str = ""
    subnet6: str = ""
    gateway6: str = ""
    internal: bool = False
    attachable: bool = False
    options: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


class NamedNetwork(Record):
    """A network of a store. `config` is None for a predefined one, `created` POSIX seconds."""

    id: str
    name: str
    created: float = 0.0
    config: NetworkConfig | None = None

    @property
    def driver(self) -> str:
        """Docker's word for how it is done."""
        return driver_of(self.name)

    def document(self) -> Document:
        """The document of a user's network."""
        assert self.config is not None
        body: dict[str, object] = {"format": FORMAT}
        body |= {name: getattr(self.config, name) for name in fields(NetworkConfig)}
        return Document(KIND, self.id, self.name, dumps(body), self.created)

    @staticmethod
    def parse(document: Document) -> NamedNetwork:
        """The network in a document. Raises LaminaError of kind INVALID or UNSUPPORTED."""
        try:
            body = loads(document.body)
            if body.pop("format") != FORMAT:
                raise LaminaError(
                    f"network {document.name} was made by another version of lamina",
                    kind=Kind.UNSUPPORTED,
                )
            for name in ("options", "labels"):
                body[name] = tuple((str(key), str(value)) for key, value in body[name])
            config = NetworkConfig(**body)
            network = NamedNetwork(document.id, document.name, document.created, config)
            network.plan()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise LaminaError(
                f"network {document.name} is damaged: {error}",
                kind=Kind.INVALID,
                hint=f"'lamina network rm {document.name}' removes it",
            ) from error
        return network

    def plan(self) -> BridgePlan:
        """The bridge of a user's network. Raises ValueError."""
        config = self.config
        assert config is not None
        options = dict(config.options)
        v6 = read_subnet(config.subnet6) if config.subnet6 else None
        return BridgePlan(
            name=options.get(NAME_OF_BRIDGE) or _bridge_of(self.id),
            network=self.id,
            subnet=read_subnet(config.subnet),
            gateway=parse_ip(config.gateway),
            ip_range=read_subnet(config.ip_range) if config.ip_range else None,
            subnet6=v6,
            gateway6=parse_ip6(config.gateway6) if v6 is not None else 0,
            mtu=int(options.get(MTU) or 0),
            internal=config.internal,
            icc=truth(options.get(ICC) or "true"),
            masquerade=truth(options.get(MASQUERADE) or "true"),
        )


def truth(text: str) -> bool:
    """Go's booleans. Raises ValueError."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(f"not a boolean: {text!r}")


def read_subnet(text: str) -> Subnet:
    """The network written as `ADDRESS/PREFIX`, of either family, its first address given.

    Raises ValueError.
    """
    address, _, prefix = text.partition("/")
    bits = 128 if ":" in address else 32
    ip = parse_ip6(address) if bits == 128 else parse_ip(address)
    if not (prefix.isascii() and prefix.isdigit() and 8 <= int(prefix) <= bits):
        raise ValueError(f"not a subnet: {text!r}")
    subnet = Subnet(ip, int(prefix), bits)
    if subnet.first != ip:
        raise ValueError(f"invalid subnet {text}: it should be {subnet}")
    return subnet


def first_address(subnet: Subnet) -> str:
    """What a gateway gets if nobody says otherwise."""
    ip = gateway_of(subnet)
    return format_ip(ip) if subnet.bits == 32 else format_ip6(ip)


def list_networks(documents: Documents) -> list[NamedNetwork]:
    """Every user's network that can be read, oldest first."""
    found = []
    for document in documents.list(KIND):
        try:
            found.append(NamedNetwork.parse(document))
        except LaminaError:
            continue  # whoever names it hears of it
    return found


def find_document(documents: Documents, text: str) -> Document:
    """The user's network of this name, id, or beginning of an id.

    Raises:
        LaminaError: kind NOT_FOUND; INVALID if several ids begin with `text`.
    """
    found = documents.find(KIND, text) if text else []
    if not found:
        raise NetworkNotFound(f"network {text} not found", hint="'lamina network ls' lists them")
    if len(found) > 1:
        raise LaminaError(f"network {text} is ambiguous", kind=Kind.INVALID)
    return found[0]


def find_network(documents: Documents, text: str) -> NamedNetwork:
    """As `find_document`, also a predefined one."""
    for name, id in PREDEFINED.items():
        if text in {name, id}:
            return NamedNetwork(id, name)
    return NamedNetwork.parse(find_document(documents, text))


def network_of_id(documents: Documents, id: str) -> NamedNetwork:
    """The network with this full id. Raises LaminaError of kind NOT_FOUND."""
    for name, known in PREDEFINED.items():
        if id == known:
            return NamedNetwork(id, name)
    document = documents.get(KIND, id)
    if document is None:
        raise NetworkNotFound(f"network {id} not found")
    return NamedNetwork.parse(document)


def plans_to_reap(documents: Documents) -> list[BridgePlan]:
    """The bridges that may be on the host: of every user's network, and of those that are no more and
    that a killed process was in.
    """
    plans = [network.plan() for network in list_networks(documents)]
    known = {plan.network for plan in plans}
    claimed = {Claim.parse(document).network for document in documents.list(ADDRESS)}
    return plans + [BridgePlan(_bridge_of(id), id) for id in sorted(claimed - known - {""})]


def _bridge_of(id: str) -> str:
    """The name that a network's bridge has by itself."""
    return f"br-{id[:12]}"


def taken_subnets(networks: Sequence[NamedNetwork]) -> list[Subnet]:
    """What user networks have, whether they are in use or not."""
    plans = [network.plan() for network in networks]
    return [s for plan in plans for s in (plan.subnet, plan.subnet6) if s is not None]
