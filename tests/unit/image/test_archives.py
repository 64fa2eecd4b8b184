# SPDX-License-Identifier: Apache-2.0
"""Archives out and in: round trips, old formats, and everything that must be refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import tarfile
from typing import TYPE_CHECKING

import pytest

from lamina.errors import Kind, LaminaError
from lamina.image.archive_read import Loaded, load_archive
from lamina.image.archive_write import (
    ArchiveImage,
    write_docker_archive,
    write_oci_archive,
    write_oci_directory,
)
from lamina.image.names import read_names
from lamina.image.resolve import find_image
from lamina.spec.manifest import MAX_INDEX_DEPTH, Index
from lamina.spec.platform import Platform
from lamina.store import open_store
from lamina.tasks import CancelToken
from lamina.testing.images import AMD64, ImageMaker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lamina.store.ports import Store

APP = "docker.io/library/app:latest"
OTHER = "example.org/team/other:1.2"


@pytest.fixture
def make_image(store: Store) -> ImageMaker:
    return ImageMaker(store)


def load(store: Store, raw: bytes) -> list[Loaded]:
    with store.lease("test"):
        return load_archive(store, io.BytesIO(raw), platform=AMD64, cancel=CancelToken())


def state(store: Store) -> tuple[object, ...]:
    return (
        sorted(str(blob.digest) for blob in store.content.walk()),
        [(image.name, image.target) for image in read_names(store).all],
    )


@pytest.fixture
def archives(store: Store, make_image: ImageMaker) -> dict[str, bytes]:
    one, two = make_image("one", APP, "docker.io/library/app:v1"), make_image("two", OTHER)
    images = [
        ArchiveImage(one.target, (APP, "docker.io/library/app:v1")),
        ArchiveImage(two.target, (OTHER,)),
    ]
    found = {}
    for name, writer in (("docker", write_docker_archive), ("oci", write_oci_archive)):
        target = io.BytesIO()
        writer(store, images, target.write, cancel=CancelToken())
        found[name] = target.getvalue()
    return found


@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_round_trip_keeps_names_and_image_ids(
    store: Store, other_store: Store, archives: dict[str, bytes], kind: str
) -> None:
    loaded = load(other_store, archives[kind])
    assert [image.names for image in loaded] == [(APP, "docker.io/library/app:v1"), (OTHER,)]
    for name in (APP, OTHER):
        assert find_image(other_store, name).id == find_image(store, name).id
        with find_image(other_store, name).layers()[0].uncompressed() as tar:
            assert b"etc/content" in tar.read()


@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_archives_are_deterministic(store: Store, archives: dict[str, bytes], kind: str) -> None:
    images = [
        ArchiveImage(find_image(store, APP).target, (APP, "docker.io/library/app:v1")),
        ArchiveImage(find_image(store, OTHER).target, (OTHER,)),
    ]
    again = io.BytesIO()
    writer = write_docker_archive if kind == "docker" else write_oci_archive
    writer(store, images, again.write, cancel=CancelToken())
    assert again.getvalue() == archives[kind]
    with tarfile.open(fileobj=io.BytesIO(archives[kind])) as tar:
        names = [member.name for member in tar]
        assert names == sorted(names, key=lambda name: name.split("/"))
        assert {(m.mtime, m.uid, m.uname) for m in tar.getmembers()} == {(0, 0, "")}


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_compressed_archives_load(
    other_store: Store, archives: dict[str, bytes], compress: Callable[[bytes], bytes]
) -> None:
    assert load(other_store, compress(archives["docker"]))[0].names[0] == APP


def test_loading_twice_changes_nothing(other_store: Store, archives: dict[str, bytes]) -> None:
    load(other_store, archives["oci"])
    before = state(other_store)
    load(other_store, archives["oci"])
    assert state(other_store) == before


def test_members_of_docker_archive_are_what_old_readers_expect(archives: dict[str, bytes]) -> None:
    with tarfile.open(fileobj=io.BytesIO(archives["docker"])) as tar:
        members = {member.name: member for member in tar}
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        repositories = json.load(tar.extractfile("repositories") or io.BytesIO())
        for entry in manifest:
            for name in (entry["Config"], *entry["Layers"]):
                raw = (tar.extractfile(members[name]) or io.BytesIO()).read()
                assert name == f"blobs/sha256/{hashlib.sha256(raw).hexdigest()}"
    assert manifest[0]["RepoTags"] == ["app:latest", "app:v1"]
    assert manifest[1]["RepoTags"] == ["example.org/team/other:1.2"]
    assert sorted(repositories) == ["app", "example.org/team/other"]


# --- archives of other tools, made by hand ----------------------------------------------------

Members = dict[str, bytes | tuple[bytes, str]]


def tar_of(members: Members) -> bytes:
    """A tar; a value (type flag, target) is a link or something else that is not a file."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, value in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(value, tuple):
                member.type, member.linkname = value
                tar.addfile(member)
            else:
                member.size = len(value)
                tar.addfile(member, io.BytesIO(value))
    return target.getvalue()


