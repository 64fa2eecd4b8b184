# SPDX-License-Identifier: Apache-2.0
"""A real container of a real runtime in a namespace of the pool."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from lamina.container.executor import RuntimeExecutor
from lamina.container.network.pool import NetworkPool
from lamina.container.ports import ProcessSpec
from lamina.container.runtime import find_runtime
from lamina.tasks import CancelToken
from lamina.testing.network import neighbour, serving

if TYPE_CHECKING:
    from pathlib import Path

    from lamina.container.network.attachment import Network

pytestmark = [pytest.mark.root, pytest.mark.tool("nft", "ip", "crun", "busybox")]


def test_two_steps_reach_another_host_from_one_namespace(network: Network, tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs"
    (rootfs / "bin").mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, rootfs / "bin/busybox")
    fetch = ProcessSpec(
        argv=("/bin/busybox", "nc", "-w", "5", "198.51.100.2", "80"), env=(("PATH", "/bin"),)
    )
    heard: list[bytes] = []
    statuses = []
    paths = set()

    with (
        neighbour(host_ip="198.51.100.1", ip="198.51.100.2") as far,
        serving(far, 80, "far"),
        RuntimeExecutor(find_runtime(str(tmp_path)), state_dir=str(tmp_path / "run")) as executor,
        NetworkPool(network, "build", hold_pid=os.getpid()) as pool,
    ):
        for _ in range(2):
            with pool.namespace() as path:
                paths.add(path)
                step = ProcessSpec(argv=fetch.argv, env=fetch.env, network_ns=path)
                statuses.append(
                    executor.run(
                        step,
                        str(rootfs),
                        on_output=lambda _, data: heard.append(data),
                        cancel=CancelToken(),
                    )
                )

    assert (statuses, b"".join(heard)) == ([0, 0], b"far 198.51.100.1" * 2)
    assert len(paths) == 1
