# SPDX-License-Identifier: Apache-2.0
"""Remove images."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] IMAGE [IMAGE...]"


def configure(parser: Parser) -> None:
    parser.switch("-f", "--force", help="also names of images in use; missing ones are no error")
    parser.switch("--no-prune", help="leave the bytes to a later collection")
    parser.refuse("--platform", why="an image is removed as a whole")
    parser.add_argument("images", nargs="+", metavar="IMAGE")


def run(args: argparse.Namespace, context: Context) -> int:
    from lamina.app.images import collect_garbage
    from lamina.app.removing import remove_image

    store = context.store()
    errors: list[LaminaError] = []
    removed = 0
    for text in args.images:
        try:
            removals = remove_image(store, text, force=args.force)
        except LaminaError as error:
            if not (args.force and error.kind is Kind.NOT_FOUND):
                errors.append(error)
            continue
        removed += len(removals)
        for removal in removals:
            context.print(f"{removal.verb}: {removal.subject}")
    if removed and not args.no_prune:
        collect_garbage(store, emit=context.notices)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup("some images were not removed", errors)
    return 0