def layer(content: bytes = b"x") -> bytes:
    return tar_of({"file": content})


def sha(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def config(*layers: bytes) -> bytes:
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(raw)}" for raw in layers]},
        }
    ).encode()


def old_docker(**changes: bytes | tuple[bytes, str] | None) -> Members:
    """What `docker save` wrote up to version 24."""
    raw = layer()
    image = config(raw)
    listed = [{"Config": f"{sha(image)}.json", "RepoTags": ["old:1"], "Layers": ["aa/layer.tar"]}]
    members: dict[str, bytes | tuple[bytes, str] | None] = {
        "aa/VERSION": b"1.0",
        "aa/json": b"{}",
        "aa/layer.tar": raw,
        f"{sha(image)}.json": image,
        "manifest.json": json.dumps(listed).encode(),
        "repositories": b'{"old":{"1":"aa"}}',
    }
    members |= {name.replace("__", "/").replace("_", "."): v for name, v in changes.items()}
    return {name: value for name, value in members.items() if value is not None}


def oci(raw: bytes, *, image: bytes | None = None, ref: str = "") -> Members:
    image = image if image is not None else config(gzip.decompress(raw))
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": f"sha256:{sha(image)}",
                "size": len(image),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": f"sha256:{sha(raw)}",
                    "size": len(raw),
                }
            ],
        }
    ).encode()
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{sha(manifest)}",
        "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": ref} if ref else {},
    }
    return {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        f"blobs/sha256/{sha(image)}": image,
        f"blobs/sha256/{sha(manifest)}": manifest,
        f"blobs/sha256/{sha(raw)}": raw,
    }


def test_old_docker_archive_with_manifest_last(store: Store) -> None:
    (loaded,) = load(store, tar_of(old_docker()))
    assert loaded.names == ("docker.io/library/old:1",)
    assert find_image(store, "old:1").config().os == "linux"


def test_old_docker_archive_that_links_equal_layers(store: Store) -> None:
    members = old_docker(aa__layer_tar=None)
    members["bb/layer.tar"] = layer()
    members["aa/layer.tar"] = (tarfile.SYMTYPE, "../bb/layer.tar")
    assert load(store, tar_of(members))[0].names == ("docker.io/library/old:1",)


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_docker_archive_with_compressed_layers(
    store: Store, compress: Callable[[bytes], bytes]
) -> None:
    load(store, tar_of(old_docker(aa__layer_tar=compress(layer()))))
    with find_image(store, "old:1").layers()[0].uncompressed() as tar:
        assert tar.read() == layer()


@pytest.mark.parametrize(
    ("ref_name", "name"),
    [
        ("app", APP),
        ("localhost/app:latest", "localhost/app:latest"),
        ("docker.io/library/app:v1", "docker.io/library/app:v1"),
    ],
)
def test_layout_ref_names(store: Store, ref_name: str, name: str) -> None:
    (loaded,) = load(store, tar_of(oci(gzip.compress(layer()), ref=ref_name)))
    assert loaded.names == (name,)


def test_layout_without_a_name_gives_a_dangling_image(store: Store) -> None:
    (loaded,) = load(store, tar_of(oci(gzip.compress(layer()))))
    assert loaded.names == ()
    assert loaded.config is not None
    assert find_image(store, loaded.config.hex).id == loaded.config


def test_of_an_incomplete_index_the_image_that_is_there_is_loaded(store: Store) -> None:
    members = oci(gzip.compress(layer()), ref="app")
    top = Index.parse(members["index.json"])  # type: ignore[arg-type]  # bytes by construction
    missing = json.loads(json.dumps(top.manifests[0].to_json()))
    missing["digest"] = "sha256:" + "0" * 64
    missing["platform"] = {"os": "linux", "architecture": "arm64"}
    here = json.loads(json.dumps(top.manifests[0].to_json()))
    here["platform"] = {"os": "linux", "architecture": "amd64"}
    inner = json.dumps({"schemaVersion": 2, "manifests": [missing, here]}).encode()
    entry = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": f"sha256:{sha(inner)}",
        "size": len(inner),
        "annotations": {"org.opencontainers.image.ref.name": "app"},
    }
    members[f"blobs/sha256/{sha(inner)}"] = inner
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    load(store, tar_of(members))
    assert find_image(store, "app", AMD64).config().architecture == "amd64"


