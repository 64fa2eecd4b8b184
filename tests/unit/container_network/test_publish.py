# SPDX-License-Identifier: Apache-2.0
"""Docker's `-p` grammar."""

from __future__ import annotations

import pytest

from lamina.container.network.publish import PortMapping, parse_publish
from lamina.errors import Kind, LaminaError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [PortMapping(80)]),
        ("80/tcp", [PortMapping(80)]),
        ("80/", [PortMapping(80)]),
        ("53/UDP", [PortMapping(53, "udp")]),
        (":80", [PortMapping(80)]),
        ("8080:80", [PortMapping(80, host_port=8080)]),
        ("0:80", [PortMapping(80)]),
        ("8080:80/udp", [PortMapping(80, "udp", host_port=8080)]),
        ("127.0.0.1:8080:80", [PortMapping(80, "tcp", "127.0.0.1", 8080)]),
        ("127.0.0.1::80", [PortMapping(80, "tcp", "127.0.0.1")]),
        ("[::1]:8080:80", [PortMapping(80, "tcp", "::1", 8080)]),
        ("[::1]::80", [PortMapping(80, "tcp", "::1")]),
        ("::1:8080:80", [PortMapping(80, "tcp", "::1", 8080)]),
        ("[0:0:0:0:0:0:0:1]:8080:80", [PortMapping(80, "tcp", "::1", 8080)]),
        ("0.0.0.0:1:2", [PortMapping(2, "tcp", "0.0.0.0", 1)]),
        ("80-82", [PortMapping(80), PortMapping(81), PortMapping(82)]),
        ("8000-8001:80-81", [PortMapping(80, host_port=8000), PortMapping(81, host_port=8001)]),
        ("8000-8010:80", [PortMapping(80, host_port=8000, host_port_end=8010)]),
        ("8000-8000:80-80", [PortMapping(80, host_port=8000)]),
        ("65535:65535", [PortMapping(65535, host_port=65535)]),
    ],
)
def test_form_is_understood(text: str, expected: list[PortMapping]) -> None:
    assert parse_publish(text) == tuple(expected)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no port specified: <empty>"),
        ("8080:", "no port specified: 8080:<empty>"),
        ("/tcp", "no port specified: /tcp<empty>"),
        ("8080:/tcp", "no port specified: 8080:/tcp<empty>"),
        ("http", "invalid containerPort: http"),
        ("0", "invalid containerPort: 0"),
        ("65536", "invalid containerPort: 65536"),
        ("-1", "invalid containerPort: -1"),
        ("+80", "invalid containerPort: +80"),
        ("8_0", "invalid containerPort: 8_0"),
        (" 80", "invalid containerPort:  80"),
        ("٨٠", "invalid containerPort: ٨٠"),
        ("82-80", "invalid containerPort: 82-80"),
        ("80-", "invalid containerPort: 80-"),
        ("80-81-82", "invalid containerPort: 80-81-82"),
        ("x:80", "invalid hostPort: x"),
        ("127.0.0.1:80", "invalid hostPort: 127.0.0.1"),
        ("99999:80", "invalid hostPort: 99999"),
        ("0-5:80", "invalid hostPort: 0-5"),
        ("localhost:8080:80", "invalid IP address: localhost"),
        ("300.0.0.1:8080:80", "invalid IP address: 300.0.0.1"),
        ("127.1:8080:80", "invalid IP address: 127.1"),
        ("[]:8080:80", "invalid IP address: []"),
        ("[::1]:80", "no host port specified: [::1]:<empty>:80"),
        ("127.0.0.1\0:1:80", "invalid IP address: 127.0.0.1\0"),
        ("80/icmp", "invalid proto: icmp"),
        ("80/tcp/udp", "invalid proto: tcp/udp"),
        (
            "8000-8003:80-81",
            "invalid ranges specified for container and host Ports: 80-81 and 8000-8003",
        ),
        ("8000:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000"),
    ],
)
def test_mistake_is_refused_in_dockers_words(text: str, what: str) -> None:
    with pytest.raises(LaminaError) as caught:
        parse_publish(text)

    assert (str(caught.value), caught.value.kind) == (what, Kind.USAGE)
    assert caught.value.hint


def test_sctp_is_refused_by_name() -> None:
    with pytest.raises(LaminaError, match="sctp") as caught:
        parse_publish("80/sctp")

    assert caught.value.kind is Kind.UNSUPPORTED


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        (PortMapping(80, host_port=8080), "0.0.0.0:8080->80/tcp"),
        (PortMapping(53, "udp", "127.0.0.1", 5300), "127.0.0.1:5300->53/udp"),
        (PortMapping(80, "tcp", "::1", 8080), "[::1]:8080->80/tcp"),
    ],
)
def test_mapping_prints_as_docker_ps_does(mapping: PortMapping, text: str) -> None:
    assert str(mapping) == text
