# SPDX-License-Identifier: Apache-2.0
"""`cp`, `diff` and `export`, of containers that run, ended, or never ran."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from lamina.testing import command
from lamina.testing.busybox import Lamina

STATES = ["created", "running", "exited"]
SETUP = (
    "mkdir -p /w/sub /empty; echo hi > /w/a; echo deep > /w/sub/b; ln -s /etc/passwd /w/out; "
    "ln -s a /w/link; ln -s sub /w/dirlink; ln /w/a /w/hard; chown 1000:1000 /w/a"
)


def made(lamina: Lamina, state: str, *flags: str) -> str:
    """The container `it`, in that state."""
    if state == "created":
        return lamina.out("create", "--name", "it", *flags, "bb", "sleep", "600")
    if state == "exited":
        return lamina.out("run", "--name", "it", *flags, "bb", "sh", "-c", SETUP)
    lamina("run", "-d", "--name", "it", *flags, "bb", "sleep", "600")
    return lamina.out("exec", "it", "sh", "-c", SETUP)


def content(lamina: Lamina, path: str) -> bytes:
    """A file of the container `it`, through `cp -`."""
    process = lamina.popen("cp", "-L", f"it:{path}", "-")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        file = tar.extractfile(tar.getmembers()[0])
        assert file is not None
        return file.read()


@pytest.mark.host_root("root owns what it compares")
@pytest.mark.parametrize("state", STATES)
def test_file_goes_in_and_comes_out(lamina: Lamina, tmp_path: Path, state: str) -> None:
    made(lamina, state)
    (tmp_path / "f").write_text("bytes")
    os.chmod(tmp_path / "f", 0o640)
    os.chown(tmp_path / "f", 1234, 1234)
    lamina("cp", str(tmp_path / "f"), "it:/tmp")
    lamina("cp", str(tmp_path / "f"), "it:/tmp/named")
    lamina("container", "cp", "-a", str(tmp_path / "f"), "it:tmp/owned")
    lamina("cp", "-a", "it:/tmp", str(tmp_path / "got"))
    found = {
        each.name: (each.read_text(), each.stat().st_uid, each.stat().st_mode & 0o777)
        for each in (tmp_path / "got").iterdir()
    }
    assert found == {
        "f": ("bytes", 0, 0o640),
        "named": ("bytes", 0, 0o640),
        "owned": ("bytes", 1234, 0o640),
    }


@pytest.mark.parametrize("state", ["running", "exited"])
def test_directories_follow_dockers_rules(lamina: Lamina, tmp_path: Path, state: str) -> None:
    made(lamina, state)
    there = tmp_path / "there"
    there.mkdir()
    lamina("cp", "it:/w", str(there))
    lamina("cp", "it:/w/.", str(there))
    lamina("cp", "it:/w", str(tmp_path / "new"))
    lamina("cp", "it:/w/.", str(tmp_path / "fresh"))
    lamina("cp", "it:/w/dirlink/", str(tmp_path / "followed"))
    lamina("cp", "it:/w/dirlink", str(tmp_path / "kept"))
    for tree in (there / "w", there, tmp_path / "new", tmp_path / "fresh"):
        assert (tree / "sub/b").read_text() == "deep\n"
        assert os.readlink(tree / "out") == "/etc/passwd"
        assert (tree / "hard").stat().st_ino == (tree / "a").stat().st_ino
        assert (tree / "a").stat().st_uid == command.actor.uid(0)  # without -a the caller's
    assert (tmp_path / "followed/b").read_text() == "deep\n"
    assert os.readlink(tmp_path / "kept") == "sub"
    lamina("cp", str(there / "w"), "it:/empty")
    lamina("cp", f"{there}/w/.", "it:/fresh")
    assert content(lamina, "/empty/w/sub/b") == content(lamina, "/fresh/sub/b") == b"deep\n"


def test_links_of_the_container_never_lead_out(lamina: Lamina, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    made(lamina, "running")
    lamina("exec", "it", "ln", "-s", str(secret), "/w/evil")
    lamina("exec", "it", "ln", "-s", str(tmp_path), "/w/evildir")
    lamina("exec", "it", "ln", "-s", "/../../../../etc", "/w/up")
    error = lamina("cp", "-L", "it:/w/evil", str(tmp_path / "x"), status=1).stderr
    assert "no such file or directory" in error
    assert b"guest" in content(lamina, "/w/up/passwd")
    (tmp_path / "f").write_text("new")
    lamina("cp", str(tmp_path / "f"), "it:/w/evildir/secret", status=1)
    lamina("cp", str(tmp_path / "f"), "it:/w/evil", status=1)
    assert secret.read_text() == "the host's"
    assert "no such file" in lamina("cp", "it:/proc/1/root/x", str(tmp_path), status=1).stderr


def test_volumes_and_bind_mounts_are_there(lamina: Lamina, tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (tmp_path / "f").write_text("v")
    flags = ("-v", f"{host}:/bound", "-v", "/data", "-v", f"{host}:/fixed:ro")
    made(lamina, "created", *flags)
    lamina("cp", str(tmp_path / "f"), "it:/bound/one")
    lamina("cp", str(tmp_path / "f"), "it:/data/one")
    lamina("cp", str(tmp_path / "f"), "it:/fixed/two", status=1)
    assert [each.name for each in host.iterdir()] == ["one"]
    lamina("start", "it")
    assert lamina.out("exec", "it", "cat", "/data/one", "/data/seed") == "vfrom the image"
    lamina("cp", str(tmp_path / "f"), "it:/data/two")
    lamina("kill", "it")
    assert content(lamina, "/data/two") == b"v"


def test_tar_on_standard_streams(lamina: Lamina, tmp_path: Path) -> None:
    made(lamina, "running")
    archive = tmp_path / "a.tar"
    with archive.open("wb") as file:
        subprocess.run(lamina.argv("cp", "it:/w", "-"), env=lamina.env, stdout=file, check=True)
    with tarfile.open(archive) as tar:
        assert {"w", "w/a", "w/sub/b"} <= set(tar.getnames())
        assert tar.getmember("w/a").uid == 1000 or tar.getmember("w/a").islnk()
    with archive.open("rb") as file:
        subprocess.run(lamina.argv("cp", "-", "it:/empty"), env=lamina.env, stdin=file, check=True)
    assert lamina.out("exec", "it", "cat", "/empty/w/sub/b") == "deep"
    assert "no such directory" in lamina("cp", "-", "it:/no", status=1, input="").stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("it:/nosuch", "."), "no such file or directory"),
        (("it:/etc/passwd/", "."), "not a directory"),
        (("it:/w", "it:/x"), "between containers"),
        (("nosuch:/w", "."), "No such container: nosuch"),
        (("/etc/passwd", "it:/no/such"), "no such directory"),
        (("/etc/passwd", "it:/nosuch/"), "no such directory"),
        (("/etc/apt", "it:/etc/passwd"), "onto the file"),
        (("/no/such", "it:/"), "no such file or directory"),
    ],
)
def test_bad_copies_are_one_clear_error(
    lamina: Lamina, words: tuple[str, str], message: str
) -> None:
    made(lamina, "exited")
    done = lamina("cp", *words, status=1)
    assert message in done.stderr
    assert done.stderr.count("\n") <= 2


def test_neither_place_in_a_container_is_wrong_usage(lamina: Lamina) -> None:
    assert "CONTAINER:PATH" in lamina("cp", "/a", "/b", status=125).stderr


def test_read_only_container_takes_nothing(lamina: Lamina) -> None:
    made(lamina, "created", "--read-only")
    assert "read-only" in lamina("cp", "/etc/passwd", "it:/", status=1).stderr


def test_diff_lists_added_changed_and_deleted(lamina: Lamina) -> None:
    script = (
        "echo x > /data/new; rm /etc/notexec; echo g:x:9: >> /etc/group; chmod 700 /root; "
        "mkdir -p /n/m; rm -r /home; mkdir /home; touch /home/z"
    )
    lamina("run", "--name", "it", "bb", "sh", "-c", script)
    assert lamina.out("diff", "it").split("\n") == [
        "C /data", "A /data/new", "C /etc", "C /etc/group", "D /etc/notexec",
        "C /home", "D /home/guest", "A /home/z", "A /n", "A /n/m", "C /root",
    ]  # fmt: skip


@pytest.mark.parametrize("state", ["created", "running"])
def test_diff_does_not_list_what_the_runtime_made(lamina: Lamina, state: str) -> None:
    lamina("create", "--name", "it", "bb", "sleep", "600")
    if state == "running":
        lamina("start", "it")
    assert lamina.out("container", "diff", "it") == ""


@pytest.mark.parametrize("state", STATES)
def test_export_has_the_files_and_no_mounts(lamina: Lamina, tmp_path: Path, state: str) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "mounted").touch()
    made(lamina, state, "-v", f"{host}:/bound")
    archive = tmp_path / "all.tar"
    lamina("export", "-o", str(archive), "it")
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
    assert {"bin/busybox", "data/seed"} <= names
    assert ("w/sub/b" in names) == (state != "created")
    assert not {"proc/1", "bound/mounted", "sys/kernel"} & names
    with archive.open("rb") as file:
        subprocess.run(
            lamina.argv("import", "-", "copy"), env=lamina.env, stdin=file, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
    assert lamina.out("run", "--rm", "copy", "/bin/cat", "/data/seed") == "from the image"


@pytest.mark.host_root("device nodes are not made without root")
def test_every_kind_of_file_goes_both_ways(lamina: Lamina, tmp_path: Path) -> None:
    made(lamina, "running")
    tree = tmp_path / "tree"
    tree.mkdir()
    long = tree / ("d" * 120) / ("é" * 60)
    long.mkdir(parents=True)
    (long / "file").write_text("x")
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "node", 0o20600, os.makedev(1, 3))
    os.symlink("t" * 150, tree / "link")
    with (tree / "sparse").open("wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"middle")
    os.utime(tree / "sparse", ns=(-1_500_000_000, -1_500_000_000))
    lamina("cp", "-a", str(tree), "it:/")
    lamina("cp", "-a", "it:/tree", str(tmp_path / "back"))
    back = tmp_path / "back"
    assert (back / long.relative_to(tree) / "file").read_text() == "x"
    assert (back / "fifo").is_fifo()
    assert (back / "node").stat().st_rdev == os.makedev(1, 3)
    assert os.readlink(back / "link") == "t" * 150
    assert (back / "sparse").read_bytes() == (tree / "sparse").read_bytes()


def test_error_in_the_middle_leaves_nothing_hanging(lamina: Lamina, tmp_path: Path) -> None:
    made(lamina, "running", "--tmpfs", "/small:size=64k")
    (tmp_path / "big").write_bytes(b"x" * (4 << 20))
    error = lamina("cp", str(tmp_path / "big"), "it:/small", status=1).stderr
    assert "No space left on device" in error
    assert "INVALID" not in error
    assert "tar" in lamina("cp", "-", "it:/tmp", status=1, input="x" * 2000).stderr
