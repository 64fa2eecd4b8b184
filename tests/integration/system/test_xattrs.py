# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.system.xattrs import is_opaque, is_overlay_private, opaque_name, read_xattrs

pytestmark = pytest.mark.root


def test_attributes_are_sorted_and_read_from_paths_and_descriptors(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path)
    os.setxattr(path, "trusted.z", b"1")
    os.setxattr(path, "trusted.a", b"")
    expected = ((b"trusted.a", b""), (b"trusted.z", b"1"))
    assert read_xattrs(path) == expected
    fd = os.open(path, os.O_RDONLY)
    try:
        assert read_xattrs(fd) == expected
    finally:
        os.close(fd)


def test_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", "trusted.a", b"1")
    (tmp_path / "l").symlink_to("d")
    assert read_xattrs(os.fsencode(tmp_path / "l")) == ()


@pytest.mark.parametrize("privileged", [True, False])
def test_opaque_attribute_is_told_from_others(*, privileged: bool) -> None:
    name = os.fsencode(opaque_name(privileged=privileged))
    assert is_overlay_private(name)
    assert is_opaque(((name, b"y"),))
    assert not is_opaque(((name, b"x"), (b"user.y", b"y")))
