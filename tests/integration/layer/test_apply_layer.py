# SPDX-License-Identifier: Apache-2.0
"""Layers applied on the real kernel: what they become, and that overlayfs reads it."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamina.errors import Cancelled, Kind, LaminaError
from lamina.layer.apply import AppliedLayer, apply_layer, extract
from lamina.layer.entry import Entry, EntryType, sort_key
from lamina.layer.tarread import read_tar
from lamina.layer.tarwrite import write_tar
from lamina.layer.walk import overlay_items, tree_items
from lamina.tasks import CancelToken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.layer.entry import Content, Item

pytestmark = pytest.mark.root

CAPABILITY = (b"security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
SECOND = 10**9


def file(path: bytes, content: bytes = b"", mode: int = 0o644, mtime: int = 1) -> Item:
    size, time = len(content), mtime * SECOND
    return Entry(path, EntryType.FILE, mode, size=size, mtime_ns=time), content


def directory(path: bytes, mode: int = 0o755, uid: int = 0, mtime: int = 1) -> Item:
    return Entry(path, EntryType.DIR, mode, uid=uid, mtime_ns=mtime * SECOND), None


def link(path: bytes, target: bytes, kind: EntryType = EntryType.SYMLINK) -> Item:
    return Entry(path, kind, 0o777, mtime_ns=SECOND, linkname=target), None


def tar_of(*items: Item) -> bytes:
    out = io.BytesIO()
    write_tar(items, out.write)
    return out.getvalue()


def applied(root: Path, *items: Item, lowers: list[Path] | None = None) -> Path:
    root.mkdir()
    below = None if lowers is None else [str(lower) for lower in lowers]
    apply_layer(io.BytesIO(tar_of(*items)), str(root), lowers=below)
    return root


def test_hard_link_does_not_replace_what_it_links_to(tmp_path: Path) -> None:
    """Making room for it removed the directory that the link was about to be made from."""
    items = [file(b"b/b/a", b"text"), link(b"b", b"b/b/a", EntryType.HARDLINK)]
    with pytest.raises(LaminaError, match="which it would replace") as caught:
        applied(tmp_path / "root", *items)
    assert caught.value.kind is Kind.INVALID


def content_of(item: tuple[Entry, Content]) -> bytes:
    entry, content = item
    if content is None or isinstance(content, bytes):
        return content or b""
    assert callable(content)
    fd = content()
    try:
        return os.read(fd, entry.size + 1)
    finally:
        os.close(fd)


def walked(root: Path) -> list[tuple[Entry, bytes]]:
    return [(item[0], content_of(item)) for item in overlay_items(str(root))]


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)


@contextmanager
def overlay(lowers: list[Path], at: Path, upper: Path | None = None) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    options = "lowerdir=" + ":".join(map(str, lowers))
    if upper is not None:
        work = at.with_name(at.name + ".work")
        work.mkdir()
        upper.mkdir(exist_ok=True)
        options += f",upperdir={upper},workdir={work},redirect_dir=off,metacopy=off"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


EVERYTHING: list[Item] = [
    directory(b"d", 0o3751, 7, 5),
    (Entry(b"d/cap", EntryType.FILE, 0o755, 1, 2, 3, SECOND, xattrs=(CAPABILITY,)), b"cap"),
    (Entry(b"d/setuid", EntryType.FILE, 0o6755, 1, 2, 2, SECOND), b"su"),
    (Entry(b"d/zhard", EntryType.HARDLINK, 0o6755, 1, 2, 0, SECOND, b"d/setuid"), None),
    (Entry(b"d/" + b"n" * 255, EntryType.FILE, 0o400, 65534, 65534, 0, SECOND), b""),
    (Entry(b"d/\xff\xfe\n", EntryType.FILE, 0o000, 0, 0, 1, -5 * SECOND), b"x"),
    (Entry(b"d/user", EntryType.FILE, 0o444, 0, 0, 1, SECOND, xattrs=((b"user.a", b"\0"),)), b"x"),
    (Entry(b"dev", EntryType.CHAR, 0o666, 0, 5, 0, SECOND, devmajor=1, devminor=3), None),
    (Entry(b"disk", EntryType.BLOCK, 0o640, 0, 6, 0, SECOND, devmajor=259, devminor=70000), None),
    (Entry(b"empty", EntryType.DIR, 0o000, 3, 4, 0, 7 * SECOND), None),
    (Entry(b"pipe", EntryType.FIFO, 0o622, 1, 1, 0, SECOND), None),
    link(b"s", b"../../" + b"t" * 3000),
    (Entry(b"s2", EntryType.SYMLINK, 0o777, 5, 6, 0, SECOND, b"\xff"), None),
    file(b"sparse", b"a" + bytes(1 << 20) + b"b"),
]
EVERYTHING.sort(key=lambda item: sort_key(item[0].path))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_everything_a_layer_holds_comes_back_from_the_disk(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        (tmp_path / "t").mkdir(0o700)
        tar = tar_of(*EVERYTHING)
        result = apply_layer(io.BytesIO(tar), str(tmp_path / "t"))
    finally:
        os.umask(before)
    expected = [(entry, content_of((entry, content))) for entry, content in EVERYTHING]
    assert walked(tmp_path / "t") == expected
    assert str(result.diff_id) == "sha256:" + hashlib.sha256(tar).hexdigest()
    assert result.size == len(tar)
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o755
    assert (tmp_path / "t/d/zhard").samefile(tmp_path / "t/d/setuid")


def test_zeros_become_holes_and_content_stays(tmp_path: Path) -> None:
    data = bytes(1 << 16) + os.urandom(5000) + bytes(3 << 20) + b"x" + bytes(1 << 16)
    path = applied(tmp_path / "t", file(b"f", data)) / "f"
    assert path.read_bytes() == data
    assert path.stat().st_blocks * 512 <= 64 << 10


def test_trailing_padding_is_part_of_the_diff_id(tmp_path: Path) -> None:
    tar = tar_of(file(b"f")) + bytes(10240)
    result = apply_layer(io.BytesIO(tar), str(tmp_path))
    assert str(result.diff_id) == "sha256:" + hashlib.sha256(tar).hexdigest()
    assert result == AppliedLayer(result.diff_id, len(tar))


def test_whiteout_hides_and_later_entry_of_the_same_name_stays(tmp_path: Path) -> None:
    low = applied(tmp_path / "low", file(b"a"), directory(b"d"), file(b"d/old"), file(b"b"))
    top = applied(
        tmp_path / "top",
        file(b".wh.a"),
        file(b".wh.d"),
        directory(b"d"),
        file(b"d/new"),
        file(b"b", b"fresh"),
        file(b".wh.b"),
        lowers=[low],
    )
    assert is_whiteout(top / "a")
    with overlay([top, low], tmp_path / "m") as merged:
        assert sorted(os.listdir(merged)) == ["b", "d"]
        assert os.listdir(merged / "d") == ["new"]
        assert (merged / "b").read_bytes() == b"fresh"


@pytest.mark.parametrize("first", [True, False])
def test_opaque_marker_hides_lower_children_only(tmp_path: Path, *, first: bool) -> None:
    low = applied(tmp_path / "low", directory(b"d"), file(b"d/old"), file(b"d/gone"))
    marker, new = file(b"d/.wh..wh..opq"), file(b"d/new")
    order = [marker, file(b"d/.wh.gone"), new] if first else [file(b"d/.wh.gone"), new, marker]
    top = applied(tmp_path / "top", directory(b"d"), *order, lowers=[low])
    assert is_opaque(top / "d")
    with overlay([top, low], tmp_path / "m") as merged:
        assert os.listdir(merged / "d") == ["new"]


def test_opaque_marker_in_the_root_hides_everything_below(tmp_path: Path) -> None:
    low = applied(tmp_path / "low", directory(b"d"), file(b"d/old"), file(b"f"))
    top = applied(tmp_path / "top", file(b".wh..wh..opq"), directory(b"d"), lowers=[low])
    with overlay([top, low], tmp_path / "m") as merged:
        assert os.listdir(merged) == ["d"]
        assert os.listdir(merged / "d") == []


def test_whiteout_over_nothing_is_not_written_where_layers_below_are_known(tmp_path: Path) -> None:
    low = applied(tmp_path / "low", directory(b"d"))
    top = applied(
        tmp_path / "top", directory(b"e"), file(b"e/.wh.x"), file(b"d/.wh.y"), lowers=[low]
    )
    assert os.listdir(top / "e") == []
    assert os.listdir(top / "d") == []
    unknown = applied(tmp_path / "unknown", file(b".wh.x"))
    assert is_whiteout(unknown / "x")


def test_missing_parents_are_those_of_the_layers_below(tmp_path: Path) -> None:
    low = applied(tmp_path / "low", directory(b"home", 0o711, 42, 9), directory(b"gone", 0o700))
    middle = applied(tmp_path / "middle", file(b".wh.gone"), lowers=[low])
    layers = [middle, low]
    top = applied(tmp_path / "top", file(b"home/f"), file(b"gone/f"), file(b"new/f"), lowers=layers)
    home = (top / "home").stat()
    assert (stat.S_IMODE(home.st_mode), home.st_uid, home.st_mtime) == (0o711, 42, 9)
    assert stat.S_IMODE((top / "gone").stat().st_mode) == 0o755
    assert stat.S_IMODE((top / "new").stat().st_mode) == 0o755


def test_root_takes_its_metadata_from_the_entry_or_from_below(tmp_path: Path) -> None:
    low = applied(tmp_path / "low", directory(b"", 0o711, 42, 9))
    top = applied(tmp_path / "top", file(b"f"), lowers=[low])
    for root in (low, top):
        status = root.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime) == (0o711, 42, 9)


def test_parent_that_is_a_link_below_is_followed(tmp_path: Path) -> None:
    low = applied(
        tmp_path / "low", directory(b"usr"), directory(b"usr/lib", 0o711), link(b"lib", b"usr/lib")
    )
    top = applied(tmp_path / "top", file(b"lib/x"), file(b"lib/.wh.y"), lowers=[low])
    assert sorted(os.listdir(top)) == ["usr"]
    assert os.listdir(top / "usr/lib") == ["x"]
    assert stat.S_IMODE((top / "usr/lib").stat().st_mode) == 0o711


def test_directory_takes_the_place_of_a_link_below(tmp_path: Path) -> None:
    low = applied(tmp_path / "low", directory(b"usr"), link(b"lib", b"usr"))
    top = applied(tmp_path / "top", file(b"lib/a"), directory(b"lib"), file(b"lib/b"), lowers=[low])
    assert os.listdir(top / "usr") == ["a"]
    assert os.listdir(top / "lib") == ["b"]


def test_hard_link_to_a_file_below_copies_it_up(tmp_path: Path) -> None:
    entry = Entry(b"d/f", EntryType.FILE, 0o4711, 3, 4, 5, 9 * SECOND, xattrs=(CAPABILITY,))
    low = applied(tmp_path / "low", directory(b"d", 0o711), (entry, b"hello"))
    top = applied(tmp_path / "top", link(b"l", b"d/f", EntryType.HARDLINK), lowers=[low])
    assert (top / "l").samefile(top / "d/f")
    found = dict(walked(top))
    assert found[entry] == b"hello"
    assert stat.S_IMODE((top / "d").stat().st_mode) == 0o711


def test_hard_link_to_a_symbolic_link_links_the_link(tmp_path: Path) -> None:
    top = applied(tmp_path / "t", link(b"s", b"nowhere"), link(b"h", b"s", EntryType.HARDLINK))
    assert os.readlink(top / "h") == "nowhere"
    assert (top / "h").lstat().st_nlink == 2


def test_hard_link_to_itself_changes_nothing(tmp_path: Path) -> None:
    top = applied(tmp_path / "t", file(b"f", b"x"), link(b"f", b"f", EntryType.HARDLINK))
    assert (top / "f").read_bytes() == b"x"


@pytest.mark.parametrize("target", [b"missing", b"d", b"gone"])
def test_hard_link_to_what_is_not_a_file_is_refused(tmp_path: Path, target: bytes) -> None:
    low = applied(tmp_path / "low", file(b"gone"))
    items = [directory(b"d"), file(b".wh.gone"), link(b"l", target, EntryType.HARDLINK)]
    with pytest.raises(LaminaError, match="not a file that comes before it") as caught:
        applied(tmp_path / "t", *items, lowers=[low])
    assert caught.value.kind is Kind.INVALID


@pytest.mark.parametrize("old", ["file", "directory", "link", "fifo"])
@pytest.mark.parametrize("new", ["file", "directory", "link", "fifo"])
def test_last_of_duplicates_wins(tmp_path: Path, old: str, new: str) -> None:
    makers: dict[str, Callable[[int], Item]] = {
        "file": lambda mode: file(b"x", b"%o" % mode, mode),
        "directory": lambda mode: directory(b"x", mode),
        "link": lambda mode: link(b"x", b"%o" % mode),
        "fifo": lambda mode: (Entry(b"x", EntryType.FIFO, mode, mtime_ns=SECOND), None),
    }
    inside = [file(b"x/inner"), directory(b"x/sub"), file(b"x/sub/f")] if old == "directory" else []
    top = applied(tmp_path / "t", makers[old](0o700), *inside, makers[new](0o711))
    kept = [e for e, _ in walked(top) if e.path.startswith(b"x/") and b".wh." not in e.path]
    assert walked(top)[0][0] == makers[new](0o711)[0]
    assert len(kept) == (3 if old == new == "directory" else 0)
    assert sorted(os.listdir(top)) == ["x"]


def test_directory_in_place_of_a_file_does_not_show_what_the_file_hid(tmp_path: Path) -> None:
    low = applied(tmp_path / "low", directory(b"x"), file(b"x/old"))
    top = applied(tmp_path / "top", file(b"x"), directory(b"x"), file(b"x/new"), lowers=[low])
    with overlay([top, low], tmp_path / "m") as merged:
        assert os.listdir(merged / "x") == ["new"]


def test_replaced_file_keeps_its_earlier_hard_links(tmp_path: Path) -> None:
    top = applied(
        tmp_path / "t", file(b"a", b"1"), link(b"b", b"a", EntryType.HARDLINK), file(b"a", b"2")
    )
    assert ((top / "a").read_bytes(), (top / "b").read_bytes()) == (b"2", b"1")


def test_very_deep_directory_is_replaced(tmp_path: Path) -> None:
    deep = b"/".join([b"x"] * 2000)
    top = applied(tmp_path / "t", file(deep + b"/f"), file(b"x", b"new"))
    assert (top / "x").read_bytes() == b"new"
    assert os.listdir(top) == ["x"]


def test_deepest_paths_come_back(tmp_path: Path) -> None:
    path = b"/".join([b"d" * 255] * 15) + b"/" + b"e" * 255
    items = [directory(b"/".join([b"d" * 255] * n)) for n in range(1, 16)]
    items += [file(path, b"x"), link(path[:-1] + b"f", b"t")]
    top = applied(tmp_path / "t", *items)
    assert walked(top) == [(entry, content_of((entry, content))) for entry, content in items]


def test_more_directories_than_descriptors(tmp_path: Path) -> None:
    items = [file(b"%03d/%d/f" % (n % 300, n // 300)) for n in range(900)]
    top = applied(tmp_path / "t", *items)
    assert sum(1 for entry, _ in walked(top) if entry.type is EntryType.FILE) == 900


def test_full_disk_is_exhausted(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        with pytest.raises(LaminaError, match="No space left") as caught:
            applied(tmp_path / "t", file(b"big", os.urandom(2 << 20)))
        assert caught.value.kind is Kind.EXHAUSTED
        assert "'big'" in caught.value.what
    finally:
        subprocess.run(["umount", tmp_path], check=True)


class Broken(io.BytesIO):
    """A stream whose source fails after a while."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 6 << 20:
            raise LaminaError("connection lost", kind=Kind.UNAVAILABLE)
        return super().read(size)


