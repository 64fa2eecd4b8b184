# SPDX-License-Identifier: Apache-2.0
"""The bridge network: a namespace with an address for each container, NAT, published ports.

What is true is kept where a dead process cannot leave it wrong: a namespace lives by a descriptor
of its holder, a port by a bound socket, and the bridge is in use as long as it has ports. Only
addresses (documents of kind `address`, with the holder's pid and start time) and packet rules
outlive a kill -9; `reap` removes those, and every `attach` and `publish` begins with it.

Everything that changes the bridge, the rules or the documents happens under one file lock for the
whole host. Order of an attach: namespace (outside the lock), reap, bridge, rules, document, pair of
interfaces; a release goes the other way and takes bridge and rules with the last port.
docs/networking.md explains it to users.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from lamina.container.network import bridge as host_bridge
from lamina.container.network.addresses import (
    Subnet,
    candidates,
    format_ip,
    format_ip6,
    gateway_of,
    interface_of,
    mac_of,
    parse_ip,
    parse_ip6,
    parse_subnet,
)
from lamina.container.network.bridge import Bridge, explained
from lamina.container.network.claims import ADDRESS, Claim
from lamina.container.network.firewall import DEFAULT_SEARCH_PATH, Redirect, find_firewall
from lamina.container.network.flows import forget_flows
from lamina.container.network.forward import Forwarder
from lamina.container.network.links import set_default_route
from lamina.container.network.netlink import Netlink
from lamina.container.network.networks import list_networks, taken_subnets
from lamina.container.network.plan import DEFAULT_BRIDGE, BridgePlan, Place
from lamina.container.network.ports import reserve
from lamina.container.network.publish import PortMapping, parse_publish
from lamina.errors import Kind, LaminaError
from lamina.start.lowlevel import allocate_lock
from lamina.start.record import Record, replace
from lamina.system.netns import create_namespace, in_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lamina.container.network.firewall import Firewall
    from lamina.store.ports import Document, Documents

__all__ = [
    "DEFAULT_BRIDGE",
    "DEFAULT_LOCK",
    "Attachment",
    "Network",
    "PortMapping",
    "parse_publish",
]

DEFAULT_LOCK = "/run/lamina/network.lock"


class Attachment(Record):
    """A network namespace with an address on the bridge.

    `ns_path` is what an OCI runtime joins; it and `ns_fd` (close-on-exec) are valid in this
    process until `release`. Addresses are text, those of IPv6 empty without it; `mac` as `ip link`
    prints it, `interface` the host's end of the pair.
    """

    owner: str
    ns_path: str
    ns_fd: int
    ip: str
    prefix: int
    gateway: str
    mac: str
    mtu: int
    interface: str
    ip6: str = ""
    gateway6: str = ""


class _Held:
    """What this process holds for an attachment besides the namespace."""

    def __init__(self, attachment: Attachment) -> None:
        self.attachment = attachment
        self.lock = allocate_lock()
        self.released = False
        self.sockets: list[socket.socket] = []
        self.mappings: tuple[PortMapping, ...] = ()


class _Change:
    """The host's lock held inside a `with`, with a netlink socket; an OSError inside becomes a
    LaminaError.
    """

    def __init__(self, lock_path: str, action: str) -> None:
        self._path = lock_path
        self._explained = explained(action)

    def __enter__(self) -> Netlink:
        with self._explained:
            os.makedirs(os.path.dirname(self._path), mode=0o755, exist_ok=True)
            # A descriptor of its own excludes the other threads of this process too.
            self._lock = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                self._netlink = Netlink()
            except BaseException:
                os.close(self._lock)
                raise
        return self._netlink

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._netlink.close()
        os.close(self._lock)
        self._explained.__exit__(kind, error, trace)


class Network:
    """The network of one bridge as one process sees it. Methods may be called from several threads.

    `root` is the store that the addresses are kept for; all stores of a host share the default bridge.
    `subnet` (`a.b.c.d/n`) is used if that has to be made; by default one that the host has
    no route to. `plan` is for another bridge than the default one. `clock` gives POSIX seconds; `search_path` overrides where nft is looked for.
    """

    def __init__(
        self,
        documents: Documents,
        *,
        root: str,
        subnet: str = "",
        bridge: str = DEFAULT_BRIDGE,
        plan: BridgePlan | None = None,
        lock_path: str = DEFAULT_LOCK,
        clock: Callable[[], float] = time.time,
        search_path: str = "",
    ) -> None:
        self._documents = documents
        self._root = root
        self._plan = plan or BridgePlan(bridge, subnet=parse_subnet(subnet) if subnet else None)
        self._lock_path = lock_path
        self._clock = clock
        self._search_path = search_path
        self._guard = allocate_lock()
        self._held: dict[str, _Held] = {}
        self._firewall_found: Firewall | None = None
        self._forwarder_made: Forwarder | None = None

    def attach(self, owner: str, *, hold_pid: int, place: Place = Place()) -> Attachment:  # noqa: B008  # immutable
        """Make a namespace with loopback, `eth0`, an address and a default route; or add to one what
        `place` says.

        `owner` says for whom (a container's id, a build); `hold_pid` is this process's own pid as
        whoever opens `ns_path` sees it. The namespace lives until `release` and, if processes are
        in it, as long as they do.

        Raises:
            LaminaError: kind DENIED (no CAP_NET_ADMIN), UNSUPPORTED (a kernel without bridges, no
                free subnet, no nft), EXHAUSTED (no address or no descriptor left), CONFLICT (the
                address is another's).
        """
        claim = Claim.of(owner, hold_pid, network=self._plan.network)
        with explained("set up the network"):
            if place.namespace >= 0:
                ns_fd = os.dup(place.namespace)
                inner = in_namespace(ns_fd, Netlink)
            else:
                ns_fd, inner = create_namespace(host_bridge.enter_namespace)
        try:
            with inner, self._changing("set up the network") as netlink:
                self._reap_dead(netlink)
                try:
                    bridge = self._ready_bridge(netlink)
                    ip, claim = self._connect(netlink, bridge, claim, ns_fd=ns_fd, place=place)
                    try:
                        self._configure(inner, bridge, ip, claim, ns_fd=ns_fd, place=place)
                    except BaseException:
                        host_bridge.unplug(netlink, [ip])
                        self._documents.delete(ADDRESS, format_ip(ip))
                        raise
                except BaseException:
                    self._remove_if_unused(netlink)
                    raise
        except BaseException:
            os.close(ns_fd)
            raise
        attachment = self._describe(claim, bridge, ip, ns_fd=ns_fd)
        with self._guard:
            self._held[attachment.ip] = _Held(attachment)
        return attachment

    def _ready_bridge(self, netlink: Netlink) -> Bridge:
        """The bridge, with its rules. Called with the lock held."""
        bridge = host_bridge.ensure_bridge(netlink, self._planned())
        self._firewall().ensure(str(bridge.subnet), self._redirects_of_all())
        if self._firewall().redirects:
            host_bridge.let_loopback_out(bridge)
        return bridge

    def _configure(
        self, inner: Netlink, bridge: Bridge, ip: int, claim: Claim, *, ns_fd: int, place: Place
    ) -> None:
        """Addresses and routes of the end inside."""
        addresses = [Subnet(ip, bridge.subnet.prefix)]
        v6 = self._plan.subnet6
        if v6 is not None:
            switch = f"net/ipv6/conf/{place.interface}/disable_ipv6"
            in_namespace(ns_fd, lambda: host_bridge.write_sysctl(switch, "0"))
            addresses.append(Subnet(parse_ip6(claim.ip6), v6.prefix, v6.bits))
        host_bridge.configure_inside(inner, addresses, interface=place.interface)
        if place.default_route:
            gateway = self._plan.gateway or gateway_of(bridge.subnet)
            set_default_route(inner, gateway=gateway)

    def publish(
        self, attachment: Attachment, mappings: Sequence[PortMapping]
    ) -> tuple[PortMapping, ...]:
        """Offer ports of the attachment on the host, all or none; the mappings with their ports.

        They are offered to other hosts too unless `host_ip` says otherwise, until `release` or
        until this process ends.

        Raises:
            LaminaError: kind CONFLICT (a port is taken), DENIED (a privileged one), USAGE (an
                address that the host does not have), NOT_FOUND (the attachment was released).
        """
        with self._guard:
            held = self._held.get(attachment.ip)
        if held is None or held.attachment != attachment:
            raise _not_attached(attachment)
        with held.lock:
            if held.released:
                raise _not_attached(attachment)
            reserved: list[tuple[PortMapping, list[socket.socket]]] = []
            try:
                reserved.extend(self._reserve(mapping) for mapping in mappings)
                chosen = tuple(mapping for mapping, _ in reserved)
                self._redirect(attachment, held.mappings, chosen)
            except BaseException:
                for _, sockets in reserved:
                    _close_all(sockets)
                raise
            for mapping, sockets in reserved:
                held.sockets.extend(sockets)
                self._forwarder().serve(sockets, ip=attachment.ip, port=mapping.container_port)
            held.mappings += chosen
        return chosen

    def withdraw(self, attachment: Attachment) -> None:
        """Take back the published ports of an attachment, and keep the rest. Idempotent."""
        with self._guard:
            held = self._held.get(attachment.ip)
        if held is None or not held.mappings:
            return
        with held.lock, self._changing("take back ports") as netlink:
            self._reap_dead(netlink)
            self._firewall().remove(self._redirects(attachment.ip, held.mappings))
            document = self._documents.get(ADDRESS, attachment.ip)
            if document is not None:
                claim = replace(Claim.parse(document), mappings=())
                self._documents.update(ADDRESS, attachment.ip, claim.body())
        self._forwarder().stop(held.sockets)
        self._forget_flows([held])
        held.sockets, held.mappings = [], ()

    def release(self, attachment: Attachment) -> None:
        """Take back ports, address and namespace; with the last one, the bridge. Idempotent."""
        self.release_all([attachment])

    def release_all(self, attachments: Sequence[Attachment]) -> None:
        """Release several at once, which costs little more than one. Idempotent."""
        with self._guard:
            holding = [self._held.get(attachment.ip) for attachment in attachments]
            held = [
                one
                for one, attachment in zip(holding, attachments, strict=True)
                if one is not None and one.attachment == attachment
            ]
            for one in held:
                self._held.pop(one.attachment.ip, None)
        if not held:
            return
        for one in held:
            with one.lock:  # a publish that has begun ends first; a later one is refused
                one.released = True
        try:
            with self._changing("take down the network") as netlink:
                self._disconnect(netlink, held)
        finally:
            for one in held:
                if one.sockets:
                    self._forwarder().stop(one.sockets)
                os.close(one.attachment.ns_fd)
        self._forget_flows(held)

    def published(self, owner: str) -> tuple[PortMapping, ...]:
        """The ports that a live `owner` has published, whichever process holds them."""
        claims = [Claim.parse(document) for document in self._documents.list(ADDRESS)]
        return tuple(
            mapping
            for claim in claims
            if claim.owner == owner and claim.is_alive()
            for mapping in claim.mappings
        )

    def reap(self) -> tuple[str, ...]:
        """Remove what dead owners left: addresses, packet rules, an unused bridge; their names."""
        with self._changing("clean up the network") as netlink:
            owners = self._reap_dead(netlink)
            self._remove_if_unused(netlink)
            return owners

    def close(self) -> None:
        """Release every attachment that this process still has. Idempotent."""
        with self._guard:
            attachments = [held.attachment for held in self._held.values()]
        self.release_all(attachments)
        with self._guard:
            forwarder, self._forwarder_made = self._forwarder_made, None
        if forwarder is not None:
            forwarder.close()

    # The methods from here to `_remove_if_unused` are called with the lock held.

    def _changing(self, action: str) -> _Change:
        return _Change(self._lock_path, action)

    def _planned(self) -> BridgePlan:
        """The plan; of the default network, which finds its subnet, with what others are to have."""
        if self._plan.network or self._plan.subnet or not self._documents.list("network"):
            return self._plan
        return replace(self._plan, avoid=tuple(taken_subnets(list_networks(self._documents))))

    def _claims(self) -> Iterator[tuple[Document, Claim]]:
        """The addresses of this network: those of others have other rules."""
        for document in self._documents.list(ADDRESS):
            claim = Claim.parse(document)
            if claim.network == self._plan.network:
                yield document, claim

    def _connect(
        self, netlink: Netlink, bridge: Bridge, claim: Claim, *, ns_fd: int, place: Place
    ) -> tuple[int, Claim]:
        """Claim an address and plug the namespace into the bridge; the address, and the claim."""
        alias = host_bridge.alias_of(claim.owner, self._root)
        mac = bytes.fromhex(place.mac.replace(":", ""))
        for ip, filled in self._free(bridge, claim, place):
            self._documents.insert(filled.document(format_ip(ip), at=self._clock()))
            try:
                host_bridge.plug(
                    netlink,
                    bridge,
                    ip,
                    ns_fd=ns_fd,
                    alias=alias,
                    mac=mac,
                    interface=place.interface,
                    isolated=not self._plan.icc,
                )
                return ip, filled
            except BaseException as error:
                self._documents.delete(ADDRESS, format_ip(ip))
                if not isinstance(error, OSError) or error.errno != errno.EEXIST:
                    raise
                # Another store's address, or that of a namespace that outlived its holder.
        if place.ip or place.ip6:
            raise LaminaError(
                f"Address already in use: {place.ip or place.ip6}", kind=Kind.CONFLICT
            )
        raise LaminaError(
            f"no address is left in {self._plan.ip_range or bridge.subnet}",
            kind=Kind.EXHAUSTED,
            hint="remove containers, or use `--network host`",
        )

    def _free(self, bridge: Bridge, claim: Claim, place: Place) -> Iterator[tuple[int, Claim]]:
        """Addresses that nobody claims, and the claim with what else belongs to each."""
        known = {document.name for document in self._documents.list(ADDRESS)}
        claims = list(self._claims())
        ips6 = {other.ip6 for _, other in claims}
        latest = parse_ip(claims[-1][0].name) if claims else None
        plan = self._plan
        wanted: Iterable[int] = (
            [parse_ip(place.ip)]
            if place.ip
            else candidates(bridge.subnet, after=latest, within=plan.ip_range, gateway=plan.gateway)
        )
        for ip in wanted:
            ip6 = place.ip6 or self._ip6_of(ip, bridge)
            if format_ip(ip) in known or (ip6 and ip6 in ips6):
                continue
            yield ip, replace(claim, ip6=ip6, mac=place.mac or mac_of(ip).hex(":"))

    def _ip6_of(self, ip: int, bridge: Bridge) -> str:
        """The IPv6 address that goes with an IPv4 address: as far from the beginning of its subnet."""
        v6 = self._plan.subnet6
        return "" if v6 is None else format_ip6(v6.first + (ip - bridge.subnet.first))

    def _disconnect(self, netlink: Netlink, held: list[_Held]) -> None:
        ips = [parse_ip(one.attachment.ip) for one in held]
        bridge = host_bridge.find_bridge(netlink, self._plan)
        ours = {one.attachment.interface for one in held}
        last = bridge is not None and host_bridge.ports_of(netlink, bridge) <= ours
        if bridge is not None and last:
            self._firewall().clear(str(bridge.subnet))
        else:
            redirects = [
                r for one in held for r in self._redirects(one.attachment.ip, one.mappings)
            ]
            if redirects:
                self._firewall().remove(redirects)
        host_bridge.unplug(netlink, ips, bridge=bridge if last else None)
        for one in held:
            self._documents.delete(ADDRESS, one.attachment.ip)

    def _forget_flows(self, held: list[_Held]) -> None:
        for one in held:
            if any(mapping.protocol == "udp" for mapping in one.mappings):
                forget_flows(parse_ip(one.attachment.ip))

    def _redirects(self, ip: str, mappings: tuple[PortMapping, ...]) -> list[Redirect]:
        """What the firewall is asked to redirect: not IPv6, which is the forwarder's."""
        if not mappings:
            return []
        return [
            Redirect(
                protocol=mapping.protocol,
                host_ip="" if mapping.host_ip == "0.0.0.0" else mapping.host_ip,  # noqa: S104
                host_port=mapping.host_port,
                ip=ip,
                port=mapping.container_port,
            )
            for mapping in mappings
            if ":" not in mapping.host_ip
        ]

    def _redirects_of_all(self) -> Iterator[Redirect]:
        for document, claim in self._claims():
            yield from self._redirects(document.name, claim.mappings)

    def _reap_dead(self, netlink: Netlink) -> tuple[str, ...]:
        owners = []
        for document, claim in self._claims():
            if claim.is_alive():
                continue
            redirects = self._redirects(document.name, claim.mappings)
            if redirects:
                self._firewall().remove(redirects)
            # Gone by itself, unless the kernel is still at it or processes outlived the holder.
            ip = parse_ip(document.name)
            alias = host_bridge.alias_of(claim.owner, self._root)
            if host_bridge.is_plugged(netlink, ip, alias=alias):
                host_bridge.unplug(netlink, [ip])
            self._documents.delete(ADDRESS, document.id)
            owners.append(claim.owner)
        return tuple(owners)

    def _remove_if_unused(self, netlink: Netlink) -> None:
        bridge = host_bridge.find_bridge(netlink, self._plan)
        if bridge is None or host_bridge.ports_of(netlink, bridge):
            return
        try:
            self._firewall().clear(str(bridge.subnet))
        finally:
            host_bridge.unplug(netlink, [], bridge=bridge)

    def _redirect(
        self,
        attachment: Attachment,
        before: tuple[PortMapping, ...],
        added: tuple[PortMapping, ...],
    ) -> None:
        """Record the ports, then redirect them: a kill in between leaves what `reap` can find.

        Takes the lock itself.
        """
        with self._changing("publish a port") as netlink:
            self._reap_dead(netlink)
            document = self._documents.get(ADDRESS, attachment.ip)
            if document is None:
                raise _not_attached(attachment)
            claim = replace(Claim.parse(document), mappings=before + added)
            self._documents.update(ADDRESS, attachment.ip, claim.body())
            redirects = self._redirects(attachment.ip, added)
            if not redirects:
                return
            try:
                self._firewall().add(redirects)
            except BaseException:
                self._firewall().remove(redirects)
                claim = replace(claim, mappings=before)
                self._documents.update(ADDRESS, attachment.ip, claim.body())
                raise

    def _reserve(self, mapping: PortMapping) -> tuple[PortMapping, list[socket.socket]]:
        try:
            return reserve(mapping)
        except LaminaError as error:
            if error.kind is Kind.CONFLICT:
                owner = self._owner_of(mapping)
                if owner:
                    error.hint = f"container {owner} publishes it: stop it or choose another port"
            raise

    def _owner_of(self, mapping: PortMapping) -> str:
        for document in self._documents.list(ADDRESS):
            claim = Claim.parse(document)
            for theirs in claim.mappings:
                if (theirs.protocol, theirs.host_port) == (mapping.protocol, mapping.host_port):
                    return claim.owner
        return ""

    def _firewall(self) -> Firewall:
        if self._firewall_found is None:
            path = self._search_path or DEFAULT_SEARCH_PATH
            self._firewall_found = find_firewall(self._plan, search_path=path)
        return self._firewall_found

    def _forwarder(self) -> Forwarder:
        with self._guard:
            if self._forwarder_made is None:
                self._forwarder_made = Forwarder()
            return self._forwarder_made

    def _describe(self, claim: Claim, bridge: Bridge, ip: int, *, ns_fd: int) -> Attachment:
        plan = self._plan
        return Attachment(
            owner=claim.owner,
            ns_path=f"/proc/{claim.pid}/fd/{ns_fd}",
            ns_fd=ns_fd,
            ip=format_ip(ip),
            prefix=bridge.subnet.prefix,
            gateway=format_ip(plan.gateway or gateway_of(bridge.subnet)),
            mac=claim.mac,
            mtu=bridge.mtu,
            interface=interface_of(ip),
            ip6=claim.ip6,
            gateway6=format_ip6(plan.gateway6) if plan.subnet6 is not None else "",
        )


def _not_attached(attachment: Attachment) -> LaminaError:
    return LaminaError(f"{attachment.owner} is not attached to the network", kind=Kind.NOT_FOUND)


def _close_all(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()
