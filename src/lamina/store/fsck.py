# SPDX-License-Identifier: Apache-2.0
"""Finding what is damaged in a store: every blob, row, name and snapshot, and what belongs to none.

| part | how a flipped bit is found |
|---|---|
| blobs | their digest; layers also by the diffID that is recorded for them |
| images | their manifests and configs must be such as lamina reads |
| `index.json`, `oci-layout` | they must be what the database's names give |
| the database | sqlite's integrity check; checksums of cache records; digests of copied documents;
  names against `index.json` |
| snapshots (fsck_snapshots) | the diffID they give, or what their blob unpacks to |

What has no second copy and no digest cannot be checked: times, documents that are still JSON,
containers' own files, contents of cache mounts. This only looks; `app.fsck` repairs.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat

from lamina.errors import Kind, LaminaError
from lamina.events import Progress
from lamina.layer.compress import decompressed
from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import HEX_LENGTH, Digest, Stack
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.identity import chain_ids
from lamina.spec.manifest import MAX_ENTRIES, children
from lamina.start.record import Record
from lamina.store import cachemounts, layoutindex
from lamina.store import database as databases
from lamina.store.copies import damaged_copies, find_copy
from lamina.store.metadata import parse_cache_row
from lamina.system.locks import FileLock
from lamina.system.paths import names_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.store.local import LocalStore
    from lamina.tasks import Work

_CHUNK = 1 << 20
_REPORT_EVERY = 64 << 20  # bytes of blobs between progress events

# What a finding is about
BLOB, MISSING, LAYER, NAME, CACHE, LAYOUT = "blob", "missing", "layer", "name", "cache", "layout"
DATABASE, SNAPSHOT, DOCUMENT, MOUNT, STRAY, IMAGE, COPY = (
    "database", "snapshot", "document", "cache mount", "stray", "image", "copy",
)  # fmt: skip


class Finding(Record):
    """Something that is not as it should be. `part` is one of the words above, `subject` a digest,
    chainID, name or path below the root; `images` are the names that need it. A STRAY only takes
    space.
    """

    part: str
    subject: str
    problem: str
    images: tuple[str, ...] = ()

    @property
    def is_damage(self) -> bool:
        """Whether something is lost or may be used wrongly, unless it is repaired."""
        return self.part != STRAY


class Needed(Record):
    """What images need: descriptors by digest, the names that need each, and their stacks."""

    descriptors: dict[str, Descriptor]
    images: dict[str, tuple[str, ...]]
    stacks: dict[Stack, tuple[str, ...]]


class Fsck:
    """One look at a store. `emit` gets progress; hold a lease meanwhile."""

    def __init__(self, store: LocalStore, *, work: Work) -> None:
        self._store = store
        self._work = work
        self.damaged: set[str] = set()  # digests of blobs

    def database(self) -> list[Finding]:
        """The database as sqlite sees it. Nothing else may be asked while this finds something:
        what reads the database repairs it.
        """
        path = self._store.database.path
        try:
            connection = databases.connect(path)
            try:
                rows = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
            finally:
                connection.close()
        except sqlite3.DatabaseError as error:
            rows = [str(error)]
        return [Finding(DATABASE, databases.FILE, row) for row in rows if row != "ok"]

    # Blobs ----------------------------------------------------------------------------------------

    def blobs(self, needed: Needed) -> Iterator[Finding]:
        """Every file below `blobs`."""
        top = os.path.join(self._store.root, "blobs")
        paths = [
            (algorithm, name)
            for algorithm in sorted(os.listdir(top))
            for name in names_in(os.path.join(top, algorithm))
        ]
        total = sum(_size(os.path.join(top, *path)) for path in paths)
        current = reported = 0
        for algorithm, name in paths:
            self._work.cancel.check()
            path = os.path.join(top, algorithm, name)
            current += _size(path)
            finding = self._blob(algorithm, name, path, needed)
            if finding is not None:
                yield finding
            if current - reported >= _REPORT_EVERY or (algorithm, name) == paths[-1]:
                reported = current
                self._progress("checking blobs", current, total, done=current >= total)

    def _blob(self, algorithm: str, name: str, path: str, needed: Needed) -> Finding | None:
        relative = os.path.join("blobs", algorithm, name)
        try:
            if algorithm not in HEX_LENGTH:
                raise LaminaError("unknown algorithm", kind=Kind.INVALID)
            digest = Digest(algorithm, name)
        except LaminaError:
            return Finding(STRAY, relative, "not the name of a blob")
        text = str(digest)
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                problem = "not a file"
            else:
                self._store.content.verify(digest)
                return None
        except FileNotFoundError:
            return None  # removed meanwhile
        except LaminaError as error:
            if error.kind is Kind.NOT_FOUND:
                return None
            problem = (
                "the bytes do not have its digest" if error.kind is Kind.INTEGRITY else str(error)
            )
        self.damaged.add(text)
        return Finding(BLOB, text, problem, needed.images.get(text, ()))

    def layers(self) -> Iterator[Finding]:
        """Every record of a layer's blob: the blob must unpack to its diffID."""
        query = "SELECT diff_id, digest, blob FROM layer_blobs ORDER BY diff_id"
        for diff_id, digest, blob in self._store.database.read(query):
            self._work.cancel.check()
            problem = self._layer(str(diff_id), str(digest), str(blob))
            if problem:
                yield Finding(LAYER, f"{diff_id} {digest}", problem)

    def _layer(self, diff_id: str, digest: str, blob: str) -> str:
        try:
            descriptor = Descriptor.from_json(json.loads(blob))
            wanted = Digest.parse(diff_id)
        except (LaminaError, ValueError):
            return "the record is malformed"
        if str(descriptor.digest) != digest:
            return "the record names two blobs"
        if digest in self.damaged or not self._store.content.exists(descriptor.digest):
            return ""  # told already; or gone, which GC forgets
        hasher = hashlib.new(wanted.algorithm)
        try:
            with self._store.content.open(descriptor.digest) as file:
                tar = decompressed(file)
                while data := tar.read(_CHUNK):
                    self._work.cancel.check()
                    hasher.update(data)
        except LaminaError as error:
            return str(error)
        return "" if hasher.hexdigest() == wanted.hex else "the blob holds another layer"

    # Names ----------------------------------------------------------------------------------------

    def needed(self) -> tuple[Needed, list[Finding]]:
        """What all names need, as far as it can be read, and what of it is not here."""
        descriptors: dict[str, Descriptor] = {}
        images: dict[str, list[str]] = {}
        stacks: dict[Stack, list[str]] = {}
        findings: list[Finding] = []
        missing: dict[str, str] = {}
        unusable: dict[str, str] = {}
        for name, text in self._store.database.read("SELECT name, target FROM names ORDER BY name"):
            try:
                target = Descriptor.from_json(json.loads(text))
            except (LaminaError, ValueError):
                findings.append(Finding(NAME, str(name), "its record is malformed", (str(name),)))
                continue
            graph = _Graph(self._store, target)
            graph.walk()
            for descriptor in graph.found:
                digest = str(descriptor.digest)
                descriptors[digest] = descriptor
                images.setdefault(digest, []).append(str(name))
            for stack in graph.stacks:
                stacks.setdefault(stack, []).append(str(name))
            missing.update(graph.missing)
            unusable.update(graph.unusable)
        findings += [
            Finding(part, digest, problem, tuple(images[digest]))
            for part, problems in ((MISSING, missing), (IMAGE, unusable))
            for digest, problem in sorted(problems.items())
        ]
        found = Needed(
            descriptors,
            {digest: tuple(names) for digest, names in images.items()},
            {stack: tuple(names) for stack, names in stacks.items()},
        )
        return found, findings

    def layout(self) -> list[Finding]:
        """`oci-layout` and `index.json`, which other tools read."""
        findings = []
        root = self._store.root
        with FileLock(os.path.join(root, "locks", "names")):
            names = [(each.name, each.target) for each in self._store.metadata.list_names()]
            index = _read(os.path.join(root, layoutindex.INDEX_FILE))
        if index != layoutindex.serialise_index(names):
            problem = "it does not say what the database's names are"
            findings.append(Finding(LAYOUT, layoutindex.INDEX_FILE, problem))
        try:
            version = json.loads(_read(os.path.join(root, layoutindex.LAYOUT_FILE)))
        except ValueError:
            version = None
        if version != json.loads(layoutindex.LAYOUT):
            findings.append(Finding(LAYOUT, layoutindex.LAYOUT_FILE, "not that of an image layout"))
        return findings

    # Rows and directories -------------------------------------------------------------------------

    def rows(self) -> Iterator[Finding]:
        """Cache records, documents, and copies of manifests and configs."""
        for row in self._store.database.read("SELECT * FROM cache ORDER BY key"):
            if parse_cache_row(row) is None:
                yield Finding(CACHE, str(row[0]), f"the record of {row[3]!r} is damaged")
        for digest in damaged_copies(self._store.database):
            yield Finding(COPY, digest, "the database's copy of the document is damaged")
        for kind, id, body in self._store.database.read("SELECT kind, id, body FROM documents"):
            try:
                json.loads(body)
            except (ValueError, TypeError):
                yield Finding(DOCUMENT, f"{kind} {id}", "it is not JSON")

    def strays(self) -> Iterator[Finding]:
        """Directories that nothing knows, and cache mounts without a name."""
        root = self._store.root
        # listed before the rows are read: a directory is made before its row is committed
        before = {top: names_in(os.path.join(root, top)) for top in ("snapshots", "containers")}
        numbers = {str(row[0]) for row in self._store.database.read("SELECT id FROM snapshots")}
        query = "SELECT id FROM documents WHERE kind = 'container'"
        containers = {str(row[0]) for row in self._store.database.read(query)}
        for top, known in (("snapshots", numbers), ("containers", containers)):
            for name in before[top]:
                if name not in known and os.path.isdir(os.path.join(root, top, name)):
                    yield Finding(STRAY, os.path.join(top, name), "no row knows it")
        named = {cache.key for cache in cachemounts.walk(root)}
        for key in names_in(os.path.join(root, cachemounts.DIRECTORY)):
            if key not in named and cachemounts.has_content(root, key):
                path = os.path.join(cachemounts.DIRECTORY, key)
                yield Finding(MOUNT, path, "about.json is damaged: nobody knows its id")

    def _progress(self, name: str, current: int, total: int, *, done: bool) -> None:
        self._work.emit(
            Progress(
                id=name, name=name, current=current, total=total, at=self._work.clock(), done=done
            )
        )


