# SPDX-License-Identifier: Apache-2.0
"""The concrete adapters of a build on this host: which runtime, which network."""

from __future__ import annotations

import os
import time

from lamina.errors import Kind, LaminaError
from lamina.events import Notice
from lamina.start.lowlevel import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from typing import Self

    from lamina.app.settings import Settings
    from lamina.container.executor import RuntimeExecutor
    from lamina.container.host import Runtime
    from lamina.container.network.attachment import Network
    from lamina.container.network.pool import NetworkPool
    from lamina.container.network.usernet import UserNetwork
    from lamina.container.ports import Executor
    from lamina.events import Emitter
    from lamina.plan.ops import GitSource, HttpSource
    from lamina.registry.client import Registries
    from lamina.remote.sources import RemoteSources
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken, Work


def remote_sources(
    store: Store, settings: Settings, *, env: Mapping[str, str], clock: Callable[[], float]
) -> RemoteSources:
    """What brings URLs and git repositories here: a context manager."""
    from lamina.remote.settings import remote_settings
    from lamina.remote.sources import RemoteSources

    remote = remote_settings(env, ca_bundle=settings.ca_bundle)
    return RemoteSources(store, remote, clock=clock)


class BuildHost:
    """What steps and containers run on, found on first use and kept until the block ends.

    A context manager; entering it costs nothing, so a fully cached build touches none of it.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        search_path: str,
        emit: Emitter,
        registries: Callable[[], Registries] | None = None,
        env: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`env` has the proxy variables and the ssh agent for remote sources."""
        self._env = env or {}
        self._clock = clock
        self._remote: RemoteSources | None = None
        self._store = store
        self._settings = settings
        self._search_path = search_path
        self._emit = emit
        self._executor: RuntimeExecutor | None = None
        self._network: Network | None = None
        self._pool: NetworkPool | None = None
        self._is_told = False
        self._guard = allocate_lock()
        self._connect = registries

    @property
    def can_pull(self) -> bool:
        """Whether registries may be asked for images that are not in the store."""
        return self._connect is not None

    def pull(self, name: str, platform: Platform, *, work: Work) -> None:
        """Pull the image of that name for the platform. Raises as `pull_image`."""
        from lamina.app.pulling import PullOptions, pull_image
        from lamina.system.userns import is_possible

        registries = self.registries()
        try:
            options = PullOptions(host=platform, platform=platform, unpack=is_possible())
            pull_image(self._store, registries, name, options, work=work)
        finally:
            registries.close()

    def push(self, name: str, *, work: Work) -> None:
        """Push the stored image of that name. Raises as `push_image`."""
        from lamina.app.pushing import push_image
        from lamina.spec.platform import host

        registries = self.registries()
        try:
            push_image(self._store, registries, name, host=host(os.uname().machine), work=work)
        finally:
            registries.close()

    def registries(self) -> Registries:
        """A way into registries; the caller closes it. Raises kind UNSUPPORTED if none may be asked."""
        if self._connect is None:
            raise LaminaError("no registry may be asked here", kind=Kind.UNSUPPORTED)
        return self._connect()

    def runtime(self) -> Runtime:
        """The OCI runtime that works here. Raises NoRuntime, naming every way tried."""
        from lamina.container.runtime import DEFAULT_SEARCH_PATH, find_runtime

        # /usr/sbin is where Debian puts runc, and not on every user's PATH
        search = f"{self._search_path}:{DEFAULT_SEARCH_PATH}".lstrip(":")
        return find_runtime(self._store.root, override=self._settings.runtime, search_path=search)

    @property
    def context_modes(self) -> str:
        """How modes of the build context's files count; see Settings."""
        return self._settings.context_modes

    def executor(self) -> Executor:
        """The executor of RUN steps.

        Call it in the main thread before others exist: it takes this process into a mount
        namespace of its own, so that nothing stays mounted if it is killed.
        """
        if self._executor is None:
            from lamina.container.executor import RuntimeExecutor
            from lamina.system.mounts import isolate

            bundle = self._settings.ca_bundle
            if bundle and not os.path.isfile(bundle):
                raise LaminaError(f"the CA bundle {bundle} does not exist", kind=Kind.NOT_FOUND)
            runtime = self.runtime()
            isolate()
            self._executor = RuntimeExecutor(
                runtime,
                state_dir=os.path.join(self._store.root, "run"),
                ca_bundle=bundle or None,
            )
            self._executor.start()
        return self._executor

    def step_network(self) -> AbstractContextManager[str]:
        """A network namespace for one RUN step, empty for the host's. Any thread may call it."""
        from lamina.container.network.pool import NetworkPool

        with self._guard:
            if self._pool is None:
                network = self._step_network()
                if network is None:
                    from contextlib import nullcontext

                    return nullcontext("")
                self._pool = NetworkPool(network, "build", hold_pid=os.getpid())
            return self._pool.namespace()

    def _step_network(self) -> Network | UserNetwork | None:
        """The network of steps; None for the host's, where nothing leads out of another one."""
        from lamina.system.userns import is_namespaced

        if not is_namespaced():
            return self.network()
        from lamina.container.network.usernet import UserNetwork, find_way

        assert self._executor is not None
        way = find_way()
        if not way.programs:
            if not self._is_told:
                self._emit(Notice(f"RUN steps use the host's network: {way.why}; {way.mend}"))
            self._is_told = True
            return None
        return UserNetwork(self._executor.helpers, directory=self._executor.directory, way=way)

    def network(self) -> Network:
        """The bridge network as this process sees it."""
        if self._network is None:
            from lamina.container.network.attachment import Network

            self._network = Network(
                self._store.documents, root=self._store.root, subnet=self._settings.subnet
            )
        return self._network

    def collect_cache(self, clock: Callable[[], float]) -> None:
        """Keep the build cache within its limits, after a build in which steps ran. Takes a few
        seconds at most and never fails.
        """
        from lamina.app.autogc import collect_after_build

        collect_after_build(self._store, self._settings, clock=clock, emit=self._emit)

    def remote(self) -> RemoteSources:
        """What brings URLs and git repositories here; what it makes lasts until the block ends."""
        with self._guard:
            if self._remote is None:
                self._remote = remote_sources(
                    self._store, self._settings, env=self._env, clock=self._clock
                )
            return self._remote

    def download(self, op: HttpSource, *, cancel: CancelToken) -> int:
        """See `builder.sources.Fetcher`."""
        return self.remote().download(op, cancel=cancel)

    def checkout(self, op: GitSource, *, cancel: CancelToken) -> str:
        """See `builder.sources.Fetcher`."""
        return self.remote().checkout(op, cancel=cancel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        executor, self._executor = self._executor, None
        pool, self._pool = self._pool, None
        network, self._network = self._network, None
        remote, self._remote = self._remote, None
        if remote is not None:
            remote.close()
        try:
            if executor is not None:
                executor.close()
        finally:
            try:
                if pool is not None:
                    pool.close()
                if network is not None:
                    network.close()
            except LaminaError as error:
                # the build itself is done; what could not be taken down is reaped by the next
                self._emit(Notice(f"the network was not cleaned up: {error}"))
