# SPDX-License-Identifier: Apache-2.0
"""Tables for notebooks, from texts that nobody has vouched for: labels, commands and names of images.

Everything is escaped here and nowhere else. What is shown is bounded: a config may have a megabyte.
"""

from __future__ import annotations

from html import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_ROWS = 200
MAX_TEXT = 500  # characters of a cell


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table: a title for each column, then the rows."""
    head = "".join(f"<th>{_text(header)}</th>" for header in headers)
    shown: list[str] = []
    hidden = 0
    for row in rows:
        if len(shown) < MAX_ROWS:
            shown.append("<tr>" + "".join(_cell(value) for value in row) + "</tr>")
        else:
            hidden += 1
    more = f"<p>and {hidden} more</p>" if hidden else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(shown)}</tbody></table>{more}"


def fields(pairs: Iterable[tuple[str, object]]) -> str:
    """An HTML table with a row for each (name, value); empty values are left out."""
    rows = [
        f'<tr><th style="text-align:left">{_text(name)}</th>{_cell(value)}</tr>'
        for name, value in list(pairs)[:MAX_ROWS]
        if value not in ("", None)
    ]
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def _cell(value: object) -> str:
    return f'<td style="text-align:left">{_text(value)}</td>'


def _text(value: object) -> str:
    text = str(value)
    if len(text) > MAX_TEXT:
        text = text[: MAX_TEXT - 1] + "\N{HORIZONTAL ELLIPSIS}"
    # a surrogate cannot be written as UTF-8, a control character is nothing to be seen
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return escape(shown)
