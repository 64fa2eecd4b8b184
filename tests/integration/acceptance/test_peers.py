# SPDX-License-Identifier: Apache-2.0
"""Other tools read what lamina writes, lamina reads theirs, and both build the same tree."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.testing.command import Lamina

pytestmark = [pytest.mark.root, pytest.mark.tool("crun"), pytest.mark.tool("busybox")]

# Every kind of thing a layer can hold, in every way a Dockerfile makes it.
DOCKERFILE = """FROM busybox AS made
RUN mkdir -p /d/e && echo one > /d/one && chmod 4711 /d/one && ln /d/one /d/hard \
 && ln -s ../d/hard /d/soft && ln -s /nowhere /d/dangling && mkfifo /d/fifo \
 && chown 12:34 /d/e && chmod 1777 /d/e && touch "/d/a name with spaces" && mkdir /d/removed
RUN rm -r /d/removed && rm /d/one && echo two > /d/two && rm -r /d/e && mkdir /d/e
FROM busybox
ARG SUB=sub
ENV WHERE=/srv
COPY tree /srv/tree/
COPY tree/exec.sh tree/sub/x.txt /bin2/
COPY --chown=10:20 tree/sub $WHERE/$SUB
COPY --chown=root:nobody --chmod=640 tree/sub/x.txt /srv/owned.txt
COPY tree/sub/*.txt /srv/wild/
COPY --from=made /d /from-stage
COPY --from=0 /d/soft /followed
ADD bundle.tar.gz /unpacked/
ADD tree/exec.sh /srv/added
WORKDIR /srv/work/dir
RUN pwd > here && echo "$WHERE $SUB" > env && id -u > uid
USER nobody
RUN id -u > /tmp/uid && umask > /tmp/umask
"""


def tool(*argv: str, cwd: Path | None = None) -> str:
    """What the program printed; fails with what it complained of."""
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout.strip()


def write_context(folder: Path) -> None:
    (folder / "tree/sub/deep").mkdir(parents=True)
    (folder / "tree/empty").mkdir()
    (folder / "tree/sub/x.txt").write_text("x")
    (folder / "tree/sub/y.txt").write_text("y")
    (folder / "tree/sub/deep/z").write_bytes(bytes(range(256)) * 100)
    (folder / "tree/exec.sh").write_text("#!/bin/sh\n")
    (folder / "tree/exec.sh").chmod(0o755)
    (folder / "tree/secret").write_text("s")
    (folder / "tree/secret").chmod(0o600)
    (folder / "tree/link").symlink_to("sub/x.txt")
    (folder / "tree/dangling").symlink_to("/etc/nothing")
    (folder / "tree/sub/.hidden").write_text("h")
    (folder / "tree/ignored.log").write_text("no")
    (folder / ".dockerignore").write_text("**/*.log\n")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    os.makedirs(folder / "bundle/inside")
    (folder / "bundle/inside/file").write_text("packed")
    subprocess.run(
        ["tar", "--owner=3", "--group=4", "-czf", "bundle.tar.gz", "-C", "bundle", "inside"],
        cwd=folder,
        check=True,
    )


