# SPDX-License-Identifier: Apache-2.0
"""Snapshots through real overlay mounts: what a layer holds, and how a stack of them looks."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from lamina.spec.digest import ChainID, Digest
from lamina.store import LocalStore, open_store
from lamina.system.mounts import mounted, overlay_fd

pytestmark = pytest.mark.root

# <linux/capability.h>: revision 2, effective; permitted: CAP_NET_BIND_SERVICE
NET_BIND = bytes.fromhex("01000002" + "00040000" + "00000000" * 3)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def chain(number: int) -> ChainID:
    return ChainID(Digest.of(b"chain %d" % number))


def base(store: LocalStore, target: Path) -> None:
    """chain(0): a small tree."""
    with mounted(store.snapshots.prepare("base", None), str(target)):
        (target / "directory").mkdir()
        (target / "directory" / "kept").write_text("kept")
        (target / "directory" / "removed").write_text("removed")
        (target / "old").mkdir()
        (target / "old" / "hidden").write_text("hidden")
        (target / "one").write_text("linked")
        os.link(target / "one", target / "two")
    store.snapshots.commit(chain(0), "base")


def layer_on_base(store: LocalStore) -> Path:
    return Path(store.snapshots.layer_dir(str(chain(1))))


def test_removed_file_is_a_whiteout_device_in_the_layer(store: LocalStore, target: Path) -> None:
    base(store, target)
    with mounted(store.snapshots.prepare("next", chain(0)), str(target)):
        (target / "directory" / "removed").unlink()
    store.snapshots.commit(chain(1), "next")
    found = os.lstat(layer_on_base(store) / "directory" / "removed")
    assert stat.S_ISCHR(found.st_mode)
    assert found.st_rdev == 0
    fd = overlay_fd(store.snapshots.view(chain(1)))
    below = os.open("directory", os.O_RDONLY, dir_fd=fd)
    assert os.listdir(below) == ["kept"]
    os.close(below)
    os.close(fd)


def test_replaced_directory_is_opaque_and_hides_what_was_below(
    store: LocalStore, target: Path
) -> None:
    base(store, target)
    with mounted(store.snapshots.prepare("next", chain(0)), str(target)):
        (target / "old" / "hidden").unlink()
        (target / "old").rmdir()
        (target / "old").mkdir()
        (target / "old" / "new").write_text("new")
    store.snapshots.commit(chain(1), "next")
    assert os.getxattr(layer_on_base(store) / "old", "trusted.overlay.opaque") == b"y"
    with mounted(store.snapshots.view(chain(1)), str(target)):
        assert os.listdir(target / "old") == ["new"]


def test_everything_a_filesystem_can_hold_survives_commit_and_view(
    store: LocalStore, target: Path
) -> None:
    odd = os.fsdecode(b"caf\xe9 \n" + b"x" * 200)
    with mounted(store.snapshots.prepare("base", None), str(target)):
        (target / "file").write_text("x")
        os.chown(target / "file", 1234, 5678)
        os.chmod(target / "file", 0o6755)
        os.link(target / "file", target / odd)
        os.setxattr(target / "file", "security.capability", NET_BIND)
        os.mknod(target / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mkfifo(target / "fifo")
        os.symlink("/nowhere", target / "symlink")
        with open(target / "sparse", "wb") as file:
            file.truncate(50 << 20)
        with socket.socket(socket.AF_UNIX) as listening:
            fd = os.open(target, os.O_PATH)
            listening.bind(f"/proc/self/fd/{fd}/socket")
            os.close(fd)
        os.utime(target / "symlink", ns=(1, 123_456_789), follow_symlinks=False)
    store.snapshots.commit(chain(0), "base")
    with mounted(store.snapshots.prepare("next", chain(0)), str(target)):
        found = os.stat(target / "file")
        assert (found.st_uid, found.st_gid, found.st_nlink) == (1234, 5678, 2)
        assert stat.S_IMODE(found.st_mode) == 0o6755
        assert os.path.samefile(target / "file", target / odd)
        assert os.getxattr(target / "file", "security.capability") == NET_BIND
        assert os.stat(target / "device").st_rdev == os.makedev(1, 3)
        assert stat.S_ISFIFO(os.stat(target / "fifo").st_mode)
        assert os.lstat(target / "symlink").st_mtime_ns == 123_456_789
        assert os.stat(target / "sparse").st_blocks < 1000


def test_root_directory_keeps_the_attributes_of_the_layer_below(
    store: LocalStore, target: Path
) -> None:
    mount = store.snapshots.prepare("base", None)
    os.chmod(mount.upper, 0o1751)
    os.chown(mount.upper, 12, 34)
    os.utime(mount.upper, ns=(5, 5))
    store.snapshots.commit(chain(0), "base")
    with mounted(store.snapshots.prepare("next", chain(0)), str(target)):
        found = os.stat(target)
        assert stat.S_IMODE(found.st_mode) == 0o1751
        assert (found.st_uid, found.st_gid, found.st_mtime_ns) == (12, 34, 5)


def test_umask_does_not_change_the_root_directory(store: LocalStore) -> None:
    before = os.umask(0o077)
    try:
        mount = store.snapshots.prepare("base", None)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(mount.upper).st_mode) == 0o755


def test_a_hundred_and_twenty_layers_stack(store: LocalStore, target: Path) -> None:
    parent: ChainID | None = None
    for number in range(120):
        mount = store.snapshots.prepare(f"layer {number}", parent)
        (Path(mount.upper) / f"file {number}").write_text(str(number))
        (Path(mount.upper) / "top").write_text(str(number))
        store.snapshots.commit(chain(number), f"layer {number}")
        parent = chain(number)
    with mounted(store.snapshots.prepare("container", parent), str(target)):
        assert len(os.listdir(target)) == 121
        assert (target / "top").read_text() == "119"
        (target / "file 0").unlink()
    assert (Path(store.snapshots.layer_dir(str(chain(0)))) / "file 0").exists()


def test_snapshot_of_another_process_is_mounted_from_its_rows(
    store: LocalStore, target: Path
) -> None:
    base(store, target)
    again = open_store(store.root)
    with mounted(again.snapshots.view(chain(0)), str(target)):
        assert (target / "directory" / "kept").read_text() == "kept"
    again.close()
