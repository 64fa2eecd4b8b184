# SPDX-License-Identifier: Apache-2.0
"""Archives made to escape, to delete, or to exhaust: nothing outside the target is touched."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.layer.apply import apply_layer, extract
from lamina.layer.entry import Entry, EntryType
from lamina.layer.tarwrite import write_tar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lamina.layer.entry import Item

pytestmark = pytest.mark.root

LINK, HARD, DIR = EntryType.SYMLINK, EntryType.HARDLINK, EntryType.DIR


def member(path: bytes, kind: EntryType = EntryType.FILE, target: bytes = b"") -> Item:
    content = b"owned" if kind is EntryType.FILE else None
    size = len(content or b"")
    return Entry(path, kind, 0o666, size=size, linkname=target), content


def raw_tar(*items: Item) -> bytes:
    """The writer does not judge names, so it can write hostile ones."""
    out = io.BytesIO()
    write_tar(items, out.write)
    return out.getvalue()


class Victim:
    """A directory beside the target, with a file that must not change and a name not to appear."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.target = base / "target"
        self.target.mkdir()
        self.outside = base / "outside"
        self.outside.mkdir()
        (self.outside / "file").write_text("precious")
        (self.outside / "sub").mkdir()
        self._before = self._state()

    def _state(self) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = [(sorted(os.listdir(self.base)),)]
        for path in [self.outside, *sorted(self.outside.rglob("*"))]:
            status = path.lstat()
            data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            found.append((path, status.st_mode, status.st_uid, status.st_nlink, data))
            found.append((status.st_mtime_ns, status.st_ctime_ns))
        return found

    def check(self) -> None:
        assert self._state() == self._before


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    found = Victim(tmp_path)
    yield found
    # Some trees are deeper than Python's own removal can go.
    subprocess.run(["rm", "-rf", found.target], check=True)


def attacks(outside: str) -> dict[str, list[Item]]:
    there = outside.encode()
    up = b"../" * 30 + there[1:]
    return {
        "dots": [member(b"../outside/file"), member(b"../outside/new")],
        "absolute": [member(there + b"/file"), member(there + b"/new")],
        "many dots": [member(up + b"/new")],
        "write through an absolute link": [member(b"l", LINK, there), member(b"l/file")],
        "write through a relative link": [member(b"l", LINK, b"../outside"), member(b"l/file")],
        "write through a chain of links": [
            member(b"a", LINK, b".."),
            member(b"b", LINK, b"a/outside"),
            member(b"b/file"),
            member(b"b/sub/new"),
        ],
        "write through a link of /proc": [
            member(b"l", LINK, b"/proc/self/root" + there),
            member(b"l/new"),
        ],
        "write through a link of /proc/self/cwd": [
            member(b"l", LINK, b"/proc/self/cwd"),
            member(b"l/new"),
        ],
        "file over a link to a file": [member(b"l", LINK, there + b"/file"), member(b"l")],
        "metadata of a link's target": [member(b"l", LINK, there), member(b"l", DIR)],
        "mode through a link as directory": [member(b"l", LINK, there), member(b"l/sub", DIR)],
        "hard link to an absolute name": [member(b"h", HARD, there + b"/file"), member(b"h")],
        "hard link with dots": [member(b"h", HARD, b"../outside/file")],
        "hard link through a link": [member(b"l", LINK, there), member(b"h", HARD, b"l/file")],
        "hard link to a link, then write": [
            member(b"l", LINK, there + b"/file"),
            member(b"h", HARD, b"l"),
            member(b"h"),
        ],
        "whiteout with dots": [member(b"../outside/.wh.file")],
        "whiteout through a link": [member(b"l", LINK, there), member(b"l/.wh.file")],
        "opaque marker through a link": [member(b"l", LINK, there), member(b"l/.wh..wh..opq")],
        "opaque marker with dots": [member(b"../outside/.wh..wh..opq")],
        "whiteout of the parent": [member(b"sub/.wh...")],
        "whiteout of the directory": [member(b"sub/.wh..")],
        "whiteout of nothing": [member(b"sub/.wh.")],
        "device through a link": [
            member(b"l", LINK, there),
            (Entry(b"l/dev", EntryType.BLOCK, 0o666, devmajor=8), None),
        ],
        "directory replaced by a link": [
            member(b"d", DIR),
            member(b"d/f"),
            member(b"d", LINK, there),
            member(b"d/file"),
            member(b"d", DIR),
        ],
        "link in place of a parent at the end": [
            member(b"d/sub", DIR),
            member(b"d", LINK, there),
        ],
        "removal through a link": [
            member(b"d/sub", DIR),
            member(b"d/sub/l", LINK, there),
            member(b"d"),
        ],
        "link that loops": [member(b"l", LINK, b"l"), member(b"l/x")],
        "long chain of links": [
            *[member(b"%d" % n, LINK, b"%d" % (n + 1)) for n in range(60)],
            member(b"60", LINK, there),
            member(b"0/new"),
        ],
    }


