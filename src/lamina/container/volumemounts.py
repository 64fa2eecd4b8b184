# SPDX-License-Identifier: Apache-2.0
"""Mounts of volumes: from a container's record to directories that a runtime can bind.

A mount of a volume is a `Mount` of type `volume` whose source is the volume's name. Its options
are `ro`, `nocopy`, `anonymous` (nobody chose the name), `subpath=PATH`, and what the volume is made
with if it is not there: `label=KEY=VALUE`, `option=KEY=VALUE`.

An empty volume gets what the image has at the mount's destination, owners and all, once for each
container: one that is emptied stays so. The copy is made aside and moved in, one entry after the other, so that the directory stays the one that others may
have mounted; a move that was interrupted is finished by the next container that starts.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess

from lamina.container import volumes
from lamina.container.ports import Mount
from lamina.errors import Kind, LaminaError
from lamina.start.libc import call
from lamina.start.lowlevel import signal
from lamina.start.record import replace
from lamina.system.mounts import bind, unmount
from lamina.system.paths import failure, open_in_root
from lamina.system.removal import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamina.container.state import ContainerConfig
    from lamina.container.volumes import Volume
    from lamina.store.ports import Store

VOLUME = "volume"
FILLED_FILE = "filled"  # in a container's directory: its volumes had their copies
_ASIDE, _READY = "copying", "copied"  # beside `_data`: the image's files, in part and whole
_PR_SET_PDEATHSIG = 1  # prctl(2)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def values(mount: Mount, key: str) -> list[str]:
    """The values of the options `key=VALUE`."""
    return [each[len(key) + 1 :] for each in mount.options if each.startswith(f"{key}=")]


def all_mounts(config: ContainerConfig, directory: str) -> tuple[Mount, ...]:
    """The container's mounts. One made before there were volumes has anonymous ones in its own
    directory, by number.
    """
    mounts = config.process.mounts
    taken = {mount.destination for mount in mounts}
    older = [
        Mount(destination, "bind", f"{directory}/volumes/{number}", ("rbind", "rprivate", "nodev"))
        for number, destination in enumerate(config.volumes)
        if destination not in taken and os.path.isdir(f"{directory}/volumes/{number}")
    ]
    return (*mounts, *older)


def inherited(config: ContainerConfig, directory: str, *, mode: str) -> list[Mount]:
    """The mounts that `--volumes-from` takes from a container: not its tmpfs; nothing is copied."""
    found = []
    for mount in all_mounts(config, directory):
        if mount.type == "tmpfs":
            continue
        options = mount.options
        if mount.type == VOLUME:
            options = (*(each for each in options if each != "nocopy"), "nocopy")
        if "ro" in mode.split(",") and "ro" not in options:
            options = (*options, "ro")
        found.append(replace(mount, options=options, flag="", mode=""))
    return found


def make_volumes(store: Store, mounts: Iterable[Mount]) -> None:
    """Make the volumes that are missing. Raises LaminaError of kind USAGE or UNSUPPORTED."""
    for mount in mounts:
        if mount.type == VOLUME:
            volumes.create(store, _wanted(mount))


def remove_anonymous(store: Store, mounts: Iterable[Mount], *, container: str) -> None:
    """Remove the volumes of the container that nobody named and no other container has."""
    for mount in mounts:
        if mount.type == VOLUME and "anonymous" in mount.options:
            try:
                volumes.remove(store, mount.source, ignoring=container)
            except LaminaError as error:
                if error.kind not in {Kind.NOT_FOUND, Kind.CONFLICT}:
                    raise


class VolumeMounts:
    """Binds that stand for the mounts of volumes, until `close`. Volumes that are missing are made,
    empty ones filled from the image's files in `rootfs`. What subpaths name is bound in `directory`,
    the container's, in this process's mount namespace. Mounts for a `container`, by id, are events.
    """

    def __init__(
        self,
        store: Store,
        rootfs: str,
        *,
        directory: str,
        devices: bool = False,
        container: str = "",
    ) -> None:
        self._store, self._rootfs, self._directory = store, rootfs, directory
        self._guard = () if devices else ("nodev",)
        self._mounted: list[str] = []
        self._container = container
        self._told: list[str] = []  # volumes of whose mounts there were events

    def close(self) -> None:
        """Undo the mounts of subpaths. Idempotent."""
        while self._mounted:
            unmount(self._mounted.pop())
        while self._told:
            volumes.tell(self._store, "unmount", self._told.pop(0), container=self._container)

    def binds(self, mounts: Iterable[Mount]) -> tuple[Mount, ...]:
        """The mounts, those of volumes replaced.

        Raises LaminaError: INVALID (a file where the volume is mounted), NOT_FOUND (no subpath, no
        device of the volume), what copying meets.
        """
        marker = f"{self._directory}/{FILLED_FILE}"
        fills = not os.path.exists(marker)
        found = tuple(
            self._bind(each, fills=fills) if each.type == VOLUME else each for each in mounts
        )
        if fills:
            os.close(os.open(marker, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        return found

    def _bind(self, mount: Mount, *, fills: bool) -> Mount:
        wanted = _wanted(mount)
        try:
            with volumes.lock(self._store, wanted.name) as lock:
                volume = volumes.ensure(self._store, wanted)
                copies = fills and "nocopy" not in mount.options
                source = self._source(mount, volume, lock=lock.fd if copies else -1)
        except OSError as error:
            raise failure(error, f"cannot mount volume {wanted.name}") from error
        is_read_only = "ro" in mount.options or volume.is_read_only
        if self._container:
            self._told.append(volume.name)
            how = {"destination": mount.destination, "propagation": ""}
            how["read/write"] = "false" if "ro" in mount.options else "true"
            volumes.tell(self._store, "mount", volume.name, container=self._container, **how)
        options = ("rbind", "rprivate", *(["ro"] if is_read_only else []), *self._guard)
        return Mount(mount.destination, "bind", source, options)

    def _source(self, mount: Mount, volume: Volume, *, lock: int) -> str:
        """What is to be bound. `lock` is the volume's, -1 if nothing is to be copied."""
        data = volumes.data_of(self._store.root, volume.name)
        if volume.device and not os.path.isdir(volume.device):
            raise LaminaError(
                f"failed to mount local volume: mount {volume.device}:{data}: "
                f"{os.strerror(errno.ENOENT)}",
                kind=Kind.NOT_FOUND,
            )
        own = "" if volume.device else volumes.directory_of(self._store.root, volume.name)
        if own:
            finish_filling(own)
        source = volume.device or data
        subpath = next(iter(values(mount, "subpath")), "")
        fd = _open_beneath(source, subpath) if subpath else -1
        try:
            if lock >= 0:
                # no path through a bind: files cannot be moved from one mount to another
                target = f"/proc/self/fd/{fd}" if subpath else source
                fill(self._rootfs, mount.destination, target, own=own, lock=lock)
            return self._bound(fd) if subpath else source
        finally:
            if subpath:
                os.close(fd)

    def _bound(self, fd: int) -> str:
        """A path where what is open is bound: a link that is put in its way later changes nothing."""
        target = self._place(is_directory=stat.S_ISDIR(os.fstat(fd).st_mode))
        bind(f"/proc/self/fd/{fd}", target, recursive=True, devices=True)
        self._mounted.append(target)
        return target

    def _place(self, *, is_directory: bool) -> str:
        """An empty directory or file to mount on. A monitor that was killed may have left one."""
        target = f"{self._directory}/subpath.{len(self._mounted)}.{'d' if is_directory else 'f'}"
        if is_directory:
            os.makedirs(target, mode=0o700, exist_ok=True)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        return target


