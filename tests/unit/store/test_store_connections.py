# SPDX-License-Identifier: Apache-2.0
"""Connections to the store's database."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from lamina.store.database import connect
from lamina.testing.descriptors import opened_below


def test_file_that_is_no_database_is_not_kept_open(tmp_path: Path) -> None:
    path = tmp_path / "meta.sqlite"
    path.write_bytes(b"\xde\xad" * 4096)

    with pytest.raises(sqlite3.DatabaseError) as caught:
        connect(str(path))

    assert opened_below(tmp_path) == []
    del caught  # until here its traceback kept what `connect` had not closed
