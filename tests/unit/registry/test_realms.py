# SPDX-License-Identifier: Apache-2.0
"""Which token servers may be asked, and which get a password."""

from __future__ import annotations

import pytest

from lamina.registry.auth import RealmRefused, check_realm, same_owner


@pytest.mark.parametrize(
    ("base", "realm", "credentials"),
    [
        ("https://registry-1.docker.io", "https://auth.docker.io/token", True),
        ("https://registry.example.com", "https://example.com/jwt/auth", True),
        ("https://example.com", "https://auth.example.com/t", True),
        ("https://r.example.com:5000", "https://r.example.com/t", True),
        ("https://r.example.com", "https://tokens.elsewhere.net/t", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", True),
        ("http://localhost:5000", "http://127.0.0.1:5001/token", True),
        ("https://10.0.0.5", "https://10.0.0.5:8443/token", True),
    ],
)
def test_allowed(base: str, realm: str, credentials: bool) -> None:
    check_realm(base, realm, with_credentials=credentials)


@pytest.mark.parametrize(
    ("base", "realm", "credentials"),
    [
        ("https://r.example.com", "http://r.example.com/t", False),  # no way down from TLS
        ("https://r.example.com", "https://127.0.0.1/t", False),  # reaching inside
        ("https://r.example.com", "https://169.254.169.254/latest", False),
        ("https://r.example.com", "https://[::1]/t", False),
        ("https://r.example.com", "https://localhost/t", False),
        ("https://r.example.com", "https://metadata.internal/t", False),
        ("https://r.example.com", "https://evil.net/t", True),  # another's host
        ("https://r.example.com", "https://example.com.evil.net/t", True),
        ("https://shop.co.uk", "https://evil.co.uk/t", True),
        ("https://r.com", "https://evil.com/t", True),
        ("https://r.example.com", "https://user@r.example.com/t", False),
        ("https://r.example.com", "file:///etc/passwd", False),
        ("https://r.example.com", "", False),
        ("http://127.0.0.1:5000", "http://evil.net/t", False),
    ],
)
def test_refused(base: str, realm: str, credentials: bool) -> None:
    with pytest.raises(RealmRefused):
        check_realm(base, realm, with_credentials=credentials)


def test_a_user_may_trust_another_host() -> None:
    check_realm(
        "https://r.example.com",
        "https://tokens.elsewhere.net/t",
        with_credentials=True,
        allowed=["tokens.elsewhere.net"],
    )


def test_addresses_have_no_owner() -> None:
    assert not same_owner("10.0.0.5", "11.0.0.5")
