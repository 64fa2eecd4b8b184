# SPDX-License-Identifier: Apache-2.0
"""Where COPY and ADD put things, on bases that are only looked at. Compared with buildah's result
in tests/integration/builder.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from lamina.builder.archive import is_archive, new_spool, unpack
from lamina.builder.changes import Changes, EmptyBase
from lamina.builder.copying import FileContent, copy_match
from lamina.builder.owner import find_owner
from lamina.builder.selection import select
from lamina.builder.tree import Tree
from lamina.dockerfile.filemode import FileMode
from lamina.errors import Kind, LaminaError
from lamina.layer.entry import Entry, EntryType
from lamina.layer.tarread import read_tar
from lamina.layer.tarwrite import write_tar
from lamina.start.record import replace
from lamina.tasks import CancelToken

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE, DIR, LINK, HARD = EntryType.FILE, EntryType.DIR, EntryType.SYMLINK, EntryType.HARDLINK


class FakeBase:
    """An image's tree as entries; file contents by path."""

    def __init__(self, *entries: Entry, contents: dict[bytes, bytes] | None = None) -> None:
        self._entries = {entry.path: entry for entry in (Entry(b"", DIR, 0o755), *entries)}
        self._contents = contents or {}

    def lookup(self, path: bytes) -> Entry | None:
        return self._entries.get(path)

    def directory(self, path: bytes) -> Entry:
        return replace(self._entries[path], xattrs=((b"user.kept", b"1"),))

    def read_small(self, path: bytes, *, limit: int) -> bytes:
        data = self._contents[path]
        assert len(data) <= limit
        return data


class Layer:
    """A layer being composed from a context directory."""

    def __init__(self, context: Path, base: FakeBase | None = None) -> None:
        self.context = context
        self.changes = Changes(base or EmptyBase())
        fd = os.open(context, os.O_RDONLY)
        self.tree = Tree(fd, what="the build context", ignore=None, keeps_owner=False)
        self.copies = 0

    def copy(
        self,
        *sources: str,
        to: str,
        owner: tuple[int, int] | None = None,
        mode: int | None = None,
    ) -> Layer:
        for match in select(self.tree, sources, cache=None).matches:
            self.copies += 1
            copy_match(
                self.changes,
                self.tree,
                match,
                dest=os.fsencode(to),
                owner=owner,
                mode=FileMode(mode) if mode is not None else None,
                inode_space=self.copies,
            )
        return self

    def written(self) -> list[tuple[Entry, bytes]]:
        """The layer as its tar says."""
        buffer = io.BytesIO()
        write_tar(self.changes.items(), buffer.write)
        buffer.seek(0)
        return [(entry, reader.read()) for entry, reader in read_tar(buffer)]

    def paths(self) -> list[str]:
        return [
            os.fsdecode(entry.path) + ("/" if entry.type is DIR else "")
            for entry, _ in self.written()
        ]

    def entry(self, path: str) -> Entry:
        (found,) = [entry for entry, _ in self.written() if entry.path == path.encode()]
        return found


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Path]:
    before = os.umask(0o022)
    root = tmp_path / "context"
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "file").write_text("file")
    (root / "dir" / "one").write_text("one")
    (root / "dir" / "sub" / "two").write_text("two")
    (root / "dir").chmod(0o700)
    (root / "dir" / "sub").chmod(0o750)
    (root / "dir" / "one").chmod(0o4755)
    yield root
    os.umask(before)


# Destinations -------------------------------------------------------------------------------


def test_file_to_a_new_name(context: Path) -> None:
    assert Layer(context).copy("file", to="/a/b/name").paths() == ["a/", "a/b/", "a/b/name"]


def test_file_to_a_directory_that_is_only_written_with_a_slash(context: Path) -> None:
    assert Layer(context).copy("file", to="/a/").paths() == ["a/", "a/file"]


def test_file_to_an_existing_directory(context: Path) -> None:
    base = FakeBase(Entry(b"a", DIR, 0o1777, uid=5, gid=6))
    layer = Layer(context, base).copy("file", to="/a")
    assert layer.paths() == ["a/", "a/file"]
    parent = layer.entry("a")
    assert (parent.mode, parent.uid, parent.gid) == (0o1777, 5, 6)
    assert parent.xattrs == ((b"user.kept", b"1"),)