def tree_of(root: Path) -> dict[str, tuple[object, ...]]:
    """Path -> type, mode, owner, content or target, links, xattrs; no times."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[tuple[int, int], str] = {}
    for folder, folders, files in os.walk(root):
        for name in sorted(folders + files):
            path = Path(folder) / name
            status = path.lstat()
            key = str(path.relative_to(root))
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            first = inodes.setdefault((status.st_dev, status.st_ino), key)
            xattrs = sorted(os.listxattr(path, follow_symlinks=False))
            found[key] = (
                oct(status.st_mode),
                status.st_uid,
                status.st_gid,
                content,
                first if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode) else key,
                [(x, os.getxattr(path, x, follow_symlinks=False)) for x in xattrs],
            )
    return found


# what a runtime or builder puts there itself, and buildah's chroot isolation differently
_OWN = {"etc/hosts", "etc/resolv.conf", "etc/hostname", "dev", "proc", "sys", "run", "etc"}


def own(tree: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    return {
        path: entry
        for path, entry in tree.items()
        if path not in _OWN and not path.startswith(("dev/", "proc/", "sys/", "run/"))
    }


@pytest.mark.tool("buildah")
def test_tree_equals_what_buildah_builds(lamina: Lamina, tmp_path: Path) -> None:
    write_context(lamina.cwd)
    lamina("save", "-o", str(tmp_path / "base.tar"), "busybox")
    buildah = [
        "buildah", "--root", str(tmp_path / "b"), "--runroot", str(tmp_path / "r"),
        "--storage-driver", "vfs",
    ]  # fmt: skip
    cwd = lamina.cwd
    tool(*buildah, "pull", f"docker-archive:{tmp_path}/base.tar", cwd=cwd)
    tool(*buildah, "bud", "--isolation", "chroot", "--pull-never", "-t", "peer", ".", cwd=cwd)
    container = tool(*buildah, "from", "--pull-never", "peer", cwd=cwd)
    mounted = tool(*buildah, "mount", container, cwd=cwd)
    try:
        lamina("build", "-o", f"type=local,dest={tmp_path}/ours", ".")
        ours, theirs = own(tree_of(tmp_path / "ours")), own(tree_of(Path(mounted)))
        assert sorted(ours) == sorted(theirs)
        different = {
            path: (ours[path], theirs[path]) for path in ours if ours[path] != theirs[path]
        }
        assert different == {}
    finally:
        tool(*buildah, "rm", "-a", cwd=cwd)


@pytest.mark.tool("skopeo")
@pytest.mark.tool("umoci")
def test_skopeo_and_umoci_read_the_store_and_every_archive(lamina: Lamina, tmp_path: Path) -> None:
    write_context(lamina.cwd)
    lamina("build", "-t", "app", ".")
    lamina("build", "-t", "app", "-o", f"type=oci,dest={tmp_path}/oci.tar", ".")
    lamina("save", "-o", str(tmp_path / "docker.tar"), "app")
    tool("skopeo", "inspect", f"oci:{lamina.root}:app:latest")
    for source in (f"oci-archive:{tmp_path}/oci.tar", f"docker-archive:{tmp_path}/docker.tar"):
        target = f"oci:{tmp_path}/copy-{source.split(':')[0]}:app"
        tool("skopeo", "--insecure-policy", "copy", source, target)
    tool("umoci", "unpack", "--image", f"{tmp_path}/copy-oci-archive:app", f"{tmp_path}/bundle")
    lamina("build", "-o", f"type=local,dest={tmp_path}/ours", ".")
    assert tree_of(tmp_path / "bundle/rootfs") == tree_of(tmp_path / "ours")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """podman refuses a run directory whose path is longer than 50 characters."""
    with tempfile.TemporaryDirectory(prefix="p", dir="/tmp") as path:
        yield Path(path)


@pytest.mark.tool("podman")
def test_podman_loads_what_lamina_saves_and_lamina_runs_what_podman_saves(
    lamina: Lamina, tmp_path: Path, short_path: Path
) -> None:
    write_context(lamina.cwd)
    lamina("build", "-t", "app", ".")
    lamina("save", "-o", str(tmp_path / "docker.tar"), "app")
    podman = [
        "podman", "--root", str(tmp_path / "p"), "--runroot", str(short_path),
        "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
    ]  # fmt: skip
    loaded = tool(*podman, "load", "-i", str(tmp_path / "docker.tar"))
    assert "app:latest" in loaded
    for kind in ("docker-archive", "oci-archive"):
        archive = str(tmp_path / f"back-{kind}.tar")
        tool(*podman, "save", "--format", kind, "-o", archive, "app")
        lamina("rmi", "-f", "app")
        lamina("load", "-i", archive)
        assert lamina("run", "--rm", "--network=none", "app", "cat", "/srv/sub/x.txt").stdout == "x"
