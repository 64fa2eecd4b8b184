# SPDX-License-Identifier: Apache-2.0
"""The address pool: what it gives overlaps with nothing that is there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina.container.network.addresses import Subnet, candidates
from lamina.container.network.networks import read_subnet
from lamina.container.network.subnets import Wanted, choose
from lamina.errors import LaminaError

PRIVATE = st.one_of(
    st.builds(lambda ip, p: Subnet(Subnet(0xAC100000 | ip, p).first, p), st.integers(0, 2**20 - 1), st.integers(12, 28)),
    st.builds(lambda ip, p: Subnet(Subnet(0xC0A80000 | ip, p).first, p), st.integers(0, 2**16 - 1), st.integers(16, 28)),
)  # fmt: skip


@given(st.lists(PRIVATE, max_size=30), st.lists(PRIVATE, max_size=30), st.booleans())
def test_a_chosen_subnet_is_free(taken: list[Subnet], routed: list[Subnet], ipv6: bool) -> None:
    try:
        found = choose(Wanted(ipv6=ipv6), taken=taken, routed=routed, random=lambda n: b"\1" * n)
    except LaminaError:
        return
    subnet = read_subnet(found.subnet)
    assert not any(subnet.overlaps(other) for other in (*taken, *routed))
    assert bool(found.subnet6) == ipv6


@given(st.text("0123456789./:abcdef", max_size=40) | st.text(max_size=20))
def test_any_text_is_a_subnet_or_an_error_of_ours(text: str) -> None:
    try:
        found = choose(Wanted((text,), ipv6=True), taken=[], routed=[], random=bytes)
    except LaminaError:
        return
    assert text in {found.subnet, found.subnet6} or ":" in text


@given(
    st.integers(0, 2**32 - 1),
    st.integers(24, 30),
    st.integers(0, 200),
    st.integers(24, 30),
    st.none() | st.integers(0, 2**32 - 1),
)
def test_a_range_gives_each_of_its_addresses_once_and_never_the_gateway(
    ip: int, prefix: int, offset: int, narrow: int, after: int | None
) -> None:
    subnet = Subnet(Subnet(ip, prefix).first, prefix)
    within = Subnet(
        Subnet(subnet.first + offset % subnet.size, max(narrow, prefix)).first, max(narrow, prefix)
    )
    gateway = subnet.first + 1 + offset % (subnet.size - 2)
    found = list(candidates(subnet, after=after, within=within, gateway=gateway))
    hosts = set(range(subnet.first + 1, subnet.last)) & set(range(within.first, within.last + 1))
    assert sorted(found) == sorted(hosts - {gateway})
