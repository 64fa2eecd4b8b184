# SPDX-License-Identifier: Apache-2.0
"""Hosts of registries: their TLS files, whether plain http may be spoken, redirects and retries."""

from __future__ import annotations

import os
import threading
from urllib.parse import urljoin, urlsplit

from lamina.errors import Kind, LaminaError
from lamina.registry import protocol
from lamina.registry.auth import Authenticator
from lamina.registry.protocol import RETRIED_STATUS, RegistryError
from lamina.registry.transport import (
    HttpTransport,
    Proxies,
    Request,
    TlsFiles,
    Unreachable,
    Untrusted,
    bare_address,
    is_loopback,
)
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamina.registry.auth import Credentials
    from lamina.registry.transport import Response, Transport
    from lamina.tasks import CancelToken

HUB_API = "registry-1.docker.io"  # the host behind the name docker.io
HUB = "docker.io"
ATTEMPTS = 5  # of one request
FIRST_PAUSE = 0.5  # seconds before the second attempt; doubled for each further one
_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
CERTIFICATE_DIRECTORIES = (
    "/etc/containers/certs.d",
    "/etc/docker/certs.d",
)


class NetworkSettings(Record):
    """How hosts are reached. `certificate_directories` hold one directory a host (`certs.d`)."""

    user_agent: str
    proxies: Proxies = Proxies()  # immutable
    certificate_directories: tuple[str, ...] = CERTIFICATE_DIRECTORIES
    allowed_realms: tuple[str, ...] = ()


