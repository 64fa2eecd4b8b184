# SPDX-License-Identifier: Apache-2.0
"""Remove unused data: stopped containers, networks, images, build cache and volumes."""

from __future__ import annotations

from lamina.app.containers import Host
from lamina.app.disk import (
    Pruned,
    prune_cache,
    prune_containers,
    prune_images,
    prune_volumes,
)
from lamina.app.networks import prune as prune_networks
from lamina.cli.prune import (
    CACHE,
    CONTAINERS,
    IMAGES,
    NETWORKS,
    VOLUMES,
    add_flags,
    confirmed,
    parse_filters,
    show,
)
from lamina.errors import Kind, LaminaError
from lamina.store.eviction import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS]"


def configure(parser: Parser) -> None:
    parser.switch("-a", "--all", help="all unused images and all build cache, not only dangling")
    parser.switch("--volumes", help="anonymous volumes too")
    add_flags(parser, filters="what matches: until=, label=, label!=")


def run(args: argparse.Namespace, context: Context) -> int:
    if args.volumes and any(text.startswith("until=") for text in args.filter):
        raise LaminaError(
            'the "until" filter is not supported with "--volumes"', kind=Kind.UNSUPPORTED
        )
    wanted = parse_filters(args.filter, context)
    if not confirmed(_question(args), context, what="system", force=args.force):
        return 1
    store, settings = context.store(), context.settings()
    host = Host(runtime=settings.runtime, subnet=settings.subnet)
    platform, emit = context.platform(), context.notices
    pruned = [
        (CONTAINERS, prune_containers(store, host, wanted=wanted)),
        (NETWORKS, Pruned(tuple(prune_networks(store, takes=wanted.takes)), 0)),
        (
            IMAGES,
            prune_images(store, all_unused=args.all, wanted=wanted, platform=platform, emit=emit),
        ),
    ]
    if not (wanted.labels or wanted.without):  # cache has no labels: none of it matches
        limits = Limits(unused_since=wanted.until, dangling_only=not args.all)
        pruned.append((CACHE, prune_cache(store, limits, emit=emit)))
    if args.volumes:
        pruned.insert(1, (VOLUMES, prune_volumes(store, all_unused=False, wanted=wanted)))
    show(pruned, context)
    return 0


def _question(args: argparse.Namespace) -> str:
    what = ["all stopped containers", "all networks not used by at least one container"]
    if args.volumes:
        what.append("all anonymous volumes not used by at least one container")
    if args.all:
        what += ["all images without at least one container associated to them", "all build cache"]
    else:
        what += ["all dangling images", "unused build cache"]
    lines = ["WARNING! This will remove:", *[f"  - {each}" for each in what], ""]
    if args.filter:
        lines += ["  Items to be pruned will be filtered with:"]
        lines += [*[f"  - {each}" for each in sorted(args.filter)], ""]
    return "\n".join([*lines, "Are you sure you want to continue?"])
