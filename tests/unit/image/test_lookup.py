# SPDX-License-Identifier: Apache-2.0
"""Finding images: Docker's order, names that move, images without a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamina.errors import Kind, LaminaError
from lamina.image.names import dangling_name, read_names, set_names
from lamina.image.resolve import AmbiguousImage, ImageNotFound, find_image
from lamina.image.view import Image, PlatformNotFound
from lamina.spec.manifest import Index
from lamina.spec.platform import Platform
from lamina.spec.reference import is_dangling
from lamina.start.record import replace
from lamina.testing.images import ImageMaker

if TYPE_CHECKING:
    from lamina.store.ports import Store

APP = "docker.io/library/app:latest"
ARM64 = Platform("linux", "arm64")


@pytest.fixture
def make_image(store: Store) -> ImageMaker:
    return ImageMaker(store)


def test_an_image_is_found_by_every_form_of_its_name(store: Store, make_image: ImageMaker) -> None:
    packed = make_image("x", APP)
    for text in (
        "app",
        "app:latest",
        "library/app",
        "docker.io/library/app:latest",
        f"app@{packed.target.digest}",
        str(packed.config),
        packed.config.hex,
        packed.config.hex[:12],
        f"sha256:{packed.config.hex[:7]}",
        str(packed.target.digest),
    ):
        assert find_image(store, text).id == packed.config


def test_a_missing_image_is_named_with_a_way_out(store: Store) -> None:
    with pytest.raises(ImageNotFound) as caught:
        find_image(store, "nosuch:1")
    assert str(caught.value) == 'image "nosuch:1" not found'
    assert "lamina bootstrap" in caught.value.hint
    assert caught.value.kind is Kind.NOT_FOUND


@pytest.mark.parametrize("text", ["app:other", "other/app", "ffffffffffff", "sha256:" + "0" * 64])
def test_other_names_and_ids_are_not_found(store: Store, make_image: ImageMaker, text: str) -> None:
    make_image("x", APP)
    with pytest.raises(ImageNotFound):
        find_image(store, text)


def test_a_name_wins_over_an_id_that_begins_the_same(store: Store, make_image: ImageMaker) -> None:
    first = make_image("x")
    short = first.config.hex[:6]
    named = make_image("y", f"docker.io/library/{short}:latest")
    assert find_image(store, short).id == named.config
    assert find_image(store, first.config.hex[:12]).id == first.config


def test_an_ambiguous_id_is_refused(store: Store, make_image: ImageMaker) -> None:
    for number in range(17):  # more images than hex digits
        make_image(str(number))
    ids = [find_image(store, image.name).id.hex for image in read_names(store).all]
    double = next(digit for digit in "0123456789abcdef" if sum(i[0] == digit for i in ids) > 1)
    with pytest.raises(AmbiguousImage):
        find_image(store, double)


def test_an_index_gives_the_image_for_the_platform(store: Store, make_image: ImageMaker) -> None:
    amd, arm = make_image("a"), make_image("b", platform=ARM64)
    index = Index.make(
        [
            replace(amd.target, platform=Platform("linux", "amd64")),
            replace(arm.target, platform=ARM64),
        ]
    )
    with store.lease("test"):
        store.content.add(index.raw)
        set_names(store, [APP], index.descriptor())
    assert find_image(store, "app", ARM64).id == arm.config
    assert find_image(store, "app", Platform("linux", "amd64")).id == amd.config
    assert find_image(store, f"app@{arm.target.digest}").id == arm.config
    with pytest.raises(PlatformNotFound, match='image "app"'):
        find_image(store, "app", Platform("linux", "s390x"))


def test_an_image_for_another_platform_is_not_run_here(
    store: Store, make_image: ImageMaker
) -> None:
    make_image("b", APP, platform=ARM64)
    with pytest.raises(PlatformNotFound, match="linux/arm64"):
        find_image(store, "app", Platform("linux", "amd64"))
    assert find_image(store, "app").config().architecture == "arm64"


def test_a_moved_name_leaves_a_dangling_image(store: Store, make_image: ImageMaker) -> None:
    old = make_image("old", APP)
    new = make_image("new", APP)
    assert find_image(store, "app").id == new.config
    assert find_image(store, old.config.hex).id == old.config
    assert dangling_name(old.target) in [image.name for image in read_names(store).all]


def test_a_moved_name_leaves_nothing_if_the_image_has_another(
    store: Store, make_image: ImageMaker
) -> None:
    make_image("old", APP, "docker.io/library/keep:1")
    make_image("new", APP)
    assert not [image for image in read_names(store).all if is_dangling(image.name)]


def test_a_dangling_image_that_gets_a_name_is_not_dangling(
    store: Store, make_image: ImageMaker
) -> None:
    make_image("x")
    make_image("x", APP)
    assert [image.name for image in read_names(store).all] == [APP]


def test_view_of_an_image(store: Store, make_image: ImageMaker) -> None:
    packed = make_image("hello", APP)
    image = find_image(store, "app")
    assert image.descriptor() == packed.target
    assert image.config().config.cmd == ("hello",)
    (layer,) = image.layers()
    with layer.uncompressed() as tar:
        raw = tar.read()
    assert b"hello" in raw
    assert len(raw) == layer.size == image.size
    with layer.compressed() as blob:
        assert len(blob.read()) == layer.descriptor().size


def test_a_config_that_does_not_match_the_manifest_is_refused(
    store: Store, make_image: ImageMaker
) -> None:
    from lamina.spec.manifest import Manifest

    image = Image.open(store, make_image("x").target)
    twice = Manifest.make(image.manifest().config, image.manifest().layers * 2)
    with store.lease("test"):
        store.content.add(twice.raw)
    with pytest.raises(LaminaError) as caught:
        Image.open(store, twice.descriptor())
    assert caught.value.kind is Kind.INVALID
