# SPDX-License-Identifier: Apache-2.0
"""Which control group an ordinary user may make others in: decided on trees as systemd makes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.container.delegation import Delegated, find_delegated

USER = "user.slice/user-1000.slice/user@1000.service"
SCOPE = f"0::/{USER}/app.slice/run-7.scope\n"


def group(root: Path, path: str, *, mine: bool, offered: str = "", passed: str = "") -> None:
    top = root / path
    top.mkdir(parents=True, exist_ok=True)
    (top / "cgroup.procs").write_text("")
    (top / "cgroup.controllers").write_text(offered)
    (top / "cgroup.subtree_control").write_text(passed)
    if mine:
        (top / "mine").write_text("")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the tests' groups are; those with a file `mine` may be written to, whoever runs this."""

    def access(path: str, mode: int) -> bool:
        found = Path(path)
        return ((found if found.is_dir() else found.parent) / "mine").exists()

    monkeypatch.setattr("lamina.container.delegation.os.access", access)
    return tmp_path


def test_group_above_the_scope_that_systemd_made_for_the_user(root: Path) -> None:
    group(root, "user.slice/user-1000.slice", mine=False)
    group(root, USER, mine=True, passed="cpu memory pids")
    group(root, f"{USER}/app.slice", mine=True, offered="memory pids", passed="memory pids")
    group(root, f"{USER}/app.slice/run-7.scope", mine=True)
    found = find_delegated(SCOPE, root=str(root))
    assert found == Delegated(f"{USER}/app.slice", ("memory", "pids"))


def test_session_of_a_login_has_none(root: Path) -> None:
    """It is beside the user's own manager: no process of it can be moved to there."""
    group(root, "user.slice/user-1000.slice/session-2.scope", mine=False)
    group(root, "user.slice/user-1000.slice", mine=False)
    group(root, USER, mine=True, passed="cpu memory pids")
    own = "0::/user.slice/user-1000.slice/session-2.scope\n"
    assert find_delegated(own, root=str(root)) is None


def test_group_whose_processes_file_is_roots_is_passed_over(root: Path) -> None:
    group(root, USER, mine=True, passed="memory")
    group(root, f"{USER}/app.slice", mine=False)
    found = find_delegated(SCOPE, root=str(root))
    assert found is not None
    assert found.group == USER


def test_controllers_that_are_offered_are_passed_on(root: Path) -> None:
    group(root, "mine", mine=True, offered="cpu hugetlb rdma")
    group(root, "mine/work", mine=True)
    found = find_delegated("1:name=x:/\n0::/mine/work\n", root=str(root))
    # the file keeps what was written to it last, where the kernel would say `cpu`
    assert found == Delegated("mine", ("+cpu",))


@pytest.mark.parametrize("own", ["", "0::/\n", "0::/top\n", "4:memory:/a/b\n"])
def test_no_group_above_is_none(root: Path, own: str) -> None:
    assert find_delegated(own, root=str(root)) is None
