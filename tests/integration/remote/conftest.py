# SPDX-License-Identifier: Apache-2.0
"""An empty store and a web server on loopback."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.testing.bench import Bench
from lamina.testing.command import Lamina
from lamina.testing.webserver import WebServer


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    work = tmp_path / "work"
    work.mkdir()
    with WebServer() as web:
        yield Bench(Lamina(tmp_path / "store", work), web)
    homes = tmp_path / "store" / "tmp"
    left = [p.name for p in (*homes.glob("*"), *homes.glob("probes/*")) if p != homes / "probes"]
    assert not left, "a temporary directory was left behind"
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    shutil.rmtree(tmp_path, ignore_errors=True)
