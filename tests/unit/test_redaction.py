# SPDX-License-Identifier: Apache-2.0
"""What is masked in text that has URLs, and that nothing else is touched."""

from __future__ import annotations

import time

import pytest

from lamina.errors import LaminaError, SourceError
from lamina.redaction import redacted
from lamina.spec.span import SourceText, Span


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://u:p@h/x", "https://u:xxxxx@h/x"),
        ("https://token@h/x", "https://xxxxx@h/x"),
        ("https://token:@h/x", "https://xxxxx@h/x"),
        ("https://token:x-oauth-basic@h/x", "https://xxxxx@h/x"),
        ("HTTPS://u:p%40q@h:8443", "HTTPS://u:xxxxx@h:8443"),
        ("http://u:p@q:r@h/x", "http://u:xxxxx@h/x"),
        ("http://u:p'q@h/x", "http://u:xxxxx@h/x"),
        ("http://u:p@[::1]:80/x", "http://u:xxxxx@[::1]:80/x"),
        ("http://u:pa/ss@h/x", "http://u:xxxxx@h/x"),
        ("http://u:pa?ss@h/x", "http://u:xxxxx@h/x"),
        ("ssh://git@h/x", "ssh://git@h/x"),
        ("ssh://git:p@h/x", "ssh://git:xxxxx@h/x"),
        ("git@h:x", "git@h:x"),
        ("socks5h://u:p@h", "socks5h://u:xxxxx@h"),
        ("https://h/x@y", "https://h/x@y"),
        ("https://h:8080/x@y", "https://h:8080/x@y"),
        ("https://[::1]:80/x@y", "https://[::1]:80/x@y"),
        ("https://h/?a=b@c", "https://h/?a=b@c"),
        ("ADD http://a:b@h/f http://c:d@h/g /x/", "ADD http://a:xxxxx@h/f http://c:xxxxx@h/g /x/"),
        ('ADD ["http://a:b@h/f","x@y"]', 'ADD ["http://a:xxxxx@h/f","x@y"]'),
        ("invalid URL 'http://a:b@h/f': no", "invalid URL 'http://a:xxxxx@h/f': no"),
        ("me:pw@host/path and a : b @ c", "me:pw@host/path and a : b @ c"),
        ("xhttp://h, ://a:b@c", "xhttp://h, ://a:b@c"),
        (
            "https://h/f?v=1&sig=a%2Fb%3D&raw=true#part",
            "https://h/f?v=1&sig=xxxxx&raw=true#part",
        ),
        (
            "https://h/f?X-Amz-Credential=a&X-Amz-Date=1&X-Amz-Signature=b",
            "https://h/f?X-Amz-Credential=xxxxx&X-Amz-Date=1&X-Amz-Signature=xxxxx",
        ),
        ("https://h/f?private_token=t", "https://h/f?private_token=xxxxx"),
        ("'https://h/f?access-key=t'", "'https://h/f?access-key=xxxxx'"),
        ("https://h/f?token=", "https://h/f?token="),
        ("https://h/r.git?ref=v1&subdir=sig", "https://h/r.git?ref=v1&subdir=sig"),
        ("no?sig=url", "no?sig=url"),
    ],
)
def test_secrets_of_urls_are_masked_and_nothing_else(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted(shown) == shown


@pytest.mark.parametrize(
    "text",
    ["a" * 300_000, "a://" * 75_000, "a://" + "&token" * 60_000, "a://" + "token" * 60_000],
)
def test_long_lines_take_no_longer_than_their_length(text: str) -> None:
    before = time.process_time()
    redacted(text + "://")
    assert time.process_time() - before < 5


def test_error_never_says_a_password() -> None:
    error = LaminaError("cannot load http://u:p@h/x", hint="try http://u:p@h/y").about(
        "http://u:p@h"
    )
    assert str(error) == "http://u:xxxxx@h: cannot load http://u:xxxxx@h/x"
    assert error.args == (error.what,)
    assert error.hint == "try http://u:xxxxx@h/y"


def test_excerpt_never_shows_a_password() -> None:
    source = SourceText("Dockerfile", ("FROM x", "ADD http://u:p@h/x /y", "RUN a://b:c@d"))
    error = SourceError("no", span=Span(source, 2, 2, column=4, width=3))
    assert str(error) == (
        "Dockerfile:2: no\n"
        "   1 |     FROM x\n"
        "   2 | >>> ADD http://u:xxxxx@h/x /y\n"
        "   3 |     RUN a://b:xxxxx@d"
    )
