# SPDX-License-Identifier: Apache-2.0
"""A stack of layers' directories shows what overlayfs shows of them."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.builder.changes import MountedBase, OpenedBase
from lamina.builder.layeredbase import LayerDirectories
from lamina.errors import Kind, LaminaError
from lamina.system.mounts import overlay_fd
from lamina.system.overlay import OverlayMount

pytestmark = pytest.mark.root

NAMES = ("a", "b")
PATHS = [
    "/".join(parts).encode()
    for depth in (1, 2, 3)
    for parts in [[NAMES[number >> bit & 1] for bit in range(depth)] for number in range(2**depth)]
]
KINDS = ("file", "dir", "opaque", "not opaque", "whiteout", "link", "fifo", "device")
LAYER = st.lists(
    st.tuples(st.sampled_from(PATHS), st.sampled_from(KINDS), st.integers(0, 3)), max_size=8
)


def fill(root: bytes, changes: list[tuple[bytes, str, int]]) -> None:
    """Make what fits: nothing is made below what is no directory, or twice."""
    for path, kind, number in changes:
        place = root + b"/" + path
        parent = os.path.dirname(place)
        if not all(
            stat.S_ISDIR(os.lstat(p).st_mode) for p in ancestors(root, parent) if os.path.lexists(p)
        ):
            continue
        if os.path.lexists(place):
            continue
        os.makedirs(parent, exist_ok=True)
        if kind == "file":
            with open(place, "wb") as file:
                file.write(b"x" * number)
        elif kind == "whiteout":
            os.mknod(place, stat.S_IFCHR, os.makedev(0, 0))
        elif kind == "device":
            os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        elif kind == "link":
            os.symlink(NAMES[number % 2], place)
            continue
        elif kind == "fifo":
            os.mkfifo(place)
        else:
            os.mkdir(place)
            name = {"opaque": "trusted.overlay.opaque", "not opaque": "user.overlay.opaque"}.get(
                kind
            )
            if name is not None:
                os.setxattr(place, name, b"y")
        os.chmod(place, 0o640 + number)
        os.chown(place, number, number)
        os.utime(place, ns=(0, number * 1_000_000_000))


def ancestors(root: bytes, place: bytes) -> Iterator[bytes]:
    while len(place) > len(root):
        yield place
        place = os.path.dirname(place)


def seen(base: OpenedBase) -> dict[bytes, object]:
    """All that a base says of every path."""
    told: dict[bytes, object] = {}
    for path in [b"", *PATHS]:
        entry = base.lookup(path)
        told[path] = entry
        if entry is not None and entry.type.name == "DIR":
            told[path + b" dir"] = base.directory(path)
        if entry is not None and entry.type.name == "FILE":
            told[path + b" data"] = base.read_small(path, limit=100)
    return told


@settings(max_examples=120, deadline=None)
@given(st.lists(LAYER, min_size=2, max_size=4))
def test_layers_look_as_overlayfs_shows_them(layers: list[list[tuple[bytes, str, int]]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        roots = []
        for number, changes in enumerate(layers):
            roots.append(f"{place}/{number}")
            os.mkdir(roots[-1], 0o755)
            fill(os.fsencode(roots[-1]), changes)
        opened = LayerDirectories()
        ours = opened.base(roots)
        theirs = MountedBase(overlay_fd(OverlayMount(tuple(roots))))
        try:
            assert seen(ours) == seen(theirs)
        finally:
            opened.close()
            theirs.close()


def test_no_link_is_followed_out_of_the_layers() -> None:
    with tempfile.TemporaryDirectory() as place:
        os.mkdir(f"{place}/layer")
        os.symlink("/etc", f"{place}/layer/out")
        layers = LayerDirectories()
        base = layers.base([f"{place}/layer"])
        try:
            assert base.lookup(b"out/passwd") is None
            entry = base.lookup(b"out")
            assert entry is not None
            assert entry.linkname == b"/etc"
            for path in (b"out/passwd", b"out", b"missing", b"x" * 300):
                with pytest.raises(LaminaError) as error:
                    base.read_small(path, limit=10)
                assert error.value.kind in {Kind.NOT_FOUND, Kind.INVALID}
        finally:
            layers.close()