def test_file_to_the_root(context: Path) -> None:
    assert Layer(context).copy("file", to="/").paths() == ["file"]


def test_directory_gives_its_contents(context: Path) -> None:
    layer = Layer(context).copy("dir", to="/new")
    assert layer.paths() == ["new/", "new/one", "new/sub/", "new/sub/two"]
    assert layer.entry("new").mode == 0o755  # not that of the source
    assert layer.entry("new/sub").mode == 0o750
    assert layer.entry("new/one").mode == 0o4755


def test_directory_onto_a_directory_merges(context: Path) -> None:
    base = FakeBase(
        Entry(b"d", DIR, 0o711, uid=7), Entry(b"d/sub", DIR, 0o777, uid=7), Entry(b"d/x", FILE, 0)
    )
    layer = Layer(context, base).copy("dir", to="/d/")
    assert layer.paths() == ["d/", "d/one", "d/sub/", "d/sub/two"]
    assert (layer.entry("d").mode, layer.entry("d").uid) == (0o711, 7)
    assert (layer.entry("d/sub").mode, layer.entry("d/sub").uid) == (0o750, 0)


def test_several_sources(context: Path) -> None:
    assert Layer(context).copy("file", "dir", to="/t/").paths() == [
        "t/", "t/file", "t/one", "t/sub/", "t/sub/two"
    ]  # fmt: skip


def test_later_source_overwrites(context: Path) -> None:
    (context / "other").mkdir()
    (context / "other" / "file").write_text("other")
    layer = Layer(context).copy("file", "other", to="/t/")
    assert dict(layer.written())[layer.entry("t/file")] == b"other"


def test_links_in_the_destination_stay_inside_the_image(context: Path) -> None:
    base = FakeBase(
        Entry(b"abs", LINK, 0o777, linkname=b"/real/deep"),
        Entry(b"up", LINK, 0o777, linkname=b"../../../real"),
        Entry(b"real", DIR, 0o755),
        Entry(b"real/deep", DIR, 0o755),
    )
    assert Layer(context, base).copy("file", to="/abs/").paths() == [
        "real/", "real/deep/", "real/deep/file"
    ]  # fmt: skip
    assert Layer(context, base).copy("file", to="/up/x").paths() == ["real/", "real/x"]


def test_dangling_link_as_destination_is_made(context: Path) -> None:
    base = FakeBase(Entry(b"l", LINK, 0o777, linkname=b"made/here"))
    assert Layer(context, base).copy("dir", to="/l").paths()[:2] == ["made/", "made/here/"]


def test_link_copied_earlier_in_the_layer_is_followed(context: Path) -> None:
    (context / "lib").symlink_to("usr/lib")
    (context / "more").mkdir()
    (context / "more" / "lib").mkdir()
    layer = Layer(context).copy("dir/sub", to="/usr/lib")
    # a plain link is dereferenced as a source, so it is put there with its directory
    (context / "links").mkdir()
    (context / "links" / "lib").symlink_to("usr/lib")
    layer.copy("links", to="/").copy("file", to="/lib/")
    assert "usr/lib/file" in layer.paths()


def test_file_replaces_a_file_or_link_below(context: Path) -> None:
    base = FakeBase(
        Entry(b"d", DIR, 0o755),
        Entry(b"d/one", LINK, 0o777, linkname=b"/etc/passwd"),
        Entry(b"d/two", FILE, 0o600),
    )
    layer = Layer(context, base).copy("dir", to="/d")
    assert layer.entry("d/one").type is FILE


@pytest.mark.parametrize(
    ("source", "dest", "message"),
    [
        ("file", "/f/x", "'/f' is not a directory"),
        ("file", "/f/", "'/f' is not a directory"),
        ("dir", "/f", "cannot copy to non-directory: '/f'"),
        ("dir", "/d", "cannot replace to directory '/d/one' with file"),
        ("dir", "/e", "cannot copy to non-directory: '/e/sub'"),
        ("dir", "/l", "cannot copy to non-directory: '/l/sub'"),
    ],
)
def test_file_and_directory_do_not_mix(context: Path, source: str, dest: str, message: str) -> None:
    base = FakeBase(
        Entry(b"f", FILE, 0o644),
        Entry(b"d", DIR, 0o755),
        Entry(b"d/one", DIR, 0o755),
        Entry(b"e", DIR, 0o755),
        Entry(b"e/sub", FILE, 0o644),
        Entry(b"l", DIR, 0o755),
        Entry(b"l/sub", LINK, 0o777, linkname=b"/d"),
    )
    with pytest.raises(LaminaError) as caught:
        Layer(context, base).copy(source, to=dest)
    assert message in caught.value.what
    assert caught.value.kind is Kind.INVALID


