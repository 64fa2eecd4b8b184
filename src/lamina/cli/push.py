# SPDX-License-Identifier: Apache-2.0
"""Push an image of the store to a registry."""

from __future__ import annotations

from lamina.app.pushing import names_of_repository, push_image
from lamina.cli.view import make_view
from lamina.errors import Kind, LaminaError
from lamina.spec.platform import Platform
from lamina.spec.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] NAME[:TAG]"


def configure(parser: Parser) -> None:
    parser.switch("-a", "--all-tags", help="push every tag of the repository that is in the store")
    parser.add_argument("--platform", default="", help="of an image for several, push this one")
    parser.switch("-q", "--quiet", help="print the name only")
    parser.add_argument("--progress", default="", choices=["auto", "plain", "tty", "json", "quiet"])
    parser.add_argument("--jobs", type=int, default=5, help="layers at one time (default 5)")
    parser.refuse("--disable-content-trust", why="there is no content trust to disable")
    parser.add_argument("name", metavar="NAME")


def run(args: argparse.Namespace, context: Context) -> int:
    if args.jobs < 1:
        raise LaminaError(f"--jobs must be at least 1, got {args.jobs}", kind=Kind.USAGE)
    if not args.all_tags and not args.quiet and not Reference.parse(args.name).tag:
        context.print("Using default tag: latest")
    names = names_of_repository(context.store(), args.name) if args.all_tags else [args.name]
    push_names(
        names,
        context,
        platform=args.platform,
        jobs=args.jobs,
        progress=args.progress or "auto",
        quiet=args.quiet,
    )
    return 0


def push_names(
    names: list[str],
    context: Context,
    *,
    platform: str = "",
    jobs: int = 5,
    progress: str = "auto",
    quiet: bool = False,
) -> None:
    """Push each and print what Docker prints."""
    view = make_view(progress, context, quiet=quiet, builds=False)
    pushed = []
    try:
        with context.registries() as registries:
            for name in names:
                one = push_image(
                    context.store(),
                    registries,
                    name,
                    host=context.platform(),
                    platform=Platform.parse(platform) if platform else None,
                    jobs=jobs,
                    work=context.work(view),
                )
                pushed.append(one)
    finally:
        view.close()
    for one in pushed:
        if quiet:
            context.print(str(one.reference))
            continue
        context.print(
            f"{one.reference.tag}: digest: {one.target.digest} size: {one.target.size} "
            f"({one.moved} blobs pushed, {one.mounted} mounted, {one.present} already there)"
        )
