# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at any moment of attaching and publishing leaves nothing that cannot be reaped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from lamina.container.network.attachment import PortMapping
from lamina.errors import Kind, LaminaError
from lamina.testing.network import BRIDGE, ask, run, serving
from lamina.testing.waiting import let_pass

if TYPE_CHECKING:
    from pathlib import Path

    from lamina.container.network.attachment import Attachment, Network
    from lamina.store.ports import Documents

pytestmark = [pytest.mark.root, pytest.mark.tool("nft", "ip")]

# Waits for a line, so that only the work itself is cut, then works in circles.
CHURN = """
import os, sys
from lamina.container.network.attachment import Network, PortMapping
from lamina.store.local import open_store
from lamina.testing.network import BRIDGE
root = sys.argv[1]
network = Network(open_store(f"{root}/store").documents, root=root, bridge=BRIDGE,
                  lock_path=f"{root}/lock")
print("ready", flush=True)
sys.stdin.readline()
while True:
    attachment = network.attach("churn", hold_pid=os.getpid())
    network.publish(attachment, [PortMapping(80, host_port=8000), PortMapping(53, "udp")])
    network.release(attachment)
"""


def test_kills_at_many_moments_are_all_recovered_from(
    network: Network, documents: Documents, tmp_path: Path
) -> None:
    for number in range(12):
        churn = subprocess.Popen(
            [sys.executable, "-c", CHURN, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert churn.stdout is not None
        assert churn.stdin is not None
        assert churn.stdout.readline() == b"ready\n"
        churn.stdin.write(b"\n")
        churn.stdin.flush()
        let_pass(number * 0.007)  # 0 to 77 ms: one circle takes about 70
        churn.send_signal(signal.SIGKILL)
        churn.communicate()

        attachment = network.attach("next", hold_pid=os.getpid())
        network.publish(attachment, [PortMapping(80, host_port=8000)])
        with serving(attachment.ns_fd, 80, "next"):
            assert ask("127.0.0.1", 8000).startswith("next")
        network.release(attachment)

    network.reap()
    assert documents.list("address") == []
    assert BRIDGE not in run("ip -o link; nft list tables")


def test_one_of_many_gets_the_port(network: Network) -> None:
    attachments = [network.attach(f"c{n}", hold_pid=os.getpid()) for n in range(4)]
    outcomes: list[Kind | None] = []

    def publish(attachment: Attachment) -> None:
        try:
            network.publish(attachment, [PortMapping(80, host_port=8000)])
            outcomes.append(None)
        except LaminaError as error:
            outcomes.append(error.kind)

    threads = [threading.Thread(target=publish, args=(one,)) for one in attachments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes.count(None) == 1
    assert outcomes.count(Kind.CONFLICT) == 3
