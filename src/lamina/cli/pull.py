# SPDX-License-Identifier: Apache-2.0
"""Pull an image from a registry into the store."""

from __future__ import annotations

from lamina.app.pulling import PullOptions, pull_all_tags, pull_image
from lamina.cli.view import make_view
from lamina.errors import Kind, LaminaError
from lamina.spec.platform import Platform
from lamina.spec.reference import Reference
from lamina.system.userns import is_possible

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.pulling import Pulled
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] NAME[:TAG|@DIGEST]"


def configure(parser: Parser) -> None:
    parser.switch("-a", "--all-tags", help="pull every tag of the repository")
    parser.add_argument("--platform", default="", help="the platform to pull (default: this host)")
    parser.switch("--all-platforms", help="pull the images for every platform")
    parser.switch("-q", "--quiet", help="print the name only")
    parser.add_argument("--progress", default="", choices=["auto", "plain", "tty", "json", "quiet"])
    parser.add_argument("--jobs", type=int, default=4, help="layers at one time (default 4)")
    parser.switch("--no-unpack", help="keep the layers packed until they are first used")
    parser.refuse("--disable-content-trust", why="there is no content trust to disable")
    parser.add_argument("name", metavar="NAME")


def run(args: argparse.Namespace, context: Context) -> int:
    if args.jobs < 1:
        raise LaminaError(f"--jobs must be at least 1, got {args.jobs}", kind=Kind.USAGE)
    options = PullOptions(
        host=context.platform(),
        platform=Platform.parse(args.platform) if args.platform else None,
        all_platforms=args.all_platforms,
        jobs=args.jobs,
        unpack=not args.no_unpack and is_possible(),
    )
    reference = Reference.parse(args.name)
    if not args.quiet and not args.all_tags and not reference.tag and reference.digest is None:
        context.print("Using default tag: latest")
    view = make_view(args.progress or "auto", context, quiet=args.quiet, builds=False)
    pull = pull_all_tags if args.all_tags else pull_image
    try:
        with context.registries() as registries:
            pulled = pull(context.store(), registries, args.name, options, work=context.work(view))
    finally:
        view.close()
    for one in pulled if isinstance(pulled, list) else [pulled]:
        _print(one, context, quiet=args.quiet)
    return 0


def _print(pulled: Pulled, context: Context, *, quiet: bool) -> None:
    if not quiet:
        familiar = pulled.reference.familiar()
        context.print(f"Digest: {pulled.target.digest}")
        said = "Downloaded newer image for" if pulled.is_new else "Image is up to date for"
        context.print(f"Status: {said} {familiar}")
    context.print(str(pulled.reference))
