# SPDX-License-Identifier: Apache-2.0
"""List, inspect and remove the records of builds, and print their logs."""

from __future__ import annotations

import json

from lamina.app.builds import find_build, list_builds, remove_build
from lamina.cli.arguments import REMAINDER, Parser
from lamina.cli.buildlog import replay
from lamina.cli.format import ago, listing, render, table
from lamina.cli.report import report
from lamina.cli.ui.escape import printable
from lamina.errors import Kind, LaminaError
from lamina.image.times import format_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any

    from lamina.app.builds import Build, Step
    from lamina.cli.context import Context

USAGE = "[ls | inspect | logs | rm] [OPTIONS] [BUILD...]"
HEADERS = {
    "Ref": "BUILD ID",
    "Name": "NAME",
    "Status": "STATUS",
    "CreatedAt": "CREATED AT",
    "CreatedSince": "CREATED",
    "Duration": "DURATION",
    "TotalSteps": "TOTAL STEPS",
    "CompletedSteps": "COMPLETED STEPS",
    "CachedSteps": "CACHED STEPS",
    "Image": "IMAGE",
}
_COLUMNS = ("Ref", "Name", "Status", "CreatedSince", "Duration")


def configure(parser: Parser) -> None:
    parser.stops_at_positional = True
    _configure_list(parser)
    parser.add_argument("words", nargs=REMAINDER, metavar="VERB")


def run(args: argparse.Namespace, context: Context) -> int:

    if not args.words:
        return _list(args, context)
    verb, *rest = args.words
    verb = {"list": "ls", "remove": "rm"}.get(verb, verb)
    if verb not in _VERBS:
        raise LaminaError(
            f"unknown command: lamina builds {verb}",
            kind=Kind.USAGE,
            hint=f"'lamina builds' has: {', '.join(_VERBS)}",
        )
    usage, add, work = _VERBS[verb]
    parser = Parser(f"builds {verb}", summary=work.__doc__ or "", usage=usage)
    add(parser)
    return work(parser.parse(rest), context)


# ls ---------------------------------------------------------------------------------------------


def _configure_list(parser: Parser) -> None:
    parser.add_argument("--format", help="'table', 'table TEMPLATE', 'json', or a Go template")
    parser.add_argument("--filter", action="append", default=[], help="status=..., name=...")
    parser.switch("--no-trunc", help="do not shorten")
    parser.switch("-q", "--quiet", help="only build ids")


def _list(args: argparse.Namespace, context: Context) -> int:
    """List the builds that are recorded, newest first"""
    keeps = _filter(args.filter)
    rows = [
        _row(build, context, full=args.no_trunc)
        for build in list_builds(context.store())
        if keeps(build)
    ]
    for line in listing(
        args.format,
        headers=HEADERS,
        default=_COLUMNS,
        rows=rows,
        quiet="Ref" if args.quiet else "",
    ):
        context.print(line)
    return 0


def _filter(texts: list[str]) -> Callable[[Build], bool]:
    wanted: list[tuple[str, str]] = []
    for text in texts:
        key, _, value = text.partition("=")
        if key not in {"status", "name"}:
            raise LaminaError(f"invalid filter {text!r}", kind=Kind.USAGE, hint="status=, name=")
        wanted.append((key, value))
    return lambda build: all(
        build.status == value if key == "status" else value in build.name for key, value in wanted
    )


def _row(build: Build, context: Context, *, full: bool) -> dict[str, object]:
    counts = build.body.get("steps", {})
    name = build.name if full or len(build.name) <= 36 else build.name[:35] + "…"
    return {
        "Ref": build.id,
        "Name": name,
        "Status": build.status.capitalize(),
        "CreatedAt": format_time(build.created),
        "CreatedSince": ago(context.clock() - build.created),
        "Duration": _seconds(build, context),
        "TotalSteps": counts.get("total", 0),
        "CompletedSteps": counts.get("ran", 0) + counts.get("cached", 0),
        "CachedSteps": counts.get("cached", 0),
        "Image": build.body.get("config", ""),
    }


def _seconds(build: Build, context: Context) -> str:
    if build.completed is None:
        return f"{context.clock() - build.created:.0f}s+" if build.status == "running" else "-"
    return _duration(build.completed - build.created)


def _duration(seconds: float) -> str:
    """`1.2s`, `2m 3s`: as buildx prints durations."""
    if seconds < 60:
        return f"{max(seconds, 0.0):.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest}s"


# inspect ----------------------------------------------------------------------------------------


def _configure_inspect(parser: Parser) -> None:
    parser.add_argument("--format", default="pretty", help="'pretty', 'json', or a Go template")
    parser.add_argument("builds", nargs="*", metavar="BUILD")


def _inspect(args: argparse.Namespace, context: Context) -> int:
    """Print what is recorded of builds (the newest if none is named)"""
    for text in args.builds or [""]:
        build = find_build(context.store(), text)
        document = build_json(build)
        if args.format == "json":
            context.print(json.dumps(document, indent=2))
        elif args.format == "pretty":
            context.stdout.write(_pretty(build, document))
        else:
            context.print(render(args.format, document))
    return 0