def nested(levels: int, *, is_whole: bool) -> bytes:
    """An archive with an image inside so many indexes below index.json."""
    members = oci(gzip.compress(layer()), ref="app")
    (entry,) = json.loads(members["index.json"])["manifests"]  # type: ignore[arg-type]  # bytes
    entry["platform"] = {"os": "linux", "architecture": "amd64"}
    missing = entry | {"digest": "sha256:" + "0" * 64}
    for _ in range(levels):
        entries = [entry] if is_whole else [entry, missing]
        raw = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
        members[f"blobs/sha256/{sha(raw)}"] = raw
        kind = "application/vnd.oci.image.index.v1+json"
        entry = entry | {"mediaType": kind, "digest": f"sha256:{sha(raw)}", "size": len(raw)}
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return tar_of(members)


@pytest.mark.parametrize("is_whole", [True, False])
def test_indexes_may_be_nested_but_not_for_ever(store: Store, *, is_whole: bool) -> None:
    load(store, nested(MAX_INDEX_DEPTH, is_whole=is_whole))
    assert find_image(store, "app", AMD64).config().architecture == "amd64"
    before = state(store)
    for levels in (MAX_INDEX_DEPTH + 1, 1500):
        with pytest.raises(LaminaError, match="nested deeper than") as caught:
            load(store, nested(levels, is_whole=is_whole))
        assert caught.value.kind is Kind.INVALID
    assert state(store) == before


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


