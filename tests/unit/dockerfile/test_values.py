# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from lamina.dockerfile.values import (
    InvalidValue,
    format_duration,
    is_signal,
    parse_duration,
    parse_port,
)
from lamina.dockerfile.words import suggest


@pytest.mark.parametrize(
    ("text", "nanoseconds", "printed"),
    [
        ("0", 0, "0s"),
        ("30s", 30_000_000_000, "30s"),
        ("1m30s", 90_000_000_000, "1m30s"),
        ("1h", 3_600_000_000_000, "1h0m0s"),
        ("1.5h", 5_400_000_000_000, "1h30m0s"),
        ("1.5s", 1_500_000_000, "1.5s"),
        ("250ms", 250_000_000, "250ms"),
        ("1.25ms", 1_250_000, "1.25ms"),
        ("10us", 10_000, "10µs"),
        ("5µs", 5_000, "5µs"),
        ("7ns", 7, "7ns"),
        (".5s", 500_000_000, "500ms"),
        ("-2s", -2_000_000_000, "-2s"),
    ],
)
def test_duration_is_gos(text: str, nanoseconds: int, printed: str) -> None:
    assert parse_duration(text) == nanoseconds
    assert format_duration(nanoseconds) == printed


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "1s ", "1 s", "+", "--1s", "9999999h", "1s2"])
def test_bad_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", ["80/tcp"]),
        ("80/", ["80/tcp"]),
        ("53/UDP", ["53/udp"]),
        ("8000-8002/sctp", ["8000/sctp", "8001/sctp", "8002/sctp"]),
        ("8080:80", ["80/tcp"]),
        ("127.0.0.1:8080-8090:80", ["80/tcp"]),
    ],
)
def test_port_words(text: str, ports: list[str]) -> None:
    assert parse_port(text) == ports


@pytest.mark.parametrize(
    "text", ["", "x", "70000", "-1", "90-80", "80/icmp", "/tcp", "8000-8001:80-85", "1-2-3", "٣"]
)
def test_bad_port_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_port(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SIGTERM", True),
        ("term", True),
        ("9", True),
        ("RTMIN+3", True),
        ("SIGRTMAX-14", True),
        ("0", False),
        ("-1", False),
        ("SIGNOPE", False),
        ("RTMIN+16", False),
    ],
)
def test_signals(text: str, expected: bool) -> None:
    assert is_signal(text) is expected


@pytest.mark.parametrize(
    ("word", "nearest"),
    [("RUNN", "RUN"), ("FORM", "FROM"), ("CPOY", "COPY"), ("XYZZY", ""), ("x" * 1000, "")],
)
def test_suggestion(word: str, nearest: str) -> None:
    assert suggest(word, ["FROM", "RUN", "COPY", "CMD"]) == nearest