def build_json(build: Build) -> dict[str, Any]:
    """The build with buildx's names where it has them; times in RFC 3339, durations in ns."""
    body = build.body
    steps = [_step_json(step, build) for step in build.steps()]
    counts = body.get("steps", {})
    completed = build.completed
    return {
        "Ref": build.id,
        "Name": build.name,
        "Status": build.status,
        "Context": body.get("context", ""),
        "Dockerfile": body.get("dockerfile", ""),
        "Target": body.get("target", ""),
        "Platform": [body.get("platform", "")],
        "BuildArgs": [{"Name": n, "Value": v} for n, v in body.get("build_args", {}).items()],
        "Labels": [{"Name": n, "Value": v} for n, v in body.get("labels", {}).items()],
        "Tags": body.get("tags", []),
        "Names": body.get("names", []),
        "StartedAt": format_time(build.created),
        "CompletedAt": format_time(completed) if completed is not None else None,
        "Duration": int((completed - build.created) * 1e9) if completed is not None else None,
        "NumTotalSteps": counts.get("total", len(steps)),
        "NumCompletedSteps": counts.get("ran", 0) + counts.get("cached", 0),
        "NumCachedSteps": counts.get("cached", 0),
        "Manifest": body.get("manifest", ""),
        "Image": body.get("config", ""),
        "Error": {"Message": body["error"], "Place": body.get("place", "")}
        if body.get("error")
        else None,
        "Warnings": body.get("warnings", []),
        "Steps": steps,
    }


def _outcome(step: Step, build: Build) -> str:
    """How the step ended; of one that did not, what became of it."""
    if step.outcome:
        return step.outcome
    return "pending" if step.started is None else build.status


def _step_json(step: Step, build: Build) -> dict[str, Any]:
    seconds = _step_seconds(step)
    return {
        "Number": step.number,
        "Name": step.name,
        "Stage": step.stage,
        "Status": _outcome(step, build),
        "Duration": int(seconds * 1e9) if seconds is not None else None,
        "Error": step.error,
    }


def _step_seconds(step: Step) -> float | None:
    if step.started is None or step.completed is None:
        return None
    return step.completed - step.started


def _pretty(build: Build, document: dict[str, Any]) -> str:
    total, cached = document["NumTotalSteps"], document["NumCachedSteps"]
    share = f" ({100 * cached // total}% cached)" if total else ""
    lines = [
        ("Name", build.name),
        ("Build id", build.id),
        ("Context", document["Context"]),
        ("Dockerfile", document["Dockerfile"]),
        ("Target", document["Target"]),
        ("Platform", document["Platform"][0]),
        ("Status", build.status.capitalize()),
        ("Started", document["StartedAt"]),
        ("Duration", _duration(document["Duration"] / 1e9) if document["Duration"] else ""),
        ("Build steps", f"{document['NumCompletedSteps']}/{total}{share}"),
        ("Image", document["Image"]),
        ("Names", ", ".join(document["Names"])),
        ("Error", document["Error"]["Message"] if document["Error"] else ""),
    ]
    width = max(len(name) for name, _ in lines) + 2
    text = "".join(f"{name + ':':<{width}}{printable(value)}\n" for name, value in lines if value)
    rows = []
    for step in build.steps():
        seconds = _step_seconds(step)
        shown = _duration(seconds) if seconds is not None else "-"
        rows.append([str(step.number), _outcome(step, build), shown, step.name])
    if rows:
        text += "\n" + table(["STEP", "STATUS", "DURATION", "NAME"], rows) + "\n"
    return text


# logs and rm ------------------------------------------------------------------------------------


def _configure_logs(parser: Parser) -> None:
    parser.add_argument(
        "--progress", default="plain", choices=["plain", "rawjson"], help="plain or rawjson"
    )
    parser.add_argument("--step", type=int, default=0, help="only this step's output, as written")
    parser.add_argument("build", nargs="?", default="", metavar="BUILD")


def _logs(args: argparse.Namespace, context: Context) -> int:
    """Print the logs of a build (the newest if none is named)"""
    build = find_build(context.store(), args.build)
    if args.step:
        if not any(step.number == args.step for step in build.steps()):
            raise LaminaError(f"build {build.id} has no step {args.step}", kind=Kind.NOT_FOUND)
        for number, stream, _, data in build.logs():
            if number == args.step:
                out = context.stdout if stream == 1 else context.stderr
                out.buffer.write(data)
        context.stdout.flush()
        return 0
    replay(build, context, is_json=args.progress == "rawjson")
    return 0


def _configure_rm(parser: Parser) -> None:
    parser.switch("--all", help="every record of a build that does not run")
    parser.add_argument("builds", nargs="*", metavar="BUILD")


def _rm(args: argparse.Namespace, context: Context) -> int:
    """Remove the records of builds, with their logs"""
    names = list(args.builds)
    if args.all:
        names = [b.id for b in list_builds(context.store()) if b.status != "running"]
    elif not names:
        raise LaminaError("'lamina builds rm' needs a build or --all", kind=Kind.USAGE)
    status = 0
    for name in names:
        try:
            context.print(remove_build(context.store(), name))
        except LaminaError as error:
            report(error, context)
            status = 1
    return status


_VERBS: dict[
    str, tuple[str, Callable[[Parser], None], Callable[[argparse.Namespace, Context], int]]
] = {
    "ls": ("[OPTIONS]", _configure_list, _list),
    "inspect": ("[OPTIONS] [BUILD...]", _configure_inspect, _inspect),
    "logs": ("[OPTIONS] [BUILD]", _configure_logs, _logs),
    "rm": ("[--all] [BUILD...]", _configure_rm, _rm),
}
