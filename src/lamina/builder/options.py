# SPDX-License-Identifier: Apache-2.0
"""What a solve may be told, as values."""

from __future__ import annotations

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.builder.ports import StepFailed
    from lamina.builder.secrets import Secrets
    from lamina.builder.sshagents import SshAgents


class StepLimits(Record):
    """What each RUN step may take; no part of a cache key, except that an op has its `ulimits`.

    `memory` and `memory_swap` (with swap) in bytes, `cpus` in CPUs, 0 for no limit (`memory_swap`
    -1: no limit on swap); `ulimits` are (name, soft, hard), -1 for unlimited.
    `cpu_period` is the time in microseconds over which `cpus` counts. The others are the
    kernel's `cpu.shares`, and lists of CPUs and memory nodes (`0-2,5`).
    """

    memory: int = 0
    memory_swap: int = 0
    cpus: float = 0.0
    cpu_period: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    ulimits: tuple[tuple[str, int, int], ...] = ()


class SolveOptions(Record):
    """How to run a plan.

    - `no_cache`: run every step, whatever is recorded.
    - `jobs`: how many steps run at one time; None for no limit, as steps wait for networks and disks
      more than they compute.
    - `compression`, `level`: of the blobs of layers that are exported.
    - `scratch_dir`: for mount points and temporary files; empty for `build` in the store.
    - `on_failed`: is called with the failure of a RUN step when all other steps have ended; the
      files of the step are then a snapshot.
    - `git_modes`: files of build contexts have git's modes (0644, 0755; directories 0755), in keys
      and in layers.
    - `limits`, `secrets`, `agents`: of RUN steps.
    - `build`: the id of the build's record, which cache mounts keep with their last use.
    """

    no_cache: bool = False
    jobs: int | None = None
    compression: str = "gzip"
    level: int | None = None
    scratch_dir: str = ""
    on_failed: Callable[[StepFailed], None] | None = None
    git_modes: bool = False
    limits: StepLimits = StepLimits()
    secrets: Secrets | None = None
    agents: SshAgents | None = None
    build: str = ""
