# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from lamina.errors import LaminaError
from lamina.registry.endpoints import tls_files
from lamina.registry.transport import bare_address, bypasses_proxy, is_loopback


@pytest.mark.parametrize(
    ("host", "port", "no_proxy", "found"),
    [
        ("localhost", 5000, "", True),
        ("127.0.0.1", 5000, "", True),
        ("r.io", None, "", False),
        ("r.io", None, "*", True),
        ("r.io", None, "other.io, r.io", True),
        ("a.r.io", None, "r.io", True),
        ("a.r.io", None, ".r.io", True),
        ("ar.io", None, "r.io", False),
        ("r.io", 5000, "r.io:5000", True),
        ("r.io", 443, "r.io:5000", False),
        ("10.1.2.3", None, "10.0.0.0/8", True),
        ("11.1.2.3", None, "10.0.0.0/8,bad/net", False),
    ],
)
def test_no_proxy(host: str, port: int | None, no_proxy: str, found: bool) -> None:
    assert bypasses_proxy(host, port, no_proxy) is found


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("localhost:5000", True),
        ("127.3.0.1:1", True),
        ("[::1]:5000", True),
        ("localhost.evil.net", False),
        ("r.io", False),
    ],
)
def test_loopback_by_its_spelling(host: str, found: bool) -> None:
    assert is_loopback(host) is found


def test_addresses_are_shown_without_secrets() -> None:
    assert bare_address("https://u:p@h:1/a/b?sig=s#f") == "https://h:1/a/b?..."
    assert bare_address("https://h/a") == "https://h/a"


def test_certificates_of_a_host(tmp_path: Path) -> None:
    place = tmp_path / "r.io:5000"
    place.mkdir()
    for name in ("ca.crt", "me.cert", "me.key"):
        (place / name).write_text("")
    found = tls_files("r.io:5000", [str(tmp_path)], insecure=True)
    assert found.ca_files == (str(place / "ca.crt"),)
    assert found.client_key == str(place / "me.key")
    assert found.verify
    assert not tls_files("other", [str(tmp_path)], insecure=True).verify
    assert tls_files("other", [str(tmp_path)], insecure=False).verify
    (place / "me.key").unlink()
    with pytest.raises(LaminaError, match=r"me\.key is missing"):
        tls_files("r.io:5000", [str(tmp_path)], insecure=False)
