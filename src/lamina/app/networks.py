# SPDX-License-Identifier: Apache-2.0
"""Use cases of networks: create, list, remove, prune."""

from __future__ import annotations

import os
import time

from lamina.app.places import users_of
from lamina.container.names import new_id
from lamina.container.network import links, networks
from lamina.container.network.addresses import parse_ip
from lamina.container.network.attachment import Network
from lamina.container.network.netlink import Netlink
from lamina.container.network.networks import (
    HOST_BINDING,
    ICC,
    MASQUERADE,
    MTU,
    NAME_OF_BRIDGE,
    NamedNetwork,
    NetworkConfig,
    find_document,
    list_networks,
    taken_subnets,
    truth,
)
from lamina.container.network.subnets import Wanted, choose
from lamina.container.network.told import PREDEFINED, tell
from lamina.errors import Kind, LaminaError
from lamina.start.record import Record
from lamina.store.eventlog import note
from lamina.system.userns import is_host_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lamina.container.network.addresses import Subnet
    from lamina.store.ports import Document, Store

_MARKS = str.maketrans("", "", "_.-")  # beside letters and digits
_BRIDGE_NAME = 15  # IFNAMSIZ less the terminator


class NetworkOptions(Record):
    """One `network create`. `subnet` of the settings is kept for the default network."""

    wanted: Wanted = Wanted()
    internal: bool = False
    attachable: bool = False
    options: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


def create(
    store: Store,
    name: str,
    options: NetworkOptions = NetworkOptions(),  # noqa: B008  # immutable
    *,
    reserved: str = "",
    clock: Callable[[], float] = time.time,
    random: Callable[[int], bytes] = os.urandom,
) -> NamedNetwork:
    """A new network; nothing of it is on the host before a container is in it. `reserved` is the
    subnet of the default network, if the settings give one.

    Raises LaminaError: CONFLICT (the name or a subnet is taken), INVALID, UNSUPPORTED (an option that
    lamina has not; an ordinary user), EXHAUSTED (no subnet is left).
    """
    _check_name(name)
    _check_options(options.options)
    require_root()
    with store.lock(networks.LOCK):
        known = list_networks(store.documents)
        if store.documents.find(networks.KIND, name)[:1] and any(n.name == name for n in known):
            raise _taken(name)
        _check_bridge(dict(options.options).get(NAME_OF_BRIDGE, ""), known)
        taken = taken_subnets(known)
        if reserved:
            taken.append(networks.read_subnet(reserved))
        addressing = choose(options.wanted, taken=taken, routed=routes(known), random=random)
        network = NamedNetwork(
            new_id(random),
            name,
            clock(),
            NetworkConfig(
                subnet=addressing.subnet,
                gateway=addressing.gateway,
                ip_range=addressing.ip_range,
                subnet6=addressing.subnet6,
                gateway6=addressing.gateway6,
                internal=options.internal,
                attachable=options.attachable,
                options=options.options,
                labels=options.labels,
            ),
        )
        try:
            store.documents.insert(network.document())
        except LaminaError as error:
            if error.kind is not Kind.CONFLICT:
                raise
            raise _taken(name) from error
        tell(store.root, "create", network.id, name)
    return network


def require_root() -> None:
    """Refuse what an ordinary user's containers have not. Raises kind UNSUPPORTED."""
    if not is_host_root():
        raise LaminaError(
            "networks of one's own take root: an ordinary user's containers each have a network "
            "namespace to themselves",
            kind=Kind.UNSUPPORTED,
            hint="publish ports with -p, by which containers reach one another (docs/rootless.md)",
        )


def _taken(name: str) -> LaminaError:
    return LaminaError(
        f"network with name {name} already exists", kind=Kind.CONFLICT, hint="choose another name"
    )


def _check_name(name: str) -> None:
    if name in {*PREDEFINED, "default"}:
        raise LaminaError(
            f"operation is not permitted on predefined {name} network", kind=Kind.INVALID
        )
    letters = name.translate(_MARKS)
    if not (name and name[0].isalnum() and letters.isalnum() and letters.isascii()):
        raise LaminaError(
            f"invalid network name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            kind=Kind.INVALID,
        )


