# SPDX-License-Identifier: Apache-2.0
"""Copy files between a container and this host."""

from __future__ import annotations

import os

from lamina.app.container_files import copy_in, copy_out
from lamina.app.containers import find
from lamina.errors import Kind, LaminaError
from lamina.layer.compress import decompressed
from lamina.layer.transfer import Target, parse_source, receive, send
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import IO

    from lamina.app.containers import Container
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n       lamina cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH"
STATUS_OF_FAILURE = 1
_READ = 1 << 20


def configure(parser: Parser) -> None:
    parser.switch("-a", "--archive", help="keep owners; else root inside, and here the caller")
    parser.switch("-L", "--follow-link", help="follow the link that SRC_PATH is")
    parser.switch("-q", "--quiet", help="do not say what was copied")
    parser.add_argument("source", metavar="SRC_PATH")
    parser.add_argument("target", metavar="DEST_PATH")


def run(args: argparse.Namespace, context: Context) -> int:
    source, inside_source = _split(args.source)
    target, inside_target = _split(args.target)
    if source and target:
        raise LaminaError("copying between containers is not supported", kind=Kind.UNSUPPORTED)
    if not source and not target:
        raise LaminaError(
            "must specify at least one container source: CONTAINER:PATH", kind=Kind.USAGE
        )
    if source:
        _copy_out(find(context.store(), source), inside_source, args, context)
    else:
        _copy_in(find(context.store(), target), inside_target, args, context)
    if context.stderr.isatty() and not args.quiet and "-" not in {args.source, args.target}:
        context.warn(f"Successfully copied to {args.target}")
    return 0


def _split(text: str) -> tuple[str, str]:
    """(container, path) of `CONTAINER:PATH`; no container for `/a:b`, `./a:b` and what has none."""
    name, colon, path = text.partition(":")
    if not colon or text.startswith((".", "/")):
        return "", text
    return name, os.path.join("/", path)


def _copy_out(container: Container, path: str, args: argparse.Namespace, context: Context) -> None:
    source = parse_source(path, follow=args.follow_link)

    def to_stdout(stream: IO[bytes]) -> None:
        while block := stream.read(_READ):
            context.stdout.buffer.write(block)
        context.stdout.flush()

    def to_host(stream: IO[bytes]) -> None:
        receive(
            stream,
            Target(
                os.fsencode(context.path(args.target)),
                contents=source.contents,
                directory=args.target.endswith("/"),
                owners=args.archive,
                privileged=context.uid == 0,
                bounded=True,
            ),
        )

    if args.target == "-" and context.stdout.isatty():
        raise LaminaError("refusing to write a tar archive to a terminal", kind=Kind.USAGE)
    copy_out(context.store(), container, source, to_stdout if args.target == "-" else to_host)


def _copy_in(container: Container, path: str, args: argparse.Namespace, context: Context) -> None:
    target = Target(os.fsencode(os.path.normpath(path)), directory=path.endswith("/"))
    if args.source == "-":

        def from_stdin(write: Callable[[bytes], object]) -> None:
            stream = decompressed(context.stdin.buffer)
            while block := stream.read(_READ):
                write(block)

        copy_in(context.store(), container, replace(target, is_archive=True), from_stdin)
        return
    host_path = context.path(args.source)
    if args.source.endswith(("/", "/.")) or args.source == ".":
        host_path = f"{host_path.rstrip('/')}/" + ("." if args.source.endswith(".") else "")
    source = parse_source(host_path, follow=args.follow_link)
    target = replace(target, contents=source.contents, owner=None if args.archive else (0, 0))
    copy_in(context.store(), container, target, lambda write: send(source, write))
