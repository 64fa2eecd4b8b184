# SPDX-License-Identifier: Apache-2.0
"""What every snapshotter keeps to (store.ports.Snapshotter), without mounting directories.

A test class inherits `SnapshotterContract` and gives a fixture `snapshots`: an empty one.
"""

from __future__ import annotations

import os

import pytest

from lamina.errors import Kind, LaminaError
from lamina.spec.digest import ChainID, Digest
from lamina.system.mounts import opened_layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.store.ports import Snapshotter
    from lamina.system.overlay import LayerImage, OverlayMount

ONE, TWO = ChainID(Digest.of(b"one")), ChainID(Digest.of(b"two"))


class SnapshotterContract:
    """Inherit and give a fixture `snapshots`; `fill` may be replaced."""

    def fill(self, snapshots: Snapshotter, key: str, mount: OverlayMount, name: str) -> None:
        """Put the file `name` into the active snapshot."""
        with open(os.path.join(mount.upper, name), "wb"):
            pass

    def _commit(
        self, snapshots: Snapshotter, chain: ChainID, parent: ChainID | None, name: str
    ) -> OverlayMount:
        """Commit a snapshot that holds the file `name`; its mount while it was active."""
        mount = snapshots.prepare(f"make {name}", parent)
        self.fill(snapshots, f"make {name}", mount, name)
        snapshots.commit(chain, f"make {name}")
        return mount

    def test_first_layer_has_no_lowers_and_is_writable(self, snapshots: Snapshotter) -> None:
        mount = snapshots.prepare("key", None)
        assert mount.lowers == ()
        assert os.listdir(mount.upper) == []
        assert os.stat(mount.work).st_dev == os.stat(mount.upper).st_dev

    def test_committed_layer_is_the_lower_of_the_next(self, snapshots: Snapshotter) -> None:
        self._commit(snapshots, ONE, None, "a")
        second = snapshots.prepare("key", ONE)
        assert second.lowers == (snapshots.layer(str(ONE)),)
        assert snapshots.mount_of("key") == second

    def test_lowers_are_top_first(self, snapshots: Snapshotter) -> None:
        self._commit(snapshots, ONE, None, "a")
        self._commit(snapshots, TWO, ONE, "b")
        lowers = snapshots.view(TWO).lowers
        assert [_names(layer) for layer in lowers] == [["b"], ["a"]]
        assert snapshots.view(TWO).upper == ""
        assert snapshots.layer(str(TWO)) == lowers[0]

    def test_view_of_nothing_is_empty(self, snapshots: Snapshotter) -> None:
        mount = snapshots.view(None)
        assert (mount.lowers, mount.upper) == ((), "")

    def test_committed_content_is_kept(self, snapshots: Snapshotter) -> None:
        self._commit(snapshots, ONE, None, "file")
        assert snapshots.exists(ONE)
        assert _names(snapshots.layer(str(ONE))) == ["file"]

    def test_upper_has_the_attributes_of_the_root_below(self, snapshots: Snapshotter) -> None:
        self._commit(snapshots, ONE, None, "a")
        (lower,) = snapshots.view(ONE).lowers
        upper = snapshots.prepare("key", ONE).upper
        with opened_layers([lower]) as (directory,):
            below, above = os.stat(directory), os.stat(upper)
        assert (above.st_mode, above.st_mtime_ns) == (below.st_mode, below.st_mtime_ns)

    def test_key_that_exists_is_a_conflict(self, snapshots: Snapshotter) -> None:
        snapshots.prepare("key", None)
        with pytest.raises(LaminaError) as caught:
            snapshots.prepare("key", None)
        assert caught.value.kind is Kind.CONFLICT
        assert len(list(snapshots.walk())) == 1

    def test_unknown_parent_is_not_found_and_leaves_nothing(self, snapshots: Snapshotter) -> None:
        for attempt in (
            lambda: snapshots.prepare("key", ONE),
            lambda: snapshots.view(ONE),
            lambda: snapshots.mount_of("key"),
            lambda: snapshots.layer_dir("key"),
            lambda: snapshots.layer("key"),
            lambda: snapshots.commit(ONE, "key"),
            lambda: snapshots.remove("key"),
        ):
            with pytest.raises(LaminaError) as caught:
                attempt()
            assert caught.value.kind is Kind.NOT_FOUND
        assert list(snapshots.walk()) == []

    def test_committing_a_chain_that_exists_drops_the_active_one(
        self, snapshots: Snapshotter
    ) -> None:
        self._commit(snapshots, ONE, None, "a")
        kept = snapshots.layer(str(ONE))
        dropped = self._commit(snapshots, ONE, None, "b")
        assert snapshots.view(ONE).lowers == (kept,)
        assert not os.path.exists(os.path.dirname(dropped.upper))
        assert [found.name for found in snapshots.walk()] == [str(ONE)]

    def test_active_snapshot_cannot_be_a_parent(self, snapshots: Snapshotter) -> None:
        snapshots.prepare(str(ONE), None)
        assert not snapshots.exists(ONE)
        with pytest.raises(LaminaError):
            snapshots.prepare("key", ONE)

    def test_snapshot_that_another_stands_on_is_not_removed(self, snapshots: Snapshotter) -> None:
        self._commit(snapshots, ONE, None, "a")
        snapshots.prepare("key", ONE)
        with pytest.raises(LaminaError) as caught:
            snapshots.remove(str(ONE))
        assert caught.value.kind is Kind.CONFLICT
        assert _names(snapshots.layer(str(ONE))) == ["a"]

    def test_removed_snapshot_leaves_no_directory(self, snapshots: Snapshotter) -> None:
        mount = self._commit(snapshots, ONE, None, "a")
        snapshots.remove(str(ONE))
        assert not os.path.exists(os.path.dirname(mount.upper))
        assert not snapshots.exists(ONE)

    def test_walk_tells_active_from_committed(self, snapshots: Snapshotter) -> None:
        self._commit(snapshots, ONE, None, "a")
        snapshots.prepare("key", ONE)
        found = {(each.name, each.committed, each.parent) for each in snapshots.walk()}
        assert found == {(str(ONE), True, None), ("key", False, ONE)}


def _names(layer: str | LayerImage) -> list[str]:
    """What the layer's root directory holds."""
    with opened_layers([layer]) as (directory,):
        return sorted(os.listdir(directory))