class _Graph:
    """What one name needs: `found`, of which `missing` (digest -> why) are not here, and `unusable`
    are here and whole, but nothing that lamina reads.
    """

    def __init__(self, store: LocalStore, target: Descriptor) -> None:
        self._store = store
        self._target = target
        self.found: list[Descriptor] = []
        self.missing: dict[str, str] = {}
        self.unusable: dict[str, str] = {}
        self.stacks: list[Stack] = []

    def walk(self) -> None:
        """An index's images that are not here at all were never pulled: they are not missing."""
        todo = [self._target]
        seen: set[Digest] = set()
        while todo and len(seen) <= MAX_ENTRIES:
            descriptor = todo.pop()
            if descriptor.digest in seen:
                continue
            seen.add(descriptor.digest)
            is_here = self._store.content.exists(descriptor.digest)
            if descriptor.media_type in mediatype.INDEXES | mediatype.MANIFESTS:
                self.found.append(descriptor)
                if not is_here:
                    if descriptor != self._target:
                        continue
                    self.missing[str(descriptor.digest)] = "the name points to it"
                parts = self._children(descriptor)
                if descriptor.media_type in mediatype.INDEXES:
                    parts = [each for each in parts if self._store.content.exists(each.digest)]
                    todo += parts
                else:
                    self._image(parts)

    def _children(self, descriptor: Descriptor) -> list[Descriptor]:
        raw = self._document(descriptor)
        try:
            return list(children(descriptor.media_type, raw)) if raw is not None else []
        except LaminaError as error:
            self.unusable[str(descriptor.digest)] = str(error)
            return []

    def _document(self, descriptor: Descriptor) -> bytes | None:
        """The document, or its copy: a damaged one is found among the blobs."""
        try:
            return self._store.content.read(descriptor.digest, limit=MAX_DOCUMENT)
        except LaminaError as error:
            if error.kind is Kind.INVALID:
                self.unusable[str(descriptor.digest)] = str(error)
            return find_copy(self._store.database, descriptor.digest)

    def _image(self, parts: list[Descriptor]) -> None:
        layers = [part for part in parts if mediatype.is_layer(part.media_type)]
        self.found += parts
        stack: Stack = ()
        for part in parts:
            if part.media_type not in mediatype.CONFIGS:
                continue
            if not self._store.content.exists(part.digest):
                self.missing[str(part.digest)] = "the image's config is not here"
            raw = self._document(part)
            if raw is None:
                continue
            try:
                stack = ImageConfig.parse(raw).diff_ids
            except LaminaError as error:
                self.unusable[str(part.digest)] = str(error)
        if len(stack) != len(layers) or not stack:
            return
        self.stacks.append(stack)
        for layer, diff_id, chain in zip(layers, stack, chain_ids(stack), strict=True):
            if self._store.content.exists(layer.digest) or self._store.snapshots.exists(chain):
                continue
            record = self._store.metadata.get_layer(diff_id)
            if record is None or not any(
                self._store.content.exists(blob.digest) for blob in record.blobs
            ):
                self.missing[str(layer.digest)] = "the layer is here neither packed nor unpacked"


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