def test_error_of_the_stream_rises_and_no_thread_is_left(tmp_path: Path) -> None:
    tar = tar_of(*(file(b"%d" % n, os.urandom(1 << 20)) for n in range(12)))
    with pytest.raises(LaminaError, match="connection lost"):
        apply_layer(Broken(tar), str(tmp_path))
    bad = io.BytesIO(tar[: 3 << 20] + b"x" * (20 << 20))
    with pytest.raises(LaminaError, match="checksum"):
        apply_layer(bad, str(tmp_path))
    assert not [t for t in threading.enumerate() if t.name == "read-layer"]


def test_large_layer_read_by_a_thread_is_the_same(tmp_path: Path) -> None:
    items = [file(b"%02d" % n, os.urandom(1 << 20)) for n in range(20)]
    tar = tar_of(*items) + bytes(3 << 20)
    result = apply_layer(io.BytesIO(tar), str(tmp_path))
    assert str(result.diff_id) == "sha256:" + hashlib.sha256(tar).hexdigest()
    assert [data for _, data in walked(tmp_path)] == [data for _, data in items]


def test_cancelling_stops_it(tmp_path: Path) -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        apply_layer(io.BytesIO(tar_of(file(b"f"))), str(tmp_path), cancel=token)


def test_unprivileged_form_has_no_devices_and_marks_opaque_for_users(tmp_path: Path) -> None:
    tar = tar_of(
        directory(b"d"), file(b"d/.wh..wh..opq"), *(i for i in EVERYTHING if i[0].path == b"dev")
    )
    apply_layer(io.BytesIO(tar), str(tmp_path), privileged=False)
    assert os.listdir(tmp_path) == ["d"]
    assert os.getxattr(tmp_path / "d", "user.overlay.opaque") == b"y"


