# SPDX-License-Identifier: Apache-2.0
"""Comparing snapshots with the layers that they are.

A layer that lamina made gives its diffID again. One of another tool's making is unpacked once more,
aside, from a blob that is sound, and compared entry by entry. Where neither works the snapshot is
counted as not checked.
"""

from __future__ import annotations

import hashlib
import json
import os

from lamina.errors import Kind, LaminaError
from lamina.layer.apply import apply_layer
from lamina.layer.compress import decompressed
from lamina.layer.create import create_layer
from lamina.layer.entry import EntryType
from lamina.layer.walk import overlay_items
from lamina.spec.digest import DiffID, Digest, Stack
from lamina.spec.identity import chain_ids
from lamina.start.record import Record
from lamina.store.fsck import SNAPSHOT, Finding
from lamina.store.working import sweep_working, working_key
from lamina.system.mounts import opened_layers
from lamina.system.removal import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from lamina.layer.entry import Content, Items
    from lamina.spec.descriptor import Descriptor
    from lamina.store.fsck import Needed
    from lamina.store.local import LocalStore
    from lamina.tasks import CancelToken

QUARANTINE = "quarantine"


class Stacked(Record):
    """A committed snapshot's row, and the stack it is the top of, if anything knows it."""

    number: int
    chain: str
    parent: str | None
    stack: Stack
    images: tuple[str, ...]


class SnapshotCheck:
    """Looks at the snapshots of a store; `unchecked` counts those that nothing tells about."""

    def __init__(
        self, store: LocalStore, needed: Needed, damaged: set[str], *, cancel: CancelToken
    ) -> None:
        self._store = store
        self._needed = needed
        self._damaged = damaged
        self._cancel = cancel
        self.unchecked = 0

    def stacked(self) -> list[Stacked]:
        """The committed snapshots that count as existing, lowest first."""
        stacks, images = self._stacks()
        rows = self._store.database.read(
            "SELECT id, name, parent FROM snapshots WHERE committed = 1 ORDER BY id"
        )
        whole = {info.name for info in self._store.snapshots.walk() if info.committed}
        found = [
            Stacked(number, name, parent, stacks.get(name, ()), images.get(name, ()))
            for number, name, parent in rows
            if name in whole
        ]
        return sorted(found, key=lambda each: (len(each.stack), each.number))

    def run(self) -> Iterator[Finding]:
        """What is damaged."""
        present = self.stacked()
        names = {each.chain for each in present}
        for each in present:
            self._cancel.check()
            problem = self._problem(each, names)
            if problem and self._is_there(each):
                yield Finding(SNAPSHOT, each.chain, problem, each.images)
        query = "SELECT id, name FROM snapshots WHERE committed = 0"
        for number, name in self._store.database.read(query):
            home = os.path.join(self._store.snapshots.directory, str(number), "fs")
            is_gone = not os.path.isdir(home)
            if is_gone and self._store.database.read(f"{query} AND id = ?", (number,)):
                yield Finding(SNAPSHOT, str(name), "its directory is gone")

    def _stacks(self) -> tuple[dict[str, Stack], dict[str, tuple[str, ...]]]:
        """Stacks by the chainID of their top, and the images that need each."""
        stacks: dict[str, Stack] = {}
        images: dict[str, tuple[str, ...]] = {}
        for stack, names in self._needed.stacks.items():
            for position, chain in enumerate(chain_ids(stack), start=1):
                stacks[str(chain)] = stack[:position]
                images[str(chain)] = tuple(dict.fromkeys((*images.get(str(chain), ()), *names)))
        for (text,) in self._store.database.read("SELECT DISTINCT result FROM cache"):
            try:
                result = tuple(DiffID(Digest.parse(part)) for part in json.loads(text))
            except (LaminaError, ValueError, TypeError, AttributeError):
                continue
            for position, chain in enumerate(chain_ids(result), start=1):
                stacks.setdefault(str(chain), result[:position])
        return stacks, images

    def _is_there(self, each: Stacked) -> bool:
        """Whether the row is still there: GC may have removed it while it was looked at."""
        query = "SELECT 1 FROM snapshots WHERE id = ? AND name = ?"
        return bool(self._store.database.read(query, (each.number, each.chain)))

    def _problem(self, each: Stacked, present: set[str]) -> str:
        if each.parent is not None and each.parent not in present:
            return "the snapshot below it is gone"
        layer = self._store.snapshots.layer(each.chain)
        if not os.path.exists(layer if isinstance(layer, str) else layer.path):
            return "its directory is gone"
        if not each.stack:
            self.unchecked += 1
            return ""
        try:
            with opened_layers([layer]) as (directory,):
                return self._compared(each, directory)
        except (LaminaError, OSError) as error:
            return str(error)

    def _compared(self, each: Stacked, directory: str) -> str:
        if self._gives(directory, each.stack[-1]):
            return ""
        sound = sound_blobs(self._store, each.stack[-1], self._damaged)
        if not sound:
            self.unchecked += 1
            return ""
        with Fresh(self._store, each, sound, cancel=self._cancel) as fresh:
            if fingerprint(fresh.directory) == fingerprint(directory):
                return ""
        return "its files are not those of the layer"

    def _gives(self, directory: str, diff_id: DiffID) -> bool:
        made = create_layer(overlay_items(directory), None, cancel=self._cancel)
        return made.diff_id == diff_id


