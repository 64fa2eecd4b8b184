# SPDX-License-Identifier: Apache-2.0
"""No build has old bytes, and equal contents have equal keys wherever they lie."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.testing.command import Lamina
from lamina.testing.project import make_context
from lamina.testing.waiting import wait_until

OLD, NEW = "version one\n", "version two\n"


@pytest.fixture
def lamina(tmp_path: Path) -> Lamina:
    context = tmp_path / "app"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY data /data\n")
    (context / "data").mkdir()
    (context / "data/file").write_text(OLD)
    return Lamina(tmp_path / "store", tmp_path)


def built_bytes(lamina: Lamina) -> str:
    target = lamina.cwd / "out"
    shutil.rmtree(target, ignore_errors=True)
    lamina("build", "-o", f"type=local,dest={target}", "app")
    return (target / "data/file").read_text()


def in_place(path: Path) -> None:
    path.write_text(NEW)


def kept_mtime(path: Path) -> None:
    before = path.stat()
    path.write_text(NEW)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def touch_t(path: Path) -> None:
    subprocess.run(["touch", "-t", "202001010000.00", str(path)], check=True)
    path.write_text(NEW)
    subprocess.run(["touch", "-t", "202001010000.00", str(path)], check=True)


def renamed_over(path: Path) -> None:
    before = path.stat()
    other = path.parent.parent / "other"
    other.write_text(NEW)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


def through_a_hard_link(path: Path) -> None:
    before = path.stat()
    link = path.parent.parent / "link"
    os.link(path, link)
    link.write_text(NEW)
    os.utime(link, ns=(before.st_atime_ns, before.st_mtime_ns))
    link.unlink()


def through_mmap(path: Path) -> None:
    import mmap

    before = path.stat()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[:] = NEW.encode()
        memory.flush()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def copied_with_attributes(path: Path) -> None:
    before = path.stat()
    other = path.parent.parent / "other"
    other.write_text(NEW)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    subprocess.run(["cp", "-a", str(other), str(path)], check=True)


def checked_out_by_git(path: Path) -> None:
    work = path.parent.parent
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-C", str(work), "-c", "user.name=n", "-c", "user.email=e@localhost", *words],
            check=True, capture_output=True, env=environment,
        )  # fmt: skip

    git("init", "-q")
    git("add", "data")
    git("commit", "-qm", "one")
    path.write_text(NEW)
    git("commit", "-qam", "two")
    git("checkout", "-q", "HEAD~1")
    os.utime(path, (1, 1))
    git("checkout", "-q", "-")
    os.utime(path, (1, 1))


EDITS = [
    in_place, kept_mtime, touch_t, renamed_over, through_a_hard_link, through_mmap,
    copied_with_attributes, checked_out_by_git,
]  # fmt: skip


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
@pytest.mark.parametrize("warm", [1, 2], ids=["right after", "after a cached build"])
def test_no_stale_bytes(edit: Callable[[Path], None], warm: int, lamina: Lamina) -> None:
    for _ in range(warm):
        assert built_bytes(lamina) == OLD
    edit(lamina.cwd / "app/data/file")
    assert built_bytes(lamina) == NEW


def test_edits_while_builds_go_on(lamina: Lamina) -> None:
    """Same size, within the clock's granularity of the build before."""
    path = lamina.cwd / "app/data/file"
    for number in range(8):
        text = f"version {number:03}\n"
        path.write_text(text)
        os.utime(path, (1, 1))
        assert built_bytes(lamina) == text


# Equal keys ---------------------------------------------------------------------------------


def keys_of(lamina: Lamina, context: Path, *flags: str) -> list[str]:
    import json

    lamina("build", *flags, str(context))
    document = json.loads(lamina("why", "--export", "-").stdout)
    return [row["key"] for row in document["steps"] if "key" in row]


PLAIN = "FROM scratch\nCOPY src /src\nCOPY assets scripts /x/\nCOPY --chmod=700 src/main.c /m\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make_context(tmp_path / "one")
    (tmp_path / "one/Dockerfile").write_text(PLAIN)
    return tmp_path / "one"