def test_overlay_attributes_of_an_archive_are_dropped(tmp_path: Path) -> None:
    names = (b"trusted.overlay.redirect", b"user.overlay.opaque", b"trusted.kept")
    entry = Entry(b"d", EntryType.DIR, 0o755, xattrs=tuple((n, b"/etc") for n in names))
    top = applied(tmp_path / "t", (entry, None))
    assert os.listxattr(top / "d") == ["trusted.kept"]


def snapshot(root: Path) -> list[tuple[object, ...]]:
    """Everything about a tree that a layer carries, read through the mount."""
    found: list[tuple[object, ...]] = []
    for directory_name, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(directory_name, name)
            status = path.lstat()
            kind = stat.S_IFMT(status.st_mode)
            data: object = None
            if kind == stat.S_IFREG:
                data = path.read_bytes()
            elif kind == stat.S_IFLNK:
                data = os.readlink(path)
            xattrs = [
                (n, os.getxattr(path, n, follow_symlinks=False))
                for n in sorted(os.listxattr(path, follow_symlinks=False))
            ]
            xattrs = [x for x in xattrs if x[0] == "security.capability"]
            identity = (status.st_uid, status.st_gid, status.st_rdev, int(status.st_mtime))
            relative = path.relative_to(root)
            found.append((str(relative), status.st_mode, identity, data, xattrs))
    return sorted(found, key=str)


