# SPDX-License-Identifier: Apache-2.0
"""Which part of a long test a run does: a sample by default, everything with LAMINA_TEST_WHOLE.

LAMINA_TEST_SEED chooses the sample, the same in each process of a run and on each machine:
scripts/test.sh gives and prints the commit, so that each commit tries another part, always the same.
"""

from __future__ import annotations

import hashlib
import os
import random

SEED = os.environ.get("LAMINA_TEST_SEED", "")
WHOLE = bool(os.environ.get("LAMINA_TEST_WHOLE"))


def is_chosen(name: str, *, one_in: int) -> bool:
    """Whether this run does `name`, as it does about one in so many."""
    return WHOLE or randomness(name).randrange(one_in) == 0


def rounds(*, whole: int, sample: int) -> int:
    """How many rounds this run does."""
    return whole if WHOLE else sample


def randomness(name: str) -> random.Random:
    """Numbers that belong to the seed and `name`."""
    return random.Random(hashlib.sha256(f"{SEED} {name}".encode()).digest())  # noqa: S311
