# SPDX-License-Identifier: Apache-2.0
"""Findings about this host for whoever runs this: what building and running needs, tried for real."""

from __future__ import annotations

import os
import tempfile

from lamina.container.host import kernel_version
from lamina.container.keeping import ForkedHelpers
from lamina.container.network.ports import first_free_port
from lamina.container.network.usernet import UserNetwork, find_way
from lamina.container.runtime import find_runtime
from lamina.errors import LaminaError
from lamina.layer.walk import is_whiteout
from lamina.start.record import Record
from lamina.store.layerform import makes_images
from lamina.system.mounts import overlay_fd
from lamina.system.overlay import OverlayMount
from lamina.system.programs import find_program
from lamina.system.userns import (
    HOST,
    MAPPED,
    enter,
    ids_hint,
    is_host_root,
    mapped_count,
    own_uid,
    state,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lamina.app.settings import Settings
    from lamina.store.ports import Store

WORKS, LACKS, FAILS = "works", "lacks", "fails"
_OLDEST = (5, 11)  # overlayfs in user namespaces
_MANY_LAYERS = (6, 8)  # lowerdir+
_IDS = 65536  # what Debian's images use: `nobody` is 65534
_LOW_SPACE = 2 << 30  # bytes


class Finding(Record):
    """What was looked at and found. `status`: it works; it lacks something that lamina does without,
    or does less; or it fails, and lamina cannot build or run. `mend` is a command, or what to do.
    """

    name: str
    status: str
    found: str
    mend: str = ""


def examine(store: Store, settings: Settings, *, search_path: str) -> Iterator[Finding]:
    """Look at one thing after the other; an ordinary user's process enters its user namespace.

    What is tried (a mount, a container, a network) leaves nothing behind.
    """
    yield _kernel()
    yield from _identity()
    yield _place(store.root)
    for name, look in (
        ("overlay", lambda: _overlay(store.root)),
        ("layers", lambda: _layers(store, settings)),
        ("runtime", lambda: _runtime(store, settings, search_path)),
        ("limits", lambda: _limits(store, settings, search_path)),
        ("network", lambda: _network(store.root)),
        ("ports", _ports),
        ("certificates", lambda: _certificates(settings)),
        ("bootstrap", lambda: _bootstrap(search_path)),
    ):
        yield _tried(name, look)


def _tried(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except LaminaError as error:
        return Finding(name, FAILS, error.what, error.hint)
    except OSError as error:
        return Finding(name, FAILS, str(error))


def _kernel() -> Finding:
    release = os.uname().release
    version = kernel_version(release)
    if version < _OLDEST and not is_host_root():
        text = f"Linux {release}: overlayfs in user namespaces needs 5.11"
        return Finding("kernel", FAILS, text, "run lamina as root, or a newer kernel")
    if version < _MANY_LAYERS:
        text = f"Linux {release}: images with more than about 200 layers need 6.8"
        return Finding("kernel", LACKS, text, "use a newer kernel")
    return Finding("kernel", WORKS, f"Linux {release}")


def _identity() -> Iterator[Finding]:
    """Who this is, and for an ordinary user what its namespace has."""
    if state() == HOST:
        yield Finding("user", WORKS, "root: no user namespace is needed")
        return
    try:
        enter()
    except LaminaError as error:
        yield Finding("user namespace", FAILS, error.what, error.hint)
        return
    yield Finding("user namespace", WORKS, f"uid {own_uid()} is root of its own")
    yield _ids()


def _ids() -> Finding:
    count = mapped_count()
    if state() != MAPPED:
        return Finding("ids", LACKS, "your own id only: images with other owners fail", ids_hint())
    if count < _IDS:
        text = f"{count} ids: images of distributions use up to {_IDS}"
        return Finding("ids", LACKS, text, ids_hint())
    return Finding("ids", WORKS, f"{count} ids")


def _place(root: str) -> Finding:
    found = os.statvfs(root)
    free = found.f_bavail * found.f_frsize
    text = f"{root}: {free >> 20} MiB free"
    if free < _LOW_SPACE:
        return Finding("store", LACKS, text, "lamina system prune")
    return Finding("store", WORKS, text)


def _overlay(root: str) -> Finding:
    """A file is hidden and a directory replaced through an overlay on the store's filesystem."""
    with _scratch(root) as place:
        lower, upper, work = (f"{place}/{name}" for name in ("lower", "upper", "work"))
        for directory in (lower, upper, work, f"{lower}/d"):
            os.mkdir(directory)
        fd = overlay_fd(OverlayMount((lower,), upper, work))
        try:
            os.rmdir("d", dir_fd=fd)
            os.mkdir("d", dir_fd=fd)  # over a whiteout: EIO without userxattr
            os.rmdir("d", dir_fd=fd)
        finally:
            os.close(fd)
        if not is_whiteout(os.stat(f"{upper}/d", follow_symlinks=False)):
            return Finding("overlay", FAILS, "a removed directory left no whiteout")
    return Finding("overlay", WORKS, "the kernel's overlayfs, on the store's filesystem")


def _scratch(root: str) -> tempfile.TemporaryDirectory[str]:
    """A directory that GC removes if this process cannot: its name is no snapshot's number."""
    return tempfile.TemporaryDirectory(prefix="doctor.", dir=f"{root}/snapshots")


def _layers(store: Store, settings: Settings) -> Finding:
    if makes_images(f"{store.root}/snapshots", settings.layers):
        return Finding("layers", WORKS, "mounted as EROFS files")
    if settings.layers == "directories":
        return Finding("layers", WORKS, "unpacked, as configured")
    why = "only the host's root may mount them" if not is_host_root() else "the kernel cannot"
    return Finding("layers", LACKS, f"unpacked, which takes longer than mounting: {why}")


def _runtime(store: Store, settings: Settings, search_path: str) -> Finding:
    found = find_runtime(store.root, override=settings.runtime, search_path=search_path)
    return Finding("runtime", WORKS, f"{found.name} {found.version} ran a container")


def _limits(store: Store, settings: Settings, search_path: str) -> Finding:
    found = find_runtime(store.root, override=settings.runtime, search_path=search_path)
    if found.manager != "disabled":
        return Finding("limits", WORKS, f"control groups: {', '.join(found.cgroups.controllers)}")
    why = "they need root" if not is_host_root() else f"{found.name} can make none"
    return Finding("limits", LACKS, f"no control groups, so --memory and the like fail: {why}")


def _network(root: str) -> Finding:
    """A namespace that something leads out of."""
    if is_host_root():
        if find_program("nft", search_path="/usr/sbin:/sbin:/usr/bin:/bin"):
            return Finding("network", WORKS, "a bridge, with nft")
        mend = "install nftables"
        return Finding("network", LACKS, "no nft: containers cannot reach other hosts", mend)
    way = find_way()
    if not way.programs:
        text = f"the host's network is used: {way.why}"
        return Finding("network", LACKS, text, way.mend)
    with _scratch(root) as place:
        network = UserNetwork(ForkedHelpers(), directory=place, way=way)
        attachment = network.attach("doctor", hold_pid=os.getpid())
        network.release(attachment)
    return Finding("network", WORKS, f"led out by {way.programs[0][0]}")


def _ports() -> Finding:
    first = 1 if is_host_root() else first_free_port()
    if first <= 80:
        return Finding("ports", WORKS, "all that are used by servers can be published")
    mend = "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=80"
    return Finding("ports", LACKS, f"ports below {first} cannot be published", mend)


def _certificates(settings: Settings) -> Finding:
    import ssl

    bundle = settings.ca_bundle
    path = bundle or ssl.get_default_verify_paths().cafile or ""
    if not path:
        mend = "install ca-certificates, or set ca-bundle in the configuration"
        return Finding("certificates", FAILS, "no CA bundle: no registry can be trusted", mend)
    count = len(ssl.create_default_context(cafile=path).get_ca_certs())
    if not count:
        return Finding("certificates", FAILS, f"{path} holds no certificate", "name another")
    given = ", which RUN steps are given" if bundle else ""
    return Finding("certificates", WORKS, f"{path} ({count}){given}")


def _bootstrap(search_path: str) -> Finding:
    missing = [
        name
        for name in ("mmdebstrap", "busybox")
        if not find_program(name, search_path=search_path)
    ]
    if missing:
        text = f"no {' and no '.join(missing)}: images come from registries and archives only"
        return Finding("bootstrap", LACKS, text, "install mmdebstrap and busybox-static")
    return Finding("bootstrap", WORKS, "mmdebstrap and busybox")
