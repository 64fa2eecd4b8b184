# SPDX-License-Identifier: Apache-2.0
"""Who holds an address, and whether that process still runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lamina.container.network.claims import Claim, start_time
from lamina.container.network.publish import PortMapping
from lamina.errors import LaminaError
from lamina.start.record import replace
from lamina.store.ports import Document


def test_claim_survives_its_document() -> None:
    claim = Claim.of('a "b"', os.getpid())
    claim = replace(claim, mappings=(PortMapping(80, "udp", "::1", 8000),))

    document = claim.document("10.88.0.2", at=1.0)

    assert Claim.parse(document) == claim
    assert (document.kind, document.id, document.name) == ("address", "10.88.0.2", "10.88.0.2")


def test_claim_of_this_process_is_alive() -> None:
    assert Claim.of("me", os.getpid()).is_alive()


def test_claim_of_a_pid_used_again_is_dead() -> None:
    claim = Claim.of("me", os.getpid())

    assert not replace(claim, start=claim.start - 1).is_alive()


def test_claim_of_an_ended_process_is_dead_even_before_it_is_reaped() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    claim = Claim.of("child", process.pid)
    assert claim.is_alive()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    assert not claim.is_alive()  # a zombie

    process.communicate()
    assert not claim.is_alive()
    assert start_time(process.pid) == 0


def test_process_that_does_not_run_cannot_claim() -> None:
    with pytest.raises(LaminaError, match="no process"):
        Claim.of("me", 2**22 + 1)  # larger than any pid


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"owner": "a", "pid": "x", "start": 1, "ports": []}',
        '{"owner": "a", "pid": 1, "start": 1, "ports": [[1]]}',
        '{"owner": "a", "pid": null, "start": 1, "ports": []}',
    ],
)
def test_damaged_document_belongs_to_nobody(body: str) -> None:
    claim = Claim.parse(Document("address", "10.88.0.2", "10.88.0.2", body, 0.0))

    assert not claim.is_alive()
    assert claim.mappings == ()
