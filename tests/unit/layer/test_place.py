# SPDX-License-Identifier: Apache-2.0
"""What keeps an entry from being made says what to do about it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.layer.entry import Entry, EntryType
from lamina.layer.place import Policy, Tree


@pytest.mark.parametrize(("uid", "hint"), [(1000, "run lamina as root"), (0, "")])
def test_owner_that_only_root_can_set_is_explained_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, hint: str
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "refused")

    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "fchown", refuse)
    entry = Entry(b"bin", EntryType.FILE, 0o755, uid=7, gid=7)

    with (
        Tree(str(tmp_path), policy=Policy(overlay=False)) as tree,
        pytest.raises(LaminaError, match="cannot create 'bin': Operation not permitted") as caught,
    ):
        tree.place(entry, b"")

    assert caught.value.kind is Kind.DENIED
    assert caught.value.hint.endswith(hint)
    assert bool(caught.value.hint) == bool(hint)

    (tmp_path / "lib").mkdir()
    with (
        Tree(str(tmp_path), policy=Policy(overlay=False)) as tree,
        pytest.raises(LaminaError, match="metadata of a directory") as caught,
    ):
        tree.place(Entry(b"lib", EntryType.DIR, 0o755, uid=7, gid=7), b"")
        tree.finish()

    assert caught.value.hint.endswith(hint)
    assert bool(caught.value.hint) == bool(hint)