GZ = gzip.compress(layer())
BAD: dict[str, tuple[bytes, Kind]] = {
    "not a tar": (b"hello" * 500, Kind.INVALID),
    "empty": (b"", Kind.INVALID),
    "empty tar": (tar_of({}), Kind.INVALID),
    "a root filesystem": (tar_of({"etc/passwd": b"root"}), Kind.INVALID),
    "cut short": (tar_of(old_docker())[:1500], Kind.INVALID),
    "cut gzip": (gzip.compress(tar_of(old_docker()))[:-20], Kind.INTEGRITY),
    "before 1.10": (tar_of(old_docker(manifest_json=None)), Kind.INVALID),
    "flipped layer": (tar_of(old_docker(aa__layer_tar=flipped(layer(), 600))), Kind.INTEGRITY),
    "missing layer": (tar_of(old_docker(aa__layer_tar=None)), Kind.INVALID),
    "link to outside": (
        tar_of(old_docker(aa__layer_tar=(tarfile.SYMTYPE, "/etc/passwd"))),
        Kind.INVALID,
    ),
    "link upwards": (
        tar_of(old_docker(aa__layer_tar=(tarfile.SYMTYPE, "../../../etc/passwd"))),
        Kind.INVALID,
    ),
    "link loop": (
        tar_of(old_docker(aa__layer_tar=(tarfile.SYMTYPE, "layer.tar"))),
        Kind.INVALID,
    ),
    "device": (tar_of(old_docker(aa__layer_tar=(tarfile.CHRTYPE, ""))), Kind.INVALID),
    "manifest not json": (tar_of(old_docker(manifest_json=b"[")), Kind.INVALID),
    "manifest empty": (tar_of(old_docker(manifest_json=b"[]")), Kind.INVALID),
    "manifest object": (tar_of(old_docker(manifest_json=b"{}")), Kind.INVALID),
    "manifest numbers": (
        tar_of(old_docker(manifest_json=b'[{"Config":"x","Layers":[1]}]')),
        Kind.INVALID,
    ),
    "config outside": (
        tar_of(old_docker(manifest_json=b'[{"Config":"../../etc/passwd","Layers":[]}]')),
        Kind.INVALID,
    ),
    "wrong layer count": (
        tar_of(
            old_docker(
                manifest_json=json.dumps(
                    [{"Config": f"{sha(config(layer()))}.json", "RepoTags": None, "Layers": []}]
                ).encode()
            )
        ),
        Kind.INVALID,
    ),
    "bad name": (
        tar_of(
            old_docker(
                manifest_json=json.dumps(
                    [
                        {
                            "Config": f"{sha(config(layer()))}.json",
                            "RepoTags": ["../../x:y"],
                            "Layers": ["aa/layer.tar"],
                        }
                    ]
                ).encode()
            )
        ),
        Kind.INVALID,
    ),
    "config of another digest": (
        tar_of(old_docker() | {f"{sha(config(layer()))}.json": config(layer()) + b" "}),
        Kind.INTEGRITY,
    ),
    "oci flipped blob": (
        tar_of(oci(GZ) | {f"blobs/sha256/{sha(GZ)}": flipped(GZ, 30)}),
        Kind.INTEGRITY,
    ),
    "oci wrong size": (tar_of(oci(GZ) | {f"blobs/sha256/{sha(GZ)}": GZ + b"\0"}), Kind.INTEGRITY),
    "oci wrong diffid": (tar_of(oci(GZ, image=config(layer(b"other")))), Kind.INTEGRITY),
    "oci layers differ from config": (tar_of(oci(GZ, image=config())), Kind.INVALID),
    "oci traversal name": (tar_of(oci(GZ, ref="../../etc/cron.d/x")), Kind.INVALID),
    "oci no manifests": (
        tar_of({"oci-layout": b"{}", "index.json": b'{"schemaVersion":2,"manifests":[]}'}),
        Kind.INVALID,
    ),
    "oci missing manifest": (
        tar_of({n: v for n, v in oci(GZ).items() if "index" in n or "layout" in n}),
        Kind.INVALID,
    ),
    "oci not gzip": (
        tar_of(oci(b"\x1f\x8b" + b"junk" * 9, image=config(layer()))),
        Kind.INTEGRITY,
    ),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_archive_is_one_error_and_an_unchanged_store(
    store: Store, make_image: ImageMaker, name: str
) -> None:
    make_image("present", APP)
    before = state(store)
    raw, kind = BAD[name]
    with pytest.raises(LaminaError) as caught:
        load(store, raw)
    assert caught.value.kind is kind, caught.value
    assert state(store) == before


def test_any_flipped_byte_is_an_error_or_harmless(
    store: Store, archives: dict[str, bytes], other_store: Store
) -> None:
    raw = archives["oci"]
    for at in range(0, len(raw), 97):
        try:
            load(other_store, flipped(raw, at))
        except LaminaError:
            continue
        for image in read_names(other_store).all:
            found = find_image(other_store, image.name)
            assert found.id in {find_image(store, APP).id, find_image(store, OTHER).id}


def test_own_blob_is_not_hashed_again(
    store: Store, make_image: ImageMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = find_image(store, str(make_image("x", APP).config))
    monkeypatch.setattr("hashlib.new", lambda *_: pytest.fail("hashed again"))
    out = bytearray()
    write_oci_archive(store, [ArchiveImage(image.target, (APP,))], out.extend, cancel=CancelToken())
    assert out


def test_damaged_blob_is_not_exported(store: Store, make_image: ImageMaker) -> None:
    image = find_image(store, str(make_image("x", APP).config))
    blob = image.layers()[0].descriptor().digest
    path = f"{store.root}/blobs/sha256/{blob.hex}"
    import os

    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.seek(40)
        file.write(b"\xff\xff")
    store.close()
    later = open_store(store.root)  # as in another process: what one wrote itself is trusted
    for writer in (write_docker_archive, write_oci_archive):
        with pytest.raises(LaminaError) as caught:
            writer(later, [ArchiveImage(image.target, (APP,))], len, cancel=CancelToken())
        assert caught.value.kind is Kind.INTEGRITY
    later.close()


def test_layout_directory_keeps_other_names(
    store: Store, make_image: ImageMaker, tmp_path: Path
) -> None:
    path = tmp_path / "layout"
    for content, name in (("one", APP), ("two", OTHER), ("three", APP)):
        packed = make_image(content)
        write_oci_directory(
            store, [ArchiveImage(packed.target, (name,))], str(path), cancel=CancelToken()
        )
    index = Index.parse((path / "index.json").read_bytes())
    names = {entry.annotation("io.containerd.image.name"): entry for entry in index.manifests}
    assert sorted(filter(None, names)) == [APP, OTHER]
    assert names[APP].digest == packed.target.digest
    assert not list(path.glob("**/*partial"))


def test_layout_directory_that_is_something_else_is_refused(
    store: Store, make_image: ImageMaker, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    packed = make_image("x")
    with pytest.raises(LaminaError) as caught:
        write_oci_directory(
            store, [ArchiveImage(packed.target)], str(tmp_path / "mine"), cancel=CancelToken()
        )
    assert caught.value.kind is Kind.CONFLICT
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["file"]


def test_platform_of_an_unknown_machine_still_loads(store: Store) -> None:
    with store.lease("test"):
        load_archive(
            store,
            io.BytesIO(tar_of(old_docker())),
            platform=Platform("linux", "riscv64"),
            cancel=CancelToken(),
        )
    assert find_image(store, "old:1").config().architecture == "amd64"
