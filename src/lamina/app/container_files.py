# SPDX-License-Identifier: Apache-2.0
"""The files of a container: copied in and out, compared with its image, exported."""

from __future__ import annotations

import os
import stat

from lamina.container.rootfs import Rootfs
from lamina.errors import Kind, LaminaError
from lamina.layer.entry import EntryType
from lamina.layer.lower import Lowers
from lamina.layer.transfer import Source, Target, receive, send
from lamina.layer.walk import is_whiteout, overlay_items
from lamina.system.chroot import Inside, NobodyReads, pipe_writer
from lamina.system.mounts import opened_layers
from lamina.system.xattrs import is_opaque, xattrs_beneath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

    from lamina.app.containers import Container
    from lamina.layer.entry import Item
    from lamina.store.ports import Store

_READ = 1 << 20
# what a runtime makes to mount on, as Docker's init layer has it
_MOUNT_POINTS = frozenset(
    {b"dev/pts", b"dev/shm", b"dev/mqueue", b"dev/console", b"etc/hosts", b"etc/hostname"}
    | {b"etc/resolv.conf", b"etc/mtab", b"dev", b"proc", b"sys", b"run/.containerenv"}
)  # fmt: skip


def copy_out(
    store: Store, container: Container, source: Source, take: Callable[[IO[bytes]], object]
) -> None:
    """Give `take` a tar stream of files that the container sees.

    Raises LaminaError: NOT_FOUND, INVALID, CONFLICT, what `take` raises.
    """
    with Rootfs(store, container.id, container.config, visible=True) as root:
        _stream_out(root.fd, source, take)


def _stream_out(root_fd: int, source: Source, take: Callable[[IO[bytes]], object]) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = Inside(root_fd, lambda: send(source, pipe_writer(writer)), close=reader)
    os.close(writer)
    failure: BaseException | None = None
    with open(reader, "rb") as stream:
        try:
            take(stream)
        except BaseException as error:  # noqa: BLE001  # of a stream that broke off: the child says why
            failure = error
    child.finish()
    if failure is not None:
        raise failure


def copy_in(
    store: Store,
    container: Container,
    target: Target,
    give: Callable[[Callable[[bytes], object]], object],
) -> None:
    """Put the tar that `give` writes where the container sees `target`.

    Raises LaminaError: NOT_FOUND, INVALID, CONFLICT, UNSUPPORTED (a read-only root file system).
    """
    if container.config.process.read_only:
        raise LaminaError("container rootfs is marked read-only", kind=Kind.DENIED)
    with Rootfs(store, container.id, container.config, visible=True) as root:
        reader, writer = os.pipe2(os.O_CLOEXEC)

        def work() -> None:
            with open(reader, "rb") as stream:
                receive(stream, target)
                while stream.read(_READ):
                    pass

        child = Inside(root.fd, work, close=writer)
        os.close(reader)
        try:
            give(pipe_writer(writer))
        except NobodyReads:
            pass  # the child says why
        except BaseException:
            os.close(writer)
            writer = -1
            _ignored(child.finish)
            raise
        finally:
            if writer >= 0:
                os.close(writer)
        child.finish()


def _ignored(finish: Callable[[], None]) -> None:
    try:
        finish()
    except LaminaError:
        return  # a consequence of the error that is being raised


def export(store: Store, container: Container, write: Callable[[bytes], object]) -> None:
    """Write the container's files as a tar, without what is mounted in it."""

    def take(stream: IO[bytes]) -> None:
        while block := stream.read(_READ):
            write(block)

    with Rootfs(store, container.id, container.config, visible=False) as root:
        _stream_out(root.fd, Source(b"/", contents=True), take)
    container.tell("export")


def image_items(store: Store, container: Container) -> Iterator[Item]:
    """What the container wrote, as the entries of a layer, without what was only mounted on."""
    mount = store.snapshots.mount_of(container.id)
    with opened_layers(mount.lowers) as paths:
        lowers = Lowers(paths)
        for entry, content in overlay_items(mount.upper):
            is_empty = entry.type is EntryType.DIR or not entry.size
            if entry.path in _MOUNT_POINTS and is_empty and lowers.lookup(entry.path) is None:
                continue
            yield entry, content


def changes(store: Store, container: Container) -> Iterator[tuple[str, bytes]]:
    """(`A`, `C` or `D`, absolute path) of what differs from the image, sorted by path.

    A directory is changed if its mode or owner is, or something in it was added, changed or
    deleted, as Docker lists it; times of directories do not count.
    """
    mount = store.snapshots.mount_of(container.id)
    with opened_layers(mount.lowers) as lowers:
        found = dict(_compared(os.fsencode(mount.upper), b"", Lowers(lowers)))
    for path in list(found):
        parent = path.rpartition(b"/")[0]
        while parent and parent not in found:
            found[parent] = "C"
            parent = parent.rpartition(b"/")[0]
    for path in sorted(found, key=lambda each: each.split(b"/")):
        yield found[path], b"/" + path


def _compared(
    upper: bytes, directory: bytes, lowers: Lowers, *, is_new: bool = False
) -> Iterator[tuple[bytes, str]]:
    full = upper + b"/" + directory if directory else upper
    names: set[bytes] = set()
    with os.scandir(full) as entries:
        present = [(each.name, each.stat(follow_symlinks=False)) for each in entries]
    for name, status in present:
        path = directory + b"/" + name if directory else name
        below = None if is_new else lowers.lookup(path)
        names.add(name)
        if is_whiteout(status):
            if below is not None:
                yield path, "D"
            continue
        if below is None:
            if path not in _MOUNT_POINTS or (status.st_size and not stat.S_ISDIR(status.st_mode)):
                yield path, "A"
        elif _differs(status, below[1]):
            yield path, "C"
        if stat.S_ISDIR(status.st_mode):
            was_directory = below is not None and stat.S_ISDIR(below[1].st_mode)
            yield from _compared(upper, path, lowers, is_new=not was_directory)
            if was_directory and is_opaque(xattrs_beneath(upper, path)):
                yield from _hidden(upper, path, lowers)


def _hidden(upper: bytes, path: bytes, lowers: Lowers) -> Iterator[tuple[bytes, str]]:
    """What an opaque directory hides and does not have again."""
    here = set(os.listdir(upper + b"/" + path))
    for name in lowers.names(path):
        if name not in here:
            yield path + b"/" + name, "D"


def _differs(new: os.stat_result, old: os.stat_result) -> bool:
    same = (new.st_mode, new.st_uid, new.st_gid) == (old.st_mode, old.st_uid, old.st_gid)
    if not same or stat.S_ISDIR(new.st_mode):
        return not same
    return (new.st_size, new.st_mtime_ns, new.st_rdev) != (
        old.st_size,
        old.st_mtime_ns,
        old.st_rdev,
    )
