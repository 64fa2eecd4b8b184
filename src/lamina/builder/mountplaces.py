# SPDX-License-Identifier: Apache-2.0
"""The directories that mounts of RUN steps show: in memory, on the store's disk, of stages.

A context is copied, and not bound, so that a step sees what a cache key was made of: files that
`.dockerignore` leaves out are not there, owners are root's, nothing changes while the step runs,
and no link of the context leads out of it (CVE-2024-23651: the directory that is mounted is found
by descriptor beneath a root that only lamina writes).
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import ExitStack

from lamina.builder.changes import Changes, EmptyBase
from lamina.builder.copying import copy_match
from lamina.events import Notice
from lamina.image.unpack import ensure_snapshot
from lamina.layer.apply import extract
from lamina.start.record import Record, replace
from lamina.store.cachemounts import open_cache
from lamina.store.working import working_key
from lamina.system.mounts import mounted, tmpfs, unmount
from lamina.system.userns import is_host_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lamina.builder.scratch import Scratch
    from lamina.builder.selection import Selection
    from lamina.builder.tree import Tree
    from lamina.layer.entry import Item, Items
    from lamina.spec.digest import Stack
    from lamina.store.cachemounts import CacheDirectory
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken, Work

_PRIVATE_SIZE = 64 << 20  # bytes; a limit of the tmpfs, not what it takes
_CONTENT = "m"  # what is copied lies under this name


class MountInput(Record):
    """What a mount takes files from: a stage's `result`, or `tree` and `selection` of a context."""

    result: Stack | None
    tree: Tree | None = None
    selection: Selection | None = None


class MountPlaces:
    """Makes directories for the mounts of one solve; the `stack` that is given undoes each.

    Any thread may call it; `close` it. `lasting` undoes what is for all steps.
    """

    def __init__(self, store: Store, scratch: Scratch, *, work: Work) -> None:
        self.lasting = ExitStack()
        self._store = store
        self._scratch = scratch
        self._work = work
        self._copies: dict[str, str] = {}  # digest of a selection -> the copy
        self._guard = threading.Lock()

    def close(self) -> None:
        """Undo what lasted for the whole solve."""
        self.lasting.close()
        self._copies.clear()

    def memory(self, what: str, stack: ExitStack) -> str:
        """A directory on a new tmpfs that no other process of the host sees; `stack` undoes it."""
        path = self._scratch.path(working_key(f"mount:{what}"))
        os.mkdir(path, 0o700)
        stack.callback(os.rmdir, path)
        tmpfs(path, size=_PRIVATE_SIZE, mode=0o700)
        stack.callback(unmount, path)
        return path

    def directory(self, what: str, stack: ExitStack) -> str:
        """An empty directory on the store's disk, removed by `stack`. It is an active snapshot, so
        that after a crash the next build removes it.
        """
        key = working_key(f"mount:{what}")
        self._store.snapshots.prepare(key, None)
        stack.callback(self._store.snapshots.remove, key)
        path = self._store.snapshots.layer_dir(key)
        os.chmod(path, 0o755)  # noqa: S103  # the step's user looks at it
        return path

    def copy(self, source: MountInput, stack: ExitStack, *, cancel: CancelToken) -> str:
        """A copy of a selection in a new directory."""
        assert source.tree is not None
        assert source.selection is not None
        match = source.selection.matches[0]
        path = self.directory("copy", stack)
        changes = Changes(EmptyBase())
        dest = f"/{_CONTENT}".encode()
        copy_match(changes, source.tree, match, dest=dest, owner=None, mode=None, inode_space=0)
        items = _while_not(cancel, changes.items())
        extract(items, path, owners=True, privileged=is_host_root())
        content = os.path.join(path, _CONTENT)
        if match.is_dir:
            status = source.tree.status(source.tree.resolve(match.path))
            os.makedirs(content, exist_ok=True)
            if status is not None:
                if source.tree.keeps_owner:
                    os.chown(content, status.st_uid, status.st_gid)
                os.chmod(content, stat.S_IMODE(status.st_mode))
                os.utime(content, ns=(status.st_mtime_ns, status.st_mtime_ns))
        return content

    def shared_copy(self, source: MountInput, *, cancel: CancelToken) -> str:
        """A copy that all steps of the solve look at; nobody writes to it."""
        assert source.selection is not None
        name = str(source.selection.digest)
        with self._guard:
            if name not in self._copies:
                self._copies[name] = self.copy(source, self.lasting, cancel=cancel)
            return self._copies[name]

    def stage(
        self,
        result: Stack,
        stack: ExitStack,
        *,
        read_only: bool,
        devices: bool,
        cancel: CancelToken,
    ) -> str:
        """A mount point of the stage's tree; what is written to it goes to a throw-away layer.
        `devices` as for `mount_overlay`.
        """
        store = self._store
        chain = ensure_snapshot(store, result, work=replace(self._work, cancel=cancel))
        unique = working_key("mount:stage")
        if read_only:
            overlay = store.snapshots.view(chain)
        else:
            overlay = store.snapshots.prepare(unique, chain)
            stack.callback(store.snapshots.remove, unique)
        target = self._scratch.path(unique)
        os.mkdir(target, 0o700)
        stack.callback(os.rmdir, target)
        stack.enter_context(mounted(overlay, target, volatile=not read_only, devices=devices))
        return target

    def cache(
        self,
        id: str,
        variant: str,
        *,
        sharing: str,
        fill: Callable[[str], None],
        user: Mapping[str, str],
        cancel: CancelToken,
    ) -> CacheDirectory:
        """A hold on the cache of that id and variant; says so if another step has to end first."""

        def waiting() -> None:
            self._work.emit(
                Notice(f"waiting for the cache mount {id.partition('/')[2]}: another step holds it")
            )

        return open_cache(
            self._store.root,
            id,
            variant=variant,
            sharing=sharing,
            fill=fill,
            waiting=waiting,
            cancel=cancel,
            user=user,
        )


def _while_not(cancel: CancelToken, items: Items) -> Iterator[Item]:
    for item in items:
        cancel.check()
        yield item
