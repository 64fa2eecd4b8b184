# SPDX-License-Identifier: Apache-2.0
"""`type=tar` and `type=local`: the root filesystem itself, as a tar or in a directory."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager

from lamina.errors import Kind, LaminaError
from lamina.exporter.destination import StreamExport, write_aside
from lamina.exporter.ports import Exported
from lamina.exporter.progress import Told
from lamina.image.unpack import ensure_snapshot
from lamina.layer.apply import extract
from lamina.layer.entry import Entry, EntryType
from lamina.layer.tarwrite import write_tar
from lamina.layer.walk import tree_items
from lamina.start.record import replace
from lamina.system.mounts import overlay_fd
from lamina.system.paths import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import IO

    from lamina.exporter.ports import BuildResult, Output, PendingExport, PlatformResult
    from lamina.layer.entry import Items
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken, Work

    Tree = Callable[[], AbstractContextManager[Items]]

_NOTHING = Exported(None, None)
_SECOND = 1_000_000_000


class _RootfsExporter:
    """Reads the stack of layers as one tree, through a mount that nobody else sees."""

    def __init__(
        self,
        output: Output,
        *,
        stdout: IO[bytes] | None,
        privileged: bool,
    ) -> None:
        self._output = output
        self._stdout = stdout
        self._privileged = privileged

    def export(self, result: BuildResult, store: Store, *, work: Work) -> PendingExport:
        """See `Exporter.export`. Raises kind DENIED where mounting is not permitted."""
        tree = self._tree(result, store, work=work)
        place = ""
        if self._output.platform_split:
            config = result.config
            place = "_".join(filter(None, (config.os, config.architecture, config.variant)))
        return self._pending([place], [tree], work)

    def export_platforms(
        self, results: Sequence[PlatformResult], store: Store, *, work: Work
    ) -> PendingExport:
        """See `Exporter.export_platforms`: the trees side by side, or in one.

        Raises:
            LaminaError: kind CONFLICT if two platforms have a file of one path and are not split.
        """
        trees = [self._tree(part.result, store, work=work) for part in results]
        if self._output.platform_split is False:
            check_overlap(results, trees)
            return self._pending([""] * len(trees), trees, work)
        return self._pending([directory_of(part.platform) for part in results], trees, work)

    def _pending(self, places: Sequence[str], trees: Sequence[Tree], work: Work) -> PendingExport:
        """The trees below their places (empty: the destination itself)."""
        raise NotImplementedError

    def _tree(self, result: BuildResult, store: Store, *, work: Work) -> Tree:
        """A context manager's maker: the entries of the result's root filesystem."""
        chain = ensure_snapshot(store, result.diff_ids, work=work)
        mount = store.snapshots.view(chain)

        @contextmanager
        def items() -> Iterator[Items]:
            fd = overlay_fd(mount)
            try:
                yield _checked(tree_items(f"/proc/self/fd/{fd}"), result.epoch, work.cancel)
            finally:
                os.close(fd)

        return items


class LocalExporter(_RootfsExporter):
    """`type=local`: files in a directory."""

    def _pending(self, places: Sequence[str], trees: Sequence[Tree], work: Work) -> PendingExport:
        dest = self._output.dest
        pairs = zip(places, trees, strict=True)
        parts = [(os.path.join(dest, place) if place else dest, tree) for place, tree in pairs]
        return _LocalExport(parts, work, privileged=self._privileged)


class TarExporter(_RootfsExporter):
    """`type=tar`: a tar of the files, in a file or on standard output."""

    def _pending(self, places: Sequence[str], trees: Sequence[Tree], work: Work) -> PendingExport:
        def fill(write: Callable[[bytes], object]) -> None:
            with ExitStack() as stack:
                opened = [stack.enter_context(tree()) for tree in trees]
                write_tar(joined(places, opened), write)

        dest = self._output.dest
        if dest == "-":
            assert self._stdout is not None
            return StreamExport(self._stdout, fill, _NOTHING)
        with Told(work, dest, f"writing {dest}"):
            return write_aside(dest, fill, _NOTHING)


def joined(places: Iterable[str], trees: Iterable[Items]) -> Items:
    """The trees' entries, each below its place; a directory that several have is told once."""
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

    def __init__(self, parts: Sequence[tuple[str, Tree]], work: Work, *, privileged: bool) -> None:
        self._parts = parts
        self._work = work
        self._privileged = privileged

    def finalize(self) -> Exported:
        for dest, tree in self._parts:
            os.makedirs(dest, exist_ok=True)
            with Told(self._work, dest, f"writing {dest}"), tree() as found:
                extract(found, dest, owners=self._privileged, privileged=self._privileged)
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


def directory_of(platform: Platform) -> str:
    """The directory of a platform's files, as BuildKit names it: `linux_arm_v7`."""
    return str(platform).replace("/", "_")


def check_overlap(results: Sequence[PlatformResult], trees: Sequence[Tree]) -> None:
    """Raise LaminaError of kind CONFLICT if two platforms have a file of one path."""
    owners: dict[bytes, str] = {}
    for part, tree in zip(results, trees, strict=True):
        with tree() as items:
            for entry, _ in items:
                if entry.type is EntryType.DIR:
                    continue
                other = owners.setdefault(entry.path, str(part.platform))
                if other != str(part.platform):
                    raise LaminaError(
                        f"cannot overwrite {shown(entry.path)} from {other} with "
                        f"{part.platform} when split option is disabled",
                        kind=Kind.CONFLICT,
                    )
