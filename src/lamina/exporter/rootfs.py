# SPDX-License-Identifier: Apache-2.0
"""`type=tar` and `type=local`: the root filesystem itself, as a tar or in a directory."""

from __future__ import annotations

import os
from contextlib import contextmanager

from lamina.exporter.destination import StreamExport, write_aside
from lamina.exporter.ports import Exported
from lamina.exporter.progress import Tell
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from typing import IO

    from lamina.events import Emitter
    from lamina.exporter.output import Output
    from lamina.exporter.ports import BuildResult, PendingExport
    from lamina.layer.entry import Items
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

    Tree = Callable[[], AbstractContextManager[Items]]

_NOTHING = Exported(None, None)
_SECOND = 1_000_000_000


class RootfsExporter:
    """Reads the stack of layers as one tree, through a mount that nobody else sees."""

    def __init__(
        self,
        output: Output,
        clock: Callable[[], float],
        stdout: IO[bytes] | None,
        *,
        privileged: bool,
    ) -> None:
        self._output = output
        self._clock = clock
        self._stdout = stdout
        self._privileged = privileged

    def export(
        self, result: BuildResult, store: Store, *, emit: Emitter, cancel: CancelToken
    ) -> PendingExport:
        """See `Exporter.export`. Raises kind DENIED where mounting is not permitted."""
        tree = self.tree(result, store, emit=emit, cancel=cancel)
        place = ""
        if self._output.platform_split:
            config = result.config
            place = "_".join(filter(None, (config.os, config.architecture, config.variant)))
        if self._output.type == "local":
            return self.local(place, tree, emit)

        def fill(write: Callable[[bytes], object]) -> None:
            from lamina.layer.tarwrite import write_tar

            with tree() as found:
                write_tar(joined([place], [found]), write)

        return self.tar(fill, emit)

    def tree(
        self, result: BuildResult, store: Store, *, emit: Emitter, cancel: CancelToken
    ) -> Tree:
        """A context manager's maker: the entries of the result's root filesystem."""
        from lamina.image.unpack import ensure_snapshot

        chain = ensure_snapshot(store, result.diff_ids, emit=emit, cancel=cancel)
        mount = store.snapshots.view(chain)

        @contextmanager
        def items() -> Iterator[Items]:
            from lamina.layer.walk import tree_items
            from lamina.system.mounts import overlay_fd

            fd = overlay_fd(mount)
            try:
                yield _checked(tree_items(f"/proc/self/fd/{fd}"), result.epoch, cancel)
            finally:
                os.close(fd)

        return items

    def local(self, place: str, tree: Tree, emit: Emitter) -> PendingExport:
        """The tree in the directory `place` (empty: the destination itself)."""
        dest = os.path.join(self._output.dest, place) if place else self._output.dest
        return _LocalExport(dest, tree, Tell(emit, self._clock), privileged=self._privileged)

    def tar(
        self, fill: Callable[[Callable[[bytes], object]], None], emit: Emitter
    ) -> PendingExport:
        """What `fill` writes, as a file or on standard output."""
        dest = self._output.dest
        if dest == "-":
            assert self._stdout is not None
            return StreamExport(self._stdout, fill, _NOTHING)
        with Tell(emit, self._clock).task(dest, f"writing {dest}"):
            return write_aside(dest, fill, _NOTHING)


def joined(places: Iterable[str], trees: Iterable[Items]) -> Items:
    """The trees' entries, each below its place; a directory that several have is told once."""
    from lamina.layer.entry import Entry, EntryType

    seen: set[bytes] = set()
    for place, items in zip(places, trees, strict=True):
        if not place:
            for entry, content in items:
                if entry.type is not EntryType.DIR or entry.path not in seen:
                    seen.add(entry.path)
                    yield entry, content
            continue
        prefix = f"{place}/".encode()
        yield Entry(place.encode(), EntryType.DIR, 0o755), None
        for entry, content in items:
            link = entry.linkname
            if entry.type is EntryType.HARDLINK:
                link = prefix + link
            yield replace(entry, path=prefix + entry.path, linkname=link), content


class _LocalExport:
    """Files are merged into the directory when it is finalised: that cannot be taken back."""

    def __init__(
        self,
        dest: str,
        items: Callable[[], AbstractContextManager[Items]],
        tell: Tell,
        *,
        privileged: bool,
    ) -> None:
        self._dest = dest
        self._items = items
        self._tell = tell
        self._privileged = privileged

    def finalize(self) -> Exported:
        from lamina.layer.apply import extract

        os.makedirs(self._dest, exist_ok=True)
        with self._tell.task(self._dest, f"writing {self._dest}"), self._items() as found:
            extract(found, self._dest, owners=self._privileged, privileged=self._privileged)
        return _NOTHING

    def discard(self) -> None:
        """Nothing was written."""


def _checked(items: Items, epoch: int | None, cancel: CancelToken) -> Items:
    """The items, mtimes clamped to the epoch, stopping when cancelled."""
    limit = None if epoch is None else epoch * _SECOND
    for entry, content in items:
        cancel.check()
        if limit is not None and entry.mtime_ns > limit:
            yield replace(entry, mtime_ns=limit), content
        else:
            yield entry, content
