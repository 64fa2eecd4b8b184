# SPDX-License-Identifier: Apache-2.0
"""The fuzz targets on their seeds, and on seeds that hypothesis has damaged."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PATH = Path(__file__).parents[3] / "fuzz" / "targets.py"
SPEC = importlib.util.spec_from_file_location("fuzz_targets", PATH)
assert SPEC is not None
assert SPEC.loader is not None
TARGETS = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(TARGETS)
NAMES = list(TARGETS.TARGETS)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_and_regressions_give_values_or_lamina_errors(name: str) -> None:
    seeds = list(TARGETS.seeds(name))
    assert seeds
    for data in seeds:
        TARGETS.run(name, data)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_seeds_give_values_or_lamina_errors(name: str, data: st.DataObject) -> None:
    seeds = _seeds(name)
    seed = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(seed)))
        removed = data.draw(st.integers(0, 4))
        seed[at : at + removed] = data.draw(st.binary(max_size=4))
    TARGETS.run(name, bytes(seed))


_KNOWN: dict[str, list[bytes]] = {}


def _seeds(name: str) -> list[bytes]:
    if name not in _KNOWN:
        _KNOWN[name] = list(TARGETS.seeds(name))
    return _KNOWN[name]
