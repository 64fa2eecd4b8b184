# SPDX-License-Identifier: Apache-2.0
"""Which subnet and which address: pure arithmetic on addresses as ints in host order.

(`ipaddress` of the standard library would do the same and takes 4 ms to import.) What does not say
otherwise is about IPv4.
"""

from __future__ import annotations

import struct

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record
from lamina.start.socketmodule import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Subnet(Record):
    """`ip`/`prefix`: a network, or an address with the length of its network's prefix. `bits` of an
    address: 32 for IPv4, 128 for IPv6.
    """

    ip: int
    prefix: int
    bits: int = 32

    @property
    def size(self) -> int:
        """How many addresses there are."""
        return 1 << (self.bits - self.prefix)

    @property
    def first(self) -> int:
        """The network's own address."""
        return self.ip & -self.size

    @property
    def last(self) -> int:
        """The last address: for IPv4, the broadcast address."""
        return self.first + self.size - 1

    def overlaps(self, other: Subnet) -> bool:
        """Whether any address is in both networks."""
        return self.bits == other.bits and self.first <= other.last and other.first <= self.last

    def hides(self, route: Subnet) -> bool:
        """Whether a route to this network would take from another one all that it leads to."""
        return self.overlaps(route) and route.prefix >= self.prefix

    def __contains__(self, ip: int) -> bool:
        return self.first <= ip <= self.last

    def __str__(self) -> str:
        written = format_ip if self.bits == 32 else format_ip6
        return f"{written(self.first)}/{self.prefix}"


CANDIDATES = (
    *(Subnet(0x0A580000 + (n << 16), 16) for n in range(8)),  # 10.88/16 (as podman) ... 10.95/16
    *(Subnet(0xAC180000 + (n << 16), 16) for n in range(8)),  # 172.24/16 ... 172.31/16
    *(Subnet(0xC0A8C800 + (n << 8), 24) for n in range(16)),  # 192.168.200/24 ... 192.168.215/24
)
"""Networks tried in order; private space (RFC 1918) that home and cloud networks seldom use."""


def parse_ip(text: str) -> int:
    """The address written as four decimal numbers. Raises ValueError."""
    try:
        return int(struct.unpack("!I", socket.inet_pton(socket.AF_INET, text))[0])
    except (OSError, ValueError) as error:
        raise ValueError(f"not an IPv4 address: {text!r}") from error


def parse_ip6(text: str) -> int:
    """The IPv6 address in any of its spellings. Raises ValueError."""
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET6, text), "big")
    except (OSError, ValueError) as error:
        raise ValueError(f"not an IPv6 address: {text!r}") from error


def format_ip6(ip: int) -> str:
    """The IPv6 address in its shortest form (RFC 5952)."""
    return socket.inet_ntop(socket.AF_INET6, ip.to_bytes(16, "big"))


def format_ip(ip: int) -> str:
    """The address in dotted form."""
    return f"{ip >> 24}.{ip >> 16 & 255}.{ip >> 8 & 255}.{ip & 255}"


def parse_subnet(text: str) -> Subnet:
    """The network written as `a.b.c.d/prefix`, prefix 8 to 29.

    Raises:
        LaminaError: kind USAGE.
    """
    address, _, prefix = text.partition("/")
    try:
        ip = parse_ip(address)
        if not (prefix.isascii() and prefix.isdigit() and 8 <= int(prefix) <= 29):
            raise ValueError(text)
    except ValueError as error:
        raise LaminaError(
            f"invalid subnet: {text!r}",
            kind=Kind.USAGE,
            hint="write it as 10.88.0.0/16, with a prefix from 8 to 29",
        ) from error
    return Subnet(Subnet(ip, int(prefix)).first, int(prefix))


def choose_subnet(taken: Iterable[Subnet]) -> Subnet:
    """The first candidate that overlaps none of `taken` (the host's routes and addresses).

    Raises:
        LaminaError: kind UNSUPPORTED, if every candidate is taken.
    """
    used = list(taken)
    for candidate in CANDIDATES:
        if not any(candidate.overlaps(other) for other in used):
            return candidate
    raise LaminaError(
        "every private subnet that lamina tries is routed on this host",
        kind=Kind.UNSUPPORTED,
        hint="use `--network host`, or give a free subnet",
    )


def candidates(
    subnet: Subnet, *, after: int | None, within: Subnet | None = None, gateway: int = 0
) -> Iterator[int]:
    """Every host address (of the part `within`) once, from the one behind `after` round to it; the
    gateway (0: the first address) left out.

    Going round delays the reuse of an address, whose old connections a peer may still remember.
    """
    gateway = gateway or gateway_of(subnet)
    low, high = subnet.first + 1, subnet.last - 1
    if within is not None:
        low, high = max(low, within.first), min(high, within.last)
    start = after + 1 if after is not None and low <= after < high else low
    for part in (range(start, high + 1), range(low, start)):
        for ip in part:
            if ip != gateway:
                yield ip


def gateway_of(subnet: Subnet) -> int:
    """The bridge's address: the first of the subnet."""
    return subnet.first + 1


def mac_of(ip: int) -> bytes:
    """A locally administered MAC that follows from the address, so that no neighbour's ARP entry
    is wrong when an address is used again.
    """
    return b"\x02\x4c" + struct.pack("!I", ip)


def interface_of(ip: int) -> str:
    """The name of the host's end of the pair. The kernel keeps names unique, which also keeps two
    stores that share a bridge from using one address.
    """
    return f"lam{ip:08x}"
