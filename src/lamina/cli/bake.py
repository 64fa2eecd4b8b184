# SPDX-License-Identifier: Apache-2.0
"""Build several targets from a bake definition (HCL or JSON) or a compose file."""

from __future__ import annotations

import json
import os

from lamina.app.build import build_all
from lamina.bake.compose import read_dotenv
from lamina.bake.definition import DEFAULT_FILES, linked, print_json, read_definition, resolve
from lamina.cli.bake_requests import BakeHost, requests_of
from lamina.cli.build_flags import add_shared_flags, make_host, progress_of
from lamina.cli.build_steps import entitlements
from lamina.cli.call import call, parse_call
from lamina.cli.format import table
from lamina.cli.metadata_file import metadata, write_metadata
from lamina.cli.view import make_view
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from lamina.app.buildrequest import BuildRequest
    from lamina.bake.definition import Bake
    from lamina.cli.arguments import Parser
    from lamina.cli.call import Call
    from lamina.cli.context import Context

    Fields = dict[str, Any]

USAGE = "[OPTIONS] [TARGET...]"
_MAX_FILE = 16 << 20  # bytes
_NOT_YET = "it is not done yet (docs/roadmap.md)"


def configure(parser: Parser) -> None:
    add = parser.add_argument
    add("-f", "--file", action="append", default=[], help="definition ('-': standard input)")
    add("--set", action="append", default=[], help="override a field: TARGET.KEY=VALUE")
    add("--var", action="append", default=[], help="value of a variable: NAME=VALUE")
    parser.switch("--print", help="print what would be built, as JSON, and build nothing")
    add("--list", default="", help="print 'targets' or 'variables' and build nothing")
    add("--call", default="build", help="build, check, outline or targets, with ,format=json")
    parser.switch("--check", help="as --call=check")
    parser.switch("--no-cache", help="run every step of every target again")
    add("--jobs", type=int, default=0, help="steps that run at one time (default: all that can)")
    add("--provenance", default="false", help="only 'false'")
    add("--sbom", default="false", help="only 'false'")
    add_shared_flags(parser)
    add("--allow", action="append", default=[], help="network.host or security.insecure")
    parser.refuse("--builder", why="lamina has no builders to choose from")
    parser.refuse("--execution", why="the first failure ends the build")
    add("targets", nargs="*", metavar="TARGET")


def run(args: argparse.Namespace, context: Context) -> int:
    _check(args)
    progress = progress_of(args, context)
    bake = _read(args, context)
    if args.list:
        return _list(bake, args.list, context)
    overrides = list(args.set)
    overrides += ["*.load=true"] if args.load else []
    overrides += ["*.push=true"] if args.push else []
    overrides += ["*.pull=true"] if args.pull else []
    overrides += ["*.no-cache=true"] if args.no_cache else []
    groups, targets = resolve(bake, args.targets, overrides, env=context.env)
    epoch = context.env.get("SOURCE_DATE_EPOCH", "")
    for fields in targets.values():
        if epoch and "SOURCE_DATE_EPOCH" not in fields.get("args", {}):
            fields["args"] = {**fields.get("args", {}), "SOURCE_DATE_EPOCH": epoch}
    if args.print:
        context.print(print_json(groups, targets))
        return 0
    requests = _requests(targets, args, context)
    calls = _calls(targets, parse_call("check" if args.check else args.call))
    if calls:
        return _call({name: requests[name] for name in calls}, calls, context)
    return _build(requests, args, context, progress)


def _check(args: argparse.Namespace) -> None:
    for name in ("provenance", "sbom"):
        if getattr(args, name).lower() not in {"false", "0"}:
            raise LaminaError(f"--{name} is not supported: {_NOT_YET}", kind=Kind.UNSUPPORTED)
    if args.jobs < 0:
        raise LaminaError(f"--jobs must not be negative, got {args.jobs}", kind=Kind.USAGE)
    if args.print and args.list:
        raise LaminaError("--print and --list are mutually exclusive", kind=Kind.USAGE)


def _read(args: argparse.Namespace, context: Context) -> Bake:
    variables: dict[str, str] = {}
    for text in args.var:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise LaminaError(f"invalid --var {text!r}: expected NAME=VALUE", kind=Kind.USAGE)
        variables[name] = value
    dotenv = _read_file(context.path(".env"), ".env", optional=True)
    return read_definition(
        _files(args, context),
        builtins={"BAKE_CMD_CONTEXT": "", "BAKE_LOCAL_PLATFORM": str(context.platform())},
        variables=variables,
        env=context.env,
        dotenv=read_dotenv(dotenv, context.env) if dotenv is not None else {},
    )


