# SPDX-License-Identifier: Apache-2.0
"""Fuzz: a value or a Refusal, and what is accepted follows the grammar."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from lamina.server import manifests, routes, wire

PIECES = st.sampled_from(
    [
        "/",
        "v2",
        "a",
        "blobs",
        "uploads",
        "manifests",
        "tags",
        "list",
        "..",
        ".",
        "referrers",
        "%2f",
        "sha256:" + "0" * 64,
        "_catalog",
        "A",
        "a__b",
        "a..b",
        "\x00",
        "é",
        "a" * 256,
        "-",
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES).map("/".join), st.lists(PIECES).map("".join)))
def test_any_path_is_a_route_or_a_refusal(path: str) -> None:
    for tried in (path, "/v2/" + path):
        try:
            found = routes.route(tried)
        except wire.Refusal as error:
            assert 400 <= error.status < 500  # noqa: PT017  # either outcome is right
            continue
        name = getattr(found, "repository", "a")
        assert re.fullmatch(r"[a-z0-9/._-]{1,255}", name)
        assert ".." not in name.split("/")
        assert not name.startswith("/")


@given(st.text())
def test_any_content_range_and_page(text: str) -> None:
    for parse in (
        wire.parse_content_range,
        lambda value: wire.parse_page({"n": value}, limit=10),
    ):
        try:
            first, _ = parse(text)
        except wire.Refusal:
            continue
        assert first >= 0


@given(st.one_of(st.text(), st.from_regex(r"bytes=\d*-\d*")), st.integers(0, 1 << 40))
def test_any_range_is_inside(text: str, size: int) -> None:
    try:
        found = wire.parse_range(text, size=size)
    except wire.Refusal as error:
        assert error.status == 416  # noqa: PT017  # either outcome is right
        return
    if found is not None:
        offset, length = found
        assert offset >= 0
        assert length > 0
        assert offset + length <= size


@given(st.binary(), st.text())
def test_any_manifest_is_refused_or_read(raw: bytes, kind: str) -> None:
    for media_type in (kind, "application/vnd.oci.image.index.v1+json"):
        try:
            manifests.parse(raw, content_type=media_type, digest=None)
        except wire.Refusal as error:
            assert error.code == "MANIFEST_INVALID"  # noqa: PT017  # either outcome is right


@given(st.text(max_size=50))
def test_any_query_is_read_or_refused(query: str) -> None:
    request = wire.Request("GET", "/v2/", query, {}, "127.0.0.1")
    try:
        assert isinstance(request.parameters(), dict)
    except wire.Refusal as error:
        assert error.status == 400  # noqa: PT017  # either outcome is right
