# SPDX-License-Identifier: Apache-2.0
"""Interfaces, addresses and routes of one network namespace, by rtnetlink.

Every function takes the `Netlink` socket of the namespace it acts on and raises OSError with the
kernel's errno. Addresses are ints in host order (`addresses.py` prints them).
"""

from __future__ import annotations

import errno
import struct

from lamina.container.network.addresses import Subnet
from lamina.container.network.netlink import (
    F_CREATE,
    F_EXCL,
    Netlink,
    attribute,
    attributes,
    nested,
)
from lamina.start.record import Record
from lamina.start.socketmodule import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Sequence

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, GETADDR = 20, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26

_IFF_UP = 1
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change mask
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type, flags

# Attribute numbers of linux/if_link.h, if_addr.h, rtnetlink.h and veth.h.
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_GROUP, _IFLA_NET_NS_FD = 18, 20, 27, 28
_DYING = 0x6C616D00  # the group of interfaces about to be removed: "lam"
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER, _BRPORT_MODE, _BRPORT_ISOLATED = 1, 4, 33
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_IFA_F_NODAD = 2
_F_REPLACE = 0x100


class Link(Record):
    """An interface: `master` is the index of its bridge, 0 if it has none; `dying` if somebody
    marked it for removal and did not get to it; `alias` is a note for people; `mac` has no bytes where
    there is none.
    """

    index: int
    name: str
    mtu: int
    up: bool
    master: int
    dying: bool
    alias: str
    mac: bytes = b""


def find_link(netlink: Netlink, name: str) -> Link | None:
    """The interface called `name`, or None."""
    request = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name)
    try:
        return _link(netlink.get(GETLINK, request))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def list_links(netlink: Netlink) -> list[Link]:
    """All interfaces, by index."""
    return [_link(payload) for payload in netlink.dump(GETLINK, _LINK.pack(0, 0, 0, 0, 0))]


def _link(payload: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(payload)
    found = attributes(payload[_LINK.size :])
    return Link(
        index=index,
        name=found[_IFLA_IFNAME].rstrip(b"\0").decode(),
        mtu=_u32(found.get(_IFLA_MTU)),
        up=bool(flags & _IFF_UP),
        master=_u32(found.get(_IFLA_MASTER)),
        dying=_u32(found.get(_IFLA_GROUP)) == _DYING,
        alias=found.get(_IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
        mac=found.get(_IFLA_ADDRESS, b""),
    )


def add_bridge(netlink: Netlink, name: str, *, mac: bytes, mtu: int) -> None:
    """Make a bridge, down. A fixed `mac` keeps it from changing with the first port.

    Raises OSError EEXIST if the name is taken, EOPNOTSUPP if the kernel has no bridges.
    """
    body = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name)
    body += attribute(_IFLA_ADDRESS, mac) + attribute(_IFLA_MTU, mtu)
    body += nested(_IFLA_LINKINFO, attribute(_INFO_KIND, "bridge"))
    netlink.change(NEWLINK, body, flags=F_CREATE | F_EXCL)


def add_veth(netlink: Netlink, name: str, *, peer: str, peer_ns: int, mac: bytes, mtu: int) -> None:
    """Make a pair, both ends down: `name` here, `peer` (with `mac`) in the namespace `peer_ns`."""
    head = _LINK.pack(0, 0, 0, 0, 0)
    far = head + attribute(_IFLA_IFNAME, peer) + attribute(_IFLA_MTU, mtu)
    far += attribute(_IFLA_ADDRESS, mac) + attribute(_IFLA_NET_NS_FD, peer_ns)
    body = head + attribute(_IFLA_IFNAME, name) + attribute(_IFLA_MTU, mtu)
    body += nested(
        _IFLA_LINKINFO,
        attribute(_INFO_KIND, "veth"),
        nested(_INFO_DATA, attribute(_VETH_INFO_PEER, far)),
    )
    netlink.change(NEWLINK, body, flags=F_CREATE | F_EXCL)


def join_bridge(
    netlink: Netlink, name: str, *, bridge: int, alias: str, isolated: bool = False
) -> None:
    """Make `name` a port of the bridge with that index and bring it up; `isolated` ports exchange no
    frames with one another, only with the bridge.

    The port is set to hairpin: with br_netfilter a container that reaches itself through a
    published port sends a frame that must leave by the port it came from.
    """
    head = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + attribute(_IFLA_IFNAME, name)
    netlink.change(
        NEWLINK, head + attribute(_IFLA_MASTER, bridge) + attribute(_IFLA_IFALIAS, alias)
    )
    port = [attribute(_BRPORT_MODE, b"\1")]
    if isolated:
        port.append(attribute(_BRPORT_ISOLATED, b"\1"))
    mode = nested(
        _IFLA_LINKINFO,
        attribute(_INFO_SLAVE_KIND, "bridge"),
        nested(_INFO_SLAVE_DATA, *port),
    )
    netlink.change(NEWLINK, _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name) + mode)