def _files(args: argparse.Namespace, context: Context) -> list[tuple[str, str]]:
    """(name, text) of the definitions: those given, else those with a known name."""
    found: list[tuple[str, str]] = []
    for name in args.file or DEFAULT_FILES:
        if name == "-":
            text: str | None = _decoded(context.stdin.buffer.read(_MAX_FILE + 1), name)
        else:
            text = _read_file(context.path(name), name, optional=not args.file)
        if text is not None:
            found.append((name, text))
    if not found:
        raise LaminaError(
            "couldn't find a bake definition",
            kind=Kind.NOT_FOUND,
            hint=f"name one with -f, or make one of {', '.join(DEFAULT_FILES)}",
        )
    return found


def _read_file(path: str, name: str, *, optional: bool) -> str | None:
    if optional and not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return _decoded(file.read(_MAX_FILE + 1), name)


def _decoded(data: bytes, name: str) -> str:
    if len(data) > _MAX_FILE:
        raise LaminaError(f"{name} is larger than {_MAX_FILE} bytes", kind=Kind.EXHAUSTED)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LaminaError(f"{name} is not UTF-8", kind=Kind.INVALID) from error


def _list(bake: Bake, what: str, context: Context) -> int:
    """`--list=targets|variables[,format=json]`."""
    kind, _, rest = what.removeprefix("type=").partition(",")
    if kind not in {"targets", "variables"} or rest not in {"", "format=json", "format=table"}:
        raise LaminaError(f"invalid --list {what!r}", kind=Kind.USAGE, hint="targets, variables")
    if kind == "targets":
        names = sorted({**bake.groups, **bake.targets})
        rows = [
            {
                "name": name,
                "description": ({**bake.groups, **bake.targets})[name].get("description", ""),
                **({"group": True} if name in bake.groups else {}),
            }
            for name in names
        ]
        cells = [[str(row["name"]), str(row["description"])] for row in rows]
        header = ["TARGET", "DESCRIPTION"]
    else:
        rows = [
            {"name": name, "value": bake.variables[name], "description": bake.descriptions[name]}
            for name in sorted(bake.variables)
        ]
        cells = [
            [str(row["name"]), json.dumps(row["value"]), str(row["description"])] for row in rows
        ]
        header = ["VARIABLE", "VALUE", "DESCRIPTION"]
    if rest == "format=json":
        context.print(json.dumps(rows, indent=2))
    else:
        context.print(table(header, cells))
    return 0


def _requests(
    targets: Mapping[str, Fields], args: argparse.Namespace, context: Context
) -> dict[str, BuildRequest]:
    host = BakeHost(context, context.platform(), args.jobs or None, entitlements(args))
    return requests_of({name: targets[name] for name in linked(targets)}, host)


def _calls(targets: Mapping[str, Fields], wanted: Call) -> dict[str, Call]:
    """The targets that are asked about instead of built, by the flag or their own `call`."""
    if wanted.method != "build":
        return dict.fromkeys(targets, wanted)
    own = {name: parse_call(fields.get("call", "build")) for name, fields in targets.items()}
    calls = {name: call for name, call in own.items() if call.method != "build"}
    if calls and len(calls) < len(targets):
        raise LaminaError(
            "targets with call= cannot be mixed with targets that are built",
            kind=Kind.UNSUPPORTED,
            hint="bake them one after the other",
        )
    return calls


def _call(requests: Mapping[str, BuildRequest], calls: Mapping[str, Call], context: Context) -> int:
    status = 0
    for wanted in dict.fromkeys(calls.values()):
        asked = {name: requests[name] for name in sorted(calls) if calls[name] == wanted}
        status = call(asked, wanted, context) or status
    return status


def _build(
    requests: Mapping[str, BuildRequest],
    args: argparse.Namespace,
    context: Context,
    progress: str,
) -> int:
    view = make_view(progress, context, quiet=False)
    try:
        outcomes = build_all(
            requests,
            store=context.store(),
            host=make_host(args, context, view),
            work=context.work(view),
            stdout=getattr(context.stdout, "buffer", None),
        )
    finally:
        view.close()
    if args.metadata_file:
        document = {name: metadata(outcomes[name], context.store()) for name in sorted(outcomes)}
        write_metadata(context.path(args.metadata_file), document)
    return 0
