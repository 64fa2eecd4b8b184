# SPDX-License-Identifier: Apache-2.0
"""Forgetting tracked connections of an address that is no longer a container's.

The kernel translates a known flow as it did before, whatever the rules say now: without this a UDP
client that keeps its source port would go on talking to a container that is gone.
"""

from __future__ import annotations

import struct

from lamina.container.network.netlink import NETFILTER, Netlink, attribute, attributes

_GET, _DELETE = 0x0101, 0x0102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, _DELETE
_HEAD = struct.pack("=BBH", 2, 0, 0)  # struct nfgenmsg: AF_INET, version 0
_TUPLE_ORIG, _TUPLE_REPLY, _ZONE = 1, 2, 18
_TUPLE_IP, _IP_V4_SRC = 1, 1
_NESTED = 0x8000


def forget_flows(ip: int) -> None:
    """Drop the tracked connections that were redirected to `ip`; none is fine.

    Best effort: a kernel without ctnetlink keeps them until they time out (UDP: 30 to 120 s).
    """
    target = struct.pack("!I", ip)
    try:
        with Netlink(NETFILTER) as netlink:
            for payload in netlink.dump(_GET, _HEAD):
                found = attributes(payload[len(_HEAD) :])
                if _source(found.get(_TUPLE_REPLY, b"")) == target:
                    _delete(netlink, found)
    except OSError:
        return


def _source(tuple_: bytes) -> bytes:
    return attributes(attributes(tuple_).get(_TUPLE_IP, b"")).get(_IP_V4_SRC, b"")


def _delete(netlink: Netlink, found: dict[int, bytes]) -> None:
    body = _HEAD + attribute(_TUPLE_ORIG | _NESTED, found[_TUPLE_ORIG])
    if _ZONE in found:
        body += attribute(_ZONE, found[_ZONE])
    try:
        netlink.change(_DELETE, body)
    except OSError:  # it ended between the dump and now
        return
