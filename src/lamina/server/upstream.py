# SPDX-License-Identifier: Apache-2.0
"""The registry behind a pull-through cache, asked with lamina's own client.

Its credentials go to its host and token server only, as everywhere in the client (ADR 73). A request
is not repeated, but for one on a connection that turned out to be dead: a client waits for the
answer. An upstream that did not answer is not asked again for some seconds.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from urllib.parse import urlsplit

from lamina.registry import protocol
from lamina.registry.auth import Credentials
from lamina.registry.client import PULL, Repository
from lamina.registry.endpoints import HUB, HUB_API, Endpoint, Hosts
from lamina.registry.transport import Request, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from lamina.registry.client import Resolved
    from lamina.registry.transport import Response
    from lamina.server.policies import Proxy
    from lamina.spec.descriptor import Descriptor
    from lamina.spec.digest import Digest
    from lamina.tasks import CancelToken

    T = TypeVar("T")

_ENDPOINTS = 256  # repositories whose tokens are kept
_PAUSE = 10.0  # seconds for which an upstream that did not answer is not asked


class Upstream:
    """The upstream of one `[[proxy]]`. Any thread may call it.

    Methods raise RegistryError for what the upstream said, Unreachable if it said nothing.
    """

    def __init__(
        self, proxy: Proxy, hosts: Hosts, *, cancel: CancelToken, clock: Callable[[], float]
    ) -> None:
        parts = urlsplit(proxy.upstream)
        self.proxy = proxy
        host = parts.netloc
        self._is_hub = host in {HUB, HUB_API, f"index.{HUB}"}
        self._host = HUB if self._is_hub else host
        self._base = parts.path.strip("/")
        self._insecure = parts.scheme == "http"
        self._hosts = hosts
        self._cancel = cancel
        self._clock = clock
        self._silent_until = 0.0
        self._guard = threading.Lock()
        self._endpoints: OrderedDict[str, Endpoint] = OrderedDict()

    @property
    def namespace(self) -> str:
        """What containerd calls it in `?ns=`."""
        return self.proxy.namespace or self._host

    def path(self, name: str) -> str:
        """The repository there that stands behind the name below the prefix."""
        if self._base:
            name = f"{self._base}/{name}"
        return f"library/{name}" if self._is_hub and "/" not in name else name

    def resolve(self, path: str, reference: str) -> Resolved:
        """The manifest behind a tag or digest, verified if it is a digest."""
        return self._ask(lambda: self._repository(path).resolve(reference))

    def head(self, path: str, tag: str) -> Descriptor | None:
        """What the tag points to; None if the upstream does not say it in headers."""
        return self._ask(lambda: self._repository(path).head(tag))

    def tags(self, path: str) -> list[str]:
        """Every tag."""
        return self._ask(lambda: self._repository(path).tags())

    def referrers(self, path: str, digest: Digest) -> tuple[Descriptor, ...]:
        """Manifests with that subject."""
        return self._ask(lambda: self._repository(path).referrers(digest))

    def blob(self, path: str, digest: Digest, *, method: str = "GET") -> tuple[Response, int]:
        """(answer, size); the size is -1 if the upstream does not say it. The caller closes it."""
        endpoint = self._endpoint(path)
        answer = self._ask(
            lambda: endpoint.send(
                Request(method, protocol.blob_route(path, digest)),
                scopes=(protocol.scope(path, PULL),),
                what=f"blob {digest.short()} of {self._host}/{path}",
                expect=(200,),
            )
        )
        length = answer.header("Content-Length")
        return answer, int(length) if length.isascii() and length.isdecimal() else -1

    def _ask(self, ask: Callable[[], T]) -> T:
        if self._clock() < self._silent_until:
            raise Unreachable(f"{self._host} did not answer a moment ago", transient=False)
        try:
            try:
                return ask()
            except Unreachable as error:
                if not error.transient:
                    raise
                return ask()
        except Unreachable:
            self._silent_until = self._clock() + _PAUSE
            raise

    def _repository(self, path: str) -> Repository:
        return Repository((self._endpoint(path),), f"{self._host}/{path}")

    def _endpoint(self, path: str) -> Endpoint:
        with self._guard:
            found = self._endpoints.pop(path, None)
            if found is None:
                given = Credentials(self.proxy.username, self.proxy.password)
                found = Endpoint(
                    self._hosts,
                    self._host,
                    path,
                    insecure=self._insecure,
                    credentials=lambda: given,
                    cancel=self._cancel,
                    attempts=1,
                )
            self._endpoints[path] = found
            if len(self._endpoints) > _ENDPOINTS:
                self._endpoints.popitem(last=False)
            return found
