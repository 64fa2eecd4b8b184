# SPDX-License-Identifier: Apache-2.0
"""`open_store`: a store on a local directory, made, migrated and repaired as needed.

Opening an existing, sound store writes nothing: it checks the owner and the version and looks for
marks that an earlier boot left (durability).
"""

from __future__ import annotations

import os
import stat
import time

from lamina.errors import Kind, LaminaError
from lamina.events import Notice, silent
from lamina.start.hashing import sha256
from lamina.store import database as databases
from lamina.store import layoutindex
from lamina.store.content import Content
from lamina.store.database import Database
from lamina.store.documents import DocumentTable
from lamina.store.durability import Durability
from lamina.store.faults import disk_error
from lamina.store.leases import Lease, Leases
from lamina.store.metadata import MetadataTables
from lamina.store.reserve import Reserve
from lamina.store.snapshots import Snapshots
from lamina.system.locks import FileLock, lock_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lamina.events import Emitter
    from lamina.store.keyhistory import KeyHistory
    from lamina.store.ports import LayerForm
    from lamina.tasks import CancelToken

VERSION = 2
VERSION_FILE = "lamina-store"


def _add_form(root: str) -> None:
    """Version 2: a snapshot's row says whether its layer is a directory or an EROFS file."""
    path = os.path.join(root, databases.FILE)
    try:
        connection = databases.connect(path)
        try:
            columns = [row[1] for row in connection.execute("PRAGMA table_info(snapshots)")]
            if columns and "form" not in columns:
                connection.execute(
                    "ALTER TABLE snapshots ADD COLUMN form TEXT NOT NULL DEFAULT 'directory'"
                )
            connection.execute(f"PRAGMA user_version={databases.SCHEMA_VERSION}")
        finally:
            connection.close()
    except databases.SqliteError as error:
        fault = databases.database_fault(error, path)
        if not isinstance(fault, databases.DatabaseDamaged):  # else its first use rebuilds it
            raise fault from error


MIGRATIONS: dict[int, Callable[[str], None]] = {1: _add_form}
"""Version n -> function(root) that makes it version n+1. It runs with nobody else in the store,
must be repeatable (it may be killed), and gets a test on a kept store of version n."""

_DIRECTORIES = (
    "blobs",
    "blobs/sha256",
    "ingest",
    "snapshots",
    "locks",
    "leases",
    "unsynced",
    "containers",
)
_FILES = frozenset(
    {layoutindex.LAYOUT_FILE, layoutindex.INDEX_FILE, VERSION_FILE, "reserve", databases.FILE}
)
# written aside first, under longer names that a kill may leave
_REPLACED = (databases.FILE, layoutindex.INDEX_FILE, layoutindex.LAYOUT_FILE, VERSION_FILE)
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class NotAStore(LaminaError):
    kind = Kind.INVALID


class LocalStore:
    """A store on a directory of this host (ports.Store)."""

    def __init__(
        self,
        root: str,
        *,
        clock: Callable[[], float],
        emit: Emitter,
        layers: Callable[[], LayerForm],
    ) -> None:
        self.root = root
        self.clock = clock
        self.reserve = Reserve(root)
        self.durability = Durability(root)
        self.leases = Leases(root, clock=clock, reserve=self.reserve)
        self.content = Content(root, durability=self.durability, leases=self.leases)
        self.database = Database(root, reserve=self.reserve, repair=self._rebuild)
        self.snapshots = Snapshots(
            root,
            self.database,
            durability=self.durability,
            leases=self.leases,
            clock=clock,
            layers=layers,
        )
        self.documents = DocumentTable(self.database)
        self._emit = emit
        self.metadata = MetadataTables(
            root,
            self.database,
            content=self.content,
            snapshots=self.snapshots,
            durability=self.durability,
            leases=self.leases,
            reserve=self.reserve,
            clock=clock,
            emit=emit,
        )

    def lease(self, purpose: str) -> Lease:
        return self.leases.lease(purpose)

    def lock(self, name: str, *, cancel: CancelToken | None = None) -> FileLock:
        hashed = sha256(name.encode()).hexdigest()
        return FileLock(os.path.join(self.root, "locks", hashed), cancel=cancel)

    @property
    def key_history(self) -> KeyHistory:
        from lamina.store.keyhistory import KeyHistory

        return KeyHistory(self.database)

    def close(self) -> None:
        self.database.close()

    def _rebuild(self, reason: str) -> None:
        from lamina.store.rebuild import Rebuild

        done = Rebuild(self.root, self.content, clock=self.clock).run()
        if done:
            self._emit(Notice(f"{reason}: {done}"))
            self.metadata.refresh_index()

    def rewrite_layout(self) -> None:
        """Write `oci-layout` and `index.json` again, as the database has the names."""
        _write(self.root, layoutindex.LAYOUT_FILE, layoutindex.LAYOUT)
        self.metadata.rewrite_index()

    def recover(self) -> None:
        """After the host went down: hash the blobs that may be torn and remove those that are."""
        since = self.durability.suspects_since()
        if since is None:
            return
        with FileLock(os.path.join(self.root, "locks", "rebuild")):
            torn = [blob for blob in self._suspects(since) if not self._is_sound(blob)]
            for path in torn:
                os.unlink(path)
            self.durability.forget_earlier_boots()
        if torn:
            self._emit(Notice(f"{len(torn)} blobs were torn when the host went down, and removed"))

    def _suspects(self, since: float) -> list[str]:
        paths = (self.content.path(blob.digest) for blob in self.content.walk())
        return [path for path in paths if _changed(path) >= since]

    def _is_sound(self, path: str) -> bool:
        import hashlib

        hasher = hashlib.new(os.path.basename(os.path.dirname(path)))
        with open(path, "rb") as file:
            while chunk := file.read(1024 * 1024):
                hasher.update(chunk)
        return hasher.hexdigest() == os.path.basename(path)


