# SPDX-License-Identifier: Apache-2.0
"""Say why the steps of a build were not cached."""

from __future__ import annotations

import json
import os

from lamina.app.why import MAX_FILE, compare, explained, export_trees, parse_document, told
from lamina.cli.ui.escape import printable
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from lamina.app.builds import Build, Step
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] [BUILD[:STEP]]"


def configure(parser: Parser) -> None:
    add = parser.add_argument
    add("build", nargs="?", default="", metavar="BUILD[:STEP]", help="a build (default: the last)")
    add("--against", default="", metavar="FILE", help="compare with key trees of another machine")
    add("--export", default="", metavar="FILE", help="write the build's key trees to a file")
    add("--format", default="", help="'json' for JSON")


def run(args: argparse.Namespace, context: Context) -> int:
    if args.format not in {"", "json"}:
        raise LaminaError(f"--format takes 'json' only, got {args.format!r}", kind=Kind.USAGE)
    if args.export and args.against:
        raise LaminaError("--export and --against exclude each other", kind=Kind.USAGE)
    if args.export:
        return _export(args, context)
    if args.against:
        return _against(args, context)
    build, steps = explained(context.store(), args.build)
    imported = build.details().get("imported", {})
    if args.format:
        context.print(
            json.dumps({"build": build.id, "steps": [_row(step, imported) for step in steps]})
        )
        return 0
    _head(build, build.steps(), context)
    wanted = ":" in args.build
    for step in steps:
        text = step.why.text if step.why is not None else step.outcome
        origin = imported.get(str(step.number), "") if step.why is None else ""
        if origin:
            text = f"imported from the cache {origin}"
        if wanted or origin or step.why is not None:
            context.print(f"{printable(step.name)}\n    {printable(text or 'not finished')}")
    return 0


def _head(build: Build, steps: list[Step], context: Context) -> None:
    ran = sum(step.why is not None for step in steps)
    cached = sum(step.outcome == "cached" for step in steps)
    context.print(f"build {build.id} ({printable(build.name)}): {ran} ran, {cached} cached")


def _row(step: Step, imported: Mapping[str, str]) -> dict[str, object]:
    why = step.why
    row: dict[str, object] = {"number": step.number, "name": step.name, "outcome": step.outcome}
    if why is not None:
        row |= {
            "cause": why.cause,
            "subject": why.subject,
            "old": why.old,
            "new": why.new,
            "more": why.more,
            "via": why.via,
            "text": why.text,
        }
    elif str(step.number) in imported:
        row["imported"] = imported[str(step.number)]
    return row


def _export(args: argparse.Namespace, context: Context) -> int:
    document = export_trees(context.store(), args.build)
    text = json.dumps(document) + "\n"
    if args.export == "-":
        context.stdout.write(text)
    else:
        path = context.path(args.export)
        with open(f"{path}.lamina-partial", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(f"{path}.lamina-partial", path)
    missing = [row for row in document["steps"] if "key" in row and "tree" not in row]
    if missing:
        context.warn(f"lamina: the keys of {len(missing)} steps are not recorded any more")
    return 0


def _against(args: argparse.Namespace, context: Context) -> int:
    if args.against == "-":
        raw = context.stdin.buffer.read(MAX_FILE + 1)
    else:
        with open(context.path(args.against), "rb") as file:
            raw = file.read(MAX_FILE + 1)
    if len(raw) > MAX_FILE:
        raise LaminaError(f"{args.against} is larger than {MAX_FILE} bytes", kind=Kind.INVALID)
    document = parse_document(raw, args.against)
    build, compared = compare(context.store(), args.build, document)
    if args.format:
        rows = []
        for each in compared:
            row = {"number": each.step.number, "name": each.step.name, "same": each.is_same}
            if each.explanation is not None:
                cause = each.explanation.cause
                row |= {"cause": cause.kind, "subject": cause.subject, "old": cause.old}
                row |= {"new": cause.new, "more": cause.more, "via": each.explanation.via}
            rows.append({**row, "text": told(each)})
        context.print(json.dumps({"build": build.id, "steps": rows}))
        return 0
    for each in compared:
        context.print(f"{printable(each.step.name)}\n    {printable(told(each))}")
    return 0
