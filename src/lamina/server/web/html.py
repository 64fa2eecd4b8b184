# SPDX-License-Identifier: Apache-2.0
"""HTML that is escaped unless it was made here. Pure.

`Html` is markup; every other string is text. Text from images (labels, commands, names) can hold
anything: characters that would change how the rest reads (controls, bidirectional overrides) are
shown as their code points.
"""

from __future__ import annotations

import time
from html import escape

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Html(Record):
    """Markup."""

    text: str


if TYPE_CHECKING:
    Content = Html | str | None

_VOID = frozenset({"input", "link", "meta", "br", "rect"})
_LAID_OUT = "\n\t"


def visible(text: str) -> str:
    r"""The text with what cannot be seen as `\u202e`; line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in _LAID_OUT else f"\\u{ord(char):04x}" for char in text
    )


def markup(content: Content) -> str:
    """The content as HTML text."""
    if content is None:
        return ""
    return content.text if isinstance(content, Html) else escape(visible(content))


def join(parts: Iterable[Content]) -> Html:
    """The parts, one after the other."""
    return Html("".join(markup(part) for part in parts))


def el(name: str, attributes: Mapping[str, str] | None = None, *children: Content) -> Html:
    """An element. An empty attribute value makes `name` alone (`hidden`)."""
    words = [name]
    for key, value in (attributes or {}).items():
        words.append(f'{key}="{escape(visible(value))}"' if value else key)
    opening = f"<{' '.join(words)}>"
    if name in _VOID:
        return Html(opening)
    return Html(f"{opening}{join(children).text}</{name}>")


def size(count: int) -> str:
    """Bytes as people read them, three digits: `77.8 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.0f} PB"


def ago(then: float, *, now: float) -> str:
    """How long ago a time was, in one unit: `3 days ago`."""
    seconds = max(0.0, now - then)
    for length, unit in (
        (365 * 86400, "year"),
        (30 * 86400, "month"),
        (86400, "day"),
        (3600, "hour"),
        (60, "minute"),
    ):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def moment(then: float, *, now: float) -> Html:
    """A time, as how long ago it was, and exactly where the mouse or a machine asks."""
    if not then:
        return el("span", {"class": "none"}, "—")
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(then))
    exact = {"datetime": stamp.replace(" ", "T") + "Z", "title": f"{stamp} UTC"}
    return el("time", exact, ago(then, now=now))