def open_store(
    root: str,
    *,
    clock: Callable[[], float] = time.time,
    emit: Emitter = silent,
    owner: int | None = None,
    migrations: Mapping[int, Callable[[str], None]] = MIGRATIONS,
    layers: Callable[[], LayerForm] = lambda: "directories",
) -> LocalStore:
    """The store at `root` (absolute), made if it is not there.

    `layers` says what new layers become; it is asked when one is unpacked. `emit` hears of repairs. `owner` is the uid that must own it, this process's by default.

    Raises:
        NotAStore: the directory holds something else.
        LaminaError: DENIED (another user's, or writable by others), UNSUPPORTED (made by a newer
            lamina), EXHAUSTED, SYSTEM.
    """
    if not os.path.isabs(root):
        raise NotAStore(f"the store root {root!r} is not an absolute path")
    root = os.path.normpath(root)
    try:
        uid = os.geteuid() if owner is None else owner
        version = _read_version(root) if _check_directory(root, uid) else None
        if version != VERSION:
            _bring_up(root, uid, migrations)
        store = LocalStore(root, clock=clock, emit=emit, layers=layers)
        store.recover()
    except OSError as error:
        raise disk_error(error, f"cannot open the store {root}") from error
    return store


def _check_directory(root: str, uid: int) -> bool:
    """Whether the root exists; refuses one that others own or may write (users plant symlinks)."""
    try:
        found = os.stat(root)
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        raise NotAStore(f"{root} is not a directory")
    if found.st_uid != uid:
        raise LaminaError(
            f"the store {root} belongs to uid {found.st_uid}, not to uid {uid}",
            kind=Kind.DENIED,
            hint="choose another root, or run lamina as its owner",
        )
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise LaminaError(
            f"the store {root} may be written by other users",
            kind=Kind.DENIED,
            hint=f"chmod go-w {root}",
        )
    return True


def _read_version(root: str) -> int | None:
    try:
        with open(os.path.join(root, VERSION_FILE), "rb") as file:
            text = file.read(64).strip()
    except FileNotFoundError:
        return None
    if not text.isdigit():
        raise NotAStore(f"{root}/{VERSION_FILE} is not a store version: {text!r}")
    return int(text)


def _bring_up(root: str, uid: int, migrations: Mapping[int, Callable[[str], None]]) -> None:
    """Make or migrate the store, one process at a time (flock on the directory itself)."""
    os.makedirs(root, mode=0o700, exist_ok=True)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock_directory(fd, subject=f"the store {root}")
        _check_directory(root, uid)
        version = _read_version(root)
        if version is None:
            _create(root)
        elif version > VERSION:
            raise LaminaError(
                f"the store {root} has format {version}, made by a newer lamina; this one"
                f" knows up to {VERSION}",
                kind=Kind.UNSUPPORTED,
                hint="use that lamina, or another root",
            )
        else:
            _migrate(root, version, migrations)
    finally:
        os.close(fd)


def _create(root: str) -> None:
    """Make the parts, the version file last: without it the next open continues here.

    An image layout of another tool is taken over: its named images become the store's.
    """
    known = {name.partition("/")[0] for name in _DIRECTORIES} | _FILES
    strange = sorted(
        name for name in os.listdir(root) if name not in known and not name.startswith(_REPLACED)
    )
    if strange:
        raise NotAStore(
            f"{root} is not a lamina store and not empty: it holds {strange[0]}",
            hint="choose an empty or new directory",
        )
    os.chmod(root, 0o700)  # layers hold set-uid programs: no other user may reach them
    for name in _DIRECTORIES:
        os.makedirs(os.path.join(root, name), mode=0o755, exist_ok=True)
    if not os.path.exists(os.path.join(root, layoutindex.LAYOUT_FILE)):
        _write(root, layoutindex.LAYOUT_FILE, layoutindex.LAYOUT)
    if not os.path.exists(os.path.join(root, layoutindex.INDEX_FILE)):
        _write(root, layoutindex.INDEX_FILE, layoutindex.serialise_index(()))
        databases.create(os.path.join(root, databases.FILE))
    Reserve(root).fill()
    _write(root, VERSION_FILE, b"%d\n" % VERSION)


def _migrate(root: str, version: int, migrations: Mapping[int, Callable[[str], None]]) -> None:
    """Step by step to the current version, while no lease is held by anyone."""
    with FileLock(os.path.join(root, "locks", "store")):
        while version < VERSION:
            step = migrations.get(version)
            if step is None:
                raise LaminaError(
                    f"the store {root} has format {version}, which this lamina cannot migrate",
                    kind=Kind.UNSUPPORTED,
                )
            step(root)
            version += 1
            _write(root, VERSION_FILE, b"%d\n" % version)


def _write(root: str, name: str, content: bytes) -> None:
    temporary = os.path.join(root, name + ".new")
    layoutindex.write_file(temporary, content)
    os.rename(temporary, os.path.join(root, name))


def _changed(path: str) -> float:
    try:
        return os.stat(path, follow_symlinks=False).st_ctime
    except FileNotFoundError:
        return 0.0
