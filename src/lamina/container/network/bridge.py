# SPDX-License-Identifier: Apache-2.0
"""The bridge itself and the two ends of a container's pair, above `links`.

Called with the network's lock held. Raises OSError from the kernel and LaminaError where lamina
decides; `explained` turns the former into the latter.
"""

from __future__ import annotations

import errno
import os

from lamina.container.network import links
from lamina.container.network.addresses import (
    Subnet,
    choose_subnet,
    gateway_of,
    interface_of,
    mac_of,
)
from lamina.container.network.netlink import Netlink
from lamina.container.network.plan import BridgePlan
from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

_HOST_HINT = "use `--network host`, which needs nothing of this"
_DENIED = (errno.EPERM, errno.EACCES, errno.EROFS)
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC, errno.EXFULL)
_MAX_ALIAS = 255  # IFALIASZ less the terminator


class Bridge(Record):
    """A bridge that is up: its interface and the network behind it."""

    index: int
    name: str
    mtu: int
    subnet: Subnet


def ensure_bridge(netlink: Netlink, plan: BridgePlan) -> Bridge:
    """The bridge of the plan, made (or completed) if need be, with its subnet or a free one.

    Raises:
        LaminaError: kind CONFLICT, if it has another subnet, or the host got a route to the plan's;
            UNSUPPORTED, if none is free.
    """
    link = links.find_link(netlink, plan.name)
    if link is None:
        _check_free(netlink, plan)
        # Big enough for every frame, small enough for the way out.
        mtu = plan.mtu or links.uplink_mtu(netlink)
        links.add_bridge(netlink, plan.name, mac=_mac_of_bridge(plan.name), mtu=mtu)
        link = links.find_link(netlink, plan.name)
        assert link is not None
    if not _is_ours(link, plan):
        raise LaminaError(
            f"there is an interface {plan.name} on this host, and it is not lamina's",
            kind=Kind.CONFLICT,
            hint="make the network again, with another com.docker.network.bridge.name",
        )
    if link.dying:  # or the next removal of anything would take it along
        links.spare(netlink, plan.name)
    address = links.address_of(netlink, link.index)
    if address is None or not link.up:
        address = address or _choose(netlink, plan)
        _complete(netlink, link, address, plan)
    subnet = plan.subnet
    if subnet is not None and (subnet.first, subnet.prefix) != (address.first, address.prefix):
        raise LaminaError(
            f"the bridge {plan.name} already has the subnet {address}, not {subnet}",
            kind=Kind.CONFLICT,
            hint="stop every container on it first",
        )
    return Bridge(link.index, plan.name, link.mtu, Subnet(address.first, address.prefix))


def _mac_of_bridge(name: str) -> bytes:
    """A MAC that tells lamina's bridges from others, and stays when the first port leaves."""
    return b"\x02\x4c\x00" + name.encode()[-3:].rjust(3, b"\0")


def _is_ours(link: links.Link, plan: BridgePlan) -> bool:
    """Whether lamina made it: the name of a user's network may come to be another's."""
    return not plan.network or link.mac == _mac_of_bridge(plan.name)


def _check_free(netlink: Netlink, plan: BridgePlan) -> None:
    """Refuse a network whose subnet means something else to the host by now."""
    if not plan.network or plan.subnet is None:
        return
    wanted = [plan.subnet] if plan.subnet6 is None else [plan.subnet, plan.subnet6]
    for subnet in wanted:
        for route in links.routed_subnets(netlink, bits=subnet.bits):
            if subnet.hides(route):
                raise LaminaError(
                    f"the network's subnet {subnet} overlaps with {route}, which this host reaches "
                    "by another interface",
                    kind=Kind.CONFLICT,
                    hint="make the network again, with another --subnet",
                )


def _choose(netlink: Netlink, plan: BridgePlan) -> Subnet:
    chosen = plan.subnet or choose_subnet([*links.routed_subnets(netlink), *plan.avoid])
    return Subnet(plan.gateway or gateway_of(chosen), chosen.prefix)


def _complete(netlink: Netlink, link: links.Link, address: Subnet, plan: BridgePlan) -> None:
    write_sysctl("net/ipv4/ip_forward", "1")
    v6 = plan.subnet6
    if v6 is None:
        write_sysctl(f"net/ipv6/conf/{link.name}/disable_ipv6", "1", optional=True)
    else:
        write_sysctl(f"net/ipv6/conf/{link.name}/disable_ipv6", "0")
        if not plan.internal:
            _forward_ipv6()
        inside = Subnet(plan.gateway6, v6.prefix, v6.bits)
        links.add_address(netlink, link.index, address=inside)
    links.add_address(netlink, link.index, address=address)
    links.set_up(netlink, link.name)  # last: a bridge that is up is complete


def _forward_ipv6() -> None:
    """Let the kernel forward IPv6. Interfaces that take their routes from a router's advertisements
    would stop to: they are told to go on (accept_ra 2).
    """
    for name in {*os.listdir("/proc/sys/net/ipv6/conf")} - {"all", "default"}:
        accepts = f"net/ipv6/conf/{name}/accept_ra"
        if read_sysctl(accepts) == "1" and read_sysctl(f"net/ipv6/conf/{name}/forwarding") == "0":
            write_sysctl(accepts, "2", optional=True)
    write_sysctl("net/ipv6/conf/all/forwarding", "1")