NAMES = sorted(attacks("/x"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("as_layer", [True, False])
def test_nothing_outside_is_touched(victim: Victim, name: str, *, as_layer: bool) -> None:
    tar = io.BytesIO(raw_tar(*attacks(str(victim.outside))[name]))
    try:
        if as_layer:
            apply_layer(tar, str(victim.target), lowers=())
        else:
            extract(tar, str(victim.target), owners=True, privileged=True)
    except LaminaError as error:
        assert error.kind is Kind.INVALID  # noqa: PT017  # success is fine too
    victim.check()


@pytest.mark.parametrize("name", NAMES)
def test_items_given_directly_are_no_more_trusted(victim: Victim, name: str) -> None:
    try:
        extract(attacks(str(victim.outside))[name], str(victim.target), owners=True)
    except LaminaError as error:
        assert error.kind is Kind.INVALID  # noqa: PT017  # success is fine too
    victim.check()


@pytest.mark.parametrize("path", [b"..", b".", b"a/..", b"a/.", b"a/", b"/", b"a\0b"])
def test_items_with_names_that_are_no_names_are_refused(victim: Victim, path: bytes) -> None:
    with pytest.raises(LaminaError) as caught:
        extract([member(path, DIR)], str(victim.target))
    assert caught.value.kind is Kind.INVALID
    victim.check()


def test_link_that_was_in_the_target_before_is_resolved_inside_it(victim: Victim) -> None:
    (victim.target / "l").symlink_to(victim.outside)
    extract(io.BytesIO(raw_tar(member(b"l/new"))), str(victim.target))
    victim.check()
    assert (victim.target / str(victim.outside)[1:] / "new").read_bytes() == b"owned"


def test_link_in_a_layer_below_is_resolved_inside_the_target(victim: Victim) -> None:
    low = victim.target / "low"
    top = victim.target / "top"
    low.mkdir()
    top.mkdir()
    (low / "l").symlink_to(victim.outside)
    apply_layer(io.BytesIO(raw_tar(member(b"l/new"))), str(top), lowers=[str(low)])
    victim.check()
    assert (top / str(victim.outside)[1:] / "new").read_bytes() == b"owned"


def test_absolute_names_and_links_stay_beneath_the_target(victim: Victim) -> None:
    items = [member(b"/etc/passwd"), member(b"l", LINK, b"/etc"), member(b"l/shadow")]
    apply_layer(io.BytesIO(raw_tar(*items)), str(victim.target))
    assert sorted(os.listdir(victim.target / "etc")) == ["passwd", "shadow"]


@pytest.mark.parametrize(
    "path",
    [
        b".wh.",
        b".wh..",
        b".wh...",
        b"d/.wh..",
        b"d/.wh..wh.x",
        b".wh..wh.plnk",
        b".wh..wh..wh..opq",
    ],
)
def test_whiteouts_that_name_no_sibling_are_refused(victim: Victim, path: bytes) -> None:
    with pytest.raises(LaminaError, match="invalid whiteout") as caught:
        apply_layer(io.BytesIO(raw_tar(member(path))), str(victim.target))
    assert caught.value.kind is Kind.INVALID


def test_raw_overlay_whiteout_device_is_refused(victim: Victim) -> None:
    device: Item = (Entry(b"x", EntryType.CHAR, 0o666), None)
    with pytest.raises(LaminaError, match="0:0"):
        apply_layer(io.BytesIO(raw_tar(device)), str(victim.target))


@pytest.mark.parametrize("path", [b"n" * 256, b"a/" + b"n" * 256 + b"/b", b"f/x"])
def test_names_that_the_kernel_refuses_are_invalid(victim: Victim, path: bytes) -> None:
    with pytest.raises(LaminaError) as caught:
        apply_layer(io.BytesIO(raw_tar(member(b"f"), member(path))), str(victim.target))
    assert caught.value.kind is Kind.INVALID


def test_malformed_capability_is_invalid(victim: Victim) -> None:
    xattrs = ((b"security.capability", b"junk"),)
    entry = Entry(b"f", EntryType.FILE, 0o755, xattrs=xattrs)
    with pytest.raises(LaminaError, match="cannot create 'f'") as caught:
        apply_layer(io.BytesIO(raw_tar((entry, b""))), str(victim.target))
    assert caught.value.kind is Kind.INVALID


def test_sparse_bomb_costs_neither_time_nor_space(victim: Victim) -> None:
    head = bytearray(raw_tar(member(b"bomb"))[:512])
    head[124:136] = b"00000000000\0"
    head[156:157] = b"S"
    head[257:265] = b"ustar  \0"
    head[483:495] = b"\x80" + (1 << 42).to_bytes(11, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    began = time.monotonic()
    apply_layer(io.BytesIO(bytes(head)), str(victim.target))
    assert time.monotonic() - began < 5
    status = (victim.target / "bomb").stat()
    assert (status.st_size, status.st_blocks) == (1 << 42, 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: (
            [member(b"d/%d" % k, DIR) for k in range(n)]
            + [member(b"d"), member(b"d", DIR)] * (n // 2)
        ),
        lambda n: [
            i for k in range(n) for i in (member(b"%d/.wh.x" % k), member(b"%d/.wh..wh..opq" % k))
        ],
        lambda n: [member(b"a/" * 1500 + b"%d" % k) for k in range(n // 20)],
    ],
)
def test_work_grows_with_the_archive_and_not_with_its_square(
    victim: Victim, make: Callable[[int], list[Item]]
) -> None:
    began = time.process_time()
    apply_layer(io.BytesIO(raw_tar(*make(4000))), str(victim.target))
    assert time.process_time() - began < 10
