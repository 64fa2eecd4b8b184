# SPDX-License-Identifier: Apache-2.0
"""Containers in networks: `run --network`, `network connect` and `disconnect` (`places` reads them).

What is asked for is recorded (`endpoints`); of a container that runs, its monitor is told and does it.
"""

from __future__ import annotations

from lamina.app.networks import require_root
from lamina.container import lifecycle
from lamina.container.network import networks
from lamina.container.network.addresses import format_ip6, parse_ip, parse_ip6
from lamina.container.network.endpoints import BRIDGE, KIND, Endpoint, endpoints_of
from lamina.container.network.networks import find_network
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from lamina.app.run_options import NetworkRequest
    from lamina.container.network.networks import NamedNetwork
    from lamina.store.ports import Store


def locked(store: Store) -> AbstractContextManager[object]:
    """Networks neither come nor go inside."""
    return store.lock(networks.LOCK)


def check(store: Store, requests: Sequence[NetworkRequest]) -> list[NamedNetwork]:
    """The networks that are asked for, each of which can be joined so.

    Raises LaminaError: NOT_FOUND; INVALID (an address outside of the network, one network twice, one that
    is joined by none or alone); UNSUPPORTED (an ordinary user).
    """
    require_root()
    found: list[NamedNetwork] = []
    for request in requests:
        network = find_network(store.documents, request.name)
        if network.name in {"host", "none"}:
            raise LaminaError(
                f"a container with a network of its own cannot be connected to {network.name}",
                kind=Kind.INVALID,
            )
        if network.id in {each.id for each in found}:
            raise LaminaError(
                f'network "{network.name}" is specified multiple times', kind=Kind.INVALID
            )
        _check_addresses(network, request)
        found.append(network)
    return found


def _check_addresses(network: NamedNetwork, request: NetworkRequest) -> None:
    if network.config is None:
        if request.ip or request.ip6:
            raise LaminaError(
                "user specified IP address is supported on user defined networks only",
                kind=Kind.INVALID,
            )
        return
    plan = network.plan()
    assert plan.subnet is not None
    if request.ip:
        ip = parse_ip(request.ip)
        if ip not in plan.subnet or ip in {plan.subnet.first, plan.subnet.last}:
            raise LaminaError(
                f"no configured subnet of network {network.name} contains IP address {request.ip}",
                kind=Kind.INVALID,
                hint=f"it has {plan.subnet}",
            )
        if ip == plan.gateway:
            raise LaminaError(
                f"Address already in use: {request.ip} is the gateway of {network.name}",
                kind=Kind.CONFLICT,
            )
    if request.ip6 and (plan.subnet6 is None or parse_ip6(request.ip6) not in plan.subnet6):
        raise LaminaError(
            f"no configured subnet of network {network.name} contains IP address {request.ip6}",
            kind=Kind.INVALID,
            hint=f"it has {plan.subnet6}" if plan.subnet6 else "make it with --ipv6",
        )
    if request.ip6 and parse_ip6(request.ip6) == plan.gateway6:
        raise LaminaError(
            f"Address already in use: {request.ip6} is the gateway of {network.name}",
            kind=Kind.CONFLICT,
        )


def record(store: Store, id: str, requests: Sequence[NetworkRequest]) -> None:
    """Note the networks of a container that is being made. Called with the lock held."""
    for number, network in enumerate(check(store, requests)):
        endpoint = endpoint_of(id, network, requests[number], number=number)
        store.documents.insert(endpoint.document())


def endpoint_of(
    id: str, network: NamedNetwork, request: NetworkRequest, *, number: int
) -> Endpoint:
    """What the request means in the network."""
    return Endpoint(
        id,
        network.id,
        number=number,
        aliases=request.aliases,
        ip=request.ip,
        ip6=_shortest(request.ip6),
        mac=request.mac.replace("-", ":").lower(),
    )


def _shortest(ip6: str) -> str:
    return format_ip6(parse_ip6(ip6)) if ip6 else ""


def connect(store: Store, id: str, request: NetworkRequest, *, name: str, mode: str) -> None:
    """Put a container into a network, now if it runs.

    Raises LaminaError: as `check`; CONFLICT (it is there already, or has no network of its own), and
    what kept its monitor from it: then it is not in the network.
    """
    _check_own(name, mode)
    with locked(store):
        (network,) = check(store, [request])
        everything = [Endpoint.parse(each) for each in store.documents.find(KIND, f"{id}:")]
        ours = endpoints_of(store.documents, id, mode=mode)
        if any(each.network == network.id for each in ours):
            raise LaminaError(
                f"endpoint with name {name} already exists in network {network.name}",
                kind=Kind.CONFLICT,
            )
        number = max((each.number for each in [*everything, *ours]), default=-1) + 1
        _forget(store, id, network.id)
        endpoint = endpoint_of(id, network, request, number=number)
        store.documents.insert(endpoint.document())
        try:
            lifecycle.reconcile_networks(store, id)
        except LaminaError:
            _leave(store, id, network.id, mode=mode)
            _undo(store, id)
            raise


def _undo(store: Store, id: str) -> None:
    """Let the container be as it was, as far as it goes: what went wrong first is what is told."""
    try:  # noqa: SIM105  # contextlib would cost start-up time
        lifecycle.reconcile_networks(store, id)
    except LaminaError:
        pass


def disconnect(
    store: Store, id: str, text: str, *, name: str, mode: str, force: bool = False
) -> None:
    """Take a container out of a network, now if it runs; with `force` also if its monitor was killed.

    Raises LaminaError: NOT_FOUND (no such network), CONFLICT (it is not there), and as its monitor.
    """
    require_root()
    _check_own(name, mode)
    with locked(store):
        ours = endpoints_of(store.documents, id, mode=mode)
        try:
            left = find_network(store.documents, text).id
        except networks.NetworkNotFound:
            gone = [each.network for each in ours if each.network.startswith(text)]
            if len(gone) != 1 or not text:
                raise
            left = gone[0]  # the network went while the container did not run
        if all(each.network != left for each in ours):
            raise LaminaError(
                f"container {name} is not connected to network {text}",
                kind=Kind.CONFLICT,
            )
        _leave(store, id, left, mode=mode)
        try:
            lifecycle.reconcile_networks(store, id)
        except LaminaError:
            if not force:
                raise


def _check_own(name: str, mode: str) -> None:
    if mode in {"host", "none"} or mode.startswith("container:"):
        raise LaminaError(
            f"container {name} has no network of its own ({mode}): it cannot be connected "
            "to networks, or disconnected from them",
            kind=Kind.CONFLICT,
        )


def _leave(store: Store, container: str, network: str, *, mode: str) -> None:
    """Record that the container is not in the network."""
    _forget(store, container, network)
    if network == BRIDGE and mode == "bridge":
        store.documents.insert(Endpoint(container, network, gone=True).document())


def _forget(store: Store, container: str, network: str) -> None:
    store.documents.delete(KIND, Endpoint(container, network).id)
