# SPDX-License-Identifier: Apache-2.0
"""Archives exchanged with GNU tar and umoci: both sides see the same tree."""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path

import pytest

from lamina.layer.apply import apply_layer
from lamina.layer.create import create_layer
from lamina.layer.entry import Entry, EntryType
from lamina.layer.tarwrite import write_tar
from lamina.layer.walk import overlay_items, tree_items
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.layer.entry import Item

pytestmark = pytest.mark.root

SECOND = 10**9
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
FILE, DIR = EntryType.FILE, EntryType.DIR


def sample() -> list[Item]:
    big = b"start" + bytes(300_000) + b"end"
    xattrs = ((b"security.capability", CAPABILITY), (b"user.lamina", b"x=%\n"))
    long = b"/".join([b"directory-%02d" % n for n in range(24)])
    deep = [(Entry(long[: 13 * n + 12], DIR, 0o755, mtime_ns=SECOND), None) for n in range(24)]
    return [
        (Entry(b"a", DIR, 0o2751, 3, 4, 0, 5 * SECOND), None),
        (Entry(b"a/cap", FILE, 0o4755, 1, 2, 3, SECOND, xattrs=xattrs), b"cap"),
        (Entry(b"a/h", EntryType.HARDLINK, 0o4755, 1, 2, 0, SECOND, b"a/cap", 0, 0, xattrs), None),
        (Entry(b"a/null", EntryType.CHAR, 0o666, 0, 0, 0, SECOND, devmajor=1, devminor=3), None),
        (Entry(b"a/pipe", EntryType.FIFO, 0o640, 5, 6, 0, SECOND), None),
        (Entry(b"big", FILE, 0o600, 4_000_000, 3_000_000_000, len(big), SECOND), big),
        *deep,
        (Entry(long + b"/file", FILE, 0o644, 0, 0, 1, SECOND), b"x"),
        (Entry(b"na\xc3\xafve", EntryType.SYMLINK, 0o777, 7, 8, 0, SECOND, b"t" * 300), None),
        (Entry(b"raw\xff\xfe", FILE, 0o644, 0, 0, 2, SECOND), b"ok"),
    ]


def entries(root: Path) -> list[Entry]:
    return [entry for entry, _ in tree_items(str(root))]


def contents(root: Path) -> dict[bytes, bytes]:
    found = {}
    for entry, content in tree_items(str(root)):
        if callable(content):
            fd = content()
            found[entry.path] = os.read(fd, entry.size)
            os.close(fd)
    return found


def our_archive(at: Path) -> Path:
    with at.open("wb") as out:
        write_tar(sample(), out.write)
    return at


@pytest.mark.tool("tar")
def test_gnu_tar_extracts_our_archives_as_we_do(tmp_path: Path) -> None:
    archive = our_archive(tmp_path / "a.tar")
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    options = ["--xattrs", "--xattrs-include=*", "--numeric-owner"]
    done = subprocess.run(
        ["tar", "-C", theirs, *options, "-xpf", archive], check=True, capture_output=True
    )
    assert done.stderr == b""
    with archive.open("rb") as tar:
        apply_layer(tar, str(ours))
    assert entries(theirs) == entries(ours) == [entry for entry, _ in sample()]
    assert contents(theirs) == contents(ours)


@pytest.mark.tool("tar")
@pytest.mark.parametrize("form", ["gnu", "pax", "posix-sparse", "gnu-sparse"])
def test_we_extract_gnu_tars_archives_as_it_does(tmp_path: Path, form: str) -> None:
    tree, ours = tmp_path / "tree", tmp_path / "ours"
    tree.mkdir()
    ours.mkdir()
    archive = our_archive(tmp_path / "a.tar")
    with archive.open("rb") as tar:
        apply_layer(tar, str(tree))
    options = {
        "gnu": ["--format=gnu"],
        "pax": ["--format=pax", "--xattrs", "--xattrs-include=*"],
        "posix-sparse": ["--format=pax", "-S", "--xattrs", "--xattrs-include=*"],
        "gnu-sparse": ["--format=gnu", "-S"],
    }[form]
    other = tmp_path / "b.tar"
    subprocess.run(["tar", "-C", tree, *options, "--sort=name", "-cf", other, "."], check=True)
    with other.open("rb") as tar:
        apply_layer(tar, str(ours))
    expected = entries(tree)
    if "gnu" in form:  # that format has no xattrs
        expected = [replace(entry, xattrs=()) for entry in expected]
    assert entries(ours) == expected
    assert contents(ours) == contents(tree)