def let_loopback_out(bridge: Bridge) -> None:
    """Let connections from the host's 127.0.0.1 be redirected to the bridge.

    Only with rules that drop what containers send to 127.0.0.0/8: the kernel takes it from then
    on (CVE-2020-8558), and CAP_NET_RAW is enough to send it.
    """
    write_sysctl(f"net/ipv4/conf/{bridge.name}/route_localnet", "1")


def find_bridge(netlink: Netlink, plan: BridgePlan) -> Bridge | None:
    """The bridge of the plan, also a half-made one; None if there is none of lamina's."""
    link = links.find_link(netlink, plan.name)
    if link is None or not _is_ours(link, plan):
        return None
    address = links.address_of(netlink, link.index) or Subnet(0, 32)
    return Bridge(link.index, plan.name, link.mtu, Subnet(address.first, address.prefix))


def ports_of(netlink: Netlink, bridge: Bridge) -> set[str]:
    """The names of the bridge's ports."""
    return {link.name for link in links.list_links(netlink) if link.master == bridge.index}


def alias_of(owner: str, root: str) -> str:
    """What `ip link` shows about an interface: for whom, and which store keeps its address."""
    return f"lamina {owner} in {root}"[:_MAX_ALIAS]


def is_plugged(netlink: Netlink, ip: int, *, alias: str) -> bool:
    """Whether the interface of this address is there and not another store's."""
    link = links.find_link(netlink, interface_of(ip))
    return link is not None and link.alias == alias


def plug(
    netlink: Netlink,
    bridge: Bridge,
    ip: int,
    *,
    ns_fd: int,
    alias: str,
    mac: bytes = b"",
    interface: str = "eth0",
    isolated: bool = False,
) -> None:
    """Put `interface` into the namespace `ns_fd` and its other end into the bridge.

    Raises OSError EEXIST if somebody has an interface for this address, which undoes nothing.
    """
    name = interface_of(ip)
    mac = mac or mac_of(ip)
    links.add_veth(netlink, name, peer=interface, peer_ns=ns_fd, mac=mac, mtu=bridge.mtu)
    try:
        write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1", optional=True)
        links.join_bridge(netlink, name, bridge=bridge.index, alias=alias, isolated=isolated)
    except OSError:
        links.delete_links(netlink, [name])
        raise


def unplug(netlink: Netlink, ips: Sequence[int], *, bridge: Bridge | None = None) -> None:
    """Remove both ends of each pair, and the bridge if given; no error for what is gone."""
    names = [interface_of(ip) for ip in ips]
    links.delete_links(netlink, [*names, bridge.name] if bridge else names)


def enter_namespace() -> Netlink:
    """A netlink socket of the calling thread's namespace, loopback up, no IPv6 on what comes.

    Without an IPv6 network behind it an address on `eth0` would only delay every start by
    duplicate address detection.
    """
    write_sysctl("net/ipv6/conf/default/disable_ipv6", "1", optional=True)
    inner = Netlink()
    try:
        links.set_up(inner, "lo")
    except OSError:
        inner.close()
        raise
    return inner


def configure_inside(inner: Netlink, addresses: Sequence[Subnet], *, interface: str) -> None:
    """Give `interface` its addresses and bring it up, seen from the namespace's own socket."""
    link = links.find_link(inner, interface)
    if link is None:
        raise OSError(errno.ENODEV, f"{interface} did not arrive in the namespace")
    for address in addresses:
        links.add_address(inner, link.index, address=address)
    links.set_up(inner, interface)


def read_sysctl(name: str) -> str:
    """What /proc/sys/`name` says, empty if it is not there."""
    try:
        with open(f"/proc/sys/{name}") as sysctl:
            return sysctl.read().strip()
    except OSError:
        return ""


def write_sysctl(name: str, value: str, *, optional: bool = False) -> None:
    """Write /proc/sys/`name` unless it says so already; `optional`: no error if it is not there.

    /proc/sys/net shows the namespace of the calling thread.
    """
    path = f"/proc/sys/{name}"
    try:
        with open(path) as sysctl:
            if sysctl.read().strip() == value:
                return
        with open(path, "w") as sysctl:
            sysctl.write(value)
    except FileNotFoundError:
        if not optional:
            raise


class explained:  # noqa: N801  # used as `with explained(action):`
    """Turn an OSError of the block into a LaminaError that says what was tried."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            self._explain(error)

    def _explain(self, error: OSError) -> NoReturn:
        at = f": {error.filename}" if error.filename else ""
        what = f"cannot {self._action}: {error.strerror}{at}"
        if error.errno in _DENIED:
            raise LaminaError(
                what,
                kind=Kind.DENIED,
                hint=f"run as root with CAP_NET_ADMIN, or {_HOST_HINT}",
            ) from error
        if error.errno in _UNSUPPORTED:
            raise LaminaError(
                what,
                kind=Kind.UNSUPPORTED,
                hint=f"load the kernel modules bridge and veth, or {_HOST_HINT}",
            ) from error
        kind = Kind.EXHAUSTED if error.errno in _EXHAUSTED else Kind.SYSTEM
        raise LaminaError(what, kind=kind, hint=_HOST_HINT) from error
