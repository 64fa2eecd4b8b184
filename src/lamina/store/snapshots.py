# SPDX-License-Identifier: Apache-2.0
"""Snapshots: `snapshots/<id>/`, one layer each, and a row that says what it is.

A layer is the directory `fs`, or the file `layer.erofs` (then `fs` is empty and has the attributes
of the layer's root, for upper directories above it).

Order of steps, so that kill -9 anywhere leaves a whole snapshot or rubbish that GC removes:
- prepare: inside the transaction that inserts the row, the directories are made; without the
  commit there is no row, and a directory without a row is rubbish.
- commit: one row update; the directory stays where it is.
- remove: the row goes first, then the directory.

A committed row names the boot in which it was committed until a flush (durability) clears it. After
a power loss an unflushed layer may be torn: rows of another boot do not count as existing.
"""

from __future__ import annotations

import os

from lamina.errors import Kind, LaminaError
from lamina.spec.digest import ChainID, Digest
from lamina.store.faults import disk_error
from lamina.store.ports import SnapshotInfo
from lamina.system.overlay import LayerImage, OverlayMount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lamina.store.database import Database, Row, Transaction
    from lamina.store.durability import Durability
    from lamina.store.leases import Leases
    from lamina.store.ports import LayerForm

    Lowers = tuple[str | LayerImage, ...]

_DIRECTORY, _EROFS = "directory", "erofs"  # forms of a layer
_ROOT_MODE = 0o755  # of an image's root directory, whatever the umask
_STACK = """
WITH RECURSIVE stack(id, name, parent, boot, form, depth) AS (
  SELECT id, name, parent, boot, form, 0 FROM snapshots WHERE name = ? AND committed = 1
  UNION ALL
  SELECT s.id, s.name, s.parent, s.boot, s.form, depth + 1
  FROM snapshots s JOIN stack ON s.name = stack.parent
  WHERE s.committed = 1)
SELECT id, name, parent, boot, form FROM stack ORDER BY depth"""


class SnapshotNotFound(LaminaError):
    kind = Kind.NOT_FOUND


class SnapshotExists(LaminaError):
    kind = Kind.CONFLICT


class SnapshotInUse(LaminaError):
    kind = Kind.CONFLICT


