# SPDX-License-Identifier: Apache-2.0
"""The pull-through caches of a configuration, wired to the client."""

from __future__ import annotations

from lamina.registry.endpoints import Hosts, NetworkSettings
from lamina.server.pullthrough import PullThrough
from lamina.server.upstream import Upstream
from lamina.tasks import CancelToken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.server.config import Config
    from lamina.server.metrics import Metrics
    from lamina.server.storage import Driver


class Caches:
    """What `[[proxy]]` asks for; `through` is None if there is none. Close it at the end."""

    def __init__(
        self,
        config: Config,
        driver: Driver,
        *,
        clock: Callable[[], float],
        metrics: Metrics,
        network: NetworkSettings | None,
    ) -> None:
        self.through: PullThrough | None = None
        self._cancel = CancelToken()
        if not config.proxies:
            return
        assert driver.cached_tags is not None  # the configuration was checked
        self._hosts = Hosts(network or NetworkSettings(user_agent="lamina"), clock=clock)
        self.through = PullThrough(
            [
                Upstream(proxy, self._hosts, cancel=self._cancel, clock=clock)
                for proxy in config.proxies
            ],
            driver.storage,
            driver.cached_tags,
            driver.readable_uploads,
            clock=clock,
            metrics=metrics,
            check_room=_no_limit if driver.ledger is None else driver.ledger.check_room,
            page=config.limits.page,
        )

    def close(self) -> None:
        """Cut off what is being fetched. Idempotent."""
        if self.through is not None:
            self._cancel.cancel()
            self._hosts.close()
            self.through.close()


def _no_limit(repository: str, size: int) -> None:
    """A driver without a ledger has no quotas."""