def change(root: Path, generator: random.Random) -> None:
    """Random changes as a build step makes them, through the mounted overlay."""
    directories = [root] + [p for p in root.rglob("*") if p.is_dir() and not p.is_symlink()]
    for _ in range(40):
        parent = generator.choice(directories)
        if not parent.is_dir():
            continue
        path = parent / generator.choice("abcdef")
        match generator.randrange(9):
            case 0 | 1:
                remove(path)
                path.write_bytes(generator.randbytes(generator.choice([0, 10, 9000])))
            case 2:
                remove(path)
            case 3 | 4:
                remove(path)
                path.mkdir()
                directories.append(path)
            case 5:
                remove(path)
                path.symlink_to(generator.choice(["a", "../b", "/c"]))
            case 6:
                source = parent / generator.choice("abcdef")
                if (
                    source != path
                    and source.exists()
                    and source.is_file()
                    and not source.is_symlink()
                ):
                    remove(path)
                    os.link(source, path)
            case 7:
                if path.exists() and not path.is_symlink():
                    path.chmod(generator.choice([0o700, 0o755, 0o1777, 0o4755]))
                    os.chown(path, generator.randrange(5), 3)
            case 8:
                if path.is_file() and not path.is_symlink():
                    os.setxattr(path, *CAPABILITY)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("seed", range(6))
