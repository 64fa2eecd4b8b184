# SPDX-License-Identifier: Apache-2.0
"""Every case of tests/corpus gives what it says: buildah's tree and config, or BuildKit's.

buildah costs four times what lamina does, and says the same each time. So it is asked about what was
not yet judged (tests/corpus/judged), and about a sample of the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.testing.corpus import Case, read_corpus, read_seals
from lamina.testing.peers import Peers
from lamina.testing.sample import is_chosen

pytestmark = [
    pytest.mark.root,
    pytest.mark.tool("buildah"),
    pytest.mark.tool("busybox"),
    pytest.mark.tool("crun"),
    pytest.mark.tool("umoci"),
]

CORPUS = Path(__file__).parents[2] / "corpus"
CASES = read_corpus(CORPUS)
SEALS = read_seals(CORPUS)


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    """Both builders on stores that all cases of this process share."""
    place = tmp_path_factory.mktemp("corpus")
    both = Peers(place)
    try:
        both.start()
        yield both
    finally:
        both.close()
    assert str(place) not in Path("/proc/self/mounts").read_text(), "a mount was left behind"


@pytest.mark.sampled
@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_case(peers: Peers, case: Case) -> None:
    judged = "" if is_chosen(case.id, one_in=8) else SEALS.get(case.id, "")
    found = peers.judge(case, judged=judged).sections
    for name in ("error", "differs", "result"):
        expected = case.lines(name)
        assert found.get(name, []) == expected, f"{case.file}:{case.line}: {name}"
        has_reason = any(line.startswith("#") for line in (case.section(name) or "").splitlines())
        assert name != "differs" or not expected or has_reason, "a difference needs its reason"


def test_corpus_is_large_enough() -> None:
    assert len(CASES) >= 150
