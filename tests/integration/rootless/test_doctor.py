# SPDX-License-Identifier: Apache-2.0
"""`lamina doctor` and `lamina info` on hosts that lack one thing each."""

from __future__ import annotations

import json
import os

import pytest

from lamina.testing.command import Lamina
from lamina.testing.ordinary import OrdinaryUser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from lamina.testing.ordinary import OrdinaryLamina

pytestmark = [pytest.mark.root, pytest.mark.tool("crun", "nsenter", "setpriv", "newuidmap")]


def examined(lamina: OrdinaryLamina, *, status: int = 0) -> dict[str, dict[str, str]]:
    done = lamina("doctor", "--json", check=False)
    assert done.returncode == status, done.stdout
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    return {finding["name"]: finding for finding in findings}


@pytest.mark.tool("pasta")
def test_an_ordinary_user_has_all_that_is_needed(user: OrdinaryUser) -> None:
    found = examined(user.lamina("doctor"))
    assert found["ids"]["found"] == "65537 ids"
    for name in ("user namespace", "ids", "overlay", "runtime", "network"):
        assert found[name]["status"] == "works", found[name]
    assert found["limits"]["status"] == "lacks"
    left = user.seen(f"{user.home}/doctor/snapshots")
    assert list(left.iterdir()) == []


def test_text_has_a_line_a_finding_and_one_to_mend_it(user: OrdinaryUser) -> None:
    lines = user.lamina("text")("doctor").stdout.splitlines()
    assert "works  overlay: the kernel's overlayfs, on the store's filesystem" in lines
    assert all(line.split()[0] in {"works", "lacks", "fails", "mend"} for line in lines)


def test_missing_ranges_name_the_command_that_gives_some() -> None:
    with OrdinaryUser(ranges="") as alone:
        found = examined(alone.lamina())["ids"]
        assert found["status"] == "lacks"
        assert "usermod --add-subuids" in found["mend"]
        assert "1 ids for uid 54321" in alone.lamina()("info").stdout


def test_few_ids_are_told() -> None:
    with OrdinaryUser(ranges="lamina-tester:600000:100\n") as user:
        assert examined(user.lamina())["ids"]["found"].startswith("101 ids")


def test_a_closed_tun_device_names_the_command_that_opens_it() -> None:
    with OrdinaryUser(tun=False) as user:
        found = examined(user.lamina())["network"]
        assert found["status"] == "lacks"
        assert found["mend"] == "sudo chmod 666 /dev/net/tun"
        assert "Network: the host's: /dev/net/tun cannot be opened" in user.lamina()("info").stdout


def test_without_a_runtime_it_fails() -> None:
    hidden = [path for path in ("/usr/bin/crun", "/usr/sbin/runc") if os.path.exists(path)]
    with OrdinaryUser(hidden=hidden) as user:
        found = examined(user.lamina(), status=1)["runtime"]
        assert found["status"] == "fails"
        assert "install crun" in found["mend"]


def test_root_needs_no_namespace(tmp_path: Path) -> None:
    root = Lamina(tmp_path / "store", tmp_path)
    found = [json.loads(line) for line in root("doctor", "--json").stdout.splitlines()]
    assert {"name": "user", "status": "works"}.items() <= found[1].items()
