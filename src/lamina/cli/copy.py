# SPDX-License-Identifier: Apache-2.0
"""Copy an image between registries, image layouts, archives and the store."""

from __future__ import annotations

from lamina.app.copying import CopyOptions, copy
from lamina.cli.places import parse_place
from lamina.cli.view import make_view
from lamina.errors import Kind, LaminaError
from lamina.spec.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] SOURCE TARGET"


def configure(parser: Parser) -> None:
    parser.switch("--all-platforms", help="copy an index whole (skopeo's --all)")
    parser.switch("-a", "--all", help="as --all-platforms")
    parser.add_argument("--platform", default="", help="of an index, copy this one")
    parser.switch("-q", "--quiet", help="no progress")
    parser.add_argument("--progress", default="", choices=["auto", "plain", "tty", "json", "quiet"])
    parser.add_argument("--jobs", type=int, default=4, help="layers at one time (default 4)")
    why = "log in with 'lamina login'"
    for name in ("--src-creds", "--dest-creds", "--creds"):
        parser.refuse(name, why=why)
    for name in ("--src-tls-verify", "--dest-tls-verify"):
        parser.refuse(name, why="mark the registry insecure in registries.conf")
    help = "NAME, store:NAME, oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME]"
    parser.add_argument("source", help=help)
    parser.add_argument("target", help="the same")


def run(args: argparse.Namespace, context: Context) -> int:
    if args.jobs < 1:
        raise LaminaError(f"--jobs must be at least 1, got {args.jobs}", kind=Kind.USAGE)
    if args.platform and (args.all_platforms or args.all):
        raise LaminaError("--platform and --all-platforms contradict each other", kind=Kind.USAGE)
    source = parse_place(args.source, absolute=context.path)
    target = parse_place(args.target, absolute=context.path)
    options = CopyOptions(
        host=context.platform(),
        platform=Platform.parse(args.platform) if args.platform else None,
        all_platforms=args.all_platforms or args.all,
        jobs=args.jobs,
    )
    view = make_view(args.progress or "auto", context, quiet=args.quiet, builds=False)
    try:
        with context.registries() as registries:
            copied = copy(
                context.store(), registries, source, target, options, work=context.work(view)
            )
    finally:
        view.close()
    context.print(str(copied.digest))
    return 0
