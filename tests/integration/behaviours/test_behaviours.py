# SPDX-License-Identifier: Apache-2.0
"""Every case of `cases/`, with lamina as root and as an ordinary user; and podman says the same.

`make test` does a sample, of which podman is asked less; `make soak` does all. `scripts/behaviours.py` shows differences.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.testing import sample
from lamina.testing.behaviours import Case, Engine, mismatch, read
from lamina.testing.engines import ENGINES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.root,
    pytest.mark.tool("crun", "busybox", "podman"),
    pytest.mark.host_root("the ordinary user is made here, beside root"),
]
CASES = read(Path(__file__).parent / "cases")
OF = {
    "root": [case for case in CASES if case.note("user") is None],
    "user": [case for case in CASES if case.note("root") is None],
    "podman": [case for case in CASES if not (case.note("user") or case.note("alone"))],
}
ONE_IN = 40  # cases that podman is asked unless the run is whole
USER_ONE_IN = 3  # and that are the ordinary user's
ROOT_ONE_IN = 2


def _engine(name: str, factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with ENGINES[name](factory.mktemp(name)) as engine:
        yield engine


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    yield from _engine("root", tmp_path_factory)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    yield from _engine("user", tmp_path_factory)


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    yield from _engine("podman", tmp_path_factory)


def _by_name(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


@pytest.mark.sampled
@_by_name([case for case in OF["root"] if sample.is_chosen(case.name, one_in=ROOT_ONE_IN)])
def test_root_sees_what_docker_shows(root: Engine, case: Case) -> None:
    found = mismatch(case, root.answers(case, OF["root"]))
    assert not found, f"{case.file}:{case.number}: {case.sentence}\n{found}"


@pytest.mark.sampled
@_by_name([case for case in OF["user"] if sample.is_chosen(case.name, one_in=USER_ONE_IN)])
def test_ordinary_user_sees_what_docker_shows(user: Engine, case: Case) -> None:
    found = mismatch(case, user.answers(case, OF["user"]))
    assert not found, f"{case.file}:{case.number}: {case.sentence}\n{found}"


@pytest.mark.sampled
def test_podman_shows_the_same(podman: Engine) -> None:
    wrong = []
    for case in OF["podman"]:
        if not sample.is_chosen(case.name, one_in=ONE_IN):
            continue
        found = mismatch(case, podman.answers(case, OF["podman"]), errors=False)
        if bool(found) != bool(case.note("podman")):
            wrong.append(
                f"{case.name}: {found or 'has a note @podman, and podman answers the same'}"
            )
    assert not wrong, "\n".join(wrong)


def test_there_are_enough() -> None:
    """The promise of the suite: two hundred behaviours, most of them of both users."""
    assert len(OF["root"]) >= 200
    assert len(OF["user"]) >= 200
