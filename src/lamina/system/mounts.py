# SPDX-License-Identifier: Apache-2.0
"""Mounts: overlay and bind, in a mount namespace of lamina's own.

`isolate()` is called once, in the main thread before other threads exist: from then on mounts are
seen by this process and its children only, and vanish with them, kill -9 included.

Overlays are mounted through fsopen/fsconfig `lowerdir+` (kernel 6.8: up to 500 layers, any byte in
a path); older kernels get mount(2), which holds fewer layers because its options must fit a page.
docs/adr/0016-mount-api.md says what was measured.
"""

from __future__ import annotations

import errno
import os
import stat

from lamina.errors import Kind, LaminaError
from lamina.spec.identity import MAX_LAYERS
from lamina.system.overlay import LayerImage
from lamina.system.userns import enter, is_namespaced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from lamina.system.overlay import OverlayMount

# <linux/mount.h>, <sched.h>, <sys/mount.h>
_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 1, 32, 4096, 16384, 1 << 19
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
# The new mount API has the same system call numbers on every architecture that CPython supports
# with wheels (x86-64, arm64, ppc64le, s390x, riscv64).
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT = 428, 429
_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT, _SYS_MOUNT_SETATTR = 430, 431, 432, 442
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC = 1, 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NODEV = 1, 4
_MOVE_MOUNT_F_EMPTY_PATH = 4

_PAGE = 4096  # mount(2) reads at most one page of options
_SHIELD_SIZE = 1 << 20  # bytes; runtimes may make directories there
_HYBRID_CGROUP = "/sys/fs/cgroup/unified"  # systemd's name for the v2 mount beside v1 controllers

# Layers are exported from the upper directory, so nothing may be stored there that only overlayfs
# understands (redirects, metadata-only copies), whatever the kernel's defaults are.
_OVERLAY_OPTIONS = (("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"))


def isolate() -> None:
    """Give this process a mount namespace; the host's later mounts still arrive, ours do not leave.

    An ordinary user's process becomes root of a user namespace first (`userns.enter`).

    On hosts with cgroup v1 and v2 side by side the v2 mount is covered by an empty tmpfs, here
    only: crun refuses to run anything while it sees one.

    Raises:
        LaminaError: kind DENIED without the privilege.
    """
    enter()
    if _call("unshare", _CLONE_NEWNS) != 0:
        raise _error("cannot make a mount namespace", _errno())
    _mount("none", "/", flags=_MS_REC | _MS_SLAVE, what="cannot make mounts private")
    if os.path.ismount(_HYBRID_CGROUP):
        tmpfs(_HYBRID_CGROUP, size=_SHIELD_SIZE)


def mount_overlay(
    mount: OverlayMount,
    target: str,
    *,
    volatile: bool = False,
    devices: bool = False,
) -> None:
    """Mount a snapshot on the existing directory `target`.

    Device nodes in it cannot be opened, whoever asks: they come from images, and reach this host's
    disks where no control group guards devices. `devices` lets them be opened; it is for processes
    that may do everything (docs/adr/0108-nodev.md). `volatile` skips the flush at unmount (what is
    written may be lost on power loss, not when a process dies).

    Raises:
        LaminaError: DENIED, UNSUPPORTED (no overlayfs, too many layers), NOT_FOUND (a directory is
            missing), EXHAUSTED, else SYSTEM.
    """
    fd = _detached(mount, volatile=volatile, devices=devices)
    if fd is None:
        _legacy_overlay(mount, target, volatile=volatile, devices=devices)
        return
    try:
        attach(fd, target)
    finally:
        os.close(fd)


def overlay_fd(mount: OverlayMount, *, volatile: bool = False) -> int:
    """A directory fd of the snapshot mounted nowhere, without device nodes that can be opened;
    closing it frees the mount.

    For openat-style access, so that no mount point is visible and nothing is left behind.

    Raises:
        LaminaError: as `mount_overlay`; UNSUPPORTED on kernels without the new mount API.
    """
    fd = _detached(mount, volatile=volatile, devices=False)
    if fd is None:
        raise LaminaError(
            "this kernel cannot make detached overlay mounts",
            kind=Kind.UNSUPPORTED,
            hint="Linux 6.8 or later is needed",
        )
    try:
        # the mount's own fd is O_PATH: it cannot be listed
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    finally:
        os.close(fd)


