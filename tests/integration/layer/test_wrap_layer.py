# SPDX-License-Identifier: Apache-2.0
"""Layers wrapped as EROFS files: what GNU tar writes is seen as GNU tar unpacks it."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.layer.erofs import BODY, NotWrappable, write_index
from lamina.layer.lower import Lowers
from lamina.layer.nodes import NodeTree
from lamina.layer.tarread import read_tar
from lamina.layer.wrap import wrap_layer
from lamina.spec.digest import DiffID, Digest
from lamina.system import mounts
from lamina.system.mounts import image_fd, mounted, opened_layers
from lamina.system.overlay import LayerImage, OverlayMount

pytestmark = pytest.mark.root


def wrapped(path: Path, tar: bytes) -> LayerImage:
    wrap_layer(io.BytesIO(tar), str(path), expected=None, lowers=())
    return LayerImage(str(path))


def tar_of(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def named(name: str, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    return member


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of many sizes, holes, links, and a directory of several blocks."""
    root = tmp_path / "tree"
    (root / "many").mkdir(parents=True)
    for number in range(300):
        (root / "many" / f"{number:03}{'n' * 100}").write_bytes(bytes([number % 256]) * number)
    (root / "big").write_bytes(os.urandom(3 << 20))
    with (root / "holes").open("wb") as file:
        for at in (5000, 1 << 20, (3 << 20) + 77):
            file.seek(at)
            file.write(b"data" * 300)
        file.truncate(9_000_001)
    with (root / "hole").open("wb") as file:
        file.truncate(1 << 26)
    os.link(root / "big", root / "same")
    os.symlink("x" * 600, root / "long")
    os.mkfifo(root / "fifo")
    return root


@pytest.mark.parametrize("form", ["gnu", "posix"])
@pytest.mark.tool("tar")
def test_gnu_tar_finds_no_difference(tmp_path: Path, tree: Path, form: str) -> None:
    archive = tmp_path / "a.tar"
    command = ["tar", "-C", str(tree), f"--format={form}", "--sparse", "-cf", str(archive), "."]
    subprocess.run(command, check=True)
    image = wrapped(tmp_path / "image", archive.read_bytes())
    with opened_layers([image]) as (path,):
        fd = os.open(path, os.O_RDONLY)
        try:
            done = subprocess.run(
                ["tar", "-C", f"/proc/self/fd/{fd}", "-df", str(archive)],
                pass_fds=(fd,),
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            os.close(fd)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert os.stat(f"{path}/same").st_nlink == 2
        assert len(os.listdir(f"{path}/many")) == 300


def test_the_tar_is_in_the_file_as_it_was(tmp_path: Path) -> None:
    tar = tar_of([(named("a"), b"a"), (named("b"), b"b" * 5000)])
    wrapped(tmp_path / "image", tar)
    assert (tmp_path / "image").read_bytes()[4096 : 4096 + len(tar)] == tar


def test_file_of_more_than_4_gib(tmp_path: Path) -> None:
    """Only the header is real: the content is a hole in the file that holds the tar."""
    size = (4 << 30) + 1000
    archive = tmp_path / "big.tar"
    with archive.open("wb") as file:
        file.write(named("big", size=size).tobuf(tarfile.PAX_FORMAT))
        file.seek(size - 3, os.SEEK_CUR)
        file.write(b"end")
        file.truncate(file.tell() + 2048)

    with archive.open("rb") as tar:
        entry, reader = next(iter(read_tar(tar)))
        nodes = NodeTree(Lowers(()))
        (segment,) = reader.segments(BODY)
        nodes.place(entry, (segment,))
        nodes.finish()
    image = tmp_path / "image"
    with image.open("w+b") as file:
        file.seek(segment[1] + size - 3)
        file.write(b"end")
        file.flush()
        write_index(file.fileno(), nodes.root, end=segment[1] + size)
    image.chmod(0o600)
    with opened_layers([LayerImage(str(image))]) as (path,), open(f"{path}/big", "rb") as big:
        assert big.seek(0, os.SEEK_END) == size
        big.seek(size - 3)
        assert big.read() == b"end"


def test_directory_of_many_thousand_entries(tmp_path: Path) -> None:
    tar = tar_of([(named(f"d/{number:06}"), b"") for number in range(20_000)])
    with opened_layers([wrapped(tmp_path / "image", tar)]) as (path,):
        assert len(os.listdir(f"{path}/d")) == 20_000
        for number in (0, 1, 9_999, 19_999):
            os.stat(f"{path}/d/{number:06}")


def test_nothing_can_be_mounted_without_the_expected_digest(tmp_path: Path) -> None:
    tar = tar_of([(named("a"), b"a")])
    expected = DiffID(Digest.of(b"another"))
    done = wrap_layer(io.BytesIO(tar), str(tmp_path / "i"), expected=expected, lowers=())
    assert done.applied.diff_id == Digest.of(tar)
    with pytest.raises(LaminaError):
        image_fd(LayerImage(str(tmp_path / "i")))


@pytest.mark.parametrize(
    "attribute", ["system.posix_acl_access", "security.capability", "user." + "n" * 255]
)
def test_what_only_the_kernel_can_judge_is_left_to_unpacking(
    tmp_path: Path, attribute: str
) -> None:
    member = named("a", pax_headers={f"SCHILY.xattr.{attribute}": "x"})
    with pytest.raises(NotWrappable):
        wrapped(tmp_path / "image", tar_of([(member, b"")]))


def test_file_that_others_may_write_is_not_mounted(tmp_path: Path) -> None:
    image = wrapped(tmp_path / "image", tar_of([]))
    os.chmod(image.path, 0o620)
    with pytest.raises(LaminaError) as caught:
        image_fd(image)
    assert caught.value.kind is Kind.DENIED


def test_link_instead_of_an_image_is_not_followed(tmp_path: Path) -> None:
    image = wrapped(tmp_path / "image", tar_of([]))
    (tmp_path / "link").symlink_to(image.path)
    with pytest.raises(LaminaError):
        image_fd(LayerImage(str(tmp_path / "link")))


@pytest.mark.tool("losetup")
def test_loop_device_goes_with_the_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = wrapped(tmp_path / "image", tar_of([(named("a"), b"text")]))
    monkeypatch.setattr(mounts, "_needs_loop", {os.stat(image.path).st_dev})

    def loops() -> str:
        command = ["losetup", "-j", image.path]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    with opened_layers([image]) as (path,):
        assert Path(path, "a").read_text() == "text"
        assert loops()
    assert not loops()


def test_mounted_overlay_keeps_the_image_alive_and_shows_no_other_mount(tmp_path: Path) -> None:
    image = wrapped(tmp_path / "image", tar_of([(named("a"), b"text")]))
    for name in ("upper", "work", "target"):
        (tmp_path / name).mkdir()
    overlay = OverlayMount((image,), str(tmp_path / "upper"), str(tmp_path / "work"))
    with mounted(overlay, str(tmp_path / "target")):
        os.unlink(image.path)
        assert (tmp_path / "target" / "a").read_text() == "text"
        (tmp_path / "target" / "a").write_text("new")
        lines = Path("/proc/self/mounts").read_text().splitlines()
        assert not [line for line in lines if line.split()[2] == "erofs"]
    assert (tmp_path / "upper" / "a").read_text() == "new"