def _open_beneath(source: str, subpath: str) -> int:
    """An O_PATH descriptor of `subpath` in the directory; no link leads out of it."""
    root_fd = os.open(source, _DIRECTORY)
    try:
        return open_in_root(root_fd, os.fsencode(subpath), os.O_PATH)
    except LaminaError as error:
        raise LaminaError(
            f"cannot access path {source}/{subpath}: {str(error).rpartition(': ')[2]}",
            kind=error.kind,
        ) from error
    finally:
        os.close(root_fd)


def _wanted(mount: Mount) -> Volume:
    labels = [_pair(text) for text in values(mount, "label")]
    if "anonymous" in mount.options:
        labels.append((volumes.ANONYMOUS, ""))
    options = [_pair(text) for text in values(mount, "option")]
    return volumes.Volume(mount.source, tuple(labels), tuple(options))


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def fill(rootfs: str, destination: str, target: str, *, own: str, lock: int) -> None:
    """Copy what the image has at `destination` into the directory `target`, if it is empty.

    `own` is the volume's directory; a device of the host's (empty) is written in place. The caller
    holds the volume's `lock`, a descriptor.
    """
    if not os.path.isdir(target) or os.listdir(target):
        return
    source = _open_source(rootfs, destination)
    if source is None:
        return
    try:
        if not os.listdir(source):
            _copy_attributes(source, target)
        elif not own:
            _copy_tree(source, target, lock=lock)
        else:
            aside = f"{own}/{_ASIDE}"
            if os.path.lexists(aside):
                remove_tree(aside)
            os.mkdir(aside)
            _copy_tree(source, aside, lock=lock)
            if target == f"{own}/{volumes.DATA}":
                os.rename(aside, f"{own}/{_READY}")
                finish_filling(own)
            else:
                _move_in(aside, target)
    finally:
        os.close(source)


