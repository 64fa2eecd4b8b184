# SPDX-License-Identifier: Apache-2.0
"""Show what uses the store's disk space."""

from __future__ import annotations

from lamina.app.disk import disk_usage, in_order
from lamina.cli.format import ago, listing, status_text, table
from lamina.image.sizes import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.disk import DiskUsage, Row
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS]"
HEADERS = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}


def configure(parser: Parser) -> None:
    parser.switch("-v", "--verbose", help="every image, container and piece of build cache")
    parser.add_argument("--format", default=None, help="table, json, or a Go template")


def run(args: argparse.Namespace, context: Context) -> int:
    usage = disk_usage(context.store())
    if args.verbose and args.format in {None, "", "table"}:
        for line in _verbose(usage, context):
            context.print(line)
        return 0
    rows = [_row(row) for row in usage.rows]
    for line in listing(args.format, headers=HEADERS, default=tuple(HEADERS), rows=rows):
        context.print(line)
    return 0


def _row(row: Row) -> dict[str, object]:
    reclaimable = human_size(row.reclaimable)
    if row.size and row.type != "Build Cache":
        reclaimable += f" ({row.reclaimable * 100 // row.size}%)"
    return {
        "Type": row.type,
        "TotalCount": str(row.total),
        "Active": str(row.active),
        "Size": human_size(row.size),
        "Reclaimable": reclaimable,
    }


def _verbose(usage: DiskUsage, context: Context) -> list[str]:
    now = context.clock()
    images = []
    for image in usage.images:
        name, _, tag = (image.names[0] if image.names else "<none>:<none>").rpartition(":")
        total = human_size(image.shared + image.unique)
        id = image.id.rpartition(":")[2][:12]
        created = ago(now - image.created) if image.created else "N/A"
        sizes = [total, human_size(image.shared), human_size(image.unique)]
        images.append([name, tag, id, created, *sizes, str(image.containers)])
    containers = []
    for use in usage.containers:
        container, state = use.container, use.container.state()
        volumes = str(sum(m.type == "volume" for m in container.config.process.mounts))
        containers.append(
            [
                container.id[:12],
                container.config.image,
                volumes,
                human_size(use.size),
                ago(now - container.created),
                status_text(state, now=now),
                container.name,
            ]
        )
    cache = []
    for entry in in_order(usage.cache.entries):
        kind = "exec.cachemount" if entry.is_mount else "regular"
        size = human_size(usage.cache.size_of([entry]))
        times = [ago(now - entry.created), ago(now - entry.last_used)]
        id = entry.id if entry.is_mount else entry.id[:12]
        cache.append([id, kind, size, *times, str(entry.in_use).lower(), entry.name])
    image_headers = "REPOSITORY TAG IMAGE_ID CREATED SIZE SHARED_SIZE UNIQUE_SIZE CONTAINERS"
    container_headers = "CONTAINER_ID IMAGE LOCAL_VOLUMES SIZE CREATED STATUS NAMES"
    cache_headers = "CACHE_ID CACHE_TYPE SIZE CREATED LAST_USED SHARED DESCRIPTION"
    return [
        "Images space usage:\n",
        table(_titles(image_headers), images),
        "\nContainers space usage:\n",
        table(_titles(container_headers), containers),
        "\nLocal Volumes space usage:\n",
        table(
            _titles("VOLUME_NAME LINKS SIZE"),
            [[use.name, str(use.links), human_size(use.size)] for use in usage.volumes],
        ),
        f"\nBuild cache usage: {human_size(usage.cache.bytes)}\n",
        table(_titles(cache_headers), cache),
        f"\nTotal: {human_size(usage.total)} on disk",
    ]


def _titles(text: str) -> list[str]:
    return [word.replace("_", " ") for word in text.split()]
