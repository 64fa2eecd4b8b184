# SPDX-License-Identifier: Apache-2.0
"""The freezer beside a container that ends at this moment."""

from __future__ import annotations

import errno
import os

import pytest

from lamina.container import freezer
from lamina.errors import LaminaError


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENOENT])
def test_group_that_goes_away_is_nothing_to_thaw(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says ENODEV for a file of a group that was removed after it was opened."""

    def gone(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(freezer, "_control", lambda *_: ("/group/freezer.state", "1", "0"))
    monkeypatch.setattr(freezer, "open", gone, raising=False)
    freezer.thaw(1, "id")
    assert not freezer.is_frozen(1, "id")


def test_container_in_no_group_of_its_own_cannot_be_paused() -> None:
    assert not freezer.is_frozen(os.getpid(), "no-such-id")
    freezer.thaw(os.getpid(), "no-such-id")
    with pytest.raises(LaminaError, match="no control group with a freezer"):
        freezer.freeze(os.getpid(), "no-such-id")
