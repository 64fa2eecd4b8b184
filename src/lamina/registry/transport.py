# SPDX-License-Identifier: Apache-2.0
"""The client's only door to the network: pooled HTTP/1.1 by urllib3, imported on first use.

No redirect is followed and nothing is retried here: `client` decides both, because credentials and
resumption depend on it. Bodies are streams in both directions.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import threading
from urllib.parse import unquote, urlsplit, urlunsplit

from lamina.errors import Cancelled, Kind, LaminaError
from lamina.start.record import Record
from lamina.system.connections import Connections

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from typing import IO, Protocol

    from urllib3 import PoolManager
    from urllib3.response import BaseHTTPResponse
else:
    Protocol = object

CONNECT_TIMEOUT = 10.0  # seconds
READ_TIMEOUT = 60.0  # seconds without a byte
POOL_SIZE = 8  # connections kept a host
BLOCK = 256 * 1024  # bytes a send; urllib3's 16 KiB costs a third of the throughput

_log = logging.getLogger(__name__)


class Unreachable(LaminaError):
    """No answer: the name does not resolve, nothing listens, TLS failed, the connection broke.

    `transient`: another try may help.
    """

    kind = Kind.UNAVAILABLE

    def __init__(self, what: str, *, transient: bool, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.transient = transient


class NotTls(Unreachable):
    """The other side does not speak TLS."""


class Untrusted(Unreachable):
    """The other side's certificate is not one that is trusted."""


class Request(Record):
    """A request. `body` is read once; `length` its bytes (None: no body)."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | IO[bytes] = b""
    length: int | None = None


class Response(Protocol):
    """An answer whose body was not read yet. Close it: that gives the connection back."""

    status: int

    def header(self, name: str) -> str:
        """The header's value, several joined by commas; empty if it is not there."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, empty at the end. Raises Unreachable if the body was cut off."""

    def read1(self, size: int, /) -> bytes:
        """As `read`, but what has come so far, at least one byte: nothing waits for a full piece."""

    def close(self) -> None:
        """Idempotent."""


class Transport(Protocol):
    """Sends requests. Any thread may call it."""

    def send(self, request: Request) -> Response:
        """The answer, its body not read. Raises Unreachable."""

    def cut(self) -> None:
        """End every connection at once: what waits for one raises Cancelled. Takes no lock."""

    def close(self) -> None:
        """Close every connection. Idempotent."""


class TlsFiles(Record):
    """What one host's TLS needs: CA files added to the system's, a client certificate and key."""

    ca_files: tuple[str, ...] = ()
    client_certificate: str = ""
    client_key: str = ""
    verify: bool = True


class Proxies(Record):
    """Proxy addresses by scheme, and the hosts that are reached without (NO_PROXY's syntax)."""

    http: str = ""
    https: str = ""
    no_proxy: str = ""


class HttpTransport:
    """Transport of one host: its TLS files, its proxy (ports of this module's Transport)."""

    def __init__(self, *, tls: TlsFiles, proxies: Proxies, user_agent: str) -> None:
        self._tls = tls
        self._proxies = proxies
        self._user_agent = user_agent
        self._pools: dict[str, PoolManager] = {}
        self._connections = Connections()
        self._lock = threading.Lock()

    def send(self, request: Request) -> Response:
        import urllib3
        from urllib3.exceptions import HTTPError

        proxy = self._proxy_of(request.url)
        pool = self._pool(proxy)
        headers = {"User-Agent": self._user_agent, **dict(request.headers)}
        if request.length is not None:
            headers["Content-Length"] = str(request.length)
        try:
            answer = pool.request(
                request.method,
                request.url,
                headers=headers,
                body=request.body if request.length else None,
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
            )
        except (HTTPError, OSError) as error:
            if self._connections.is_cut:
                raise Cancelled from None
            raise _unreachable(error, request.url, proxy) from error
        _log.debug("%s %s -> %s", request.method, bare_address(request.url), answer.status)
        return _Answer(answer, request.url, self._connections)

    def cut(self) -> None:
        self._connections.cut()

    def close(self) -> None:
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.clear()

    def _pool(self, proxy: str) -> PoolManager:
        import urllib3

        with self._lock:
            found = self._pools.get(proxy)
            if found is None:
                context = ssl_context(self._tls)
                if proxy:
                    found = urllib3.ProxyManager(
                        proxy,
                        proxy_headers=_proxy_headers(proxy),
                        maxsize=POOL_SIZE,
                        blocksize=BLOCK,
                        ssl_context=context,
                    )
                else:
                    found = urllib3.PoolManager(
                        maxsize=POOL_SIZE, blocksize=BLOCK, ssl_context=context
                    )
                self._pools[proxy] = self._connections.watch(found)
            return found

    def _proxy_of(self, url: str) -> str:
        parts = urlsplit(url)
        proxy = self._proxies.https if parts.scheme == "https" else self._proxies.http
        if not proxy or bypasses_proxy(parts.hostname or "", parts.port, self._proxies.no_proxy):
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"


class _Answer:
    """A urllib3 response as `Response`."""

    def __init__(self, answer: BaseHTTPResponse, url: str, connections: Connections) -> None:
        self.status = answer.status
        self._answer = answer
        self._url = url
        self._connections = connections

    def header(self, name: str) -> str:
        return self._answer.headers.get(name, "")

    def read(self, size: int, /) -> bytes:
        return self._checked(self._answer.read, size)

    def read1(self, size: int, /) -> bytes:
        return self._checked(self._answer.read1, size)

    def _checked(self, read: Callable[[int], bytes], size: int) -> bytes:
        from urllib3.exceptions import HTTPError

        try:
            return read(size)
        except (HTTPError, OSError) as error:
            self._answer.close()
            if self._connections.is_cut:
                raise Cancelled from None
            raise _unreachable(error, self._url, "") from error

    def close(self) -> None:
        # an unread rest is not worth reading: the connection goes
        if self._answer.closed or self._answer.length_remaining in {0, None}:
            self._answer.release_conn()
        self._answer.close()


