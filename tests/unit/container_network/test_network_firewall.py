# SPDX-License-Identifier: Apache-2.0
"""Which firewall is chosen, and how its program's failures are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamina.container.network.bridge import explained
from lamina.container.network.firewall import (
    Iptables,
    IptablesGate,
    Nftables,
    Redirect,
    find_firewall,
)
from lamina.container.network.plan import BridgePlan
from lamina.errors import Kind, LaminaError

if TYPE_CHECKING:
    from pathlib import Path

PORT = Redirect("tcp", "", 8000, "10.88.0.2", 80)


def install(tools: Path, name: str, script: str = "exit 0") -> str:
    path = tools / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_nft_is_preferred(tmp_path: Path) -> None:
    install(tmp_path, "nft")
    install(tmp_path, "iptables")

    assert isinstance(find_firewall(BridgePlan("b"), search_path=str(tmp_path)), Nftables)


def test_iptables_alone_will_do(tmp_path: Path) -> None:
    install(tmp_path, "iptables")

    firewall = find_firewall(BridgePlan("b"), search_path=str(tmp_path))

    assert isinstance(firewall, Iptables)
    assert not firewall.redirects


def test_host_with_neither_is_told_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="neither nft nor iptables") as caught:
        find_firewall(BridgePlan("b"), search_path=str(tmp_path))

    assert caught.value.kind is Kind.UNSUPPORTED
    assert "nftables" in caught.value.hint
    assert "--network host" in caught.value.hint


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Error: Could not process rule: Operation not permitted", Kind.DENIED),
        ("netlink: Error: cache initialization failed: Operation not permitted", Kind.DENIED),
        ("warning: x\n/dev/stdin:1:1-2: Error: syntax error", Kind.SYSTEM),
        ("", Kind.SYSTEM),
    ],
)
def test_failure_of_nft_is_told_in_its_own_words(tmp_path: Path, said: str, kind: Kind) -> None:
    nft = install(tmp_path, "nft", f"printf '%s\\n' '{said}' >&2; exit 1")
    firewall = Nftables(BridgePlan("b"), program=nft, gate=None)

    with pytest.raises(LaminaError, match="setting packet rules failed") as caught:
        firewall.add([PORT])

    assert caught.value.kind is kind
    assert "\n" not in str(caught.value)


def test_program_that_vanished_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="cannot run") as caught:
        Nftables(BridgePlan("b"), program=str(tmp_path / "nft"), gate=None).add([PORT])

    assert caught.value.kind is Kind.SYSTEM


def test_removing_ports_never_fails(tmp_path: Path) -> None:
    nft = install(tmp_path, "nft", "exit 1")

    Nftables(BridgePlan("b"), program=nft, gate=None).remove([PORT])


def test_iptables_that_does_not_work_needs_no_gate(tmp_path: Path) -> None:
    gate = IptablesGate("b", program=install(tmp_path, "iptables", "exit 3"))

    gate.open()
    gate.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [(1, Kind.DENIED), (30, Kind.DENIED), (95, Kind.UNSUPPORTED), (24, Kind.EXHAUSTED)],
)
def test_kernel_errors_become_ours_with_a_way_out(code: int, kind: Kind) -> None:
    with pytest.raises(LaminaError, match="cannot set up") as caught, explained("set up"):
        raise OSError(code, "reason")

    assert caught.value.kind is kind
    assert "--network host" in caught.value.hint
