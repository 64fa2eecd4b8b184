# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from lamina.cli.values import parse_size
from lamina.errors import LaminaError


@pytest.mark.parametrize(
    ("text", "size"),
    [("10", 10), ("1k", 1024), ("1.5m", 1572864), ("2GB", 2 << 30), ("3 KiB", 3072), ("1e3", 1000)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "--memory") == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1x", "1kk", "1_0", "\u0661", "nan", "inf"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(LaminaError, match=r'invalid argument ".*" for "--memory" flag'):
        parse_size(text, "--memory")