def test_stack_of_applied_changesets_shows_the_tree_that_was_changed(
    tmp_path: Path, seed: int
) -> None:
    """apply(diff(a, b)) on a = b, four layers deep, by the kernel's own view of both."""
    generator = random.Random(seed)
    base = tmp_path / "base"
    base.mkdir(0o755)
    uppers, copies = [base], [applied(tmp_path / "copy", lowers=[])]
    for level in range(4):
        upper = tmp_path / f"upper{level}"
        with overlay(uppers, tmp_path / f"m{level}", upper) as merged:
            change(merged, generator)
            expected = snapshot(merged)
        tar = io.BytesIO()
        write_tar(overlay_items(str(upper)), tar.write)
        copy = tmp_path / f"copy{level}"
        copy.mkdir()
        apply_layer(io.BytesIO(tar.getvalue()), str(copy), lowers=[str(c) for c in copies])
        uppers.insert(0, upper)
        copies.insert(0, copy)
        with overlay(copies, tmp_path / f"v{level}") as merged:
            assert snapshot(merged) == expected
        again = io.BytesIO()
        write_tar(overlay_items(str(copy)), again.write)
        assert again.getvalue() == tar.getvalue()


def test_renamed_directory_under_redirect_dir_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", "trusted.overlay.redirect", b"/x")
    with pytest.raises(LaminaError, match="redirect_dir") as caught:
        list(overlay_items(str(tmp_path)))
    assert caught.value.kind is Kind.UNSUPPORTED


