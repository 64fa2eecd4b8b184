# SPDX-License-Identifier: Apache-2.0
"""Finding out whether layers can be EROFS images, while other processes collect and check."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lamina.events import silent
from lamina.store import layerform, open_store
from lamina.store.fsck import Fsck
from lamina.store.gc import collect
from lamina.tasks import CancelToken, Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.unit.store.conftest import Clock


@pytest.fixture
def others(root: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What other processes find while the kernel is asked; the answers are always yes."""
    found: list[object] = []

    def asked(*_: Any, **__: Any) -> int:
        other = open_store(root, clock=clock)
        look = Fsck(other, work=Work(silent, CancelToken(), clock))
        clock.advance(100)
        found.extend([*look.strays(), collect(other).bytes])
        other.close()
        return os.open("/dev/null", os.O_RDONLY)

    monkeypatch.setattr(layerform, "image_fd", asked)
    monkeypatch.setattr(layerform, "overlay_fd", asked)
    return found


def test_probe_is_no_rubbish(root: str, clock: Clock, others: list[object]) -> None:
    store = open_store(root, clock=clock, layers=lambda: "erofs")
    with store.lease("unpack"):
        store.snapshots.prepare("key", None)
        assert store.snapshots.image_for("key") is not None
    assert others == [0, 0]
    assert os.listdir(Path(root, "tmp", "probes")) == []
    store.close()
