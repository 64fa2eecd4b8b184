# SPDX-License-Identifier: Apache-2.0
"""A distribution's tree made a container's.

What belongs to the host or the moment (its hostname, its resolv.conf, device nodes, logs, caches)
is left out, and what makes apt behave in a container is added.
"""

from __future__ import annotations

import re

from lamina.layer.entry import Entry, EntryType, sort_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lamina.bootstrap.aptsources import AptSource
    from lamina.layer.entry import Item, Items

SECOND = 1_000_000_000  # nanoseconds

# What the tool leaves of this host or of the moment; directories stay.
_DROPPED = re.compile(
    rb"dev/.+"  # the runtime makes them; unpacking them needs privileges
    rb"|etc/(hostname|resolv\.conf|\.pwd\.lock|dpkg/dpkg\.cfg\.d/99mmdebstrap)"
    rb"|var/log/(.+/)?[^/]*(\.log|\.log\.\d+|term\.log|history\.log|eipp\.log\.xz)"
    rb"|var/cache/apt/(.*\.bin|archives/(lock|.*\.deb|partial/.+))"
    rb"|var/cache/ldconfig/aux-cache"
    rb"|var/cache/debconf/.*-old"
    rb"|var/lib/dpkg/[^/]*-old"
    rb"|var/lib/dpkg/lock(-frontend)?"
    rb"|var/lib/apt/lists/(lock|[^/]+_.*|partial/.+)"
    rb"|var/lib/systemd/(catalog/database|random-seed)"
    rb"|run/.*\.(pid|lock)"
    rb"|tmp/.+"
)
_EMPTIED = frozenset({b"etc/machine-id", b"var/lib/dbus/machine-id"})  # machine-id(5): made at boot
# As the distributions' own container images have it: no service starts, no .deb stays, no
# translations are fetched, and dpkg does not flush each file of a layer that is not yet one.
_ADDED: dict[bytes, tuple[int, bytes]] = {
    b"usr/sbin/policy-rc.d": (0o755, b"#!/bin/sh\n# no service starts in an image\nexit 101\n"),
    b"etc/dpkg/dpkg.cfg.d/container": (0o644, b"force-unsafe-io\n"),
    b"etc/apt/apt.conf.d/docker-clean": (
        0o644,
        (
            b'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };\n'
            b'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
        ),
    ),
    b"etc/apt/apt.conf.d/docker-no-languages": (0o644, b'Acquire::Languages "none";\n'),
}


def contained(items: Items, sources: Sequence[AptSource], *, mtime: int) -> Iterator[Item]:
    """The tree as a container's: without what is this host's, with what apt needs; sorted."""
    added = {
        path: file_item(path, data, mode=mode, mtime=mtime) for path, (mode, data) in _ADDED.items()
    }
    if sources:
        listed = "".join(f"{source.line()}\n" for source in sources).encode()
        added[b"etc/apt/sources.list"] = file_item(
            b"etc/apt/sources.list", listed, mode=0o644, mtime=mtime
        )
    waiting = sorted(added, key=sort_key, reverse=True)
    for entry, content in items:
        while waiting and sort_key(waiting[-1]) < sort_key(entry.path):
            yield added[waiting.pop()]
        if entry.path in added or _DROPPED.fullmatch(entry.path):
            continue
        if entry.path in _EMPTIED and entry.type is EntryType.FILE:
            yield file_item(entry.path, b"", mode=entry.mode, mtime=mtime)
            continue
        yield entry, content
    while waiting:
        yield added[waiting.pop()]


def file_item(path: bytes, data: bytes, *, mode: int, mtime: int) -> Item:
    entry = Entry(path, EntryType.FILE, mode, size=len(data), mtime_ns=mtime * SECOND)
    return entry, data or None
