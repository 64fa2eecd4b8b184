# SPDX-License-Identifier: Apache-2.0
"""What is made of a layer while its tar is written is what unpacking that tar makes."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_wrapped_layers import (  # type: ignore[import-not-found]  # found by pytest
    layers,
    made,
    shown,
    tar_of,
)

from lamina.errors import Kind, LaminaError
from lamina.layer.create import create_layer
from lamina.layer.entry import Entry, EntryType
from lamina.layer.erofs import NotWrappable
from lamina.layer.tarwrite import CHUNK
from lamina.layer.twin import DirectoryTwin, ImageTwin
from lamina.system.mounts import opened_layers
from lamina.system.overlay import LayerImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.layer.entry import Item

pytestmark = pytest.mark.root


def twinned(
    found: list[Item], target: Path, lowers: list[LayerImage | str], *, image: bool
) -> tuple[bytes, LayerImage | str | LaminaError]:
    """The tar, and what was made beside it."""
    out = io.BytesIO()
    if not image:
        target.mkdir()
    with opened_layers(lowers) as below:
        kind = ImageTwin if image else DirectoryTwin
        twin = kind(str(target), lowers=below)
        try:
            create_layer(found, out.write, compression="uncompressed", twin=twin)
            twin.finish()
        except LaminaError as error:
            return out.getvalue(), error
        finally:
            twin.close()
    return out.getvalue(), LayerImage(str(target)) if image else str(target)


@pytest.mark.parametrize("image", [False, True], ids=["directory", "image"])
@settings(max_examples=70, derandomize=True, deadline=None, suppress_health_check=[*HealthCheck])
@given(stack=st.lists(layers, min_size=1, max_size=3))
def test_twin_is_what_unpacking_the_tar_makes(stack: list[list[Item]], *, image: bool) -> None:
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        below: list[LayerImage | str] = []
        for number, found in enumerate(stack):
            tar = tar_of(found)
            wanted = made(tar, place, f"w{number}", below, wrap=image)
            written, got = twinned(found, place / f"t{number}", below, image=image)
            if isinstance(wanted, LaminaError) or isinstance(got, LaminaError):
                assert (type(got), str(got)) == (type(wanted), str(wanted))
                return
            assert written == tar
            with shown(got) as one, shown(wanted) as other:
                assert one == other
            below.insert(0, wanted)


def file(name: bytes, size: int) -> Entry:
    return Entry(name, EntryType.FILE, 0o4755, uid=7, size=size, mtime_ns=1_700_000_000_900_000_000)


def test_large_files_and_those_of_several_links_are_the_same(tmp_path: Path) -> None:
    big = os.urandom(CHUNK + 1000)
    found: list[Item] = [
        (file(b"big", len(big)), io.BytesIO(big)),
        (file(b"exact", CHUNK), bytes(CHUNK)),
        (Entry(b"link", EntryType.HARDLINK, 0o4755, uid=7, linkname=b"big"), None),
        (file(b"small", 3), io.BytesIO(b"abc")),
    ]
    again: list[Item] = [(e, big if e.path == b"big" else c) for e, c in found]
    again[-1] = (again[-1][0], b"abc")
    tar = tar_of(again)
    wanted = made(tar, tmp_path, "wanted", [], wrap=False)
    written, got = twinned(found, tmp_path / "got", [], image=False)
    assert written == tar
    assert not isinstance(wanted, LaminaError)
    assert not isinstance(got, LaminaError)
    with shown(got) as one, shown(wanted) as other:
        assert one == other


def test_what_no_image_can_hold_is_told_at_the_end_and_the_tar_is_whole(tmp_path: Path) -> None:
    listed = ((b"system.posix_acl_access", b"x"),)
    found: list[Item] = [
        (Entry(b"a", EntryType.DIR, 0o755, xattrs=listed), None),
        (Entry(b"b", EntryType.FILE, 0o644, size=1), b"b"),
    ]
    out = io.BytesIO()
    twin = ImageTwin(str(tmp_path / "image"), lowers=())
    create_layer(found, out.write, compression="uncompressed", twin=twin)
    with pytest.raises(NotWrappable):
        twin.finish()
    twin.close()
    assert out.getvalue() == tar_of(found)


def test_file_that_is_shorter_than_its_entry_is_a_conflict(tmp_path: Path) -> None:
    for size in (5, CHUNK + 5):
        found: list[Item] = [(file(b"f", size), io.BytesIO(b"abc"))]
        _, got = twinned(found, tmp_path / f"t{size}", [], image=False)
        assert isinstance(got, LaminaError)
        assert got.kind is Kind.CONFLICT