def test_reserved_name_is_refused(context: Path) -> None:
    (context / ".wh.file").write_text("")
    with pytest.raises(LaminaError, match=r"names that start with \.wh\."):
        Layer(context).copy(".", to="/x")


# Metadata -----------------------------------------------------------------------------------


def test_owner_and_mode_are_overridden(context: Path) -> None:
    (context / "dir" / "link").symlink_to("one")
    layer = Layer(context).copy("dir", to="/n", owner=(10, 20), mode=0o2640)
    for path in ("n", "n/one", "n/sub", "n/link"):
        assert (layer.entry(path).uid, layer.entry(path).gid) == (10, 20)
    assert layer.entry("n").mode == 0o755
    assert layer.entry("n/sub").mode == layer.entry("n/one").mode == 0o2640
    assert layer.entry("n/link").mode == 0o777


def test_mtimes_are_those_of_the_files(context: Path) -> None:
    os.utime(context / "file", (100, 100))
    layer = Layer(context).copy("file", to="/new/")
    assert layer.entry("new/file").mtime_ns == 100_000_000_000
    assert layer.entry("new").mtime_ns == 100_000_000_000


def test_hard_links_of_a_source_stay_links_and_the_first_is_the_file(context: Path) -> None:
    os.link(context / "dir" / "one", context / "dir" / "another")
    layer = Layer(context).copy("dir", to="/d")
    assert layer.entry("d/another").type is FILE
    assert layer.entry("d/one").type is HARD
    assert layer.entry("d/one").linkname == b"d/another"


def test_hard_link_survives_the_replacement_of_its_first_name(context: Path) -> None:
    os.link(context / "dir" / "one", context / "dir" / "another")
    layer = Layer(context).copy("dir", to="/d").copy("file", to="/d/another")
    content = {entry.path: data for entry, data in layer.written()}
    assert layer.entry("d/one").type is FILE
    assert content[b"d/one"] == b"one"
    assert content[b"d/another"] == b"file"


