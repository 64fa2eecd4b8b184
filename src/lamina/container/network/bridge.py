# SPDX-License-Identifier: Apache-2.0
"""The bridge itself and the two ends of a container's pair, above `links`.

Called with the network's lock held. Raises OSError from the kernel and LaminaError where lamina
decides; `explained` turns the former into the latter.
"""

from __future__ import annotations

import errno

from lamina.container.network import links
from lamina.container.network.addresses import (
    Subnet,
    choose_subnet,
    gateway_of,
    interface_of,
    mac_of,
)
from lamina.container.network.netlink import Netlink
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


def ensure_bridge(netlink: Netlink, name: str, *, subnet: Subnet | None) -> Bridge:
    """The bridge `name`, made (or completed) if need be, with `subnet` or a free one.

    Raises:
        LaminaError: kind CONFLICT, if it has another subnet; UNSUPPORTED, if none is free.
    """
    link = links.find_link(netlink, name)
    if link is None:
        # Big enough for every frame, small enough for the way out; a fixed MAC stays when the
        # first port leaves.
        mac = b"\x02\x4c\x00" + name.encode()[-3:].rjust(3, b"\0")
        links.add_bridge(netlink, name, mac=mac, mtu=links.uplink_mtu(netlink))
        link = links.find_link(netlink, name)
        assert link is not None
    if link.dying:  # or the next removal of anything would take it along
        links.spare(netlink, name)
    address = links.address_of(netlink, link.index)
    if address is None or not link.up:
        address = address or _choose(netlink, subnet)
        _complete(netlink, link, address)
    if subnet is not None and (subnet.first, subnet.prefix) != (address.first, address.prefix):
        raise LaminaError(
            f"the bridge {name} already has the subnet {address}, not {subnet}",
            kind=Kind.CONFLICT,
            hint="stop every container on it first",
        )
    return Bridge(link.index, name, link.mtu, Subnet(address.first, address.prefix))


def _choose(netlink: Netlink, subnet: Subnet | None) -> Subnet:
    chosen = subnet or choose_subnet(links.routed_subnets(netlink))
    return Subnet(gateway_of(chosen), chosen.prefix)


def _complete(netlink: Netlink, link: links.Link, address: Subnet) -> None:
    write_sysctl("net/ipv4/ip_forward", "1")
    write_sysctl(f"net/ipv6/conf/{link.name}/disable_ipv6", "1", optional=True)
    links.add_address(netlink, link.index, ip=address.ip, prefix=address.prefix)
    links.set_up(netlink, link.name)  # last: a bridge that is up is complete


def let_loopback_out(bridge: Bridge) -> None:
    """Let connections from the host's 127.0.0.1 be redirected to the bridge.

    Only with rules that drop what containers send to 127.0.0.0/8: the kernel takes it from then
    on (CVE-2020-8558), and CAP_NET_RAW is enough to send it.
    """
    write_sysctl(f"net/ipv4/conf/{bridge.name}/route_localnet", "1")


def find_bridge(netlink: Netlink, name: str) -> Bridge | None:
    """The bridge `name`, also a half-made one, or None."""
    link = links.find_link(netlink, name)
    if link is None:
        return None
    address = links.address_of(netlink, link.index) or Subnet(0, 32)
    return Bridge(link.index, name, link.mtu, Subnet(address.first, address.prefix))


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


def plug(netlink: Netlink, bridge: Bridge, ip: int, *, ns_fd: int, alias: str) -> None:
    """Put `eth0` into the namespace `ns_fd` and its other end into the bridge.

    Raises OSError EEXIST if somebody has an interface for this address, which undoes nothing.
    """
    name = interface_of(ip)
    links.add_veth(netlink, name, peer="eth0", peer_ns=ns_fd, mac=mac_of(ip), mtu=bridge.mtu)
    try:
        write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1", optional=True)
        links.join_bridge(netlink, name, bridge=bridge.index, alias=alias)
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


def configure_inside(inner: Netlink, ip: int, subnet: Subnet) -> None:
    """Give `eth0` its address and route, seen from the namespace's own socket."""
    link = links.find_link(inner, "eth0")
    if link is None:
        raise OSError(errno.ENODEV, "eth0 did not arrive in the namespace")
    links.add_address(inner, link.index, ip=ip, prefix=subnet.prefix)
    links.set_up(inner, "eth0")
    links.add_default_route(inner, gateway=gateway_of(subnet))


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
