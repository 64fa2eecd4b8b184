# SPDX-License-Identifier: Apache-2.0
"""What Docker's commands print: tables, ages, sizes, and `--format` templates.

`table`, `ago`, `duration` and `human_size` follow docker/cli and go-units to the letter, since
scripts parse them. `listing` is the whole of `--format` for a command that prints rows,
`documents` for one that inspects; `render` is one template applied to one value
(`lamina.cli.template` has the language).
"""

from __future__ import annotations

from lamina.cli.template import MissingField, Template, parse_template, render
from lamina.cli.ui.escape import printable
from lamina.errors import LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lamina.container.state import State

__all__ = [
    "MissingField",
    "Template",
    "ago",
    "documents",
    "duration",
    "go_time",
    "listing",
    "parse_template",
    "printable",
    "render",
    "status_text",
    "table",
]

_MIN_WIDTH = 10  # docker/cli formatter: tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)
_PADDING = 3


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Header and rows in aligned columns, one line each, no trailing newline.

    Control characters in cells are escaped: names and commands come from images.
    """
    lines = [tuple(columns), *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [
        max(_MIN_WIDTH, _PADDING + max(len(line[i]) for line in lines if i < len(line)))
        for i in range(max(len(line) for line in lines))
    ]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False))
        + line[-1]
        for line in lines
    )


def listing(
    format_text: str | None,
    *,
    headers: Mapping[str, str],
    default: Sequence[str],
    rows: Sequence[Mapping[str, object]],
    quiet: str = "",
) -> Iterator[str]:
    """The lines a listing command prints.

    `headers` gives the column title of every field a template may name; `default` are the fields
    of the plain table; `quiet` is the field that `--quiet` prints alone (empty: not quiet).
    `format_text` is None or `table` for the table, `json` for one object a line, `table TEMPLATE`,
    or a template.

    Raises:
        LaminaError: kind USAGE for a template that is malformed or names an unknown field.
    """
    if quiet and format_text in {None, "table"}:
        yield from (str(row[quiet]) for row in rows)
    elif not format_text or format_text == "table":
        cells = [[str(row[field]) for field in default] for row in rows]
        yield table([headers[field] for field in default], cells)
    elif format_text == "json":
        yield from (render("{{json .}}", row) for row in rows)
    elif format_text.startswith("table "):
        yield _template_table(format_text.removeprefix("table ").strip(), headers, rows)
    else:
        template = parse_template(_unescape(format_text))
        yield from (template.render(row) for row in rows)


def documents(format_text: str, found: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """The lines an inspect command prints: one JSON list, or a template's text for each.

    Raises:
        LaminaError: as `listing`.
    """
    if format_text in {"", "json"}:
        import json

        yield json.dumps(found, indent=None if format_text else 4, ensure_ascii=False)
    else:
        template = parse_template(_unescape(format_text))
        yield from (template.render(document) for document in found)


def _template_table(
    text: str, headers: Mapping[str, str], rows: Sequence[Mapping[str, object]]
) -> str:
    template = parse_template(_unescape(text))
    cells = [template.render(row).split("\t") for row in rows]
    try:
        titles = template.render(headers).split("\t")
    except LaminaError:
        # a template that indexes into a field has no title there; the fields themselves do
        titles = [headers.get(name, name) for name in template.fields()]
    return table(titles, cells)


def _unescape(text: str) -> str:
    """Tabs and newlines as typed in a shell's single quotes, as docker reads them."""
    return text.replace("\\t", "\t").replace("\\n", "\n")


def duration(seconds: float) -> str:
    """Seconds as Docker says them: `3 minutes`, `About an hour` (go-units HumanDuration)."""
    whole = int(seconds)
    minutes, hours = whole // 60, int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"


def ago(seconds: float) -> str:
    """`duration(seconds)` and ` ago`: how old something is."""
    return f"{duration(seconds)} ago"


def go_time(seconds: float | None) -> str:
    """POSIX seconds as Go prints a time: `2023-11-14 22:13:20 +0000 UTC`; `N/A` for none."""
    from lamina.image.times import format_time

    if not seconds:
        return "N/A"
    return format_time(int(seconds)).replace("T", " ").replace("Z", " +0000 UTC")


def status_text(state: State, *, now: float) -> str:
    """`Up 3 minutes`, `Exited (0) 2 hours ago`, `Created`."""
    if state.is_running:
        note = " (orphaned)" if state.orphaned else ""
        return f"Up {duration(now - state.started)}{note}"
    if state.status == "restarting":
        return f"Restarting ({state.exit_status}) {ago(now - state.finished)}"
    if state.status == "exited":
        return f"Exited ({state.exit_status}) {ago(now - state.finished)}"
    return "Created"
