# SPDX-License-Identifier: Apache-2.0
"""`build --call`: answers about a Dockerfile, printed and in JSON as buildx prints them."""

from __future__ import annotations

import base64
import json

from lamina.app import calls
from lamina.cli.report import report
from lamina.cli.ui.escape import printable
from lamina.dockerfile.checks import DESCRIPTIONS
from lamina.errors import Kind, LaminaError, SourceError
from lamina.redaction import redacted
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from lamina.app.buildrequest import BuildRequest
    from lamina.app.calls import Checked
    from lamina.cli.context import Context
    from lamina.dockerfile.outline import MountedSecret, Outline, Target
    from lamina.events import Diagnostic
    from lamina.spec.span import Span

METHODS = ("build", "check", "outline", "targets")
_ALIASES = {"lint": "check"}
_FRAME = "--------------------"


class Call(Record):
    """A parsed `--call`: `is_json` for `format=json`; `ignore_status` leaves the exit status 0."""

    method: str
    is_json: bool = False
    ignore_status: bool = False


def parse_call(text: str) -> Call:
    """`METHOD[,format=text|json][,ignorestatus=BOOL]`. Raises LaminaError of kind USAGE."""
    first, *rest = text.split(",")
    if first.startswith("method="):
        first = first.removeprefix("method=")
    method = _ALIASES.get(first, first) or "build"
    if method not in METHODS:
        raise LaminaError(
            f"--call={first} is not supported",
            kind=Kind.UNSUPPORTED,
            hint=f"methods: {', '.join(METHODS)}",
        )
    is_json = ignore_status = False
    for field in rest:
        key, _, value = field.partition("=")
        if key == "format" and value in {"json", "text", ""}:
            is_json = value == "json"
        elif key == "ignorestatus" and value.lower() in {"true", "1", "false", "0"}:
            ignore_status = value.lower() in {"true", "1"}
        else:
            raise LaminaError(f"invalid --call {text!r}: {field!r} is unknown", kind=Kind.USAGE)
    return Call(method, is_json, ignore_status)


def call(requests: Mapping[str, BuildRequest], wanted: Call, context: Context) -> int:
    """Answer for each request and print it; the exit status (1 if a check found something).

    One without a name is `build`'s; names are bake's targets, and JSON is then by target.
    """
    status = 0
    answers: dict[str, Any] = {}
    for number, (name, request) in enumerate(requests.items()):
        text, document, failed = _answer(request, wanted, context)
        status = status or int(failed)
        answers[name] = document
        if wanted.is_json:
            continue
        if name:
            context.print(f"{chr(10) * bool(number)}{name}\n")
        context.stdout.write(text)
    if wanted.is_json:
        shown: Any = answers
        if "" in answers:
            shown = answers[""]
        else:
            shown = {"target": {name: {wanted.method: answers[name]} for name in sorted(answers)}}
        context.print(json.dumps(shown, indent=2, ensure_ascii=False))
    return 0 if wanted.ignore_status else status


def _answer(request: BuildRequest, wanted: Call, context: Context) -> tuple[str, Any, bool]:
    if wanted.method == "targets":
        targets = calls.targets(request)
        return targets_text(targets), targets_json(targets, request.dockerfile), False
    if wanted.method == "outline":
        outline = calls.outline(request, context.store())
        return outline_text(outline), outline_json(outline, request.dockerfile), False
    checked = calls.check(request, context.store())
    for missing in checked.missing:
        context.warn(
            f"lamina: {printable(missing)} is not in the store: "
            "checks that need its config were left out"
        )
    if checked.error is not None and not wanted.is_json:
        context.stdout.write(check_text(checked, request))
        context.stdout.flush()
        report(checked.error, context)
        return "", None, True
    failed = bool(checked.warnings) or checked.error is not None
    return check_text(checked, request), check_json(checked, request), failed


# check ------------------------------------------------------------------------------------------


def check_text(checked: Checked, request: BuildRequest) -> str:
    """The findings, one after the other, with the lines they are about."""
    count = len(checked.warnings)
    if not count:
        return "" if checked.error is not None else "Check complete, no warnings found.\n"
    found = "1 warning has been found!" if count == 1 else f"{count} warnings have been found!"
    return f"Check complete, {found}\n" + "".join(
        _warning_text(warning, request) for warning in checked.warnings
    )


def _warning_text(warning: Diagnostic, request: BuildRequest) -> str:
    link = f" - {warning.url}" if warning.url else ""
    text = f"\nWARNING: {warning.rule}{link}\n{printable(warning.message)}\n"
    return text + (_source(warning.span, request) if warning.span is not None else "")


