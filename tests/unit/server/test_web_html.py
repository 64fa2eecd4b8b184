# SPDX-License-Identifier: Apache-2.0
"""HTML is escaped unless it was made here; what people read is short and right."""

from __future__ import annotations

import time

import pytest

from lamina.server.web.html import Html, ago, el, markup, moment, size, visible
from lamina.server.web.pages import Slice
from lamina.server.web.site import PER_PAGE, _image_named, _slice
from lamina.server.web.views import command
from lamina.server.wire import Refusal


def test_text_and_attributes_are_escaped() -> None:
    made = el("a", {"title": '"><script>'}, "<img src=x onerror=alert(1)>", Html("<b>"))
    assert made.text == (
        '<a title="&quot;&gt;&lt;script&gt;">&lt;img src=x onerror=alert(1)&gt;<b></a>'
    )


def test_characters_that_cannot_be_seen_are_shown() -> None:
    assert visible("a\u202eb\x1b[31m\n") == "a\\u202eb\\u001b[31m\n"
    assert markup("ümlaut ✓") == "ümlaut ✓"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (77_812_345, "77.8 MB"), (999_900, "1 MB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "just now"),
        (-5, "just now"),
        (60, "1 minute ago"),
        (7200, "2 hours ago"),
        (86400 * 800, "2 years ago"),
    ],
)
def test_how_long_ago(seconds: float, text: str) -> None:
    assert ago(1e9, now=1e9 + seconds) == text


def test_a_time_that_is_not_known_is_a_dash() -> None:
    assert "—" in moment(0.0, now=1e9).text
    assert 'datetime="2001-09-09T01:46:40Z"' in moment(1e9, now=1e9).text


@pytest.mark.parametrize(
    ("created_by", "text"),
    [
        ('/bin/sh -c #(nop)  CMD ["sh"]', 'CMD ["sh"]'),
        ("/bin/sh -c make", "RUN make"),
        ("RUN /bin/sh -c make all # buildkit", "RUN make all"),
        ("RUN |2 A=1 B= /bin/sh -c make # buildkit", "RUN make"),
        ("COPY a b # buildkit", "COPY a b"),
        ("bazel build ...", "bazel build ..."),
    ],
)
def test_commands_read_as_in_a_dockerfile(created_by: str, text: str) -> None:
    assert command(created_by) == text


def test_a_hostile_command_takes_no_time() -> None:
    hostile = "RUN |1 " + "a=b=c=d=e=f=g " * 2000 + "x"
    before = time.process_time()
    assert command(hostile) == hostile
    assert time.process_time() - before < 1.0  # exponential otherwise


@pytest.mark.parametrize(
    ("text", "page"), [("", 1), ("2", 2), ("0", 1), ("x", 1), ("99999999999", 1), ("500", 3)]
)
def test_pages_that_do_not_exist_are_the_nearest(text: str, page: int) -> None:
    total = 2 * PER_PAGE + 1
    assert _slice({"page": text}, total) == (Slice(total, page, PER_PAGE), (page - 1) * PER_PAGE)


def test_images_are_named_by_tag_or_digest() -> None:
    digest = "sha256:" + "0" * 64
    assert _image_named("a/b:v1") == ("a/b", "v1", "")
    assert _image_named(f"a/b@{digest}") == ("a/b", "", digest)
    for text in ("a/b", "A:v1", "a@v1", "../a:v1", "a:b/c", "a:<x>"):
        with pytest.raises(Refusal):
            _image_named(text)