def test_file_named_like_a_whiteout_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".wh.x").touch()
    for items in (overlay_items, tree_items):
        with pytest.raises(LaminaError, match="mean deletions"):
            list(items(str(tmp_path)))


def test_sockets_are_left_out_and_acls_are_not_recorded(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        (tmp_path / "f").touch()
        os.setxattr(tmp_path / "f", "trusted.x", b"1")
        ((entry, _),) = overlay_items(str(tmp_path))
    assert (entry.path, entry.xattrs) == (b"f", ())


def test_tree_items_take_owner_and_root(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o600, 0)
    found = [entry for entry, _ in tree_items(str(tmp_path), include_root=True, owner=(5, 6))]
    assert [(e.path, e.type, e.uid, e.gid) for e in found] == [
        (b"", EntryType.DIR, 5, 6),
        (b"null", EntryType.CHAR, 5, 6),
    ]


def test_extract_merges_into_a_directory_and_leaves_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/kept").write_text("kept")
    (tmp_path / "d/old").write_text("old")
    entry = Entry(b"d/old", EntryType.FILE, 0o6755, 7, 8, 3, SECOND)
    extract(iter([(entry, b"new"), link(b"h", b"d/old", EntryType.HARDLINK)]), str(tmp_path))
    status = (tmp_path / "d/old").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o755)
    assert (tmp_path / "h").read_text() == "new"
    assert (tmp_path / "d/kept").read_text() == "kept"


def test_extract_keeps_setid_bits_if_asked(tmp_path: Path) -> None:
    entry = Entry(b"f", EntryType.FILE, 0o6755, 7, 8, 0, SECOND)
    extract([(entry, b"")], str(tmp_path), setid=True)
    status = (tmp_path / "f").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o6755)


def test_tree_items_walk_a_root_given_by_descriptor(tmp_path: Path) -> None:
    tree = applied(tmp_path / "t", *EVERYTHING)
    fd = os.open(tree, os.O_PATH)
    try:
        found = list(tree_items(f"/proc/self/fd/{fd}", include_root=True))
        assert found[0][0].type is EntryType.DIR
        assert [e for e, _ in found[1:]] == [entry for entry, _ in EVERYTHING]
        assert [content_of(item) for item in found[1:]] == [data for _, data in walked(tree)]
    finally:
        os.close(fd)


def test_extract_reads_archives_with_owners_and_devices_if_asked(tmp_path: Path) -> None:
    tar = io.BytesIO(tar_of(*EVERYTHING))
    extract(tar, str(tmp_path), owners=True, privileged=True)
    found = [entry for entry, _ in tree_items(str(tmp_path))]
    assert found == [entry for entry, _ in EVERYTHING]


def test_extract_refuses_whiteouts(tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="means nothing outside a layer"):
        extract(io.BytesIO(tar_of(file(b".wh.x"))), str(tmp_path))


def test_sparse_archive_is_written_with_its_holes(tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as out:
        out.seek(3 << 30)
        out.write(b"end")
    archive = tmp_path / "big.tar"
    subprocess.run(["tar", "-C", tmp_path, "-S", "-cf", archive, "big"], check=True)
    (tmp_path / "t").mkdir()
    with archive.open("rb") as tar:
        apply_layer(tar, str(tmp_path / "t"))
    status = (tmp_path / "t/big").stat()
    assert status.st_size == (3 << 30) + 3
    assert status.st_blocks * 512 <= 64 << 10
    with (tmp_path / "t/big").open("rb") as copy:
        copy.seek(3 << 30)
        assert copy.read() == b"end"
    with archive.open("rb") as tar:
        assert next(read_tar(tar))[0].size == (3 << 30) + 3
