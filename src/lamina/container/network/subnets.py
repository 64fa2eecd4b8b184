# SPDX-License-Identifier: Apache-2.0
"""Which subnets a new network gets: what was asked for, else the first free ones of Docker's pools. Pure."""

from __future__ import annotations

from lamina.container.network.addresses import Subnet, parse_ip, parse_ip6
from lamina.container.network.networks import first_address, read_subnet
from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn, TypeVar

    T = TypeVar("T")

POOLS = (
    *(Subnet(0xAC120000 + (n << 16), 16) for n in range(14)),  # 172.18/16 ... 172.31/16
    *(Subnet(0xC0A80000 + (n << 12), 20) for n in range(16)),  # 192.168.0/20 ... 192.168.240/20
)
"""Docker's default address pools, but the first, which is docker0's (libnetwork, ipamutils)."""

_LONGEST = 30  # a gateway and a container


class Wanted(Record):
    """What `network create` says: texts, one of each family at most for each of them."""

    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    ip_ranges: tuple[str, ...] = ()
    ipv6: bool = False


class Addressing(Record):
    """What a network gets, as texts; empty: it has none."""

    subnet: str
    gateway: str
    ip_range: str = ""
    subnet6: str = ""
    gateway6: str = ""


def choose(
    wanted: Wanted,
    *,
    taken: Sequence[Subnet],
    routed: Sequence[Subnet],
    random: Callable[[int], bytes],
) -> Addressing:
    """Subnets and gateways of a new network. `taken` are other networks', `routed` the host's routes.

    A subnet from a pool overlaps with no route; one that was asked for may lie in a wider one, as in
    Docker: what is more specific leads.

    Raises:
        LaminaError: kind INVALID (not a subnet, a gateway outside of it), CONFLICT (it overlaps),
            EXHAUSTED (every pool is taken).
    """
    subnets = _by_family(wanted.subnets, _subnet, "--subnet")
    gateways = _by_family(wanted.gateways, _address, "--gateway")
    ranges = _by_family(wanted.ip_ranges, _subnet, "--ip-range")
    v4 = subnets.get(32) or _free(taken, routed)
    v6 = subnets.get(128)
    if v6 is not None and not wanted.ipv6:
        _refuse(f"--subnet {v6} needs --ipv6")
    if wanted.ipv6 and v6 is None:
        v6 = _local(random)
    if 128 in ranges:
        raise LaminaError(
            "--ip-range is for IPv4: addresses of IPv6 follow from it", kind=Kind.UNSUPPORTED
        )
    for subnet in (v4, v6):
        if subnet is not None:
            _check_apart(subnet, taken, routed)
    if v4.prefix > _LONGEST:
        _refuse(f"the subnet {v4} has no room for a gateway and a container")
    if v6 is not None and v6.size < v4.size:
        _refuse(f"the subnet {v6} has fewer addresses than {v4}, from which they follow")
    inner = ranges.get(32)
    if inner is not None and not (inner.first in v4 and inner.last in v4):
        _refuse(f"no matching subnet for range {inner}")
    return Addressing(
        subnet=str(v4),
        gateway=_gateway(v4, gateways, 32),
        ip_range="" if inner is None else str(inner),
        subnet6="" if v6 is None else str(v6),
        gateway6=_gateway(v6, gateways, 128),
    )


def _gateway(subnet: Subnet | None, gateways: dict[int, str], bits: int) -> str:
    given = gateways.get(bits)
    if subnet is None:
        if given:
            _refuse(f"no matching subnet for gateway {given}")
        return ""
    if given is None:
        return first_address(subnet)
    ip = parse_ip(given) if bits == 32 else parse_ip6(given)
    if ip not in subnet or ip == subnet.first or (bits == 32 and ip == subnet.last):
        _refuse(f"no matching subnet for gateway {given}")
    return given


def _subnet(text: str) -> tuple[int, Subnet]:
    subnet = read_subnet(text)
    return subnet.bits, subnet


def _address(text: str) -> tuple[int, str]:
    if ":" in text:
        parse_ip6(text)
        return 128, text
    parse_ip(text)
    return 32, text


def _by_family(
    texts: Sequence[str], read: Callable[[str], tuple[int, T]], flag: str
) -> dict[int, T]:
    found: dict[int, T] = {}
    for text in texts:
        try:
            bits, value = read(text)
        except ValueError as error:
            said = str(error)
            raise LaminaError(
                said if said.startswith("invalid subnet") else f"invalid {flag} {text!r}: {said}",
                kind=Kind.INVALID,
                hint="as 172.30.0.0/16, or fd00:1::/64 with --ipv6",
            ) from error
        if bits in found:
            raise LaminaError(
                f"{flag} {text}: a network has one subnet of each family", kind=Kind.UNSUPPORTED
            )
        found[bits] = value
    return found


def _free(taken: Sequence[Subnet], routed: Sequence[Subnet]) -> Subnet:
    for pool in POOLS:
        if not any(pool.overlaps(other) for other in (*taken, *routed)):
            return pool
    raise LaminaError(
        "all predefined address pools have been fully subnetted",
        kind=Kind.EXHAUSTED,
        hint="'lamina network prune' removes unused networks, --subnet gives one of your own",
    )


def _local(random: Callable[[int], bytes]) -> Subnet:
    """A unique local prefix: fd, 40 random bits, a subnet (RFC 4193 §3.2)."""
    return Subnet(int.from_bytes(b"\xfd" + random(7) + bytes(8), "big"), 64, 128)


def _check_apart(subnet: Subnet, taken: Sequence[Subnet], routed: Sequence[Subnet]) -> None:
    for other in taken:
        if subnet.overlaps(other):
            raise LaminaError(
                f"invalid pool request: {subnet} overlaps with {other} of another network",
                kind=Kind.CONFLICT,
                hint="'lamina network inspect' shows the subnets of networks",
            )
    for route in routed:
        if subnet.hides(route):
            raise LaminaError(
                f"the subnet {subnet} overlaps with {route}, which this host reaches otherwise",
                kind=Kind.CONFLICT,
                hint="choose another --subnet: `ip route` shows what is taken",
            )


def _refuse(what: str) -> NoReturn:
    raise LaminaError(what, kind=Kind.INVALID)