class mounted:  # noqa: N801  # used as `with mounted(mount, target):`
    """The snapshot mounted on `target` inside the block, as `mount_overlay` does; unmounted when it
    ends.
    """

    def __init__(
        self,
        mount: OverlayMount,
        target: str,
        *,
        volatile: bool = False,
        devices: bool = False,
    ) -> None:
        self._mount, self.target = mount, target
        self._volatile, self._devices = volatile, devices

    def __enter__(self) -> Self:
        mount_overlay(
            self._mount,
            self.target,
            volatile=self._volatile,
            devices=self._devices,
        )
        return self

    def __exit__(self, *exc: object) -> None:
        unmount(self.target)


class opened_layers:  # noqa: N801  # used as `with opened_layers(layers) as paths:`
    """Directories that show the layers, valid inside the block and in this process.

    An image is mounted nowhere but in a descriptor, which its path names: nothing is left behind.

    Raises:
        LaminaError: as `image_fd`.
    """

    def __init__(self, layers: Sequence[str | LayerImage]) -> None:
        self._layers = layers
        self._fds: list[int] = []

    def __enter__(self) -> list[str]:
        try:
            return [self._open(layer) for layer in self._layers]
        except BaseException:
            self.__exit__()
            raise

    def _open(self, layer: str | LayerImage) -> str:
        if not isinstance(layer, LayerImage):
            return layer
        self._fds.append(image_fd(layer))
        return f"/proc/self/fd/{self._fds[-1]}/."

    def __exit__(self, *exc: object) -> None:
        while self._fds:
            os.close(self._fds.pop())


