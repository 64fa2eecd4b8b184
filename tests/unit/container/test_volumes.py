# SPDX-License-Identifier: Apache-2.0
"""Volumes on disk: when one is there, who has it, what is rubbish, how an empty one is filled."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.container import volumes
from lamina.container.ports import Mount, ProcessSpec
from lamina.container.state import ContainerConfig
from lamina.container.volumemounts import all_mounts, fill, finish_filling, inherited
from lamina.container.volumes import Volume, VolumeNotFound
from lamina.errors import Kind, LaminaError
from lamina.store import open_store
from lamina.store.ports import Document, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(str(tmp_path / "store"))
    try:
        yield opened
    finally:
        opened.close()


def config(*mounts: Mount, volumes: tuple[str, ...] = ()) -> ContainerConfig:
    return ContainerConfig(
        "app", "sha256:a", "", ProcessSpec(("x",), (), mounts=mounts), volumes=volumes
    )


def give(store: Store, name: str, id: str = "c" * 64) -> None:
    """A container's record that names the volume."""
    body = config(Mount("/d", "volume", name)).to_json()
    store.documents.insert(Document("container", id, f"n{id[:8]}", body, 1.0))


def test_volume_is_as_it_was_made_and_made_once(store: Store) -> None:
    before = os.umask(0o077)
    try:
        made = volumes.create(store, Volume("one", (("k", "v"),)))
    finally:
        os.umask(before)
    assert made == volumes.find(store, "one")
    assert (made.labels, made.options, made.is_anonymous) == ((("k", "v"),), (), False)
    data = Path(volumes.data_of(store.root, "one"))
    assert stat.S_IMODE(data.stat().st_mode) == 0o755
    (data / "kept").touch()
    again = volumes.create(store, Volume("one", (("other", ""),)))
    assert (again, os.listdir(data)) == (made, ["kept"])


def test_what_is_no_volume_is_not_found(store: Store) -> None:
    volumes.create(store, Volume("one"))
    for name in ("two", "..", ".", "", "one/_data", "../volumes/one", "one/", "x" * 300, "a\0b"):
        with pytest.raises(VolumeNotFound):
            volumes.find(store, name)
        with pytest.raises(VolumeNotFound):
            volumes.remove(store, name)
    assert [each.name for each in volumes.listed(store)] == ["one"]


@pytest.mark.parametrize("name", ["", "x", "..", "../x", "a/b", ".hidden", "-x", "ä1", "x" * 256])
def test_names_that_cannot_be(store: Store, name: str) -> None:
    with pytest.raises(LaminaError) as caught:
        volumes.create(store, Volume(name))
    assert caught.value.kind is Kind.USAGE
    assert not os.path.exists(f"{store.root}/volumes")


def test_volume_that_a_container_has_stays(store: Store) -> None:
    volumes.create(store, Volume("one"))
    give(store, "one")
    with pytest.raises(LaminaError, match="remove one: volume is in use - ") as caught:
        volumes.remove(store, "one")
    assert caught.value.kind is Kind.CONFLICT
    assert volumes.users(store) == {"one": ["c" * 64]}
    volumes.remove(store, "one", ignoring="c" * 64)
    assert volumes.get(store, "one") is None


def test_volume_that_a_damaged_record_mentions_stays(store: Store) -> None:
    volumes.create(store, Volume("one"))
    store.documents.insert(Document("container", "d" * 64, "nd", '{"x": "one"', 1.0))
    with pytest.raises(LaminaError, match="in use"):
        volumes.remove(store, "one")


def test_half_made_and_half_removed_volumes_are_rubbish(store: Store) -> None:
    volumes.create(store, Volume("whole"))
    for name in ("half", "again"):
        os.makedirs(f"{volumes.data_of(store.root, name)}/deep")
        Path(volumes.data_of(store.root, name), "deep/file").write_text("x" * 5000)
    assert volumes.get(store, "half") is None
    assert [each.name for each in volumes.listed(store)] == ["whole"]
    volumes.create(store, Volume("again"))
    assert os.listdir(volumes.data_of(store.root, "again")) == []
    assert volumes.remove_rubbish(store) > 0
    assert sorted(os.listdir(f"{store.root}/volumes")) == ["again", "whole"]


def test_damaged_volume_is_told_listed_and_removable(store: Store) -> None:
    volumes.create(store, Volume("one"))
    Path(volumes.directory_of(store.root, "one"), volumes.FILE).write_text('{"labels": 1')
    with pytest.raises(LaminaError, match="damaged") as caught:
        volumes.find(store, "one")
    assert caught.value.kind is Kind.INVALID
    assert [each.name for each in volumes.listed(store)] == ["one"]
    assert volumes.remove_rubbish(store) == 0
    volumes.remove(store, "one")
    assert volumes.listed(store) == []


