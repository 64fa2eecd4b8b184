# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lamina.builder.changes import entry_of
from lamina.builder.copying import FileContent
from lamina.builder.selection import Selection, select
from lamina.builder.statcache import RACY_NS, StatCache
from lamina.builder.tree import Tree
from lamina.dockerfile.ignore import IgnoreMatcher
from lamina.errors import Kind, LaminaError
from lamina.testing.skips import host_lacks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def open_tree(root: Path, *, ignore: tuple[str, ...] = (), keeps_owner: bool = False) -> Tree:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    matcher = IgnoreMatcher(ignore) if ignore else None
    return Tree(fd, what="the build context", ignore=matcher, keeps_owner=keeps_owner)


def pick(
    root: Path, *patterns: str, cache: StatCache | None = None, **options: object
) -> Selection:
    tree = open_tree(root, **options)  # type: ignore[arg-type]  # passed through by name
    try:
        return select(tree, patterns or (".",), cache=cache)
    finally:
        tree.close()


def names(selection: Selection) -> list[tuple[str, list[str]]]:
    return [
        (match.path.decode(), [picked.path.decode() for picked in match.picked])
        for match in selection.matches
    ]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "src" / "deep").mkdir(parents=True)
    (root / "a.txt").write_text("a")
    (root / "b.txt").write_text("b")
    (root / "src" / "main.py").write_text("main")
    (root / "src" / "deep" / "x.py").write_text("x")
    (root / "link").symlink_to("src/main.py")
    return root


# What counts --------------------------------------------------------------------------------


def _relink(context: Path) -> None:
    (context / "link").unlink()
    (context / "link").symlink_to("b.txt")


def _to_directory(context: Path) -> None:
    (context / "a.txt").unlink()
    (context / "a.txt").mkdir()


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda context: (context / "a.txt").write_text("A"), id="bytes"),
        pytest.param(lambda context: (context / "a.txt").chmod(0o755), id="mode"),
        pytest.param(lambda context: (context / "src").chmod(0o700), id="mode of a directory"),
        pytest.param(lambda context: (context / "a.txt").rename(context / "c"), id="name"),
        pytest.param(lambda context: (context / "src" / "empty").mkdir(), id="empty directory"),
        pytest.param(_relink, id="target of a link"),
        pytest.param(_to_directory, id="type"),
    ],
)
def test_change_changes_the_digest(context: Path, edit: Callable[[Path], object]) -> None:
    before = pick(context).digest
    edit(context)
    assert pick(context).digest != before


def test_mtime_and_order_of_creation_do_not_count(context: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "src" / "deep").mkdir(parents=True)
    (other / "link").symlink_to("src/main.py")
    (other / "src" / "deep" / "x.py").write_text("x")
    (other / "src" / "main.py").write_text("main")
    (other / "b.txt").write_text("b")
    (other / "a.txt").write_text("a")
    os.utime(other / "a.txt", (1, 1))
    assert pick(other).digest == pick(context).digest


def test_mode_of_the_copied_directory_itself_does_not_count(context: Path) -> None:
    before = pick(context).digest
    context.chmod(0o700)
    assert pick(context).digest == before


@pytest.mark.root
def test_owner_counts_only_where_it_is_kept(context: Path) -> None:
    before = pick(context).digest, pick(context, keeps_owner=True).digest
    os.chown(context / "a.txt", 1234, 1234)
    assert pick(context).digest == before[0]
    assert pick(context, keeps_owner=True).digest != before[1]


def test_number_of_hard_links_does_not_count(context: Path) -> None:
    (context / "a2.txt").write_text("a")
    before = pick(context).digest
    (context / "a2.txt").unlink()
    os.link(context / "a.txt", context / "a2.txt")
    assert pick(context).digest == before


def test_user_attribute_counts(context: Path) -> None:
    before = pick(context).digest
    try:
        os.setxattr(context / "a.txt", "user.note", b"1")
    except OSError:
        host_lacks("a filesystem with user.* attributes")
    assert pick(context).digest != before


def test_only_the_selected_counts(context: Path) -> None:
    before = pick(context, "src").digest
    (context / "a.txt").write_text("changed")
    assert pick(context, "src").digest == before


