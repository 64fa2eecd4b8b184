# SPDX-License-Identifier: Apache-2.0
"""A build's values: what is asked for, the targets on their way, and what is answered."""

from __future__ import annotations

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.app.contexts import BuildContextSource
    from lamina.app.history import Recorder
    from lamina.buildcache.options import CacheFrom, CacheTo
    from lamina.builder.build import StepLimits
    from lamina.builder.execution import StepFailed
    from lamina.builder.secrets import Secrets
    from lamina.builder.sshagents import SshAgents
    from lamina.dockerfile.lower import Lowered
    from lamina.exporter.ports import Exporter, Output
    from lamina.plan.graph import Plan
    from lamina.spec.digest import Digest
    from lamina.spec.platform import Platform


class BuildRequest(Record):
    """What to build.

    `context` is an absolute directory (`is_lasting` False: a temporary one) and `ignore` its `.dockerignore` patterns; `dockerfile` the
    file's bytes and `dockerfile_name` how messages call it. `tags` are references as typed;
    `outputs` what to make (empty: an image in the store). `epoch` is SOURCE_DATE_EPOCH in POSIX
    seconds; `jobs` bounds the steps that run at one time (None: as many as are ready).
    `allow` are entitlements, `limits` go to each RUN, `secrets` and `agents` are for its mounts.
    `privileged` (uid 0) lets `type=local` keep owners, setuid bits and device nodes. The steps of
    the stages in `no_cache_filter` run again. `pull` asks registries again for every base.
    `squash` makes one layer of all that the build adds
    to its base. `on_failed` is called with the failure of a step, whose files stay then.
    With `platforms` the result is an index of images for these, `platform` being the first of them.
    `build_platform` is that of this host (None: `platform`). Results are also looked for in
    `cache_from`, and the build's cache is written to `cache_to`.
    """

    context: str
    dockerfile: bytes
    platform: Platform
    is_lasting: bool = True
    dockerfile_name: str = "Dockerfile"
    ignore: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    target: str = ""
    build_args: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    squash: bool = False
    on_failed: Callable[[StepFailed], None] | None = None
    pull: bool = False
    outputs: tuple[Output, ...] = ()
    epoch: int | None = None
    jobs: int | None = None
    network: str = "default"
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int = 0
    privileged: bool = False
    build_contexts: tuple[BuildContextSource, ...] = ()
    allow: tuple[str, ...] = ()
    limits: StepLimits | None = None
    secrets: Secrets | None = None
    agents: SshAgents | None = None
    platforms: tuple[Platform, ...] = ()
    build_platform: Platform | None = None
    cache_from: tuple[CacheFrom, ...] = ()
    cache_to: tuple[CacheTo, ...] = ()


class Target(Record):
    """One target of a build: its request, the recorder of what happens to it, the normalised names
    that it is to have, and what makes its outputs.
    """

    name: str
    request: BuildRequest
    recorder: Recorder
    names: tuple[str, ...]
    exporters: tuple[Exporter, ...]


class Planned(Record):
    """A target whose Dockerfile was lowered: one part a platform, and the plan of all of them."""

    target: Target
    parts: tuple[Lowered, ...]
    plan: Plan


class BuildOutcome(Record):
    """What was built: digests are None if only files were written. `ran` and `cached` count steps.

    `id` is that of the build's record. For several platforms `manifest` is the index, `config` None.
    """

    manifest: Digest | None
    config: Digest | None
    names: tuple[str, ...]
    ran: int
    cached: int
    id: str = ""