@pytest.mark.parametrize(
    ("options", "kind", "why"),
    [
        ({"x": "1"}, Kind.USAGE, 'invalid option: "x"'),
        ({"device": "/x"}, Kind.USAGE, 'missing required option: "type"'),
        ({"type": "none"}, Kind.USAGE, 'missing required option: "device"'),
        ({"o": "bind"}, Kind.USAGE, 'missing required option: "device"'),
        ({"size": "1g"}, Kind.UNSUPPORTED, "no quota support"),
        ({"type": "tmpfs", "device": "tmpfs"}, Kind.UNSUPPORTED, "type=tmpfs"),
        ({"type": "nfs", "device": ":/x", "o": "addr=1"}, Kind.UNSUPPORTED, "type=nfs"),
        ({"type": "none", "device": "/x", "o": "bind,mode=1"}, Kind.UNSUPPORTED, "o=bind,mode=1"),
        ({"type": "none", "device": "x", "o": "bind"}, Kind.USAGE, "must be absolute"),
    ],
)
def test_driver_options_are_a_bind_or_refused(
    options: dict[str, str], kind: Kind, why: str
) -> None:
    with pytest.raises(LaminaError) as caught:
        volumes.check_options(tuple(options.items()))
    assert caught.value.kind is kind
    assert why in str(caught.value)


def test_driver_options_of_a_bind() -> None:
    options = (("device", "/x"), ("o", "bind,ro"), ("type", "none"))
    volumes.check_options(options)
    assert (Volume("v1", (), options).device, Volume("v1", (), options).is_read_only) == (
        "/x",
        True,
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A root file system with something to copy."""
    place = tmp_path / "rootfs/srv/data"
    place.mkdir(parents=True)
    (place / "file").write_text("image")
    (place / "sub").mkdir()
    os.link(place / "file", place / "sub/hard")
    (place / "link").symlink_to("/etc/passwd")
    place.chmod(0o2750)
    (tmp_path / "rootfs/abs").symlink_to("/srv/data")
    (tmp_path / "rootfs/out").symlink_to("../../../../../../etc")
    (tmp_path / "rootfs/file").touch()
    return tmp_path / "rootfs"


@pytest.fixture
def own(store: Store) -> Path:
    """A volume's directory."""
    volumes.create(store, Volume("one"))
    return Path(volumes.directory_of(store.root, "one"))


def test_empty_volume_gets_what_the_image_has(image: Path, own: Path) -> None:
    data = own / "_data"
    before = data.stat().st_ino
    fill(str(image), "/abs", str(data), own=str(own), lock=0)
    assert sorted(os.listdir(data)) == ["file", "link", "sub"]
    assert (data / "file").stat().st_ino == (data / "sub/hard").stat().st_ino
    assert (data / "link").readlink() == Path("/etc/passwd")
    assert stat.S_IMODE(data.stat().st_mode) == 0o2750
    assert data.stat().st_ino == before  # others may have it mounted
    assert sorted(os.listdir(own)) == ["_data", "volume.json"]


def test_volume_with_anything_in_it_stays_as_it_is(image: Path, own: Path) -> None:
    (own / "_data/mine").touch()
    fill(str(image), "/srv/data", str(own / "_data"), own=str(own), lock=0)
    assert os.listdir(own / "_data") == ["mine"]


def test_copy_stays_in_the_image(image: Path, own: Path) -> None:
    fill(str(image), "/out", str(own / "_data"), own=str(own), lock=0)
    fill(str(image), "/nothing/here", str(own / "_data"), own=str(own), lock=0)
    assert os.listdir(own / "_data") == []
    with pytest.raises(LaminaError, match="not a directory") as caught:
        fill(str(image), "/file", str(own / "_data"), own=str(own), lock=0)
    assert caught.value.kind is Kind.INVALID


def test_interrupted_copy_is_done_again_and_an_interrupted_move_goes_on(
    image: Path, own: Path
) -> None:
    (own / "copying").mkdir()
    (own / "copying/half").touch()
    fill(str(image), "/srv/data", str(own / "_data"), own=str(own), lock=0)
    assert sorted(os.listdir(own / "_data")) == ["file", "link", "sub"]
    (own / "copied").mkdir(mode=0o711)
    (own / "copied/rest").write_text("image")
    (own / "copied/file").write_text("late")
    (own / "_data/file").write_text("theirs")
    finish_filling(str(own))
    assert sorted(os.listdir(own / "_data")) == ["file", "link", "rest", "sub"]
    assert (own / "_data/file").read_text() == "theirs"
    assert sorted(os.listdir(own)) == ["_data", "volume.json"]


def test_containers_from_before_keep_their_numbered_volumes(tmp_path: Path) -> None:
    (tmp_path / "volumes/1").mkdir(parents=True)
    named = Mount("/b", "volume", "vv")
    found = all_mounts(config(named, volumes=("/a", "/c", "/b")), str(tmp_path))
    assert [(m.destination, m.source) for m in found] == [
        ("/b", "vv"),
        ("/c", f"{tmp_path}/volumes/1"),
    ]


def test_other_containers_mounts_are_inherited_without_tmpfs_and_copy() -> None:
    theirs = config(
        Mount("/t", "tmpfs", "tmpfs"),
        Mount("/v", "volume", "vv", ("anonymous",), flag="-v"),
        Mount("/b", "bind", "/x", ("rbind", "rprivate"), flag="-v"),
    )
    assert inherited(theirs, "/none", mode="ro") == [
        Mount("/v", "volume", "vv", ("anonymous", "nocopy", "ro")),
        Mount("/b", "bind", "/x", ("rbind", "rprivate", "ro")),
    ]
