# SPDX-License-Identifier: Apache-2.0
"""Make a base image from the distribution's packages, without a registry."""

from __future__ import annotations

import os

from lamina.app.images import tagged_reference
from lamina.bootstrap.images import bootstrap
from lamina.bootstrap.options import PATH, BootstrapOptions
from lamina.cli.change_flag import add_change_flag
from lamina.cli.ui.escape import printable
from lamina.cli.values import parse_epoch
from lamina.errors import Kind, LaminaError
from lamina.events import Notice
from lamina.spec.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context
    from lamina.events import Event

USAGE = "[OPTIONS] debian:SUITE|ubuntu:SUITE|busybox"


def configure(parser: Parser) -> None:
    parser.add_argument(
        "-t", "--tag", action="append", default=[], metavar="NAME", help="name (default: WHAT)"
    )
    parser.add_argument(
        "--include", action="append", default=[], metavar="PKG[,PKG...]", help="further packages"
    )
    parser.add_argument("--variant", default="minbase", help="set of packages (default minbase)")
    parser.add_argument("--mirror", default="", metavar="URL", help="default: the host's own")
    parser.add_argument("--components", action="append", default=[], help="default: main")
    parser.add_argument(
        "-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="set in the image"
    )
    add_change_flag(parser)
    parser.add_argument("--platform", default="", help="default: this host's")
    parser.add_argument(
        "--arch", default="", help="as --platform, by architecture: arm64, armhf, i386..."
    )
    parser.switch("-q", "--quiet", help="print only the image id")
    parser.add_argument("what", metavar="WHAT", help="debian:bookworm, debian:stable, busybox...")


def run(args: argparse.Namespace, context: Context) -> int:
    names = args.tag or [args.what]
    options = BootstrapOptions(
        what=args.what,
        names=tuple(str(tagged_reference(name)) for name in names),
        platform=_platform(args) or context.platform(),
        created=context.clock(),
        epoch=parse_epoch(context.env.get("SOURCE_DATE_EPOCH", "")),
        include=_words(args.include),
        variant=args.variant,
        mirror=args.mirror,
        components=_words(args.components),
        env=tuple(_variable(text) for text in args.env),
        changes=tuple(args.change),
        search_path=f"{context.env.get('PATH', '')}:{PATH}",
        tool_env=tuple(context.env.items()),
        uid=context.uid,
        host=context.platform(),
    )
    packed = bootstrap(
        context.store(),
        options,
        key=str(os.getpid()),
        emit=_Lines(context, quiet=args.quiet),
        cancel=context.token(),
    )
    context.print(str(packed.config))
    return 0


def _platform(args: argparse.Namespace) -> Platform | None:
    if args.platform and args.arch:
        raise LaminaError("give --arch or --platform, not both", kind=Kind.USAGE)
    if not args.platform and not args.arch:
        return None
    platform = Platform.parse(args.platform or args.arch)
    if platform.os != "linux":
        raise LaminaError(
            f"cannot bootstrap an image for {platform}: Linux only", kind=Kind.UNSUPPORTED
        )
    return platform


def _words(texts: Sequence[str]) -> tuple[str, ...]:
    """The words of `a,b` given once or several times, each once."""
    words = [word for text in texts for word in text.replace(" ", ",").split(",") if word]
    return tuple(dict.fromkeys(words))


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise LaminaError(f"invalid variable {text!r}: expected NAME=VALUE", kind=Kind.USAGE)
    return name, value


class _Lines:
    """An emitter that prints notices as progress lines on standard error."""

    def __init__(self, context: Context, *, quiet: bool) -> None:
        self._context = context
        self._quiet = quiet

    def __call__(self, event: Event) -> None:
        if isinstance(event, Notice) and not self._quiet:
            self._context.warn(printable(event.message))