def image_fd(image: LayerImage, *, loop: bool = True) -> int:
    """An O_PATH descriptor of a read-only mount of the image, seen nowhere; closing it frees it.

    The kernel reads the file itself if it can (Linux 6.12, and a filesystem that has read_folio);
    else, with `loop`, a loop device does, which goes with the mount. A file that another user could have written
    is not given to the kernel.

    Raises:
        LaminaError: DENIED, NOT_FOUND, UNSUPPORTED (no EROFS), else SYSTEM.
    """
    what = f"cannot mount {image.path}"
    try:
        fd = os.open(image.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _error(what, error.errno or 0) from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid or found.st_mode & 0o022:
            raise LaminaError(f"{what}: it is not a file of root's own", kind=Kind.DENIED)
        return _image_mount(fd, found.st_dev, what, loop=loop)
    except _TooOld:
        raise _error(what, errno.ENOSYS) from None
    finally:
        os.close(fd)


_needs_loop: set[int] = set()  # devices whose files EROFS cannot read itself


def _image_mount(fd: int, device: int, what: str, *, loop: bool) -> int:
    if device not in _needs_loop:
        try:
            return _erofs(f"/proc/self/fd/{fd}")
        except LaminaError as error:
            if not loop or error.kind not in {Kind.SYSTEM, Kind.UNSUPPORTED}:
                raise
            refused = error
    from lamina.system.loop import loop_device

    try:
        with loop_device(fd) as path:
            mounted_fd = _erofs(path)
    except OSError as error:
        if device in _needs_loop:
            raise _error(what, error.errno or 0) from error
        raise refused from error
    _needs_loop.add(device)
    return mounted_fd


def _erofs(source: str) -> int:
    # "source" is a file or a block device; errors of the file's form are EINVAL or ENOTBLK
    options: list[tuple[str, str | None]] = [("source", source), ("ro", None)]
    return _new_mount("erofs", options, attributes=_MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NODEV)


def filesystem_fd(kind: str) -> int:
    """A directory fd of a new mount of the file system `kind`, seen nowhere; closing it frees it.

    Raises:
        LaminaError: as `mount_overlay`; UNSUPPORTED on kernels without the new mount API.
    """
    try:
        fd = _new_mount(kind, [], attributes=0)
    except _TooOld:
        raise LaminaError(
            "this kernel cannot make detached mounts", kind=Kind.UNSUPPORTED
        ) from None
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    finally:
        os.close(fd)


def bind(
    source: str,
    target: str,
    *,
    read_only: bool = False,
    recursive: bool = False,
    devices: bool = False,
) -> None:
    """Make `source` (a file or directory) appear at `target`, which exists; `devices` as for
    `mount_overlay`. Raises LaminaError.
    """
    flags = _MS_BIND | (_MS_REC if recursive else 0)
    what = f"cannot bind {source} on {target}"
    _mount(source, target, flags=flags, what=what)
    try:
        _restrict(target, read_only=read_only, recursive=recursive, devices=devices, what=what)
    except LaminaError:
        unmount(target)
        raise


def tmpfs(target: str, *, size: int, mode: int = 0o755, read_only: bool = False) -> None:
    """Mount an empty tmpfs of at most `size` bytes on `target`. Raises LaminaError."""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | (_MS_RDONLY if read_only else 0)
    _mount(
        "tmpfs",
        target,
        kind="tmpfs",
        flags=flags,
        options=f"size={size},mode={mode:o}",
        what=f"cannot mount a tmpfs on {target}",
    )


def unmount(target: str) -> None:
    """Detach what is mounted on `target`, even if busy; symlinks are not followed.

    Raises:
        LaminaError: nothing is mounted there, or the privilege is missing.
    """
    if _call("umount2", os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
        number = _errno()
        if number == errno.EINVAL:
            raise LaminaError(f"cannot unmount {target}: it is not a mount point")
        raise _error(f"cannot unmount {target}", number)


def _detached(mount: OverlayMount, *, volatile: bool, devices: bool) -> int | None:
    """The fd of a mount that is attached nowhere; None if the kernel is too old for that."""
    enter()
    attributes = 0 if mount.upper else _MOUNT_ATTR_RDONLY
    if not devices:
        attributes |= _MOUNT_ATTR_NODEV
    try:
        if mount.upper and not mount.lowers:
            return _clone(mount.upper, attributes)
        if not mount.upper and len(mount.lowers) == 1:
            lower = mount.lowers[0]
            return image_fd(lower) if isinstance(lower, LayerImage) else _clone(lower, attributes)
        if not mount.upper and not mount.lowers:
            options: list[tuple[str, str | None]] = [("size", "4096"), ("mode", "0755")]
            return _new_mount("tmpfs", options, attributes=attributes)
        return _new_overlay(mount, attributes, volatile=volatile)
    except _TooOld:
        return None


class _TooOld(Exception):
    """The kernel lacks the new mount API, or `lowerdir+`."""


def _new_overlay(mount: OverlayMount, attributes: int, *, volatile: bool) -> int:
    check_layers(len(mount.lowers))
    with opened_layers(mount.lowers) as paths:
        options = _overlay_options(paths, mount, volatile=volatile)
        return _new_mount("overlay", options, attributes=attributes)


def _overlay_options(
    paths: list[str], mount: OverlayMount, *, volatile: bool
) -> list[tuple[str, str | None]]:
    options: list[tuple[str, str | None]] = [("lowerdir+", path) for path in paths]
    options += _OVERLAY_OPTIONS
    if is_namespaced():  # trusted.* is the host's root's
        options.append(("userxattr", None))
    if mount.upper:
        _forget_volatile(mount.work)
        # unlike lowerdir+, these two are unescaped by the kernel (ovl_mount_dir)
        options += [("upperdir", mount.upper.replace("\\", "\\\\"))]
        options += [("workdir", mount.work.replace("\\", "\\\\"))]
        if volatile:
            options.append(("volatile", None))
    return options


def _new_mount(kind: str, options: list[tuple[str, str | None]], *, attributes: int) -> int:
    context = _syscall(_SYS_FSOPEN, kind.encode(), _FSOPEN_CLOEXEC)
    if context < 0:
        if _errno() == errno.ENOSYS:
            raise _TooOld
        raise _error(f"cannot mount {kind}", _errno())
    try:
        for key, value in options:
            _configure(context, kind, key, value)
        if _syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0) < 0:
            raise _error(f"cannot mount {kind}{_log(context)}", _errno())
        fd = _syscall(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)
        if fd < 0:
            raise _error(f"cannot mount {kind}{_log(context)}", _errno())
        return fd
    finally:
        os.close(context)


def _configure(context: int, kind: str, key: str, value: str | None) -> None:
    command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
    text = None if value is None else os.fsencode(value)
    if _syscall(_SYS_FSCONFIG, context, command, key.encode(), text, 0) == 0:
        return
    number = _errno()
    log = _log(context)
    if key == "lowerdir+" and number == errno.EINVAL and "nknown parameter" in log:
        raise _TooOld
    raise _error(f"cannot mount {kind}, {key}={value}{log}", number)


def _log(context: int) -> str:
    """What the kernel says about the failed call (fsopen(2): messages are read from the fd)."""
    lines: list[str] = []
    while True:
        try:
            message = os.read(context, 1024)
        except OSError:  # ENODATA: no more messages
            break
        lines.append(message.decode(errors="replace").partition(" ")[2].strip())
    return "".join(f" ({line})" for line in lines if line)


def _clone(path: str, attributes: int) -> int:
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC
    fd = _syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)
    if fd < 0:
        if _errno() == errno.ENOSYS:
            raise _TooOld
        raise _error(f"cannot mount {path}", _errno())
    if attributes:
        try:
            what = f"cannot mount {path}"
            _set_attributes(fd, b"", attributes, flags=_AT_EMPTY_PATH, what=what)
        except BaseException:
            os.close(fd)
            raise
    return fd


