# SPDX-License-Identifier: Apache-2.0
"""Whatever text an image holds, the page's HTML has the elements it meant and no others."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import example, given
from hypothesis import strategies as st

from lamina.server.web.html import el, visible
from lamina.server.web.views import command

MARKUP = st.sampled_from(
    ["<", ">", '"', "'", "&", "<script>", "-->", "<!--", "&lt;", "\0", "\u202e"]
)
TEXT = st.one_of(st.text(), st.lists(MARKUP).map("".join))


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(TEXT, TEXT)
@example("</p><script>alert(1)</script>", '" onmouseover="alert(1)')
def test_text_stays_text(inside: str, attribute: str) -> None:
    seen = Seen()
    seen.feed(el("p", {"title": attribute}, inside).text)
    seen.close()
    value = visible(attribute) or None
    assert seen.tags == [("p", [("title", value)])]
    assert seen.text == visible(inside)


@given(TEXT)
def test_what_is_shown_can_be_seen(text: str) -> None:
    assert all(char.isprintable() or char in "\n\t" for char in visible(text))
    visible(text).encode()


@given(st.text())
def test_any_command_has_a_text(created_by: str) -> None:
    assert len(command(created_by)) <= len(created_by) + len("RUN ")