def ssl_context(tls: TlsFiles) -> ssl.SSLContext:
    """The context: system CAs (SSL_CERT_FILE and SSL_CERT_DIR included), the host's files added.

    Raises:
        LaminaError: INVALID for a file that is no certificate or key.
    """
    import ssl

    context = ssl.create_default_context()
    try:
        for path in tls.ca_files:
            context.load_verify_locations(cafile=path)
        if tls.client_certificate:
            context.load_cert_chain(tls.client_certificate, tls.client_key or None)
    except (OSError, ssl.SSLError) as error:
        paths = (*tls.ca_files, tls.client_certificate)
        raise LaminaError(
            f"cannot use the certificates {', '.join(filter(None, paths))}: {error}",
            kind=Kind.INVALID,
        ) from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def bypasses_proxy(host: str, port: int | None, no_proxy: str) -> bool:
    """Whether NO_PROXY names the host: `*`, a domain, an address, a network, with or without port.

    Loopback never goes through a proxy, as in Go's net/http.
    """
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    for entry in no_proxy.replace(",", " ").split():
        if entry == "*":
            return True
        name, colon, wanted = entry.rpartition(":")
        if colon and wanted.isdigit() and name.count(":") == 0:
            if port is not None and int(wanted) != port:
                continue
            entry = name  # noqa: PLW2901
        if address is not None and "/" in entry:
            try:
                if address in ipaddress.ip_network(entry, strict=False):
                    return True
            except (ValueError, TypeError):
                pass
            continue
        domain = entry.lower().removeprefix("*").removeprefix(".")
        if host.lower() == domain or host.lower().endswith("." + domain):
            return True
    return False


def _address(host: str):  # type: ignore[no-untyped-def]  # noqa: ANN202  # IPv4Address | IPv6Address | None
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine by its spelling, as Docker decides it."""
    name = urlsplit(f"//{host}").hostname or ""
    address = _address(name)
    return name == "localhost" or (address is not None and address.is_loopback)


def bare_address(url: str) -> str:
    """The address without user, password, query and fragment. More than `redaction.redacted` takes:
    any part of the query of an address that a registry sends may be a signature.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return (
        urlunsplit((parts.scheme, host, parts.path, "...", ""))
        if parts.query
        else urlunsplit((parts.scheme, host, parts.path, "", ""))
    )


def _proxy_headers(proxy: str) -> Mapping[str, str] | None:
    from urllib3 import make_headers

    parts = urlsplit(proxy)
    if not parts.username:
        return None
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return make_headers(proxy_basic_auth=user)


def _unreachable(error: Exception, url: str, proxy: str) -> Unreachable:
    """The error in one line: which host, what happened."""
    import ssl

    from urllib3 import exceptions

    host = urlsplit(url).netloc.rpartition("@")[2]
    subject = f"cannot reach {host}"
    if proxy:
        subject += f" through the proxy {bare_address(proxy)}"
    cause: BaseException | None = error
    chain: list[BaseException] = []
    while cause is not None and len(chain) < 10:
        chain.append(cause)
        inner = cause.args[-1] if cause.args else None
        cause = inner if isinstance(inner, BaseException) else cause.__cause__ or cause.__context__
    for found in chain:
        if isinstance(found, exceptions.NameResolutionError):
            return Unreachable(f"{subject}: its name cannot be resolved", transient=False)
        if isinstance(found, ssl.SSLCertVerificationError):
            return Untrusted(
                f"{subject}: its certificate is not trusted: {found.verify_message}",
                transient=False,
                hint=f"put the registry's CA into /etc/docker/certs.d/{host}/ca.crt",
            )
        if isinstance(found, ssl.SSLError) and found.reason in {
            "WRONG_VERSION_NUMBER",
            "HTTP_REQUEST",
            "RECORD_LAYER_FAILURE",
            "UNKNOWN_PROTOCOL",
            "PACKET_LENGTH_TOO_LONG",
        }:
            return NotTls(
                f"{subject}: it does not speak TLS",
                transient=False,
                hint="a registry without TLS must be marked insecure in registries.conf",
            )
        if isinstance(found, ssl.SSLError):
            return Unreachable(f"{subject}: TLS failed: {found.reason}", transient=False)
        if isinstance(found, exceptions.ConnectTimeoutError) and not isinstance(
            found, exceptions.NewConnectionError
        ):
            return Unreachable(
                f"{subject}: no answer within {CONNECT_TIMEOUT:.0f} seconds", transient=False
            )
        if isinstance(found, exceptions.ReadTimeoutError | TimeoutError):
            return Unreachable(
                f"{subject}: nothing arrived for {READ_TIMEOUT:.0f} seconds", transient=True
            )
        if isinstance(found, ConnectionRefusedError):
            return Unreachable(f"{subject}: nothing listens there", transient=False)
        if isinstance(found, OSError) and found.errno and not isinstance(found, ConnectionError):
            return Unreachable(f"{subject}: {os.strerror(found.errno)}", transient=False)
    return Unreachable(f"{subject}: the connection broke", transient=True)
