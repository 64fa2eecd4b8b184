# SPDX-License-Identifier: Apache-2.0
"""The files of a container, as a directory that this process can open while the block lasts."""

from __future__ import annotations

import os

from lamina.container import state
from lamina.container.stubs import MountStubs
from lamina.container.volumemounts import VolumeMounts, all_mounts
from lamina.errors import Kind, LaminaError
from lamina.system import mounts
from lamina.system.overlay import OverlayMount
from lamina.system.paths import realpath_in_root
from lamina.system.userns import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from lamina.container.state import ContainerConfig
    from lamina.store.ports import Store

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Rootfs:
    """A context manager; `fd` is the root directory. Never join a path to it that came from the
    container: resolve it there (`system.chroot`).

    `visible` is what the container's processes see, with volumes and bind mounts: of a container
    that does not run they are mounted, so this process gets a mount namespace of its own, and
    nobody can start the container meanwhile. Otherwise it is the container's own files alone,
    read-only, whether it runs or not.

    Raises LaminaError of kind CONFLICT if the container is being started or removed.
    """

    def __init__(self, store: Store, id: str, config: ContainerConfig, *, visible: bool) -> None:
        self._store, self._id, self._config = store, id, config
        self._visible = visible
        self._directory = state.directory_of(store.root, id)
        self._mounted: list[str] = []
        self._stubs = MountStubs()
        self._volumes: VolumeMounts | None = None
        self._lock = -1
        self.fd = -1

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        while len(self._mounted) > 1:
            mounts.unmount(self._mounted.pop())
        self._stubs.remove()
        if self._volumes is not None:
            self._volumes.close()
        if self.fd >= 0:
            os.close(self.fd)
        while self._mounted:
            mounts.unmount(self._mounted.pop())
        if self._lock >= 0:
            os.close(self._lock)
        self.fd = self._lock = -1

    def _open(self) -> None:
        found = state.observe(self._directory, boot=state.boot_id())
        snapshot = self._store.snapshots.mount_of(self._id)
        if not self._visible:
            lowers = (snapshot.upper, *snapshot.lowers)
            self._mount(OverlayMount(lowers), f"{self._directory}/files")
        elif found.is_running:
            join(found.pid)  # to chroot there takes the rights of its user namespace
            self.fd = os.open(f"/proc/{found.pid}/root", _DIRECTORY)
            if not state.is_alive(found, boot=state.boot_id()):  # the pid may be another's by now
                raise LaminaError(f"container {self._id[:12]} has just ended", kind=Kind.CONFLICT)
        else:
            lock = state.acquire_soon(self._directory, boot=state.boot_id())
            if lock is None:
                raise LaminaError(
                    f"container {self._id[:12]} is being started or removed", kind=Kind.CONFLICT
                )
            self._lock = lock
            self._mount(snapshot, f"{self._directory}/rootfs")
            self._mount_volumes()

    def _mount(self, overlay: OverlayMount, target: str) -> None:
        mounts.isolate()
        os.makedirs(target, mode=0o700, exist_ok=True)
        mounts.mount_overlay(overlay, target)
        self._mounted.append(target)
        self.fd = os.open(target, _DIRECTORY)

    def _mount_volumes(self) -> None:
        root = self._mounted[0]
        self._volumes = VolumeMounts(self._store, root, directory=self._directory)
        binds = self._volumes.binds(all_mounts(self._config, self._directory))
        for mount in sorted(binds, key=lambda each: each.destination.count("/")):  # as `make_spec`
            source, destination = mount.source, mount.destination
            if mount.type != "bind" or not os.path.exists(source):
                continue  # `run` makes it when it starts
            self._stubs.make(self.fd, [(destination, os.path.isdir(source))])
            inside = os.fsdecode(realpath_in_root(self.fd, os.fsencode(destination)))
            target = f"{root}/{inside}"
            mounts.bind(source, target, read_only="ro" in mount.options, recursive=True)
            self._mounted.append(target)