def clone(tree: Path, name: str, *, reverse: bool) -> Path:
    """A copy with other inodes, times and directory order."""
    target = tree.parent / name
    target.mkdir()
    for path in sorted(tree.rglob("*"), reverse=False):
        place = target / path.relative_to(tree)
        if path.is_dir():
            place.mkdir()
            place.chmod(path.stat().st_mode & 0o7777)
    files = [path for path in sorted(tree.rglob("*"), reverse=reverse) if not path.is_dir()]
    for path in files:
        place = target / path.relative_to(tree)
        if path.is_symlink():
            place.symlink_to(path.readlink())
        else:
            place.write_bytes(path.read_bytes())
            place.chmod(path.stat().st_mode & 0o7777)
            os.utime(place, (len(place.name), 12345))
    return target


def test_same_keys_in_every_clone(tree: Path, tmp_path: Path) -> None:
    lamina = Lamina(tmp_path / "store", tmp_path)
    expected = keys_of(lamina, tree)
    assert len(expected) == 3
    elsewhere = Lamina(tmp_path / "store2", tmp_path)
    assert keys_of(elsewhere, clone(tree, "two", reverse=True)) == expected
    assert keys_of(elsewhere, clone(tree, "three", reverse=False)) == expected


@pytest.mark.root
def test_same_keys_for_every_owner(tree: Path, tmp_path: Path) -> None:
    lamina = Lamina(tmp_path / "store", tmp_path)
    expected = keys_of(lamina, tree)
    for path in tree.rglob("*"):
        os.chown(path, 4321, 1234, follow_symlinks=False)
    assert keys_of(lamina, tree) == expected


def test_umask_counts_unless_modes_are_those_of_git(tree: Path, tmp_path: Path) -> None:
    lamina = Lamina(tmp_path / "store", tmp_path)
    (tree / "src/main.c").chmod(0o755)
    exact = keys_of(lamina, tree)
    git = keys_of(lamina, tree, "--context-modes=git")
    other = clone(tree, "two", reverse=True)
    for path in other.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o020)  # umask 0002
    assert keys_of(lamina, other) != exact
    assert keys_of(lamina, other, "--context-modes=git") == git
    target = tmp_path / "out"
    lamina("build", "--context-modes=git", "-o", f"type=local,dest={target}", str(other))
    assert (target / "src/main.c").stat().st_mode & 0o7777 == 0o755
    assert (target / "src/util.c").stat().st_mode & 0o7777 == 0o644
    assert (target / "src/sub").stat().st_mode & 0o7777 == 0o755
    assert (target / "m").stat().st_mode & 0o7777 == 0o700


def test_modes_of_git_can_be_configured(tree: Path, tmp_path: Path) -> None:
    lamina = Lamina(tmp_path / "store", tmp_path)
    git = keys_of(lamina, tree, "--context-modes=git")
    (tmp_path / "config.toml").write_text('context-modes = "git"\n')
    for path in tree.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o020)
    lamina.env["LAMINA_CONFIG"] = str(tmp_path / "config.toml")
    assert keys_of(lamina, tree) == git
    (tmp_path / "config.toml").write_text('context-modes = "svn"\n')
    refused = lamina("build", str(tree), check=False)
    assert "context-modes must be one of exact, git" in refused.stderr


def test_no_cache_reads_files_that_changed_without_a_trace(tmp_path: Path, lamina: Lamina) -> None:
    """tmpfs keeps a file's times when it is written through a mapping."""
    context = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        file = context / "file"
        file.write_bytes(b"a" * 4096)
        (context / "Dockerfile").write_text("FROM scratch\nCOPY file /file\n")
        believed = file.stat().st_ctime + 2.1
        wait_until(lambda: time.time() > believed, "its status is believed")
        lamina("build", str(context))
        with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 4096) as mapped:
            mapped[:1] = b"b"
        for words in (("--no-cache",), ()):
            lamina("build", *words, "-o", f"type=local,dest={tmp_path}/out", str(context))
            assert (tmp_path / "out/file").read_bytes()[:1] == b"b"
    finally:
        shutil.rmtree(context)