def sound_blobs(store: LocalStore, diff_id: DiffID, damaged: set[str]) -> list[Descriptor]:
    """Blobs of the layer that are here and not among the damaged."""
    known = store.metadata.get_layer(diff_id)
    return [
        blob
        for blob in (known.blobs if known is not None else ())
        if str(blob.digest) not in damaged and store.content.exists(blob.digest)
    ]


class Fresh:
    """The layer unpacked once more, in `directory`; a context manager that removes it again."""

    def __init__(
        self, store: LocalStore, each: Stacked, blobs: Iterable[Descriptor], *, cancel: CancelToken
    ) -> None:
        self._store = store
        self._each = each
        self._blobs = list(blobs)
        self._cancel = cancel
        self._key = ""
        self.directory = ""

    def __enter__(self) -> Self:
        sweep_working(self._store)
        parent = self._each.stack[:-1]
        chains = chain_ids(parent)
        self._key = working_key(f"fsck:{self._each.chain}")
        mount = self._store.snapshots.prepare(self._key, chains[-1] if chains else None)
        try:
            with (
                self._store.content.open(self._blobs[0].digest) as file,
                opened_layers(mount.lowers) as lowers,
            ):
                applied = apply_layer(
                    decompressed(file), mount.upper, lowers=lowers, cancel=self._cancel
                )
            if applied.diff_id != self._each.stack[-1]:
                raise LaminaError("its blob holds another layer", kind=Kind.INTEGRITY)
        except BaseException:
            self._store.snapshots.remove(self._key)
            raise
        self.directory = mount.upper
        return self

    def __exit__(self, *exc: object) -> None:
        self._store.snapshots.remove(self._key)

    def take_place(self) -> None:
        """Put it where the damaged one is, which goes to the quarantine."""
        home = os.path.join(self._store.snapshots.directory, str(self._each.number))
        aside = quarantined(self._store, f"snapshot-{self._each.number}")
        os.makedirs(home, mode=0o700, exist_ok=True)
        image = os.path.join(home, "layer.erofs")
        if os.path.lexists(image):
            os.rename(image, quarantined(self._store, f"snapshot-{self._each.number}.erofs"))
        present = os.path.join(home, "fs")
        if os.path.lexists(present):
            os.rename(present, aside)
        os.rename(self.directory, present)
        os.makedirs(os.path.join(home, "work"), mode=0o700, exist_ok=True)
        self._store.database.write(
            lambda transaction: transaction.run(
                "UPDATE snapshots SET form = 'directory' WHERE id = ?", (self._each.number,)
            )
        )
        os.mkdir(self.directory)  # of the working snapshot, which is removed whole


def quarantined(store: LocalStore, name: str) -> str:
    """The path in the quarantine that a damaged file of that name goes to; an older one goes."""
    directory = os.path.join(store.root, QUARANTINE)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    path = os.path.join(directory, name)
    if os.path.lexists(path):
        remove_tree(path)
    return path


def fingerprint(directory: str) -> str:
    """A digest of all that a layer says of its tree. Times of directories are left out: a parent
    that no layer names gets the time of its making.
    """
    hasher = hashlib.sha256()
    items: Items = overlay_items(directory)
    for entry, content in items:
        seconds = 0 if entry.type is EntryType.DIR else entry.mtime_ns // 1_000_000_000
        told = (entry.path, entry.type.name, entry.mode, entry.uid, entry.gid, entry.size, seconds,
                entry.linkname, entry.devmajor, entry.devminor, entry.xattrs)  # fmt: skip
        hasher.update(repr(told).encode())
        hasher.update(_content(content))
    return hasher.hexdigest()


def _content(content: Content) -> bytes:
    if content is None or isinstance(content, bytes):
        return content or b""
    assert callable(content)
    fd = content()
    hasher = hashlib.sha256()
    try:
        while data := os.read(fd, 1 << 20):
            hasher.update(data)
    finally:
        os.close(fd)
    return hasher.digest()
