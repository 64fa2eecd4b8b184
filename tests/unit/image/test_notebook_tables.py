# SPDX-License-Identifier: Apache-2.0
"""Tables for notebooks: nothing of an image becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from lamina.image.notebook import MAX_ROWS, MAX_TEXT, fields, table

OURS = {"table", "thead", "tbody", "tr", "th", "td", "p"}
texts = st.text(st.characters(), max_size=30) | st.sampled_from(
    ["<script>", "</table><img src=x onerror=y>", "&lt;", '" onclick="', "'", "\ud800", "\x1b[31m"]
)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(attrs)


def check(html: str) -> None:
    parser = Tags()
    parser.feed(html)
    assert parser.tags <= OURS
    assert parser.attributes <= {("style", "text-align:left")}
    html.encode()  # no lone surrogates
    assert all(c.isprintable() for c in html)


@given(st.lists(texts, max_size=3), st.lists(st.lists(texts, max_size=3), max_size=4))
def test_cells_are_text_only(headers: list[str], rows: list[list[str]]) -> None:
    check(table(headers, rows))


@given(st.lists(st.tuples(texts, texts), max_size=5))
def test_fields_are_text_only(pairs: list[tuple[str, str]]) -> None:
    check(fields(pairs))


def test_what_is_shown_is_bounded() -> None:
    html = table(["a"], [["x" * 10 * MAX_TEXT]] * (MAX_ROWS + 3))
    assert len(html) < MAX_ROWS * (MAX_TEXT + 100)
    assert "and 3 more" in html
    assert fields([("empty", ""), ("none", None), ("zero", 0)]).count("<tr>") == 1
