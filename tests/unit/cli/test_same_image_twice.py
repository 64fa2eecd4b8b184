# SPDX-License-Identifier: Apache-2.0
"""One image id in several manifests: what is listed, and what rmi and prune leave alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from lamina.errors import Kind
from lamina.image.names import set_names
from lamina.image.platforms import add_index
from lamina.image.resolve import find_image
from lamina.spec.platform import Platform
from lamina.start.record import replace
from lamina.store import open_store
from lamina.store.ports import Document
from lamina.testing.images import AMD64, ImageMaker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.unit.cli.conftest import World

APP = "docker.io/library/app:latest"
ARM64 = Platform("linux", "arm64")


@pytest.fixture(autouse=True)
def real_clock(world: World) -> None:
    world.clock = time.time  # what the collector removes must be older than its start


def names(world: World) -> list[str]:
    """All stored names, dangling ones too."""
    store = open_store(world.root)
    try:
        return [named.name for named in store.metadata.list_names()]
    finally:
        store.close()


def is_whole(world: World, text: str) -> bool:
    store = open_store(world.root)
    try:
        return find_image(store, text).is_complete()
    finally:
        store.close()


def index_of(world: World, first: str, second: str, *index_names: str) -> tuple[str, str, str]:
    """An index of two images with these names; its digest, and the ids of the images."""
    store = open_store(world.root)
    try:
        packed = [ImageMaker(store)(first), ImageMaker(store)(second, platform=ARM64)]
        with store.lease("test"):
            entries = [
                replace(each.target, platform=platform)
                for each, platform in zip(packed, (AMD64, ARM64), strict=True)
            ]
            target = add_index(store, entries)
            set_names(store, index_names, target)
            store.metadata.delete_names([str(each.target.digest) for each in packed])
        return str(target.digest), str(packed[0].config), str(packed[1].config)
    finally:
        store.close()


def use(world: World, id: str) -> None:
    """Let a container use the image."""
    store = open_store(world.root)
    body = json.dumps({"image_id": id, "pins": [id]})
    store.documents.insert(Document("container", "c" * 64, "web", body, 0.0))
    store.close()


def dangling(world: World) -> list[str]:
    return world.ok("images", "-q", "--no-trunc", "-f", "dangling=true").split()


def test_name_that_moves_to_the_same_image_leaves_none_dangling(world: World) -> None:
    id = world.make("x", APP)
    digest = world.repack("app", APP)
    assert names(world) == [APP]
    assert world.digest_of("app") == digest
    assert world.ok("images", "-q", "--no-trunc") == f"{id}\n"


@pytest.mark.parametrize("kind", ["image", "system"])
def test_prune_removes_the_spare_manifest_alone(world: World, kind: str) -> None:
    id = world.make("x", APP)
    spare = world.digest_of("app")
    world.repack("app", APP)
    world.keep(spare)
    assert dangling(world) == []
    out = world.ok(kind, "prune", "-f")
    assert out.splitlines()[:2] == ["Deleted Images:", f"deleted: {spare}"]
    assert names(world) == [APP]
    assert is_whole(world, "app")
    assert world.ok("images", "-q", "--no-trunc") == f"{id}\n"
    assert world.fails(Kind.NOT_FOUND, "inspect", spare)


def test_prune_leaves_what_a_container_uses_and_takes_its_spare(world: World) -> None:
    id = world.make("x", APP)
    spare = world.digest_of("app")
    world.repack("app", APP)
    world.keep(spare)
    use(world, id)
    assert f"deleted: {spare}" in world.ok("image", "prune", "-af")
    assert names(world) == [APP]
    world.ok("rmi", "-f", "app")
    assert dangling(world) == [id]
    assert world.ok("image", "prune", "-af").splitlines() == ["Total reclaimed space: 0B"]


def test_rmi_of_the_last_name_takes_the_spare_with_it(world: World) -> None:
    id = world.make("x", APP)
    spare = world.digest_of("app")
    world.repack("app", APP)
    world.keep(spare)
    assert world.ok("rmi", "app").splitlines() == ["Untagged: app:latest", f"Deleted: {id}"]
    assert names(world) == []


def test_rmi_by_the_digest_of_a_spare_leaves_the_name(world: World) -> None:
    world.make("x", APP)
    spare = world.digest_of("app")
    world.repack("app", APP)
    world.keep(spare)
    assert world.ok("rmi", spare).splitlines() == [f"Deleted: {spare}"]
    assert names(world) == [APP]
    assert is_whole(world, "app")


def test_two_names_with_two_manifests_of_an_image(world: World) -> None:
    id = world.make("x", APP)
    world.repack("app", "docker.io/library/other:1")
    assert world.ok("images", "-q", "--no-trunc") == f"{id}\n{id}\n"
    first, second = world.digest_of("app"), world.digest_of("other:1")
    found = world.ok("inspect", "-f", "{{.RepoTags}} {{.RepoDigests}}", "app")
    assert found == f"[app:latest other:1] [app@{first} other@{second}]\n"
    assert "must be forced" in world.fails(Kind.CONFLICT, "rmi", id)
    assert world.ok("rmi", "app") == "Untagged: app:latest\n"
    assert is_whole(world, "other:1")
    assert world.ok("rmi", id).splitlines() == ["Untagged: other:1", f"Deleted: {id}"]


def test_rmi_of_what_is_listed_as_dangling_untags_nothing(world: World) -> None:
    index, first, second = index_of(world, "x", "y", APP)
    world.make("x", APP)  # the name moves to one of the two: the other would be lost
    assert names(world) == [APP, index]
    assert dangling(world) == [second]
    assert world.ok("rmi", *dangling(world)) == f"Deleted: {second}\n"
    assert names(world) == [APP]
    assert world.ok("images", "-q", "--no-trunc") == f"{first}\n"
    assert is_whole(world, "app")


def test_same_image_in_two_dangling_manifests_is_one(world: World) -> None:
    id = world.make("x")
    world.keep(world.repack(id))
    assert dangling(world) == [id]
    assert world.ok("rmi", id) == f"Deleted: {id}\n"
    assert names(world) == []


def test_index_that_shares_an_image_loses_only_its_own(world: World) -> None:
    _, first, second = index_of(world, "x", "y", "docker.io/library/both:1")
    world.make("x", APP)
    assert world.ok("rmi", "both:1").splitlines() == ["Untagged: both:1", f"Deleted: {second}"]
    assert is_whole(world, "app")
    assert world.ok("images", "-q", "--no-trunc") == f"{first}\n"


def test_other_platform_that_a_container_uses_is_not_removed(world: World) -> None:
    _, _, second = index_of(world, "x", "y", "docker.io/library/both:1")
    world.make("x", APP)
    use(world, second)
    assert "c" * 12 in world.fails(Kind.CONFLICT, "rmi", "both:1")
    world.ok("image", "prune", "-af")
    assert names(world) == ["docker.io/library/both:1"]


def test_prune_beside_a_build_does_not_take_a_name_that_moved(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lamina.store.metadata import MetadataTables

    world.make("x", APP)
    real = MetadataTables.delete_names

    def build_first(self: MetadataTables, doomed: list[str]) -> list[str]:
        monkeypatch.undo()
        world.make("y", APP)
        return real(self, doomed)

    monkeypatch.setattr(MetadataTables, "delete_names", build_first)
    out = world.ok("image", "prune", "-af")
    assert "app" not in out
    assert APP in names(world)
    assert is_whole(world, "app")


def test_load_of_an_image_that_is_here_changes_nothing(world: World) -> None:
    world.make("x", APP, "docker.io/library/app:2")
    digest = world.digest_of("app")
    world.ok("save", "-o", "saved.tar", "app:latest", "app:2")
    before = sorted(path.name for path in Path(world.root, "blobs", "sha256").iterdir())
    assert world.ok("load", "-i", "saved.tar").splitlines() == [
        "Loaded image: app:latest", "Loaded image: app:2",
    ]  # fmt: skip
    assert world.digest_of("app") == digest
    assert sorted(path.name for path in Path(world.root, "blobs", "sha256").iterdir()) == before
    world.ok("save", "-o", "nameless.tar", world.ok("images", "-q", "app:2").strip())
    world.ok("load", "-i", "nameless.tar")
    assert names(world) == ["docker.io/library/app:2", APP]


def test_load_of_another_image_moves_the_name(world: World) -> None:
    old = world.make("x", APP)
    world.ok("save", "-o", "saved.tar", "app")
    new = world.make("y", APP)
    world.ok("load", "-i", "saved.tar")
    assert world.ok("inspect", "-f", "{{.Id}}", "app") == f"{old}\n"
    assert dangling(world) == [new]


def test_load_brings_the_layers_that_are_not_here(world: World) -> None:
    world.make("x", APP)
    world.ok("save", "-o", "saved.tar", "app")
    store = open_store(world.root)
    store.content.delete(find_image(store, "app").manifest().layers[0].digest)
    store.close()
    assert not is_whole(world, "app")
    world.ok("load", "-i", "saved.tar")
    assert is_whole(world, "app")
    assert dangling(world) == []


def test_load_for_another_platform_gives_the_name_that_image(world: World) -> None:
    index_of(world, "x", "y", APP)
    world.ok("save", "--platform", "linux/arm64", "-o", "saved.tar", "app")
    world.ok("load", "-i", "saved.tar")
    assert world.ok("inspect", "-f", "{{.Architecture}}", "app") == "arm64\n"
