# SPDX-License-Identifier: Apache-2.0
"""Names that mean images for several platforms."""

from __future__ import annotations

import pytest

from lamina.image.names import dangling_name, read_names
from lamina.image.platforms import join_names, platform_entries
from lamina.image.resolve import find_image, preferred_image
from lamina.image.view import PlatformNotFound
from lamina.spec.platform import Platform
from lamina.store.ports import Store
from lamina.testing.images import ImageMaker

AMD64, ARM64, S390X = (Platform("linux", name) for name in ("amd64", "arm64", "s390x"))
BASE = "docker.io/library/base:latest"
OTHER = "docker.io/library/other:latest"


def join(store: Store, content: str, platform: Platform, *names: str) -> None:
    packed = ImageMaker(store)(content, platform=platform)
    join_names(store, names, packed.target, platform)


def platforms(store: Store, name: str = BASE) -> list[str]:
    named = store.metadata.get_name(name)
    assert named is not None
    return [str(entry.platform) for entry in platform_entries(store, named.target)]


def test_first_platform_of_a_name_is_a_plain_manifest(store: Store) -> None:
    join(store, "a", AMD64, BASE)
    named = store.metadata.get_name(BASE)
    assert named is not None
    assert named.target.media_type.endswith("manifest.v1+json")


def test_second_platform_joins(store: Store) -> None:
    join(store, "a", AMD64, BASE)
    join(store, "b", ARM64, BASE)
    assert platforms(store) == ["linux/amd64", "linux/arm64"]
    assert find_image(store, BASE, ARM64).config().config.cmd == ("b",)
    assert find_image(store, BASE, AMD64).config().config.cmd == ("a",)


def test_same_platform_is_replaced_in_place_and_kept_as_dangling(store: Store) -> None:
    old = ImageMaker(store)("a", platform=AMD64)
    join_names(store, [BASE], old.target, AMD64)
    join(store, "b", ARM64, BASE)
    join(store, "c", AMD64, BASE)
    assert platforms(store) == ["linux/amd64", "linux/arm64"]
    assert find_image(store, BASE, AMD64).config().config.cmd == ("c",)
    dangling = [named.name for named in read_names(store).all if named.name.startswith("sha256:")]
    assert dangling == [dangling_name(old.target)]


def test_joining_the_same_image_again_changes_nothing(store: Store) -> None:
    join(store, "a", AMD64, BASE)
    join(store, "b", ARM64, BASE)
    before = store.metadata.get_name(BASE)
    join(store, "b", ARM64, BASE)
    after = store.metadata.get_name(BASE)
    assert before is not None
    assert after is not None
    assert after.target == before.target


def test_names_keep_their_own_other_platforms(store: Store) -> None:
    join(store, "a", AMD64, BASE)
    join(store, "z", S390X, OTHER)
    join(store, "b", ARM64, BASE, OTHER)
    assert platforms(store) == ["linux/amd64", "linux/arm64"]
    assert platforms(store, OTHER) == ["linux/s390x", "linux/arm64"]


def test_choice_without_a_platform_of_the_host_is_the_first(store: Store) -> None:
    join(store, "b", ARM64, BASE)
    join(store, "z", S390X, BASE)
    assert preferred_image(store, BASE, AMD64).config().architecture == "arm64"
    assert preferred_image(store, BASE, S390X).config().architecture == "s390x"
    with pytest.raises(PlatformNotFound):
        preferred_image(store, BASE, AMD64, exact=True)
