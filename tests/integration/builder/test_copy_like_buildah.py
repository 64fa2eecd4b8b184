# SPDX-License-Identifier: Apache-2.0
"""COPY and ADD give the tree that buildah gives, for what buildah and BuildKit agree on."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from lamina.image.unpack import ensure_snapshot
from lamina.system.mounts import mounted
from lamina.tasks import CancelToken, Work

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Site  # type: ignore[import-not-found]  # found by pytest
    from lamina.spec.digest import Stack

pytestmark = [pytest.mark.root, pytest.mark.tool("buildah"), pytest.mark.tool("busybox")]

# instruction, flags as keyword arguments of Site.copy, sources, destination
CASES: list[tuple[str, dict[str, object], tuple[str, ...], str]] = [
    ("COPY", {}, ("file",), "/new/name"),
    ("COPY", {}, ("file",), "/new/dir/"),
    ("COPY", {}, ("file",), "/tmp"),
    ("COPY", {}, ("file",), "/srv/link/"),
    ("COPY", {}, ("file",), "/srv/file"),
    ("COPY", {}, ("file",), "/"),
    ("COPY", {}, ("dir",), "/tmp/"),
    ("COPY", {}, ("dir",), "/home/app"),
    ("COPY", {}, ("dir/",), "/srv/link"),
    ("COPY", {}, (".",), "/tmp/all/"),
    ("COPY", {}, ("file", "dir"), "/srv/real/"),
    ("COPY", {}, ("*.txt",), "/srv/real/"),
    ("COPY", {}, ("d?r/s*",), "/srv/real/"),
    ("COPY", {}, ("[fl]i*",), "/srv/real/"),
    ("COPY", {}, ("link",), "/srv/real/followed"),
    ("COPY", {"owner": "app:web"}, ("dir",), "/home/app/"),
    ("COPY", {"owner": "12:34"}, ("file",), "/made/by/"),
    ("COPY", {"mode": "2750"}, ("file",), "/srv/real/"),
    ("ADD", {"unpack": True}, ("a.tar.gz",), "/srv/real/"),
    ("ADD", {"unpack": True}, ("a.tar.xz",), "/home/"),
    ("ADD", {"unpack": True}, ("file",), "/srv/real/"),
    ("ADD", {"unpack": True}, ("a.tar.gz", "file"), "/srv/real/"),
]


def fill(context: Path) -> None:
    (context / "dir" / "sub" / "empty").mkdir(parents=True)
    (context / "file").write_text("file\n")
    (context / "one.txt").write_text("1")
    (context / "two.txt").write_text("2")
    (context / "dir" / "tool").write_text("tool\n")
    (context / "dir" / "tool").chmod(0o755)
    (context / "dir" / "sub" / "secret").write_text("secret\n")
    (context / "dir" / "sub" / "secret").chmod(0o400)
    (context / "dir" / "sub").chmod(0o750)
    (context / "dir" / "relative").symlink_to("sub/secret")
    (context / "dir" / "absolute").symlink_to("/etc/passwd")
    (context / "link").symlink_to("dir/tool")
    os.link(context / "dir" / "tool", context / "dir" / "twin")
    packed = context.parent / "packed"
    (packed / "top" / "below").mkdir(parents=True)
    (packed / "top" / "below" / "f").write_text("packed\n")
    (packed / "top" / "l").symlink_to("below/f")
    (packed / "top" / "below").chmod(0o711)
    for flag, name in (("z", "a.tar.gz"), ("J", "a.tar.xz")):
        subprocess.run(
            ["tar", "-C", packed, "--owner=7", "--group=8", f"-c{flag}f", context / name, "top"],
            check=True,
        )


def tree(root: str) -> dict[str, tuple[object, ...]]:
    """Path -> type and mode, owner, what it holds, number of links."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, below, names in os.walk(root):
        for name in (*below, *names):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            links = status.st_nlink if stat.S_ISREG(status.st_mode) else 0
            key = os.path.relpath(path, root)
            found[key] = (oct(status.st_mode), status.st_uid, status.st_gid, content, links)
    return found


def buildah_tree(site: Site, instruction: str) -> dict[str, tuple[object, ...]]:
    state = site.root / "buildah"
    command = ["buildah", "--root", f"{state}/root", "--runroot", f"{state}/run"]
    command += ["--storage-driver", "vfs"]
    dockerfile = site.root / "Dockerfile"
    dockerfile.write_text(f"FROM base\n{instruction}\n")

    def call(*arguments: str) -> str:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return str(done.stdout).strip()

    base = call("from", "scratch")
    mountpoint = call("mount", base)
    subprocess.run(["cp", "-a", f"{site.root / 'rootfs'}/.", mountpoint], check=True)
    call("commit", "--quiet", base, "base")
    call("rm", base)
    call("bud", "--isolation", "chroot", "--layers=false", "--quiet", "-t", "made", "-f",
         str(dockerfile), str(site.context))  # fmt: skip
    made = call("from", "made")
    try:
        return tree(call("mount", made))
    finally:
        call("rm", "--all")


def lamina_tree(site: Site, diff_ids: Stack) -> dict[str, tuple[object, ...]]:
    chain = ensure_snapshot(
        site.store, diff_ids, work=Work(emit=site.emit, cancel=CancelToken(), clock=time.time)
    )
    target = site.root / "merged"
    target.mkdir()
    with mounted(site.store.snapshots.view(chain), str(target)):
        return tree(str(target))


@pytest.mark.parametrize(
    ("instruction", "flags", "sources", "dest"),
    CASES,
    ids=[" ".join((c[0], *map(str, c[1].values()), *c[2], c[3])) for c in CASES],
)
def test_result_is_the_same(
    site: Site, instruction: str, flags: dict[str, object], sources: tuple[str, ...], dest: str
) -> None:
    fill(site.context)
    names = {"owner": "--chown", "mode": "--chmod"}
    options = [f"{names[key]}={value}" for key, value in flags.items() if key in names]
    expected = buildah_tree(site, " ".join((instruction, *options, *sources, dest)))
    solved = site.solve(site.copy(*sources, to=dest, **flags))
    assert lamina_tree(site, solved.outputs[0]) == expected
