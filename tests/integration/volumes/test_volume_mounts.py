# SPDX-License-Identifier: Apache-2.0
"""What containers see of volumes, what an empty volume gets, and that nothing leads out of one."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from lamina.testing import command as commands
from lamina.testing.busybox import Lamina


def data(lamina: Lamina, name: str) -> Path:
    return Path(lamina.root, "volumes", name, "_data")


def ids(uid: int, gid: int) -> tuple[int, int]:
    """What the host shows of a container's ids."""
    return commands.actor.uid(uid), commands.actor.uid(gid)


def facts(place: Path) -> dict[str, tuple[object, ...]]:
    """Kind, owner, mode, link and content of everything beneath."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [place, *place.rglob("*")]:
        status = path.lstat()
        content = path.read_text() if stat.S_ISREG(status.st_mode) else ""
        link = os.readlink(path) if path.is_symlink() else ""
        name = str(path.relative_to(place))
        found[name] = (oct(status.st_mode), status.st_uid, status.st_gid, link, content)
    return found


def test_volume_outlives_its_containers(lamina: Lamina) -> None:
    lamina("run", "--rm", "-v", "one:/w", "bb", "sh", "-c", "echo kept > /w/f")
    assert lamina.out("run", "--rm", "-v", "one:/other", "bb", "cat", "/other/f") == "kept"
    lamina("run", "-d", "--name=aa", "-v", "one:/w", "bb", "sleep", "600")
    lamina("run", "--rm", "-v", "one:/w", "bb", "sh", "-c", "echo shared > /w/f")
    assert lamina.out("exec", "aa", "cat", "/w/f") == "shared"
    assert data(lamina, "one").joinpath("f").read_text() == "shared\n"


@pytest.mark.parametrize("command", ["create", "run"])
def test_empty_volume_gets_the_images_files(lamina: Lamina, command: str) -> None:
    lamina(command, "-v", "one:/srv/t", "tree", "true")
    found = facts(data(lamina, "one"))
    assert found["."][:3] == ("0o41777", *ids(1000, 1000))
    assert found["one"] == ("0o104711", *ids(0, 0), "", "one\n")
    assert found["sub"][:3] == ("0o42750", *ids(12, 34))
    assert found["abs"][3] == "/etc/passwd"
    assert found["fifo"][0] == "0o10644"
    one, hard = data(lamina, "one") / "one", data(lamina, "one") / "hard"
    assert one.stat().st_ino == hard.stat().st_ino
    assert sorted(os.listdir(data(lamina, "one").parent)) == ["_data", "volume.json"]


def test_xattrs_come_along(lamina: Lamina) -> None:
    lamina("create", "--name=made", "bb", "true")
    lamina("cp", "made:/data", f"{lamina.root}/../x")
    os.setxattr(f"{lamina.root}/../x/seed", "user.note", b"kept")
    lamina("cp", "-a", f"{lamina.root}/../x", "made:/x")
    lamina("commit", "made", "noted")
    lamina("run", "--rm", "-v", "one:/x", "noted", "true")
    assert os.getxattr(data(lamina, "one") / "seed", "user.note") == b"kept"


def test_nothing_is_copied_where_it_should_not_be(lamina: Lamina) -> None:
    lamina("run", "--rm", "-v", "bare:/srv/t:nocopy", "tree", "true")
    lamina("run", "--rm", "--mount", "src=bare,dst=/srv/t,volume-nocopy=true", "tree", "true")
    assert facts(data(lamina, "bare")) == {".": ("0o40755", *ids(0, 0), "", "")}
    lamina("run", "--rm", "-v", "mine:/w", "bb", "touch", "/w/mine")
    assert lamina.out("run", "--rm", "-v", "mine:/srv/t", "tree", "ls", "/srv/t") == "mine"
    # the directory's own mode, also where nothing is in it
    lamina("run", "--rm", "-v", "home:/home/guest", "bb", "true")
    assert facts(data(lamina, "home"))["."][1:3] == ids(1000, 1000)
    lamina("run", "--rm", "-v", "new:/not/there", "bb", "true")
    assert facts(data(lamina, "new")) == {".": ("0o40755", *ids(0, 0), "", "")}


def test_read_only_volume(lamina: Lamina) -> None:
    for flags in (["-v", "one:/data:ro"], ["--mount", "src=one,dst=/data,readonly"]):
        done = lamina(
            "run", "--rm", *flags, "bb", "sh", "-c", "cat /data/seed; touch /data/x", status=1
        )
        assert done.stdout == "from the image\n"
        assert "Read-only file system" in done.stderr


def test_subpath(lamina: Lamina) -> None:
    lamina("run", "--rm", "-v", "one:/srv/t", "tree", "mkdir", "/srv/t/sub/new")
    mount = ("run", "--rm", "--mount")
    assert lamina.out(*mount, "src=one,dst=/w,volume-subpath=sub", "bb", "ls", "/w") == "new\ns"
    assert lamina.out(*mount, "src=one,dst=/w,volume-subpath=one,ro", "bb", "cat", "/w") == "one"
    assert (
        lamina.out(*mount, "src=one,dst=/data,volume-subpath=sub/new", "bb", "ls", "/data")
        == "seed"
    )
    done = lamina(*mount, "src=one,dst=/w,volume-subpath=none", "bb", "true", status=125)
    assert (
        f"cannot access path {data(lamina, 'one')}/none: No such file or directory" in done.stderr
    )


def test_links_in_a_volume_do_not_lead_out_of_it(lamina: Lamina, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_text("host")
    lamina("volume", "create", "one")
    data(lamina, "one").joinpath("abs").symlink_to(tmp_path / "secret")
    data(lamina, "one").joinpath("up").symlink_to("../" * 30 + str(tmp_path / "secret")[1:])
    data(lamina, "one").joinpath("proc").symlink_to("/proc/self/root")
    for name in ("abs", "up", "proc", "abs/file"):
        mount = f"src=one,dst=/w,volume-subpath={name}"
        done = lamina("run", "--rm", "--mount", mount, "bb", "cat", "/w/file", status=125)
        assert "cannot access path" in done.stderr
    data(lamina, "one").joinpath("root").symlink_to("/")
    inside = ("--mount", "src=one,dst=/w,volume-subpath=root")
    assert "abs" in lamina.out("run", "--rm", *inside, "bb", "ls", "/w").split()
    # cp resolves in the container, whether it runs or not
    lamina("create", "--name=it", "-v", "one:/w", "bb", "sleep", "600")
    for _ in ("created", "running"):
        assert lamina("cp", "it:/w/abs/file", str(tmp_path / "got"), status=1).stderr
        lamina("start", "it")
    assert not (tmp_path / "got").exists()


def test_destination_that_is_a_link_stays_in_the_image(lamina: Lamina) -> None:
    before = sorted(os.listdir("/tmp"))
    lamina("run", "--rm", "-v", "one:/here", "tree", "sh", "-c", "touch /srv/t/through")
    assert (data(lamina, "one") / "through").exists()
    assert (data(lamina, "one") / "sub/s").exists()
    out = lamina.out(
        "run", "--rm", "-v", "two:/outside", "tree", "sh", "-c", "touch /tmp/x; ls /tmp"
    )
    assert out == "x"
    assert os.listdir(data(lamina, "two")) == ["x"]
    assert [name for name in sorted(os.listdir("/tmp")) if name not in before and name == "x"] == []


def test_a_volume_over_a_file_is_one_clear_error(lamina: Lamina) -> None:
    for command in ("run", "create"):
        done = lamina(
            command, "-v", "one:/etc/passwd", "bb", "true", status=125 if command == "run" else 1
        )
        assert "a volume cannot be mounted on /etc/passwd" in done.stderr
    done = lamina("run", "--rm", "-v", "one:/etc/passwd:nocopy", "bb", "true", status=125)
    assert "Not a directory" in done.stderr
    assert "hint: a directory is mounted on a file" in done.stderr
    done = lamina("run", "--rm", "-v", "/etc/hostname:/data", "bb", "true", status=125)
    assert "hint: a directory is mounted on a file, or a file on a directory" in done.stderr


def test_volumes_from(lamina: Lamina) -> None:
    flags = ("-v", "one:/w", "-v", "/anon", "-v", "/tmp:/host:ro", "--tmpfs=/t")
    lamina("create", "--name=from", *flags, "bb", "true")
    script = "touch /w/x /anon/y; ls -d /t; touch /host/z"
    done = lamina("run", "--rm", "--volumes-from=from", "bb", "sh", "-c", script, status=1)
    assert "/t: No such" in done.stderr
    assert "/host/z: Read-only" in done.stderr
    assert (data(lamina, "one") / "x").exists()
    done = lamina("run", "--volumes-from=from:ro", "--name=ro", "v", "touch", "/w/n", status=1)
    assert "Read-only" in done.stderr
    mounts = {
        each["Destination"]: each for each in json.loads(lamina.out("inspect", "ro"))[0]["Mounts"]
    }
    assert sorted(mounts) == ["/anon", "/data", "/host", "/w"]
    assert [mounts[each]["RW"] for each in sorted(mounts)] == [False, True, False, False]
    # what is given goes before what is inherited
    lamina("run", "--rm", "--volumes-from=from", "-v", "two:/w", "bb", "touch", "/w/two")
    assert os.listdir(data(lamina, "two")) == ["two"]
    anonymous = mounts["/anon"]["Name"]
    lamina("rm", "-v", "from")  # the other one has it still
    assert data(lamina, anonymous).exists()
    lamina("rm", "-v", "ro")
    assert not data(lamina, anonymous).exists()
    assert (
        "No such container: none" in lamina("run", "--volumes-from=none", "bb", status=125).stderr
    )


def test_inspect_has_dockers_mounts(lamina: Lamina) -> None:
    lamina("volume", "create", "one")
    lamina(
        *("create", "--name=it", "-v", "one:/a", "-v", "one:/b:ro", "-v", "/tmp:/c:ro,rslave"),
        *("--mount", "src=one,dst=/d,readonly", "--mount", "type=tmpfs,dst=/e"),
        *("--mount", "type=bind,src=/tmp,dst=/f", "--tmpfs=/g:size=1m", "-v", "/h", "v", "true"),
    )
    (found,) = json.loads(lamina.out("inspect", "it"))
    mounts = {each.pop("Destination"): each for each in found["Mounts"]}
    one = {"Type": "volume", "Name": "one", "Source": str(data(lamina, "one")), "Driver": "local"}
    assert mounts["/a"] == {**one, "Mode": "z", "RW": True, "Propagation": ""}
    assert mounts["/b"] == {**one, "Mode": "ro", "RW": False, "Propagation": ""}
    assert mounts["/d"] == {**one, "Mode": "z", "RW": False, "Propagation": ""}
    bind = {"Type": "bind", "Source": "/tmp"}
    assert mounts["/c"] == {**bind, "Mode": "ro,rslave", "RW": False, "Propagation": "rslave"}
    assert mounts["/f"] == {**bind, "Mode": "", "RW": True, "Propagation": "rprivate"}
    assert mounts["/e"] == {
        "Type": "tmpfs",
        "Source": "",
        "Mode": "",
        "RW": True,
        "Propagation": "",
    }
    for each in ("/data", "/h"):
        assert (mounts[each]["Type"], mounts[each]["Mode"]) == ("volume", "")
    assert "/g" not in mounts
    assert found["Config"]["Volumes"] == {"/data": {}, "/h": {}}
    host = found["HostConfig"]
    assert host["Binds"] == ["one:/a", "one:/b:ro", "/tmp:/c:ro,rslave"]
    assert host["Tmpfs"] == {"/g": "size=1m"}
    assert {each["Target"]: each["Type"] for each in host["Mounts"]} == {
        "/d": "volume",
        "/e": "tmpfs",
        "/f": "bind",
    }


def test_volume_of_a_directory_of_the_host(lamina: Lamina, tmp_path: Path) -> None:
    device = tmp_path / "device"
    options = ("-o", "type=none", "-o", "o=bind", "-o", f"device={device}")
    lamina("volume", "create", *options, "dev")
    done = lamina("run", "--rm", "-v", "dev:/data", "bb", "true", status=125)
    assert "failed to mount local volume" in done.stderr
    device.mkdir()
    assert (
        lamina.out("run", "--rm", "-v", "dev:/data", "bb", "cat", "/data/seed") == "from the image"
    )
    assert os.listdir(device) == ["seed"]
    mount = (
        "--mount",
        f"src=other,dst=/w,volume-opt=type=none,volume-opt=o=bind,volume-opt=device={device}",
    )
    assert lamina.out("run", "--rm", *mount, "bb", "ls", "/w") == "seed"
    lamina("volume", "rm", "dev", "other")
    assert os.listdir(device) == ["seed"]


@pytest.mark.parametrize("state", ["created", "running", "exited"])
def test_cp_goes_to_volumes(lamina: Lamina, tmp_path: Path, state: str) -> None:
    command = ("sleep", "600") if state == "running" else ("true",)
    start = ("create",) if state == "created" else ("run", "-d")
    lamina(*start, "--name=it", "-v", "one:/data", "-v", "/w/deep", "bb", *command)
    if state == "exited":
        lamina("wait", "it")
    (tmp_path / "f").write_text("in")
    lamina("cp", str(tmp_path / "f"), "it:/data/f")
    assert (data(lamina, "one") / "f").read_text() == "in"
    lamina("cp", str(tmp_path / "f"), "it:/w/deep/f")
    lamina("cp", "it:/data/seed", str(tmp_path / "seed"))
    assert (tmp_path / "seed").read_text() == "from the image\n"
    lamina("cp", "it:/w/deep", str(tmp_path / "deep"))
    assert (tmp_path / "deep/f").read_text() == "in"


def test_volume_in_a_volume_and_beneath_a_bind(lamina: Lamina, tmp_path: Path) -> None:
    flags = (
        "-v",
        "inner:/w/inner",
        "-v",
        "outer:/w",
        "-v",
        f"{tmp_path}:/b",
        "-v",
        "three:/b/three",
    )
    lamina("run", "--rm", *flags, "bb", "touch", "/w/inner/i", "/w/o", "/b/three/t", "/b/here")
    assert os.listdir(data(lamina, "inner")) == ["i"]
    assert sorted(os.listdir(data(lamina, "outer"))) == ["inner", "o"]
    assert os.listdir(data(lamina, "three")) == ["t"]
    assert {"here", "three"} <= set(os.listdir(tmp_path))


def test_missing_volume_of_a_container_is_made_anew(lamina: Lamina) -> None:
    lamina("create", "--name=it", "-v", "one:/data", "bb", "touch", "/data/x")
    subprocess.run(["rm", "-r", f"{lamina.root}/volumes/one"], check=True)
    lamina("start", "-a", "it")
    assert os.listdir(data(lamina, "one")) == ["x"]


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["-v", "a/b:/w"], "includes invalid characters for a local volume name"),
        (["-v", "x:/w"], "volume name is too short"),
        (["-v", "one:/"], "destination can't be '/'"),
        (["-v", "one:w"], "mount path must be absolute"),
        (["-v", "one:/w:bogus"], "invalid mode: bogus"),
        (["-v", "one:/w", "-v", "two:/w"], "Duplicate mount point: /w"),
        (["-v", "one:/w", "--tmpfs", "/w"], "Duplicate mount point: /w"),
        (["-v", "one:/proc"], "it lies in /proc"),
        (["--volume-driver=nfs", "-v", "one:/w"], '"nfs"'),
        (["--mount", "src=one,dst=/w,volume-driver=nfs"], "volume driver 'nfs' is not supported"),
        (["--mount", "type=image,src=bb,dst=/w"], "mount type 'image' is not supported"),
        (["--volumes-from", "x:bogus"], "invalid mode: bogus"),
    ],
)
def test_bad_mounts_are_one_clear_error(lamina: Lamina, flags: list[str], why: str) -> None:
    assert why in lamina("run", "--rm", *flags, "bb", "true", status=125).stderr


@pytest.mark.parametrize("command", ["create", "run"])
def test_volume_that_was_emptied_stays_empty(lamina: Lamina, command: str) -> None:
    script = "ls -A /data; rm -f /data/*"
    lamina(command, "--name=it", "-v", "one:/data", "bb", "sh", "-c", script)
    lamina("start", "-a", "it")
    assert lamina.out("start", "-a", "it") == ""
    assert os.listdir(data(lamina, "one")) == []
    assert lamina.out("run", "--rm", "-v", "one:/data", "bb", "ls", "/data") == "seed"


def test_cp_knows_what_is_mounted_in_what(lamina: Lamina, tmp_path: Path) -> None:
    lamina("create", "--name=it", "-v", "inner:/w/inner", "-v", "outer:/w", "bb", "true")
    (tmp_path / "f").write_text("x")
    lamina("cp", str(tmp_path / "f"), "it:/w/inner/f")
    assert os.listdir(data(lamina, "inner")) == ["f"]
    assert os.listdir(data(lamina, "outer")) == []