class Snapshots:
    """The snapshots of one root (ports.Snapshotter)."""

    def __init__(
        self,
        root: str,
        database: Database,
        *,
        durability: Durability,
        leases: Leases,
        clock: Callable[[], float],
        layers: Callable[[], LayerForm] = lambda: "directories",
    ) -> None:
        """`layers` is asked when the first layer is unpacked."""
        self._wanted = layers
        self._makes_images: bool | None = None
        self._root = root
        self.directory = os.path.join(root, "snapshots")
        self._database = database
        self._durability = durability
        self._leases = leases
        self._clock = clock

    def prepare(self, key: str, parent: ChainID | None) -> OverlayMount:
        def insert(transaction: Transaction) -> tuple[int, Lowers]:
            if transaction.row("SELECT 1 FROM snapshots WHERE name = ?", (key,)):
                raise SnapshotExists(f"snapshot {key} exists already")
            lowers: Lowers = ()
            below: int | None = None
            if parent is not None:
                rows = transaction.rows(_STACK, (str(parent),))
                lowers = self._lowers(rows, str(parent))
                below = rows[0][0]
                self._touch(transaction, str(parent))
            now = self._leases.stamp()
            number = transaction.insert(
                "INSERT INTO snapshots(name, committed, parent, created, used, boot, form)"
                " VALUES (?, 0, ?, ?, ?, ?, ?)",
                (
                    key,
                    str(parent) if parent is not None else None,
                    now,
                    now,
                    self._boot,
                    _DIRECTORY,
                ),
            )
            self._make_directories(number, below)
            return number, lowers

        try:
            number, lowers = self._database.write(insert)
        except OSError as error:
            raise disk_error(error, f"cannot prepare snapshot {key}") from error
        return self._writable(number, lowers)

    def mount_of(self, key: str) -> OverlayMount:
        rows = self._database.read(
            "SELECT id, parent FROM snapshots WHERE name = ? AND committed = 0", (key,)
        )
        if not rows:
            raise SnapshotNotFound(f"snapshot {key} does not exist")
        number, parent = rows[0]
        return self._writable(number, self._stack(parent) if parent is not None else ())

    def view(self, parent: ChainID | None) -> OverlayMount:
        if parent is None:
            return OverlayMount(())
        if not self.exists(parent):
            raise _unknown(str(parent))
        return OverlayMount(self._stack(str(parent)))

    def layer_dir(self, name: str) -> str:
        found = self.layer(name)
        if isinstance(found, LayerImage):
            raise LaminaError(f"the layer of {name} is not a directory", kind=Kind.UNSUPPORTED)
        return found

    def layer(self, name: str) -> str | LayerImage:
        rows = self._database.read("SELECT id, form FROM snapshots WHERE name = ?", (name,))
        if not rows:
            raise SnapshotNotFound(f"snapshot {name} does not exist")
        return self._layer(*rows[0])

    def image_for(self, key: str) -> str | None:
        if self._makes_images is None:
            from lamina.store.layerform import makes_images

            self._makes_images = makes_images(self._root, self._wanted())
        if not self._makes_images:
            return None
        rows = self._database.read(
            "SELECT id FROM snapshots WHERE name = ? AND committed = 0", (key,)
        )
        if not rows:
            raise SnapshotNotFound(f"snapshot {key} does not exist")
        return self._image(rows[0][0])

    def commit(self, chain: ChainID, key: str) -> None:
        def rename(transaction: Transaction) -> list[int]:
            row = transaction.row(
                "SELECT id, parent FROM snapshots WHERE name = ? AND committed = 0", (key,)
            )
            if row is None:
                raise SnapshotNotFound(f"snapshot {key} does not exist")
            number = row[0]
            known = transaction.row("SELECT id, boot FROM snapshots WHERE name = ?", (str(chain),))
            if known is not None and self._is_whole(known[1]):
                transaction.run("DELETE FROM snapshots WHERE id = ?", (number,))
                self._touch(transaction, str(chain))
                return [number]
            if known is not None:
                transaction.run("DELETE FROM snapshots WHERE id = ?", (known[0],))
            form = _EROFS if os.path.lexists(self._image(number)) else _DIRECTORY
            transaction.run(
                "UPDATE snapshots SET name = ?, committed = 1, used = ?, boot = ?, form = ?"
                " WHERE id = ?",
                (str(chain), self._leases.stamp(), self._boot, form, number),
            )
            return [known[0]] if known is not None else []

        with self._durability.publishing():
            dropped = self._database.write(rename)
        for number in dropped:
            self._remove_directory(number)

    def exists(self, chain: ChainID) -> bool:
        rows = self._database.read(
            "SELECT boot, used FROM snapshots WHERE name = ? AND committed = 1", (str(chain),)
        )
        if not rows or not self._is_whole(rows[0][0]):
            return False
        since = self._leases.since()
        if since is None or rows[0][1] >= since:
            return True
        return self._database.write(lambda transaction: self._touch(transaction, str(chain)))

    def remove(self, name: str) -> None:
        def delete(transaction: Transaction) -> int:
            row = transaction.row("SELECT id FROM snapshots WHERE name = ?", (name,))
            if row is None:
                raise SnapshotNotFound(f"snapshot {name} does not exist")
            child = transaction.row("SELECT name FROM snapshots WHERE parent = ?", (name,))
            if child is not None:
                raise SnapshotInUse(f"snapshot {name} is in use: {child[0]} stands on it")
            transaction.run("DELETE FROM snapshots WHERE id = ?", (row[0],))
            number: int = row[0]
            return number

        self._remove_directory(self._database.write(delete))

    def walk(self) -> Iterator[SnapshotInfo]:
        for name, committed, parent, created, boot in self._database.read(
            "SELECT name, committed, parent, created, boot FROM snapshots ORDER BY id"
        ):
            if committed and not self._is_whole(boot):
                continue
            yield SnapshotInfo(
                name,
                bool(committed),
                ChainID(Digest.parse(parent)) if parent is not None else None,
                created,
            )

    def unflushed(self) -> list[int]:
        """Ids of committed snapshots that a power loss may still take; see `flushed`."""
        rows = self._database.read(
            "SELECT id FROM snapshots WHERE committed = 1 AND boot = ?", (self._boot,)
        )
        return [row[0] for row in rows]

    def flushed(self, transaction: Transaction, numbers: list[int]) -> None:
        """Note that these snapshots are on the disk."""
        for number in numbers:
            transaction.run("UPDATE snapshots SET boot = '' WHERE id = ?", (number,))

    @property
    def _boot(self) -> str:
        return self._durability.boot_id

    def _is_whole(self, boot: str) -> bool:
        return not boot or boot == self._boot

    def _touch(self, transaction: Transaction, name: str) -> bool:
        stamp = self._leases.stamp()
        return (
            transaction.run(
                "UPDATE snapshots SET used = max(used, ?) WHERE name = ?", (stamp, name)
            )
            > 0
        )

    def _stack(self, chain: str) -> Lowers:
        return self._lowers(self._database.read(_STACK, (chain,)), chain)

    def _lowers(self, rows: list[Row], chain: str) -> Lowers:
        """The layers, top first. Raises if any layer is missing or torn."""
        if not rows or not all(self._is_whole(row[3]) for row in rows):
            raise _unknown(chain)
        if rows[-1][2] is not None:
            raise _unknown(rows[-1][2])
        return tuple(self._layer(row[0], row[4]) for row in rows)

    def _layer(self, number: int, form: str) -> str | LayerImage:
        if form == _EROFS:
            return LayerImage(self._image(number))
        if form == _DIRECTORY:
            return self._fs(number)
        raise LaminaError(f"snapshot {number} has the unknown form {form!r}", kind=Kind.INTEGRITY)

    def _image(self, number: int) -> str:
        return os.path.join(self._home(number), "layer.erofs")

    def _writable(self, number: int, lowers: Lowers) -> OverlayMount:
        return OverlayMount(
            lowers, upper=self._fs(number), work=os.path.join(self._home(number), "work")
        )

    def _home(self, number: int) -> str:
        return os.path.join(self.directory, str(number))

    def _fs(self, number: int) -> str:
        return os.path.join(self.directory, str(number), "fs")

    def _make_directories(self, number: int, parent: int | None) -> None:
        """`fs` gets the attributes of the tree's root below it: overlayfs shows the upper's."""
        home, upper = self._home(number), self._fs(number)
        try:
            os.mkdir(home, 0o700)
        except FileExistsError:  # its transaction was rolled back: no row has this id
            os.rename(home, f"{home}.rubbish.{os.getpid()}.{self._clock()}")
            os.mkdir(home, 0o700)
        os.mkdir(os.path.join(home, "work"), 0o700)
        os.mkdir(upper, _ROOT_MODE)
        if parent is None:
            os.chmod(upper, _ROOT_MODE)
            return
        below = os.stat(self._fs(parent))
        if (below.st_uid, below.st_gid) != (os.geteuid(), os.getegid()):
            from lamina.system.userns import enter

            enter()
            os.chown(upper, below.st_uid, below.st_gid)
        os.chmod(upper, below.st_mode & 0o7777)
        os.utime(upper, ns=(below.st_mtime_ns, below.st_mtime_ns))

    def _remove_directory(self, number: int) -> None:
        from lamina.system.removal import remove_tree

        remove_tree(self._home(number))


def _unknown(chain: str) -> SnapshotNotFound:
    return SnapshotNotFound(f"snapshot {chain} is not in the store")