# Patterns -----------------------------------------------------------------------------------


def test_directory_is_walked_by_components(context: Path) -> None:
    (context / "src.txt").write_text("")
    assert names(pick(context)) == [
        (
            "",
            [
                "a.txt",
                "b.txt",
                "link",
                "src",
                "src/deep",
                "src/deep/x.py",
                "src/main.py",
                "src.txt",
            ],
        )
    ]


def test_wildcards_match_in_one_component_in_walking_order(context: Path) -> None:
    assert names(pick(context, "*.txt")) == [("a.txt", [""]), ("b.txt", [""])]
    assert names(pick(context, "s*/*.py")) == [("src/main.py", [""])]
    assert names(pick(context, "[ab].tx?")) == [("a.txt", [""]), ("b.txt", [""])]


def test_wildcard_that_matches_nothing_selects_nothing(context: Path) -> None:
    assert names(pick(context, "*.none")) == []


def test_missing_source_is_named_as_buildkit_does(context: Path) -> None:
    with pytest.raises(LaminaError, match=r'^"/missing": not found$') as caught:
        pick(context, "./missing")
    assert caught.value.kind is Kind.NOT_FOUND


def test_dots_never_leave_the_context(context: Path) -> None:
    assert names(pick(context, "../../a.txt")) == [("a.txt", [""])]
    assert names(pick(context, "src/../b.txt")) == [("b.txt", [""])]


def test_link_as_source_is_followed_inside_the_context(context: Path) -> None:
    (match,) = pick(context, "link").matches
    assert match.path == b"link"
    assert match.picked[0].place == b"src/main.py"