class Hosts:
    """The transports of this process, one a host. Any thread may call it."""

    def __init__(self, settings: NetworkSettings, *, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.clock = clock
        self._lock = threading.Lock()
        self._transports: dict[tuple[str, bool], Transport] = {}
        self._bases: dict[tuple[str, bool], str] = {}

    def transport(self, url: str, *, insecure: bool = False) -> Transport:
        """The transport for the address' host, kept until `close`."""
        host = urlsplit(url).netloc.rpartition("@")[2]
        with self._lock:
            found = self._transports.get((host, insecure))
            if found is None:
                tls = tls_files(host, self.settings.certificate_directories, insecure=insecure)
                found = HttpTransport(
                    tls=tls, proxies=self.settings.proxies, user_agent=self.settings.user_agent
                )
                self._transports[host, insecure] = found
            return found

    def base(self, host: str, *, insecure: bool) -> str:
        """`https://host`, or `http://host` for an insecure host that does not speak TLS.

        Loopback counts as insecure, as with Docker. Raises Unreachable.
        """
        api = HUB_API if host == HUB else host
        insecure = insecure or is_loopback(api)
        if not insecure:
            return f"https://{api}"
        with self._lock:
            known = self._bases.get((api, insecure))
        if known is None:
            known = self._probe(api)
            with self._lock:
                self._bases[api, insecure] = known
        return known

    def _probe(self, host: str) -> str:
        try:
            url = f"https://{host}/v2/"
            self.transport(url, insecure=True).send(Request("GET", url)).close()
        except Untrusted:
            raise  # it speaks TLS: plain text would only hide who it is
        except Unreachable as failure:
            url = f"http://{host}/v2/"
            try:
                self.transport(url, insecure=True).send(Request("GET", url)).close()
            except Unreachable:
                raise failure from None
            return f"http://{host}"
        return f"https://{host}"

    def cut(self) -> None:
        """End every connection at once: what waits for one raises Cancelled. May be called by a signal
        handler: takes no lock.
        """
        for transport in list(self._transports.values()):
            transport.cut()

    def close(self) -> None:
        """Close every connection. Idempotent."""
        with self._lock:
            transports, self._transports = list(self._transports.values()), {}
        for transport in transports:
            transport.close()


def tls_files(host: str, directories: Sequence[str], *, insecure: bool) -> TlsFiles:
    """What `certs.d/HOST` holds: `*.crt` are CAs, `NAME.cert` with `NAME.key` a client's pair.

    An insecure host is not verified unless there is a CA for it.
    """
    cas: list[str] = []
    certificate = key = ""
    for directory in directories:
        place = os.path.join(directory, host)
        try:
            names = sorted(os.listdir(place))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        cas += [os.path.join(place, name) for name in names if name.endswith(".crt")]
        for name in names:
            if name.endswith(".cert") and not certificate:
                certificate = os.path.join(place, name)
                key = os.path.join(place, name.removesuffix(".cert") + ".key")
                if not os.path.exists(key):
                    raise LaminaError(f"{key} is missing for {certificate}", kind=Kind.NOT_FOUND)
    return TlsFiles(tuple(cas), certificate, key, verify=not insecure or bool(cas))


class Endpoint:
    """One place of one repository: sends requests with credentials, redirects and retries.

    `host` as in names (`docker.io`), `repository` the path there.
    """

    def __init__(
        self,
        hosts: Hosts,
        host: str,
        repository: str,
        *,
        insecure: bool,
        is_mirror: bool = False,
        credentials: Callable[[], Credentials],
        cancel: CancelToken,
        attempts: int = ATTEMPTS,
    ) -> None:
        self.host = host
        self.repository = repository
        self.is_mirror = is_mirror
        self._hosts = hosts
        self._insecure = insecure or is_loopback(host)
        self._credentials = credentials
        self._cancel = cancel
        self._attempts = attempts
        self._auth: Authenticator | None = None
        self._lock = threading.Lock()

    @property
    def base(self) -> str:
        """The address of the API's root, without a slash at the end."""
        return self._hosts.base(self.host, insecure=self._insecure)

    @property
    def auth(self) -> Authenticator:
        """The credentials and tokens in use here."""
        with self._lock:
            if self._auth is None:
                self._auth = Authenticator(
                    self.base,
                    self._transport_of,
                    credentials=self._credentials,
                    clock=self._hosts.clock,
                    allowed_realms=self._hosts.settings.allowed_realms,
                )
            return self._auth

    def send(
        self,
        request: Request,
        *,
        scopes: Sequence[str],
        what: str,
        expect: Sequence[int],
        attempts: int | None = None,
    ) -> Response:
        """The answer, with a status of `expect`; the caller closes it.

        `request.url` is a route (or an address that the registry gave). A request with a streamed
        body is sent once: the caller begins it again.

        Raises:
            RegistryError: another status, after retries where another try may help; `what` says
                what was asked for.
            Unreachable: no answer.
        """
        url = self.address(request.url)
        request = replace(request, url=url)
        attempts = attempts or self._attempts
        for attempt in range(1, attempts + 1):
            last = attempt == attempts
            try:
                answer = self._authorised(request, scopes)
            except Unreachable as failure:
                if last or not failure.transient:
                    raise
                self._pause(FIRST_PAUSE * 2 ** (attempt - 1))
                continue
            if answer.status in expect:
                return answer
            error, wait = self._failure(answer, what)
            if last or answer.status not in RETRIED_STATUS or wait > protocol.MAX_RETRY_AFTER:
                raise error
            self._pause(max(wait, FIRST_PAUSE * 2 ** (attempt - 1)))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def send_plain(self, request: Request) -> Response:
        """The first answer, whatever it is, without credentials. Raises Unreachable."""
        return self._follow(request, "")

    def address(self, url: str) -> str:
        """A route or a Location as an address; one of this host keeps this endpoint's scheme.

        A registry behind a proxy that ends TLS often calls itself http: that is no reason to talk
        plain text.
        """
        base = self.base
        found = urljoin(base + "/", url)
        parts, own = urlsplit(found), urlsplit(base)
        if parts.hostname == own.hostname and parts.scheme == "http" and own.scheme == "https":
            return parts._replace(scheme="https", netloc=own.netloc).geturl()
        return found

    def _authorised(self, request: Request, scopes: Sequence[str]) -> Response:
        used = self.auth.authorization(scopes) if self._is_own(request.url) else ""
        answer = self._follow(request, used)
        if answer.status != 401 or not self._is_own(request.url):
            return answer
        challenges = protocol.parse_challenges(answer.header("WWW-Authenticate"))
        if isinstance(request.body, bytes):
            if self.auth.answer(challenges, scopes, used=used):
                answer.close()
                return self._follow(request, self.auth.authorization(scopes))
        else:
            self.auth.answer(challenges, scopes, used=used)
        return answer

    def _follow(self, request: Request, authorization: str) -> Response:
        """The answer behind redirects; credentials go to this registry only."""
        for _ in range(_MAX_REDIRECTS + 1):
            headers = request.headers
            if authorization and self._is_own(request.url):
                headers = (*headers, ("Authorization", authorization))
            answer = self._transport_of(request.url).send(replace(request, headers=headers))
            location = answer.header("Location")
            if answer.status not in _REDIRECTS or request.method not in {"GET", "HEAD"}:
                return answer
            answer.close()
            target = urljoin(request.url, location)
            old, new = urlsplit(request.url), urlsplit(target)
            if new.scheme not in {"http", "https"} or not new.hostname or new.username:
                raise RegistryError(
                    f"{self.host} redirected to {bare_address(target)!r}", kind=Kind.INVALID
                )
            if old.scheme == "https" and new.scheme == "http":
                raise RegistryError(
                    f"{self.host} redirected from https to {bare_address(target)}", kind=Kind.DENIED
                )
            request = replace(request, url=target)
        raise RegistryError(f"{self.host}: too many redirects", kind=Kind.UNAVAILABLE)

    def _is_own(self, url: str) -> bool:
        """Whether the address has exactly this endpoint's scheme, host and port."""
        return _origin(url) == _origin(self.base)

    def _transport_of(self, url: str) -> Transport:
        own = urlsplit(url).netloc == urlsplit(self.base).netloc
        insecure = self._insecure and (own or is_loopback(urlsplit(url).netloc))
        return self._hosts.transport(url, insecure=insecure)

    def _failure(self, answer: Response, what: str) -> tuple[RegistryError, float]:
        """The error that an answer is, and the seconds it asks to wait."""
        try:
            body = answer.read(protocol.MAX_ERROR_BODY)
        except Unreachable:
            body = b""
        finally:
            answer.close()
        wait = protocol.retry_after(answer.header("Retry-After"), now=self._hosts.clock())
        return protocol.error_of(answer.status, body, what=what), wait or 0.0

    def _pause(self, seconds: float) -> None:
        self._cancel.wait(seconds)
        self._cancel.check()


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", parts.port or default