def _set_attributes(dir_fd: int, path: bytes, attributes: int, *, flags: int, what: str) -> None:
    """mount_setattr(2): struct mount_attr {attr_set, attr_clr, propagation, userns_fd}."""
    import struct

    how = struct.pack("=QQQQ", attributes, 0, 0, 0)
    if _syscall(_SYS_MOUNT_SETATTR, dir_fd, path, flags, how, len(how)) < 0:
        if _errno() == errno.ENOSYS:
            raise _TooOld
        raise _error(what, _errno())


def _restrict(target: str, *, read_only: bool, recursive: bool, devices: bool, what: str) -> None:
    """Make a bind mount read-only, its device nodes useless, or both."""
    attributes = (_MOUNT_ATTR_RDONLY if read_only else 0) | (0 if devices else _MOUNT_ATTR_NODEV)
    if not attributes:
        return
    flags = _AT_RECURSIVE if recursive else 0
    try:
        _set_attributes(_AT_FDCWD, os.fsencode(target), attributes, flags=flags, what=what)
    except _TooOld:  # before 5.12: only the top mount, as `mount -o remount,bind,ro` does
        kept = os.statvfs(target).f_flag & (_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        again = (_MS_RDONLY if read_only else 0) | (0 if devices else _MS_NODEV)
        _mount("none", target, flags=_MS_REMOUNT | _MS_BIND | kept | again, what=what)


def clone(path: str) -> int:
    """A descriptor of the mount at `path` once more, attached nowhere. Raises LaminaError."""
    try:
        return _clone(path, 0)
    except _TooOld:
        raise LaminaError(f"cannot share the mount {path}: this needs Linux 5.2") from None


def attach(fd: int, target: str) -> None:
    """Mount what `fd` is a detached mount of on `target`. Raises LaminaError."""
    call = (_SYS_MOVE_MOUNT, fd, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
    if _syscall(*call) < 0:
        raise _error(f"cannot mount on {target}", _errno())


def _legacy_overlay(
    mount: OverlayMount,
    target: str,
    *,
    volatile: bool,
    devices: bool = False,
) -> None:
    """The same with mount(2). Each lower is given as /proc/self/fd/N: short, and free of colons."""
    if mount.upper and not mount.lowers:
        bind(mount.upper, target, devices=devices)
        return
    lowers = [layer for layer in mount.lowers if isinstance(layer, str)]
    if len(lowers) < len(mount.lowers):
        raise LaminaError(
            "this kernel cannot stack layers that are EROFS images",
            kind=Kind.UNSUPPORTED,
            hint="use the kernel that the store was made with, or another store",
        )
    if not mount.upper and len(lowers) < 2:
        if lowers:
            bind(lowers[0], target, read_only=True, devices=devices)
        else:
            tmpfs(target, size=4096, read_only=True)
        return
    check_layers(len(mount.lowers))
    fds: list[int] = []

    def short(path: str) -> str:
        try:
            fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            number = error.errno or 0
            raise _error(f"cannot mount overlay, layer {path}", number) from error
        return f"/proc/self/fd/{fds[-1]}"

    try:
        options = [f"lowerdir={':'.join(short(path) for path in lowers)}"]
        if mount.upper:
            _forget_volatile(mount.work)
            options += [f"upperdir={short(mount.upper)}", f"workdir={short(mount.work)}"]
        options += [f"{key}={value}" for key, value in _OVERLAY_OPTIONS]
        options += ["userxattr"] if is_namespaced() else []
        options += ["volatile"] if volatile and mount.upper else []
        text = ",".join(options)
        if len(text) >= _PAGE:
            raise LaminaError(
                f"{len(mount.lowers)} layers are more than this kernel can mount",
                kind=Kind.UNSUPPORTED,
                hint="Linux 6.8 or later mounts up to 500 layers",
            )
        flags = (0 if mount.upper else _MS_RDONLY) | (0 if devices else _MS_NODEV)
        what = f"cannot mount overlay on {target}"
        _mount("overlay", target, kind="overlay", flags=flags, options=text, what=what)
    finally:
        for fd in fds:
            os.close(fd)


def check_layers(count: int) -> None:
    """Raise LaminaError (UNSUPPORTED) for a stack of more layers than Linux mounts."""
    if count > MAX_LAYERS:
        raise LaminaError(
            f"{count} layers: overlayfs can stack at most {MAX_LAYERS}",
            kind=Kind.UNSUPPORTED,
            hint="make the image with fewer layers",
        )


def _forget_volatile(work: str) -> None:
    """Remove the mark that a volatile mount leaves: with it the kernel refuses every later mount.

    It means "not flushed"; that matters after a power loss only, and callers who care about that
    do not mount volatile.
    """
    mark = os.path.join(work, "work", "incompat")
    for remove, name in ((os.unlink, "volatile/dirty"), (os.rmdir, "volatile"), (os.rmdir, "")):
        try:
            remove(os.path.join(mark, name))
        except FileNotFoundError:
            continue
        except OSError as error:
            what = f"cannot clear {mark} of an earlier mount"
            raise _error(what, error.errno or 0) from error


def _mount(  # mount(2)'s own parameters
    source: str, target: str, *, what: str, kind: str = "none", flags: int = 0, options: str = ""
) -> None:
    paths = (os.fsencode(source), os.fsencode(target))
    if _call("mount", *paths, kind.encode(), flags, os.fsencode(options) or None) != 0:
        raise _error(what, _errno())


_KINDS = {
    errno.ENOTBLK: Kind.UNSUPPORTED,
    errno.EPERM: Kind.DENIED,
    errno.EACCES: Kind.DENIED,
    errno.ENODEV: Kind.UNSUPPORTED,
    errno.ENOSYS: Kind.UNSUPPORTED,
    errno.ENOENT: Kind.NOT_FOUND,
    errno.ENOTDIR: Kind.INVALID,
    errno.ENOSPC: Kind.EXHAUSTED,
    errno.ENOMEM: Kind.EXHAUSTED,
    errno.EMFILE: Kind.EXHAUSTED,
}
_HINTS = {
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EPERM: "mounting needs root, or a user namespace in which lamina is root",
    errno.ENODEV: "load the module (modprobe overlay), or use a kernel that has it",
    errno.ENOSPC: "the limit is /proc/sys/fs/mount-max, or the disk is full",
}


def _error(what: str, number: int) -> LaminaError:
    return LaminaError(
        f"{what}: {os.strerror(number)}",
        kind=_KINDS.get(number, Kind.SYSTEM),
        hint=_HINTS.get(number, ""),
    )


def _call(name: str, *arguments: int | bytes | None) -> int:
    """A function of the C library, loaded on the first use because most commands mount nothing."""
    from lamina.start.libc import call

    return call(name, *arguments)


def _errno() -> int:
    from lamina.start.libc import get_errno

    return get_errno()


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    return _call("syscall", number, *arguments)


def syncfs(path: str) -> None:
    """Write everything dirty of the filesystem that holds `path` to the disk.

    Raises:
        LaminaError: kind EXHAUSTED or SYSTEM: a write-back failed since the directory was opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _call("syncfs", fd) != 0:
            raise _error(f"cannot flush {path} to the disk", _errno())
    finally:
        os.close(fd)
