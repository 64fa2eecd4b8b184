# SPDX-License-Identifier: Apache-2.0
"""A layer that is wrapped and mounted shows what unpacking it makes, or fails as it does."""

from __future__ import annotations

import io
import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.errors import LaminaError
from lamina.layer.apply import apply_layer
from lamina.layer.entry import Entry, EntryType
from lamina.layer.tarwrite import write_tar
from lamina.layer.wrap import wrap_layer
from lamina.start.record import replace
from lamina.system.mounts import opened_layers, overlay_fd
from lamina.system.overlay import LayerImage, OverlayMount
from lamina.system.xattrs import read_xattrs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.layer.entry import Item

    Seen = dict[bytes, tuple[object, ...]]

pytestmark = pytest.mark.root

NAMES = (b"a", b"b", b"c", b"\xff", b"n" * 255)
WHITEOUTS = (b".wh.a", b".wh.b", b".wh..wh..opq", b".wh.", b".wh..wh.x")
TARGETS = (b"a", b"../b", b"/", b"/a/b", b"..", b"x" * 700, b"a/./b", b"b")
XATTRS: tuple[tuple[tuple[bytes, bytes], ...], ...] = (
    (),
    (),
    ((b"user.k", b"v"),),
    ((b"security.capability", bytes.fromhex("0100000200200000000000000000000000000000")),),
    ((b"trusted.overlay.opaque", b"y"), (b"trusted.t", b"u"), (b"user.k", b"")),
)
names = st.sampled_from(NAMES)
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join)


@st.composite
def items(draw: st.DrawFn) -> Item:
    path = draw(paths)
    kind = draw(st.sampled_from([*EntryType, EntryType.DIR, EntryType.FILE, None]))
    if kind is None:
        parent = path.rpartition(b"/")[0]
        path = (parent + b"/" if parent else b"") + draw(st.sampled_from(WHITEOUTS))
        return Entry(path, EntryType.FILE, 0), b""
    link = b""
    content: bytes | None = None
    if kind is EntryType.SYMLINK:
        link = draw(st.sampled_from(TARGETS))
    elif kind is EntryType.HARDLINK:
        link = draw(paths)
    elif kind is EntryType.FILE:
        content = draw(st.sampled_from([b"", b"x", b"y" * 511, b"z" * 512, bytes(9000) + b"end"]))
    device = kind in {EntryType.CHAR, EntryType.BLOCK}
    entry = Entry(
        path,
        kind,
        draw(st.sampled_from([0o644, 0o755, 0o4711, 0o1777, 0])),
        draw(st.sampled_from([0, 1000, 70_000, 4_000_000_000])),
        draw(st.sampled_from([0, 70_000])),
        len(content or b""),
        draw(st.sampled_from([0, 1_700_000_000_123_456_789, -1])),
        link,
        draw(st.sampled_from([1, 4095])) if device else 0,
        draw(st.sampled_from([3, 300, 0xFFFFF])) if device else 0,
        draw(st.sampled_from(XATTRS)),
    )
    if draw(st.integers(0, 20)) == 0 and kind is EntryType.DIR:
        entry = replace(entry, path=b"")
    return entry, content


layers = st.lists(items(), max_size=10)


def tar_of(found: list[Item]) -> bytes:
    out = io.BytesIO()
    write_tar(found, out.write)
    return out.getvalue()


def seen(path: bytes) -> Seen:
    """Everything that a program can see of a tree, by path."""
    found: Seen = {}
    first: dict[int, bytes] = {}
    todo = [b""]
    while todo:
        at = todo.pop()
        full = path + b"/" + at if at else path + b"/."
        status = os.lstat(full)
        kind = stat.S_IFMT(status.st_mode)
        what: object = None
        if kind == stat.S_IFREG:
            what = Path(os.fsdecode(full)).read_bytes()
        elif kind == stat.S_IFLNK:
            what = os.readlink(full)
        elif kind in {stat.S_IFCHR, stat.S_IFBLK}:
            what = status.st_rdev
        elif kind == stat.S_IFDIR:
            what = sorted(os.listdir(full))
            todo += [at + b"/" + name if at else name for name in sorted(os.listdir(full))[::-1]]
        links = 0
        other = at
        if kind != stat.S_IFDIR:
            links = status.st_nlink
            other = first.setdefault(status.st_ino, at)
        time = 0 if status.st_rdev == 0 and kind == stat.S_IFCHR else status.st_mtime_ns
        found[at] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            time,
            what,
            links,
            other,
            read_xattrs(full),
        )
    return found


@contextmanager
def shown(layer: LayerImage | str) -> Iterator[Seen]:
    with opened_layers([layer]) as (path,):
        yield seen(os.fsencode(path))


def made(
    tar: bytes, place: Path, name: str, lowers: list[LayerImage | str], *, wrap: bool
) -> LayerImage | str | LaminaError:
    target = place / name
    try:
        with opened_layers(lowers) as below:
            if wrap:
                wrap_layer(io.BytesIO(tar), str(target), expected=None, lowers=below)
                return LayerImage(str(target))
            target.mkdir()
            apply_layer(io.BytesIO(tar), str(target), lowers=below)
            return str(target)
    except LaminaError as error:
        return error


@settings(
    max_examples=200, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(stack=st.lists(layers, min_size=1, max_size=3))
def test_wrapped_layers_show_what_unpacked_ones_do(stack: list[list[Item]]) -> None:
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        images: list[LayerImage | str] = []
        directories: list[LayerImage | str] = []
        for number, found in enumerate(stack):
            tar = tar_of(found)
            image = made(tar, place, f"i{number}", images, wrap=True)
            directory = made(tar, place, f"d{number}", directories, wrap=False)
            if isinstance(image, LaminaError) or isinstance(directory, LaminaError):
                assert (type(image), str(image)) == (type(directory), str(directory))
                return
            images.insert(0, image)
            directories.insert(0, directory)
            with shown(image) as got, shown(directory) as wanted:
                assert got == wanted
        one, other = merged(images), merged(directories)
        assert one == other


def merged(stack: list[LayerImage | str]) -> Seen:
    fd = overlay_fd(OverlayMount(tuple(stack)))
    try:
        return {
            # whether names are links of one file is the layer's; overlayfs numbers them anew
            path: (*what[:6], *what[7:])
            for path, what in seen(b"/proc/self/fd/%d" % fd).items()
        }
    finally:
        os.close(fd)
