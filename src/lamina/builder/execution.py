# SPDX-License-Identifier: Apache-2.0
"""One RUN step: a writable snapshot on the base, a process in it, the changes as a layer."""

from __future__ import annotations

import os
import stat

from lamina.builder.ports import StepFailed
from lamina.builder.tree import Tree
from lamina.container.ports import ProcessSpec
from lamina.errors import Kind, LaminaError
from lamina.spec.digest import ChainID, Digest
from lamina.spec.platform import Platform
from lamina.start.record import replace
from lamina.system.mounts import mounted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from lamina.builder.mounting import StepMounts
    from lamina.builder.options import StepLimits
    from lamina.builder.ports import MountProvider, NetworkProvider
    from lamina.container.ports import Executor
    from lamina.plan.ops import Exec
    from lamina.spec.span import Span
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

HOSTNAME = "buildkitsandbox"  # what BuildKit's steps see; some build scripts test for it
TAIL = 64 * 1024  # bytes of a step's output that a failure keeps
_PATH_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Step:
    """The active snapshot `key` on `parent`, mounted at `target` while the process runs.

    A context manager: leaving it removes the snapshot unless `committed` was set.
    """

    def __init__(self, store: Store, *, key: str, parent: ChainID | None, target: str) -> None:
        self._store = store
        self._key = key
        self._target = target
        self._mount = store.snapshots.prepare(key, parent)
        self.committed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if not self.committed:
            self._store.snapshots.remove(self._key)

    @property
    def upper(self) -> str:
        """The directory that holds what the process changed."""
        return self._store.snapshots.layer_dir(self._key)

    def commit(self, chain: ChainID) -> None:
        """Turn the snapshot into the committed `chain`."""
        self._store.snapshots.commit(chain, self._key)
        self.committed = True

    def keep(self, name: str) -> ChainID:
        """Commit the files of a step that failed, under a name that no stack of layers has."""
        chain = ChainID(Digest.of(f"failed {name}".encode()))
        self.commit(chain)
        return chain

    def run(
        self,
        op: Exec,
        executor: Executor,
        *,
        network: NetworkProvider | None,
        mounts: MountProvider | None,
        limits: StepLimits,
        on_output: Callable[[int, bytes], None],
        cancel: CancelToken,
    ) -> int:
        """Run the process to its end; its exit status."""

        def start(process: ProcessSpec, output: Callable[[int, bytes], None] = on_output) -> int:
            return executor.run(process, self._target, on_output=output, cancel=cancel)

        def start_with_mounts(process: ProcessSpec) -> int:
            if mounts is None:
                return start(process)
            with mounts(self._target) as made:
                output = made.redacted(on_output)
                try:
                    return start(_with_mounts(process, made), output.write)
                finally:
                    output.flush()

        os.mkdir(self._target, 0o700)
        try:
            insecure = op.security == "insecure"
            with mounted(self._mount, self._target, volatile=True, devices=insecure):
                make_cwd(self._target, os.fsencode(op.cwd))
                process = process_of(op, has_network=network is not None, limits=limits)
                if op.network != "default" or network is None:
                    return start_with_mounts(process)
                with network() as path:
                    shared = replace(process, network_ns=path, host_network=not path)
                    return start_with_mounts(shared)
        finally:
            os.rmdir(self._target)


def _with_mounts(process: ProcessSpec, made: StepMounts) -> ProcessSpec:
    secret = {name for name, _ in made.secret_env}
    env = tuple(pair for pair in process.env if pair[0] not in secret)
    return replace(process, env=env, secret_env=made.secret_env, mounts=made.mounts)


def process_of(op: Exec, *, has_network: bool, limits: StepLimits) -> ProcessSpec:
    """The process of a step. Without a provider of networks the default is the host's."""
    names = {name for name, _ in op.env}
    proxies = tuple((name, value) for name, value in op.proxy_args if name not in names)
    host = op.network == "host" or (op.network == "default" and not has_network)
    return ProcessSpec(
        argv=op.argv,
        env=op.env + proxies,
        cwd=op.cwd,
        user=op.user,
        hostname=op.hostname or HOSTNAME,
        host_network=host,
        privileged=op.security == "insecure",
        shm_size=op.shm_size,
        extra_hosts=op.extra_hosts,
        architecture=Platform.parse(op.platform).architecture if op.platform else "",
        memory=limits.memory,
        cpus=limits.cpus,
        cpu_period=limits.cpu_period,
        cpu_shares=limits.cpu_shares,
        cpuset_cpus=limits.cpuset_cpus,
        cpuset_mems=limits.cpuset_mems,
        memory_swap=limits.memory_swap,
        ulimits=op.ulimits,
    )


def make_cwd(rootfs: str, cwd: bytes) -> None:
    """Make the working directory of a step where the image lacks it: 0755, root's.

    Beneath the root at each step, links resolved inside it.

    Raises:
        LaminaError: kind INVALID if something that is not a directory is in the way.
    """
    root = os.open(rootfs, _PATH_FLAGS)
    tree = Tree(root, what="the image", ignore=None, keeps_owner=True)
    fd = os.dup(root)
    try:
        for part in tree.resolve(cwd).split(b"/"):
            if not part:
                continue
            fd = _enter(fd, part, cwd)
    finally:
        os.close(fd)
        tree.close()


def _enter(fd: int, part: bytes, cwd: bytes) -> int:
    """The descriptor of `part` in `fd`, made if it is missing; closes `fd` when it succeeds."""
    try:
        os.mkdir(part, 0o755, dir_fd=fd)
        os.chmod(part, 0o755, dir_fd=fd)  # noqa: S103  # what BuildKit makes, whatever the umask
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(part, dir_fd=fd, follow_symlinks=False).st_mode):
            text = (
                f"working directory {os.fsdecode(cwd)!r}: {os.fsdecode(part)!r} is not a directory"
            )
            raise LaminaError(text, kind=Kind.INVALID) from None
    below = os.open(part, _PATH_FLAGS, dir_fd=fd)
    os.close(fd)
    return below


class Tail:
    """The last bytes of a stream of output."""

    def __init__(self) -> None:
        self._data = b""

    def add(self, data: bytes) -> None:
        self._data = (self._data + data)[-TAIL:]

    def value(self) -> bytes:
        return self._data


def failed(op: Exec, status: int, *, span: Span | None, output: bytes) -> StepFailed:
    """The error for a process that ended with `status`, in BuildKit's words."""
    command = " ".join(op.argv)
    text = f'process "{command}" did not complete successfully: exit code: {status}'
    return StepFailed(text, span=span, status=status, output=output)
