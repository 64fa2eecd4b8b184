# SPDX-License-Identifier: Apache-2.0
"""A small tree around a static busybox."""

from __future__ import annotations

import os
import shutil
import subprocess

from lamina.bootstrap.contained import SECOND, file_item
from lamina.errors import Kind, LaminaError
from lamina.layer.entry import Entry, EntryType, sort_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.bootstrap.options import BootstrapOptions
    from lamina.layer.entry import Item

_DIRECTORIES: dict[bytes, int] = {
    b"bin": 0o755,
    b"dev": 0o755,
    b"etc": 0o755,
    b"home": 0o755,
    b"mnt": 0o755,
    b"opt": 0o755,
    b"proc": 0o555,
    b"root": 0o700,
    b"run": 0o755,
    b"sbin": 0o755,
    b"srv": 0o755,
    b"sys": 0o555,
    b"tmp": 0o1777,
    b"usr": 0o755,
    b"usr/bin": 0o755,
    b"usr/local": 0o755,
    b"usr/local/bin": 0o755,
    b"usr/sbin": 0o755,
    b"var": 0o755,
    b"var/cache": 0o755,
    b"var/lib": 0o755,
    b"var/log": 0o755,
    b"var/spool": 0o755,
    b"var/tmp": 0o1777,
}
_FILES: dict[bytes, tuple[int, bytes]] = {
    b"etc/passwd": (
        0o644,
        (
            b"root:x:0:0:root:/root:/bin/sh\n"
            b"daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
            b"bin:x:2:2:bin:/bin:/bin/false\n"
            b"www-data:x:33:33:www-data:/var/www:/bin/false\n"
            b"nobody:x:65534:65534:nobody:/home:/bin/false\n"
        ),
    ),
    b"etc/group": (
        0o644,
        (
            b"root:x:0:\ndaemon:x:1:\nbin:x:2:\nadm:x:4:\ntty:x:5:\nmail:x:8:\n"
            b"www-data:x:33:\nusers:x:100:\nnogroup:x:65533:\nnobody:x:65534:\n"
        ),
    ),
    b"etc/shadow": (0o640, b"root:*::0:::::\nnobody:*::0:::::\n"),
    b"etc/nsswitch.conf": (0o644, b"hosts: files dns\n"),
    b"etc/shells": (0o644, b"/bin/sh\n/bin/ash\n"),
}


def check_busybox(options: BootstrapOptions, suite: str) -> None:
    given = [
        flag
        for flag, value in (
            ("--include", options.include),
            ("--mirror", options.mirror),
            ("--components", options.components),
        )
        if value
    ]
    if options.variant != "minbase":
        given.append("--variant")
    if given:
        raise LaminaError(f"bootstrap busybox does not take {given[0]}", kind=Kind.USAGE)
    if suite not in {"", "latest"}:
        raise LaminaError(
            f"bootstrap busybox has no versions: it is the host's ({options.what!r})",
            kind=Kind.USAGE,
        )


def host_busybox(search_path: str) -> str:
    binary = shutil.which("busybox", path=search_path)
    if binary is None:
        raise LaminaError(
            "there is no busybox on this host",
            kind=Kind.SYSTEM,
            hint="install it: apt-get install busybox-static",
        )
    return binary


def busybox_items(search_path: str) -> list[Item]:
    """A small root filesystem around the host's static busybox; all times are the binary's.

    Raises:
        LaminaError: kind SYSTEM: there is no busybox, or it is not static.
    """
    binary = host_busybox(search_path)
    with open(binary, "rb") as file:
        data = file.read()
        mtime = int(os.fstat(file.fileno()).st_mtime)
    if b"/ld-linux" in data[:4096] or b"/ld-musl" in data[:4096]:
        raise LaminaError(
            f"{binary} is not statically linked, so it would not run in an image",
            kind=Kind.SYSTEM,
            hint="install busybox-static",
        )
    return busybox_tree(data, mtime, applets(binary))


def busybox_tree(program: bytes, mtime: int, applets: Sequence[bytes]) -> list[Item]:
    found: dict[bytes, Item] = {}
    for path, mode in _DIRECTORIES.items():
        found[path] = (Entry(path, EntryType.DIR, mode, mtime_ns=mtime * SECOND), None)
    for path, (mode, content) in _FILES.items():
        found[path] = file_item(path, content, mode=mode, mtime=mtime)
    found[b"bin/busybox"] = file_item(b"bin/busybox", program, mode=0o755, mtime=mtime)
    for applet in applets:
        found.setdefault(
            applet,
            (
                Entry(
                    applet,
                    EntryType.SYMLINK,
                    0o777,
                    mtime_ns=mtime * SECOND,
                    linkname=b"/bin/busybox",
                ),
                None,
            ),
        )
    return [found[path] for path in sorted(found, key=sort_key)]


def applets(binary: str) -> list[bytes]:
    """The paths of the binary's applets, relative to the root."""
    done = subprocess.run([binary, "--list-full"], capture_output=True, check=False)
    known = set(_DIRECTORIES)
    paths = [
        path
        for path in done.stdout.split()
        if path.rpartition(b"/")[0] in known and b".." not in path
    ]
    if done.returncode != 0 or b"bin/sh" not in paths:
        raise LaminaError(
            f"{binary} --list-full does not list its applets",
            kind=Kind.SYSTEM,
            hint="install busybox-static",
        )
    return paths