def test_file_that_changes_after_it_was_digested_is_an_error(context: Path) -> None:
    layer = Layer(context).copy("file", to="/x")
    before = (context / "file").stat()
    (context / "file").write_text("FILE")
    os.utime(context / "file", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(LaminaError, match="'file' of the build context changed") as caught:
        layer.written()
    assert caught.value.kind is Kind.CONFLICT


def test_file_that_changes_while_it_is_written_is_an_error(
    context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Layer(context).copy("file", to="/x")
    monkeypatch.setattr("lamina.builder.copying.is_same", lambda *_: True)
    (context / "file").write_text("FILE")
    with pytest.raises(LaminaError, match="changed while the build was reading it"):
        layer.written()


def test_file_that_became_a_link_is_not_followed(context: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("file")
    layer = Layer(context).copy("file", to="/x")
    (context / "file").unlink()
    (context / "file").symlink_to(tmp_path / "secret")
    with pytest.raises(LaminaError, match="'file' of the build context"):
        layer.written()


def test_head_reads_no_more_than_asked(context: Path) -> None:
    layer = Layer(context)
    (match,) = select(layer.tree, ["file"], cache=None).matches
    assert FileContent(layer.tree, match.picked[0]).head(2) == b"fi"


# Owners -------------------------------------------------------------------------------------

PASSWD = b"root:x:0:0::/:\nbroken\napp:x:1000:1001::/:\nodd:x:x:1::/:\n"
GROUP = b"root:x:0:\nweb:x:33:app\n"
USERS = FakeBase(
    Entry(b"etc", DIR, 0o755),
    Entry(b"etc/passwd", FILE, 0o644),
    Entry(b"etc/group", FILE, 0o644),
    contents={b"etc/passwd": PASSWD, b"etc/group": GROUP},
)


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("app", (1000, 1001)),
        ("app:web", (1000, 33)),
        ("app:7", (1000, 7)),
        ("5", (5, 5)),
        ("5:6", (5, 6)),
        ("5:web", (5, 33)),
        (":web", (0, 33)),
        ("0", (0, 0)),
    ],
)
def test_chown_looks_names_up_in_the_image(text: str, owner: tuple[int, int]) -> None:
    assert find_owner(text, Changes(USERS)) == owner


@pytest.mark.parametrize("text", ["nobody", "app:nogroup", "odd", "4294967295", "9" * 30])
def test_unknown_owner_is_an_error(text: str) -> None:
    with pytest.raises(LaminaError) as caught:
        find_owner(text, Changes(USERS))
    assert caught.value.kind is Kind.INVALID


def test_names_without_a_database_are_unknown_and_numbers_work() -> None:
    assert find_owner("5:6", Changes(EmptyBase())) == (5, 6)
    assert find_owner("root:root", Changes(EmptyBase())) == (0, 0)
    with pytest.raises(LaminaError, match="unable to find user app"):
        find_owner("app", Changes(EmptyBase()))


def test_hostile_database_is_refused(context: Path) -> None:
    base = FakeBase(Entry(b"etc", DIR, 0o755), Entry(b"etc/passwd", EntryType.FIFO, 0o644))
    with pytest.raises(LaminaError, match="not a regular file"):
        find_owner("app", Changes(base))
    (context / "passwd").write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(LaminaError, match="larger than"):
        find_owner("app", Layer(context).copy("passwd", to="/etc/").changes)


def test_database_copied_by_the_same_step_counts(context: Path) -> None:
    (context / "passwd").write_bytes(PASSWD)
    assert find_owner("app", Layer(context).copy("passwd", to="/etc/").changes) == (1000, 1001)


# Archives -----------------------------------------------------------------------------------


def archive(*members: tuple[str, bytes | str | None], kind: bytes = tarfile.SYMTYPE) -> bytes:
    """A tar: (name, bytes) is a file, (name, None) a directory, (name, text) a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.uid, info.gid, info.mode, info.mtime = 3, 4, 0o640, 50
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o750
                tar.addfile(info)
            elif isinstance(content, str):
                info.type, info.linkname = kind, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def unpacked(
    data: bytes,
    context: Path,
    *,
    base: FakeBase | None = None,
    dest: str = "/d",
    owner: tuple[int, int] | None = None,
) -> Layer:
    layer = Layer(context, base)
    spool = new_spool(str(context.parent / "spool"))
    unpack(
        layer.changes,
        io.BytesIO(data),
        dest=os.fsencode(dest),
        owner=owner,
        spool=spool,
        mtime_ns=0,
        cancel=CancelToken(),
    )
    return layer


def test_archives_are_known_by_content(context: Path) -> None:
    import bz2
    import gzip
    import lzma

    plain = archive(("a", b"x"))
    for packed in (plain, gzip.compress(plain), bz2.compress(plain), lzma.compress(plain)):
        assert is_archive(io.BytesIO(packed))
        assert unpacked(packed, context).paths() == ["d/", "d/a"]
    for other in (b"", b"text", b"x" * 5000, gzip.compress(b"text"), bytes(10240), plain[:300]):
        assert not is_archive(io.BytesIO(other))


def test_changes_may_stand_on_thousands_of_others() -> None:
    base = FakeBase(Entry(b"etc", DIR, 0o755), Entry(b"etc/passwd", FILE, 0o644, size=2),
                    contents={b"etc/passwd": b"ab"})  # fmt: skip
    changes = Changes(base)
    changes.make_directories(b"low", owner=(7, 8), mtime_ns=0)
    for _ in range(3000):
        changes = Changes(changes)
    assert changes.lookup(b"none") is None
    assert changes.read_small(b"etc/passwd", limit=9) == b"ab"
    assert changes.directory(b"etc").xattrs == ((b"user.kept", b"1"),)
    assert changes.directory(b"low").uid == 7
    changes.make_directories(b"low/high", owner=(0, 0), mtime_ns=0)
    assert [entry.path for entry, _ in changes.items()] == [b"low", b"low/high"]


def header(name: bytes, flag: bytes) -> bytes:
    """A header block as `tarfile` would not write it."""
    made = bytearray(archive(("f", b""))[:512])
    made[0:100], made[156:157] = name.ljust(100, b"\0"), flag
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


def test_archive_whose_first_member_has_no_name_is_unpacked(context: Path) -> None:
    data = header(b"", b"5") + archive(("a", b"x"))
    assert is_archive(io.BytesIO(data))
    assert unpacked(data, context).paths() == ["d/", "d/a"]


@pytest.mark.parametrize("first", [(b"", b"0"), (b"label", b"V"), (b"new", b"?")])
def test_archive_that_begins_with_a_member_that_no_layer_holds_is_no_plain_file(
    context: Path, first: tuple[bytes, bytes]
) -> None:
    data = header(*first) + archive(("a", b"x"))
    assert is_archive(io.BytesIO(data))
    with pytest.raises(LaminaError) as caught:
        unpacked(data, context)
    assert caught.value.kind is Kind.INVALID


def test_members_keep_their_metadata(context: Path) -> None:
    layer = unpacked(archive(("s", None), ("s/f", b"data"), ("s/l", "f")), context)
    assert layer.paths() == ["d/", "d/s/", "d/s/f", "d/s/l"]
    member = layer.entry("d/s/f")
    assert (member.mode, member.uid, member.gid, member.mtime_ns) == (0o640, 3, 4, 50_000_000_000)
    assert layer.entry("d/s").mode == 0o750
    assert layer.entry("d").mode == 0o755


def test_chown_overrides_the_members(context: Path) -> None:
    layer = unpacked(archive(("f", b"")), context, owner=(8, 9))
    assert (layer.entry("d/f").uid, layer.entry("d/f").gid) == (8, 9)
    assert layer.entry("d").uid == 8


def test_archive_overwrites_and_merges(context: Path) -> None:
    base = FakeBase(
        Entry(b"d", DIR, 0o700, uid=1),
        Entry(b"d/dir", DIR, 0o777),
        Entry(b"d/dir/old", FILE, 0o644),
        Entry(b"d/was-dir", DIR, 0o755),
        Entry(b"d/was-dir/old", FILE, 0o644),
        Entry(b"d/was-file", FILE, 0o644),
    )
    data = archive(("dir", None), ("dir/new", b""), ("was-dir", b"f"), ("was-file", None))
    layer = unpacked(data, context, base=base)
    assert layer.paths() == ["d/", "d/dir/", "d/dir/new", "d/was-dir", "d/was-file/"]
    assert layer.entry("d").mode == 0o700
    assert layer.changes.lookup(b"d/dir/old") is not None
    assert layer.changes.lookup(b"d/was-dir/old") is None


def test_last_of_several_members_of_one_name_wins(context: Path) -> None:
    layer = unpacked(archive(("f", b"one"), ("f", b"second")), context)
    assert [data for entry, data in layer.written() if entry.path == b"d/f"] == [b"second"]


def test_archive_cannot_leave_its_destination(context: Path) -> None:
    base = FakeBase(
        Entry(b"d", DIR, 0o755),
        Entry(b"d/out", LINK, 0o777, linkname=b"/etc"),
        Entry(b"etc", DIR, 0o755),
    )
    data = archive(
        ("../up", b""),
        ("/abs", b""),
        ("out/passwd", b""),
        ("new", "../../etc"),
        ("new/shadow", b""),
    )
    paths = unpacked(data, context, base=base).paths()
    assert all(path.startswith("d/") for path in paths)
    assert {"d/up", "d/abs", "d/etc/passwd", "d/etc/shadow"} <= set(paths)


def test_hard_links_in_an_archive(context: Path) -> None:
    data = archive(("f", b"x"))[:1024] + archive(("l", "f"), kind=tarfile.LNKTYPE)
    layer = unpacked(data, context)
    assert layer.entry("d/l").type is HARD
    assert layer.entry("d/l").linkname == b"d/f"
    with pytest.raises(LaminaError, match="which is not a file"):
        unpacked(archive(("l", "missing"), kind=tarfile.LNKTYPE), context)


def test_nothing_of_the_spool_is_left(context: Path) -> None:
    unpacked(archive(("f", b"x")), context)
    assert not (context.parent / "spool").exists()


def test_modes_do_not_depend_on_the_umask(context: Path) -> None:
    os.umask(0o077)
    layer = Layer(context).copy("file", to="/a/b/")
    assert [layer.entry(p).mode for p in ("a", "a/b", "a/b/file")] == [0o755, 0o755, 0o644]
    assert stat.S_IMODE((context / "file").stat().st_mode) == 0o644
