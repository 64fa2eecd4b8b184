# SPDX-License-Identifier: Apache-2.0
"""Events posted to addresses in the configuration: pushes and deletes, in order, at least tried.

The body is JSON: `{"event", "repository", "digest", "tag"}`. With a secret, the header
`Lamina-Signature: sha256=<hex>` is the HMAC of the body. A receiver that fails is asked again three
times; events wait in memory, so a stop of the registry loses those that it could not deliver.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import queue
import threading

from lamina.spec.document import dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.server.config import Webhook

_log = logging.getLogger(__name__)
_PAUSES = (0.0, 1.0, 5.0)  # seconds before each attempt
_TIMEOUT = 10.0
_WAITING = 10_000  # events; more are dropped, and that is logged


class Webhooks:
    """One thread that posts events."""

    def __init__(self, hooks: Sequence[Webhook]) -> None:
        self._hooks = hooks
        self._waiting: queue.Queue[dict[str, object] | None] = queue.Queue(_WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def notify(self, event: str, repository: str, digest: str, tag: str) -> None:
        """Post the event soon; does not block."""
        try:
            self._waiting.put_nowait(
                {"event": event, "repository": repository, "digest": digest, "tag": tag}
            )
        except queue.Full:
            _log.error("webhooks are too slow: an event of %s was dropped", repository)

    def close(self) -> None:
        """Post what waits, for a few seconds at most."""
        self._waiting.put(None)
        self._thread.join(_TIMEOUT)
        self._stop.set()

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            for hook in self._hooks:
                if event["event"] in hook.events:
                    self._post(hook, dump(event))

    def _post(self, hook: Webhook, body: bytes) -> None:
        from urllib.error import URLError
        from urllib.request import Request, urlopen

        headers = {"Content-Type": "application/json"}
        if hook.secret:
            signature = hmac.new(hook.secret.encode(), body, hashlib.sha256).hexdigest()
            headers["Lamina-Signature"] = f"sha256={signature}"
        for pause in _PAUSES:
            if self._stop.wait(pause):
                return
            request = Request(hook.url, data=body, headers=headers, method="POST")  # noqa: S310  # http(s), checked
            try:
                with urlopen(request, timeout=_TIMEOUT):  # noqa: S310  # http(s), checked
                    return
            except (URLError, OSError) as error:
                _log.warning("webhook %s: %s", hook.url.partition("?")[0], error)
