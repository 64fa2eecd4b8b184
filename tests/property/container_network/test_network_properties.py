# SPDX-License-Identifier: Apache-2.0
"""Parsers of the network room: a value or a LaminaError, and print after parse."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina.container.network.addresses import Subnet, candidates, format_ip, parse_ip
from lamina.container.network.netlink import attribute, attributes
from lamina.container.network.publish import parse_publish
from lamina.errors import LaminaError


@given(st.text(alphabet="0123456789:/-[].tcpud\0 \u0663", max_size=30) | st.text(max_size=20))
def test_any_publish_text_gives_mappings_or_an_error_of_ours(text: str) -> None:
    try:
        mappings = parse_publish(text)
    except LaminaError:
        return
    assert mappings
    for mapping in mappings:
        assert 0 < mapping.container_port < 65536
        assert 0 <= mapping.host_port < 65536
        assert mapping.protocol in {"tcp", "udp"}


@given(st.integers(0, 2**32 - 1))
def test_address_is_what_its_text_says(ip: int) -> None:
    assert parse_ip(format_ip(ip)) == ip


@given(st.integers(0, 2**32 - 1), st.integers(24, 29), st.none() | st.integers(0, 2**32 - 1))
def test_every_address_is_offered_once(ip: int, prefix: int, after: int | None) -> None:
    subnet = Subnet(ip, prefix)

    found = list(candidates(subnet, after=after))

    assert sorted(found) == list(range(subnet.first + 2, subnet.last))


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40)))
def test_attributes_are_read_as_written(values: dict[int, bytes]) -> None:
    assert attributes(b"".join(attribute(t, v) for t, v in values.items())) == values


@given(st.binary(max_size=200))
def test_damaged_attributes_end_quietly(payload: bytes) -> None:
    attributes(payload)
