# SPDX-License-Identifier: Apache-2.0
"""The ledger of a running registry: pulls are written down, retention rules are followed."""

from __future__ import annotations

import logging

from lamina.server.retention import Rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from lamina.server.config import Config
    from lamina.server.ledger import Ledger
    from lamina.server.metrics import Metrics
    from lamina.server.retention import Verdict

_log = logging.getLogger(__name__)
_FLUSH = 10.0  # seconds of pulls that kill -9 loses; rules count in days


class Past:
    """What `[history]` and `[[retention]]` ask for. `ledger` is None if the driver has none."""

    def __init__(self, ledger: Ledger | None, config: Config) -> None:
        self.ledger = ledger
        self.rules = Rules(config.retention)
        self._interval = config.retention_interval if config.retention else 0.0

    def keep(
        self,
        *,
        metrics: Metrics,
        stop: threading.Event,
        notify: Callable[[str, str, str, str], None] | None,
    ) -> None:
        """Until `stop`: write pulls down every few seconds, follow the rules every interval."""
        if self.ledger is None:
            return
        waited = 0.0
        pause = min(_FLUSH, self._interval or _FLUSH)
        while not stop.wait(pause):
            waited += pause
            try:
                self.ledger.flush()
                if self._interval and waited >= self._interval:
                    waited = 0.0
                    gone = self.ledger.retain(self.rules, dry_run=False, stop=stop.is_set)
                    self._tell(gone, metrics, notify)
            except Exception:  # noqa: BLE001  # the keeper's own edge: it must live to try again
                _log.exception("retention failed")

    def _tell(
        self,
        gone: Sequence[Verdict],
        metrics: Metrics,
        notify: Callable[[str, str, str, str], None] | None,
    ) -> None:
        tags = sum(1 for verdict in gone if verdict.tag)
        metrics.add("lamina_registry_retention_tags_total", tags, help="Tags that rules removed.")
        metrics.add(
            "lamina_registry_retention_untagged_total",
            len(gone) - tags,
            help="Manifests without a tag that rules removed.",
        )
        for verdict in gone:
            _log.info("retention: %s:%s: %s", verdict.repository, verdict.tag, verdict.why)
            if notify is not None:
                notify("delete", verdict.repository, verdict.digest, verdict.tag)