def set_up(netlink: Netlink, name: str) -> None:
    """Bring an interface up."""
    body = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + attribute(_IFLA_IFNAME, name)
    netlink.change(NEWLINK, body)


def delete_links(netlink: Netlink, names: Sequence[str]) -> None:
    """Remove interfaces (both ends of a pair); no error for one that is not there.

    Together, as a group of a number of lamina's own: each removal by itself waits 15 to 30 ms for
    the kernel's readers.
    """
    for name in names:
        with _absent_is_fine():
            _set_group(netlink, name, _DYING)
    with _absent_is_fine():
        netlink.change(DELLINK, _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_GROUP, _DYING))


def spare(netlink: Netlink, name: str) -> None:
    """Take back the mark of a removal that did not come to its end."""
    _set_group(netlink, name, 0)


def _set_group(netlink: Netlink, name: str, group: int) -> None:
    body = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name)
    netlink.change(NEWLINK, body + attribute(_IFLA_GROUP, group))


class _absent_is_fine:  # noqa: N801  # used as `with _absent_is_fine():`
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, OSError) and error.errno == errno.ENODEV


def add_address(netlink: Netlink, index: int, *, address: Subnet) -> None:
    """Give an interface an address; no error if it has it. One of IPv6 is usable at once: whoever
    gives it sees to it that nobody else has it.
    """
    raw = _raw(address.ip, address.bits)
    flags = 0 if address.bits == 32 else _IFA_F_NODAD
    body = _ADDRESS.pack(_family(address.bits), address.prefix, flags, 0, index)
    body += attribute(_IFA_LOCAL, raw) + attribute(_IFA_ADDRESS, raw)
    try:
        netlink.change(NEWADDR, body, flags=F_CREATE | F_EXCL)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise


def address_of(netlink: Netlink, index: int) -> Subnet | None:
    """The first IPv4 address of an interface with its prefix length, or None."""
    for payload in netlink.dump(GETADDR, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)):
        _, prefix, _, _, owner = _ADDRESS.unpack_from(payload)
        raw = attributes(payload[_ADDRESS.size :]).get(_IFA_LOCAL)
        if owner == index and raw is not None:
            return Subnet(struct.unpack("!I", raw)[0], prefix)
    return None


def set_default_route(netlink: Netlink, *, gateway: int, bits: int = 32) -> None:
    """Send everything that is not on the link to `gateway`, whatever was said before."""
    body = _default_route(bits) + attribute(_RTA_GATEWAY, _raw(gateway, bits))
    netlink.change(NEWROUTE, body, flags=F_CREATE | _F_REPLACE)


def drop_default_route(netlink: Netlink, *, bits: int = 32) -> None:
    """Have no default route; no error if there is none."""
    try:
        netlink.change(DELROUTE, _default_route(bits))
    except OSError as error:
        if error.errno != errno.ESRCH:
            raise


def _default_route(bits: int) -> bytes:
    # table main, protocol boot, scope universe, type unicast
    return _ROUTE.pack(_family(bits), 0, 0, 0, 254, 3, 0, 1, 0)


def _family(bits: int) -> int:
    return socket.AF_INET if bits == 32 else socket.AF_INET6


def _raw(ip: int, bits: int) -> bytes:
    return ip.to_bytes(bits // 8, "big")


def routed_subnets(netlink: Netlink, *, bits: int = 32, but: Container[int] = ()) -> list[Subnet]:
    """The destinations of every route in every table, the default route left out, and those by the
    interfaces with the indexes `but`.
    """
    found = []
    for payload in netlink.dump(GETROUTE, _ROUTE.pack(_family(bits), *[0] * 8)):
        prefix = payload[1]
        values = attributes(payload[_ROUTE.size :])
        raw = values.get(_RTA_DST)
        if prefix and raw is not None and _u32(values.get(_RTA_OIF)) not in but:
            found.append(Subnet(int.from_bytes(raw, "big"), prefix, bits))
    return found


def has_default_route(netlink: Netlink) -> bool:
    """Whether there is a default route of IPv4."""
    return any(
        payload[1] == 0 and payload[4] == 254
        for payload in netlink.dump(GETROUTE, _ROUTE.pack(socket.AF_INET, *[0] * 8))
    )


def uplink_mtu(netlink: Netlink) -> int:
    """The MTU of the interface that the IPv4 default route leaves by; 1500 without one."""
    for payload in netlink.dump(GETROUTE, _ROUTE.pack(socket.AF_INET, *[0] * 8)):
        found = attributes(payload[_ROUTE.size :])
        if payload[1] == 0 and payload[4] == 254 and _RTA_OIF in found:
            index = _u32(found[_RTA_OIF])
            link = _link(netlink.get(GETLINK, _LINK.pack(0, 0, index, 0, 0)))
            return link.mtu
    return 1500


def _u32(raw: bytes | None) -> int:
    return int(struct.unpack("=I", raw)[0]) if raw is not None else 0