@pytest.mark.tool("tar")
def test_gnu_tar_finds_no_difference_between_our_archive_and_the_tree(tmp_path: Path) -> None:
    archive = our_archive(tmp_path / "a.tar")
    tree = tmp_path / "tree"
    tree.mkdir()
    with archive.open("rb") as tar:
        apply_layer(tar, str(tree))
    done = subprocess.run(
        ["tar", "-C", tree, "--numeric-owner", "-df", archive], check=True, capture_output=True
    )
    assert done.stdout == b""


def image_layout(at: Path, layers: list[list[Item]]) -> None:
    """An OCI image layout with one image, `latest`, made of the layers."""
    blobs = at / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes) -> dict[str, object]:
        from lamina.spec.digest import Digest

        digest = Digest.of(data)
        (blobs / digest.hex).write_bytes(data)
        return {"digest": str(digest), "size": len(data)}

    descriptors, diff_ids = [], []
    for items in layers:
        out = bytearray()
        made = create_layer(items, out.extend)
        media = "application/vnd.oci.image.layer.v1.tar+gzip"
        descriptors.append({"mediaType": media, **blob(bytes(out))})
        diff_ids.append(str(made.diff_id))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    kind = "application/vnd.oci.image."
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind + "manifest.v1+json",
        "config": {"mediaType": kind + "config.v1+json", **blob(json.dumps(config).encode())},
        "layers": descriptors,
    }
    entry = {"mediaType": kind + "manifest.v1+json", **blob(json.dumps(manifest).encode())}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (at / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (at / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


@pytest.mark.tool("umoci")
def test_umoci_unpacks_our_layers_as_overlayfs_shows_them(tmp_path: Path) -> None:
    top: list[Item] = [
        (Entry(b".wh.big", FILE, 0), b""),
        (Entry(b"a", DIR, 0o700, 9, 9, 0, 2 * SECOND), None),
        (Entry(b"a/.wh.pipe", FILE, 0), b""),
        (Entry(b"a/new", FILE, 0o644, 0, 0, 3, SECOND), b"new"),
        (Entry(b"directory-00", DIR, 0o755, mtime_ns=SECOND), None),
        (Entry(b"directory-00/.wh..wh..opq", FILE, 0), b""),
        (Entry(b"directory-00/only", FILE, 0o644, 0, 0, 1, SECOND), b"o"),
    ]
    layers = [sample(), top]
    image_layout(tmp_path / "image", layers)
    image = f"{tmp_path / 'image'}:latest"
    bundle = tmp_path / "bundle"
    subprocess.run(["umoci", "unpack", "--image", image, bundle], check=True, capture_output=True)

    stack: list[str] = []
    for index, items in enumerate(layers):
        directory = tmp_path / f"layer{index}"
        directory.mkdir()
        tar = io.BytesIO()
        write_tar(items, tar.write)
        apply_layer(io.BytesIO(tar.getvalue()), str(directory), lowers=list(stack))
        stack.insert(0, str(directory))
        assert [e for e, _ in overlay_items(str(directory))] == [entry for entry, _ in items]
    merged = tmp_path / "merged"
    merged.mkdir()
    options = "lowerdir=" + ":".join(stack)
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    try:
        assert entries(merged) == entries(bundle / "rootfs")
        assert contents(merged) == contents(bundle / "rootfs")
    finally:
        subprocess.run(["umount", merged], check=True)
