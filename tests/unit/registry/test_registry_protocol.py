# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from lamina.errors import Kind
from lamina.registry.protocol import (
    Challenge,
    error_of,
    next_link,
    parse_challenges,
    parse_content_range,
    parse_upload_range,
    retry_after,
    with_query,
)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", ()),
        ("Basic", (Challenge("basic"),)),
        ('Basic realm="a b"', (Challenge("basic", (("realm", "a b"),)),)),
        (
            'Bearer realm="https://t/token",service="s",scope="repository:a:pull,push"',
            (
                Challenge(
                    "bearer",
                    (
                        ("realm", "https://t/token"),
                        ("service", "s"),
                        ("scope", "repository:a:pull,push"),
                    ),
                ),
            ),
        ),
        (
            'Basic realm="x", Bearer realm=y , service = "q\\"q"',
            (
                Challenge("basic", (("realm", "x"),)),
                Challenge("bearer", (("realm", "y"), ("service", 'q"q'))),
            ),
        ),
        (
            "Negotiate YII=, Basic realm=z",
            (Challenge("negotiate"), Challenge("basic", (("realm", "z"),))),
        ),
        ('Bearer realm="open', (Challenge("bearer"),)),
    ],
)
def test_challenges(header: str, found: tuple[Challenge, ...]) -> None:
    assert parse_challenges(header) == found


@pytest.mark.parametrize(
    ("header", "size"),
    [("0-1023", 1024), ("bytes=0-9", 10), ("0-0", 0), ("", None), ("5-9", None), ("0-x", None)],
)
def test_upload_range_tells_how_much_is_there(header: str, size: int | None) -> None:
    assert parse_upload_range(header) == size


def test_content_range() -> None:
    assert parse_content_range("bytes 5-9/10") == (5, 10)
    assert parse_content_range("bytes 5-9/*") == (5, -1)
    assert parse_content_range("5-9/10") is None


def test_next_link() -> None:
    assert next_link('</v2/a/tags/list?last=x&n=1>; rel="next"') == "/v2/a/tags/list?last=x&n=1"
    assert next_link('<a>; rel="prev", <b>; rel=next') == "b"
    assert next_link("nothing") == ""


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after("7", now=0) == 7
    assert retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=10) == 50
    assert retry_after("Thu, 01 Jan 1970 00:00:01 GMT", now=10) == 0
    assert retry_after("soon", now=0) is None
    assert retry_after("", now=0) is None


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "MANIFEST_UNKNOWN", Kind.NOT_FOUND),
        (401, "UNAUTHORIZED", Kind.DENIED),
        (403, "DENIED", Kind.DENIED),
        (400, "DIGEST_INVALID", Kind.INTEGRITY),
        (429, "TOOMANYREQUESTS", Kind.UNAVAILABLE),
        (405, "UNSUPPORTED", Kind.UNSUPPORTED),
        (503, "", Kind.UNAVAILABLE),
        (418, "", Kind.INVALID),
    ],
)
def test_an_error_body_gives_kind_and_code(status: int, code: str, kind: Kind) -> None:
    body = json.dumps({"errors": [{"code": code, "message": "said"}]}).encode() if code else b"<"
    error = error_of(status, body, what="x/y:1")
    assert error.kind is kind
    assert error.code == code
    assert str(error).startswith("x/y:1: ")
    assert (code or str(status)) in str(error)


def test_a_query_is_added_to_one_that_is_there() -> None:
    digest = "sha256:ab"
    assert with_query("/u?_state=a%3D", [("digest", digest)]) == "/u?_state=a%3D&digest=sha256:ab"
    assert with_query("/u", []) == "/u"