def _source(span: Span, request: BuildRequest) -> str:
    """The lines around the span, framed, as BuildKit shows them."""
    lines = request.dockerfile.decode("utf-8", "replace").split("\n")
    start, end = span.start, min(span.end, len(lines))
    pad = 4 if start == end else 2
    done = 0
    while done < pad:
        if start > 1:
            start -= 1
            done += 1
        if end != len(lines):
            end += 1
            done += 1
        done += 1
    shown = [f"{request.dockerfile_name}:{span.start}", _FRAME]
    for number in range(start, end + 1):
        mark = ">>>" if span.start <= number <= span.end else "   "
        shown.append(f" {number:3d} | {mark} {printable(redacted(lines[number - 1]))}")
    return "\n".join([*shown, _FRAME, ""])


def check_json(checked: Checked, request: BuildRequest) -> dict[str, Any]:
    """The findings as buildx writes them."""
    document: dict[str, Any] = {"warnings": None, "sources": None}
    if checked.warnings:
        document["warnings"] = [
            _without_empty(
                {
                    "ruleName": warning.rule,
                    "description": DESCRIPTIONS.get(warning.rule, ""),
                    "url": warning.url,
                    "detail": warning.message,
                    "location": _location(warning.span),
                }
            )
            for warning in checked.warnings
        ]
    document["sources"] = [
        {
            "filename": request.dockerfile_name,
            "data": _base64(request.dockerfile),
            "language": "Dockerfile",
        }
    ]
    error = checked.error
    if error is not None:
        span = error.span if isinstance(error, SourceError) else None
        document["buildError"] = {"message": error.what, "location": _location(span) or {}}
    return document


# outline and targets ----------------------------------------------------------------------------


def outline_text(outline: Outline) -> str:
    """Tables of what the target takes."""
    text = ""
    if outline.name or outline.description:
        rows = [["TARGET:", outline.name or "(default)"]]
        if outline.description:
            rows.append(["DESCRIPTION:", outline.description])
        text += _columns(rows, padding=1) + "\n"
    if outline.arguments:
        rows = [["BUILD ARG", "VALUE", "DESCRIPTION"]]
        rows += [[a.name, a.value, a.description] for a in outline.arguments]
        text += _columns(rows, padding=3) + "\n"
    for title, found in (("SECRET", outline.secrets), ("SSH", outline.agents)):
        if found:
            rows = [[title, "REQUIRED"]]
            rows += [[each.name, "true" if each.is_required else ""] for each in found]
            text += _columns(rows, padding=3) + "\n"
    return text


def outline_json(outline: Outline, dockerfile: bytes) -> dict[str, Any]:
    """The outline as buildx writes it: empty fields left out."""
    return _without_empty(
        {
            "name": outline.name,
            "description": outline.description,
            "args": [
                _without_empty(
                    {
                        "name": argument.name,
                        "description": argument.description,
                        "value": argument.value,
                        "location": _location(argument.span),
                    }
                )
                for argument in outline.arguments
            ],
            "secrets": _secrets(outline.secrets),
            "ssh": _secrets(outline.agents),
            "sources": [_base64(dockerfile)],
        }
    )


def _secrets(found: Iterable[MountedSecret]) -> list[dict[str, Any]]:
    return [
        _without_empty(
            {"name": each.name, "required": each.is_required, "location": _location(each.span)}
        )
        for each in found
    ]


def targets_text(targets: Sequence[Target]) -> str:
    """The table of targets."""
    rows = [["TARGET", "DESCRIPTION"]]
    for target in targets:
        name = target.name
        if target.is_default:
            name = f"{name} (default)" if name else "(default)"
        rows.append([name, target.description])
    return _columns(rows, padding=1)


def targets_json(targets: Sequence[Target], dockerfile: bytes) -> dict[str, Any]:
    """The targets as buildx writes them: empty fields left out."""
    return {
        "targets": [
            _without_empty(
                {
                    "name": target.name,
                    "default": target.is_default,
                    "description": target.description,
                    "base": target.base,
                    "platform": target.platform,
                    "location": _location(target.span),
                }
            )
            for target in targets
        ],
        "sources": [_base64(dockerfile)],
    }


def _columns(rows: Sequence[Sequence[str]], *, padding: int) -> str:
    """Rows as Go's tabwriter aligns them: the last cell of a row is not padded."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) + padding for i in range(len(cells[0]) - 1)]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        + row[-1]
        + "\n"
        for row in cells
    )


def _location(span: Span | None) -> dict[str, Any]:
    if span is None:
        return {}
    return {"ranges": [{"start": {"line": span.start}, "end": {"line": span.end}}]}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value not in ("", [], {}, None, False)}