def finish_filling(own: str) -> None:
    """Move in what a copy that was complete has not moved yet, if there is one."""
    if os.path.isdir(f"{own}/{_READY}"):
        _move_in(f"{own}/{_READY}", f"{own}/{volumes.DATA}")


def _move_in(copied: str, target: str) -> None:
    """Move the copy's entries to `target`, then the attributes of its directory.

    A container that has the volume already may write there: what it made itself stays.
    """
    source, into = os.open(copied, _DIRECTORY), os.open(target, _DIRECTORY)
    try:
        there = set(os.listdir(into))
        for name in os.listdir(source):
            if name not in there:
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=into)
        _copy_attributes(source, target)
    finally:
        os.close(source)
        os.close(into)
    remove_tree(copied)


def _open_source(rootfs: str, destination: str) -> int | None:
    """The image's directory, links resolved within the image; None if there is nothing."""
    root_fd = os.open(rootfs, _DIRECTORY)
    try:
        return open_in_root(root_fd, os.fsencode(destination), _DIRECTORY)
    except LaminaError as error:
        if error.kind is Kind.NOT_FOUND:
            return None
        if error.kind is Kind.INVALID:
            raise LaminaError(
                f"a volume cannot be mounted on {destination}: in the image it is not a directory",
                kind=Kind.INVALID,
                hint="mount it on a directory, or bind a file with -v /HOST/FILE:/FILE",
            ) from error
        raise
    finally:
        os.close(root_fd)


def _copy_attributes(source: int, target: str) -> None:
    """Owner, mode, xattrs and times of an open directory."""
    status = os.fstat(source)
    into = os.open(target, _DIRECTORY)
    try:
        os.fchown(into, status.st_uid, status.st_gid)
        for name in os.listxattr(source):
            try:
                os.setxattr(into, name, os.getxattr(source, name))
            except OSError as error:
                if error.errno not in {errno.ENOTSUP, errno.EPERM, errno.EACCES}:
                    raise
        os.fchmod(into, status.st_mode & 0o7777)
        os.utime(into, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(into)


def _copy_tree(source: int, target: str, *, lock: int) -> None:
    """Copy with `cp -a`: hard links, owners, modes, xattrs, special files.

    It dies with this process, and has the lock until it is dead: nobody meets it at work.
    """
    done = subprocess.run(
        ["cp", "-a", "--remove-destination", "--", f"/proc/self/fd/{source}/.", target],
        pass_fds=(source, lock),
        preexec_fn=_die_with_parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise LaminaError(f"filling a volume from the image: {reason[-1] if reason else '?'}")


def _die_with_parent() -> None:
    call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