def _check_options(options: Iterable[tuple[str, str]]) -> None:
    for key, value in options:
        try:
            if key in {ICC, MASQUERADE}:
                truth(value)
            elif key == MTU:
                if not 68 <= int(value) <= 65535:  # the least of IPv4 (RFC 791)
                    raise ValueError(value)
            elif key == HOST_BINDING:
                parse_ip(value)
            elif key == NAME_OF_BRIDGE:
                if not (0 < len(value) <= _BRIDGE_NAME and value.translate(_MARKS).isalnum()):
                    raise ValueError(value)
            else:
                raise LaminaError(
                    f"the network option {key} is not supported",
                    kind=Kind.UNSUPPORTED,
                    hint=f"{NAME_OF_BRIDGE}, {MTU}, {ICC}, {MASQUERADE} and {HOST_BINDING} are",
                )
        except ValueError:
            raise LaminaError(f"invalid value of {key}: {value!r}", kind=Kind.INVALID) from None


def _check_bridge(name: str, known: Iterable[NamedNetwork]) -> None:
    """Refuse a bridge that is there already: it would be taken down with the last container."""
    if not name:
        return
    owner = next((each.name for each in known if each.plan().name == name), "")
    if owner or name == "lamina0" or os.path.exists(f"/sys/class/net/{name}"):
        raise LaminaError(
            f"the interface name {name} is taken" + (f" by network {owner}" if owner else ""),
            kind=Kind.CONFLICT,
        )


def routes(known: Iterable[NamedNetwork]) -> list[Subnet]:
    """What the host has routes to, but those to the bridges of these networks."""
    found = []
    with Netlink() as netlink:
        ours = {each.plan().name for each in known}
        indexes = {each.index for each in links.list_links(netlink) if each.name in ours}
        for bits in (32, 128):
            found += links.routed_subnets(netlink, bits=bits, but=indexes)
    return found


def every_network(store: Store) -> list[NamedNetwork]:
    """The predefined networks and the user's, by name."""
    predefined = [NamedNetwork(id, name) for name, id in PREDEFINED.items()]
    return sorted([*predefined, *list_networks(store.documents)], key=lambda each: each.name)


def remove(store: Store, text: str) -> str:
    """Remove the network of this name or id; its name.

    Raises LaminaError: NOT_FOUND; DENIED (a predefined one), CONFLICT (a container is in it).
    """
    name = next((name for name, id in PREDEFINED.items() if text in {name, id}), "")
    if name:
        raise LaminaError(
            f"{name} is a pre-defined network and cannot be removed", kind=Kind.DENIED
        )
    with store.lock(networks.LOCK):
        document = find_document(store.documents, text)
        if users_of(store, document.id):
            raise _in_use(store, document)
        _take_down(store, document.id)
        store.documents.delete(networks.KIND, document.id)
        # A container that starts looks whether the network is there when it has an address in it; and
        # here is looked whether it has one when the network is not there: one of both sees the other.
        if users_of(store, document.id):
            store.documents.insert(document)
            raise _in_use(store, document)
        tell(store.root, "destroy", document.id, document.name)
    return document.name


def _in_use(store: Store, document: Document) -> LaminaError:
    containers = ", ".join(sorted(_names_in(store, document.id)))
    return LaminaError(
        f"error while removing network: network {document.name} id {document.id} has active "
        f"endpoints: {containers}",
        kind=Kind.CONFLICT,
        hint=f"'lamina network disconnect {document.name} CONTAINER', or stop them",
    )


def _names_in(store: Store, id: str) -> list[str]:
    names = {document.id: document.name for document in store.documents.list("container")}
    return [names[each.claim.owner] for each in users_of(store, id)]


def _take_down(store: Store, id: str) -> None:
    """Remove from the host what killed monitors left of the network."""
    try:
        plan = networks.network_of_id(store.documents, id).plan()
    except LaminaError:
        return  # a damaged record: what bridge it had is not known
    Network(store.documents, root=store.root, plan=plan).reap()


def prune(store: Store, *, takes: Callable[[float, dict[str, str]], bool]) -> list[str]:
    """Remove the networks that no container is in, and that `takes` (time of creation, labels) says
    yes to; their names.
    """
    gone = []
    for network in list_networks(store.documents):
        config = network.config
        assert config is not None
        if not takes(network.created, dict(config.labels)):
            continue
        try:
            gone.append(remove(store, network.id))
        except LaminaError as error:
            if error.kind not in {Kind.NOT_FOUND, Kind.CONFLICT}:
                raise
    note(store.root, "network", "prune", "", {"reclaimed": "0"})
    return gone