def test_link_to_outside_is_resolved_inside(context: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (context / "evil").symlink_to(tmp_path / "secret")
    (context / "up").symlink_to("../secret")
    for source in ("evil", "up"):
        with pytest.raises(LaminaError, match="not found"):
            pick(context, source)
    links = {p.path: p.link for p in pick(context).matches[0].picked if p.link}
    assert links[b"up"] == b"../secret"


def test_loop_of_links_is_an_error(context: Path) -> None:
    (context / "one").symlink_to("two")
    (context / "two").symlink_to("one")
    with pytest.raises(LaminaError, match="too many symbolic links"):
        pick(context, "one")


# .dockerignore ------------------------------------------------------------------------------


def test_ignored_files_are_neither_copied_nor_matched(context: Path) -> None:
    assert names(pick(context, ignore=("*.txt", "src/deep"))) == [
        ("", ["link", "src", "src/main.py"])
    ]
    assert names(pick(context, "*.txt", ignore=("a.txt",))) == [("b.txt", [""])]
    with pytest.raises(LaminaError, match="not found"):
        pick(context, "a.txt", ignore=("a.txt",))


def test_ignored_directory_comes_back_with_what_is_included_in_it(context: Path) -> None:
    ignore = ("src", "!src/deep/x.py")
    assert names(pick(context, ignore=ignore)) == [
        ("", ["a.txt", "b.txt", "link", "src", "src/deep", "src/deep/x.py"])
    ]
    assert names(pick(context, "src", ignore=ignore)) == [("src", ["deep", "deep/x.py"])]
    with pytest.raises(LaminaError, match="not found"):
        pick(context, "src", ignore=("src", "!src/none"))


# Odd files ----------------------------------------------------------------------------------


def test_sockets_are_left_out(context: Path) -> None:
    before = pick(context).digest
    server = socket.socket(socket.AF_UNIX)
    try:
        here = os.open(".", os.O_RDONLY)
        os.chdir(context)  # the path would be too long for a socket
        try:
            server.bind("s")
        finally:
            os.fchdir(here)
            os.close(here)
        assert pick(context).digest == before
    finally:
        server.close()


def test_fifo_is_selected_and_not_opened(context: Path) -> None:
    os.mkfifo(context / "pipe")
    assert "pipe" in names(pick(context))[0][1]


def test_names_that_are_not_unicode_work(context: Path) -> None:
    name = b"caf\xe9*"
    (context / os.fsdecode(name)).write_text("x")
    (match,) = pick(context, "caf[^e]\\*").matches
    assert match.path == name
    ignored = pick(context, ignore=(os.fsdecode(b"caf\xe9\\*"),))
    assert name not in [p.path for p in ignored.matches[0].picked]


def test_a_very_deep_directory_needs_no_recursion(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    here = os.open(".", os.O_RDONLY)
    os.chdir(root)
    try:
        for _ in range(400):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.fchdir(here)
        os.close(here)
    assert len(pick(root).matches[0].picked) == 400


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    root = tmp_path / "context"
    root.mkdir()
    (root / "secret").write_text("x")
    (root / "secret").chmod(0)
    root.chmod(0o755)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.getuid() and str(parent) not in {"/", "/dev", "/dev/shm"}:
            parent.chmod(parent.stat().st_mode | 0o111)
    if os.getuid() != 0:
        with pytest.raises(LaminaError, match="'secret'") as caught:
            pick(root)
        assert caught.value.kind is Kind.DENIED
        return
    script = (
        "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "from lamina.builder.selection import select\n"
        "from lamina.builder.tree import Tree\n"
        "from lamina.errors import Kind, LaminaError\n"
        f"fd = os.open({str(root)!r}, os.O_RDONLY)\n"
        "tree = Tree(fd, what='the build context', ignore=None, keeps_owner=False)\n"
        "try: select(tree, ['.'], cache=None)\n"
        "except LaminaError as error:\n"
        "    assert error.kind is Kind.DENIED, error.kind\n"
        "    print(error)\n"
    )
    # the interpreter and lamina must be readable for that user: keep what this process has
    done = subprocess.run(
        [sys.executable, "-c", _preloaded(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cannot read 'secret' of the build context: Permission denied")


def _preloaded(script: str) -> str:
    """The script, with every module that it needs imported before it drops its rights."""
    modules = (
        "lamina.builder.selection",
        "lamina.builder.tree",
        "lamina.dockerfile.ignore",
        "lamina.system.xattrs",
    )
    return "".join(f"import {module}\n" for module in modules) + script


# Never a stale digest -----------------------------------------------------------------------


class Remembering:
    """Selections of one context, with the stat cache stored in between as the store would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blob: bytes | None = None
        self.now_ns = 0

    def digest(self) -> object:
        cache = StatCache(lambda: self.blob, now_ns=self.now_ns)
        found = pick(self.root, cache=cache).digest
        self.blob = cache.blob() or self.blob
        assert found == pick(self.root).digest
        return found


@pytest.fixture
def remembering(context: Path) -> Remembering:
    found = Remembering(context)
    # as if everything had been written long ago: all of it is remembered
    found.now_ns = (context / "link").lstat().st_ctime_ns + 10 * RACY_NS
    found.digest()
    assert found.blob is not None
    return found


def restore(path: Path, before: os.stat_result) -> None:
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_same_size_edit_with_restored_mtime_is_seen(remembering: Remembering) -> None:
    path = remembering.root / "a.txt"
    first, before = remembering.digest(), path.stat()
    path.write_text("A")
    restore(path, before)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_size == before.st_size
    assert remembering.digest() != first


def test_replacement_by_rename_with_the_same_mtime_is_seen(remembering: Remembering) -> None:
    path = remembering.root / "a.txt"
    first, before = remembering.digest(), path.stat()
    new = remembering.root.parent / "new"
    new.write_text("A")
    restore(new, before)
    new.rename(path)
    assert remembering.digest() != first


def test_edit_through_another_hard_link_is_seen(remembering: Remembering) -> None:
    path = remembering.root / "a.txt"
    os.link(path, remembering.root.parent / "outside")
    first, before = remembering.digest(), path.stat()
    (remembering.root.parent / "outside").write_text("A")
    restore(path, before)
    assert remembering.digest() != first


def test_checkout_of_another_version_with_one_timestamp_is_seen(remembering: Remembering) -> None:
    path = remembering.root / "a.txt"
    os.utime(path, (1_000_000_000, 1_000_000_000))
    first = remembering.digest()
    path.unlink()
    path.write_text("A")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert remembering.digest() != first


def test_touch_alone_changes_nothing(remembering: Remembering) -> None:
    first = remembering.digest()
    os.utime(remembering.root / "a.txt", (5, 5))
    assert remembering.digest() == first


def test_unchanged_file_is_not_read_again(
    remembering: Remembering, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = remembering.digest()
    monkeypatch.setattr("lamina.builder.selection._Picker._read", None)
    cache = StatCache(lambda: remembering.blob, now_ns=remembering.now_ns)
    assert pick(remembering.root, cache=cache).digest == first


def test_unchanged_directory_is_compared_as_a_whole(
    remembering: Remembering, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = remembering.digest()
    monkeypatch.setattr("lamina.builder.selection._Picker._picked", None)
    cache = StatCache(lambda: remembering.blob, now_ns=remembering.now_ns)
    assert pick(remembering.root, cache=cache).digest == first


def test_files_of_a_remembered_selection_are_found_when_they_are_asked_for(
    remembering: Remembering,
) -> None:
    fresh = pick(remembering.root)
    cache = StatCache(lambda: remembering.blob, now_ns=remembering.now_ns)
    tree = open_tree(remembering.root)
    try:
        found = select(tree, (".",), cache=cache)
        assert [m.picked for m in found.matches] == [m.picked for m in fresh.matches]
    finally:
        tree.close()


def test_edit_between_the_digest_and_its_files_is_a_conflict(remembering: Remembering) -> None:
    cache = StatCache(lambda: remembering.blob, now_ns=remembering.now_ns)
    tree = open_tree(remembering.root)
    try:
        found = select(tree, (".",), cache=cache)
        (remembering.root / "src" / "deep" / "x.py").write_text("y")
        with pytest.raises(LaminaError, match="'src/deep' of the build context changed") as caught:
            assert found.matches
    finally:
        tree.close()
    assert caught.value.kind is Kind.CONFLICT


def test_selection_of_everything_is_that_of_a_walk_that_looks_for_exclusions(
    context: Path,
) -> None:
    (context / "empty").mkdir()
    tree = open_tree(context, ignore=("nothing", "!nowhere/**"))
    try:
        assert not tree.is_plain
        found = select(tree, (".",), cache=None)
    finally:
        tree.close()
    plain = pick(context)
    assert found.digest == plain.digest
    assert names(found) == names(plain)


def test_changed_attribute_of_a_remembered_directory_is_seen(remembering: Remembering) -> None:
    first = remembering.digest()
    try:
        os.setxattr(remembering.root / "src", "user.kept", b"1")
    except OSError:
        host_lacks("a filesystem with user.* attributes")
    assert remembering.digest() != first


def test_changed_target_of_a_remembered_link_is_seen(remembering: Remembering) -> None:
    first = remembering.digest()
    (remembering.root / "link").unlink()
    (remembering.root / "link").symlink_to("src/main.pi")
    assert remembering.digest() != first


def test_emptied_and_removed_directories_are_seen(remembering: Remembering) -> None:
    first = remembering.digest()
    (remembering.root / "src" / "deep" / "x.py").unlink()
    second = remembering.digest()
    (remembering.root / "src" / "deep").rmdir()
    assert len({first, second, remembering.digest()}) == 3


def test_file_removed_while_its_directory_is_listed_is_not_there(
    context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = pick(context).digest
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda fd: [*real(fd), "removed"])
    assert pick(context).digest == wanted


def test_file_with_attributes_is_copied_with_them(context: Path) -> None:
    try:
        os.setxattr(context / "a.txt", "user.kept", b"1")
    except OSError:
        host_lacks("a filesystem with user.* attributes")
    tree = open_tree(context)
    try:
        (match,) = select(tree, ("a.txt",), cache=None).matches
        entry = entry_of(b"x", match.picked[0].status)
        assert entry is not None
        ((found, content),) = (
            (found, content.read(10))  # type: ignore[union-attr]  # a file's content is a reader
            for found, content in FileContent(tree, match.picked[0]).items(entry)
        )
    finally:
        tree.close()
    assert found.xattrs == ((b"user.kept", b"1"),)
    assert content == b"a"
