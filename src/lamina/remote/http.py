# SPDX-License-Identifier: Apache-2.0
"""GET requests that follow redirects and take credentials to the host they are for, and no other.

Redirects are followed here and not by urllib3, because each hop decides anew what may be sent: the
userinfo of the URL goes to its own scheme, host and port only.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from lamina.errors import Kind, LaminaError
from lamina.system.connections import Connections
from lamina.system.paths import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3 import BaseHTTPResponse, PoolManager

    from lamina.remote.settings import RemoteSettings
    from lamina.tasks import CancelToken

_CONNECT_SECONDS = 20.0
_READ_SECONDS = 60.0  # without one byte
_MAX_REDIRECTS = 10  # Go's http.Client, and so BuildKit
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}


class HttpClient:
    """Connections are kept and shared. Any thread may call `open`."""

    def __init__(self, settings: RemoteSettings) -> None:
        self._settings = settings
        self._pools: dict[str, PoolManager] = {}
        self._connections = Connections()

    def open(
        self, url: str, headers: Mapping[str, str], *, cancel: CancelToken
    ) -> tuple[BaseHTTPResponse, str]:
        """The response, its body not yet read, and the URL that gave it, without credentials.

        The caller closes the response.

        Raises:
            LaminaError: UNAVAILABLE, INVALID (no URL, a loop of redirects or one to another
                protocol), SYSTEM for a CA bundle that cannot be read.
        """
        target, credentials = without_userinfo(url)
        home = origin(target)
        for _ in range(_MAX_REDIRECTS + 1):
            cancel.check()
            own = credentials if origin(target) == home else ""
            response = self._request(url, target, own, headers, cancel)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response, target
            response.close()
            target, given = without_userinfo(urljoin(target, location))
            if given:
                credentials, home = given, origin(target)
            if urlsplit(target).scheme not in _PORTS:
                text = f"{url} redirects to {target}, which is neither http nor https"
                raise LaminaError(text, kind=Kind.INVALID)
        raise LaminaError(f"{url} redirects more than {_MAX_REDIRECTS} times", kind=Kind.INVALID)

    def _request(
        self,
        asked: str,
        url: str,
        credentials: str,
        headers: Mapping[str, str],
        cancel: CancelToken,
    ) -> BaseHTTPResponse:
        import urllib3
        from urllib3.exceptions import HTTPError, LocationValueError

        sent = {"User-Agent": "lamina", "Accept-Encoding": "identity", **headers}
        if credentials:
            sent |= urllib3.make_headers(basic_auth=credentials)
        cancel.on_cancel(self._connections.cut)
        try:
            return self._pool(url).request(
                "GET",
                url,
                headers=sent,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
            )
        except LocationValueError as error:
            raise LaminaError(f"invalid URL {asked!r}", kind=Kind.INVALID) from error
        except HTTPError as error:
            cancel.check()
            raise unreachable(asked, error) from error
        except OSError as error:
            text = f"cannot use the CA bundle {self._settings.ca_bundle!r}"
            raise failure(error, text) from error
        finally:
            cancel.forget(self._connections.cut)

    def _pool(self, url: str) -> PoolManager:
        import urllib3

        proxy = self._proxy_of(url)
        known = self._pools.get(proxy)
        if known is None:
            bundle = self._settings.ca_bundle or None
            if not proxy:
                known = urllib3.PoolManager(cert_reqs="CERT_REQUIRED", ca_certs=bundle)
            else:
                plain, credentials = without_userinfo(proxy)
                sent = urllib3.make_headers(proxy_basic_auth=credentials) if credentials else None
                known = urllib3.ProxyManager(
                    plain, proxy_headers=sent, cert_reqs="CERT_REQUIRED", ca_certs=bundle
                )
            self._pools[proxy] = self._connections.watch(known)
        return known

    def _proxy_of(self, url: str) -> str:
        """The proxy for a URL, empty for none."""
        parts = urlsplit(url)
        proxy = self._settings.proxy(f"{parts.scheme}_proxy") or self._settings.proxy("all_proxy")
        if not proxy:
            return ""
        if is_direct(parts.hostname or "", parts.port, self._settings.proxy("no_proxy")):
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an http or https URL: who gets what is sent to it.

    Raises:
        LaminaError: kind INVALID: it is no URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise LaminaError(f"invalid URL {url!r}", kind=Kind.INVALID) from error
    host = (parts.hostname or "").rstrip(".")
    return parts.scheme, host, _PORTS.get(parts.scheme, 0) if port is None else port


def without_userinfo(url: str) -> tuple[str, str]:
    """The URL without a fragment and `user:password@`, and that text, decoded.

    Raises:
        LaminaError: kind INVALID: it is no URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise LaminaError(f"invalid URL {url!r}", kind=Kind.INVALID) from error
    userinfo, _, host = parts.netloc.rpartition("@")
    plain = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    return plain, unquote(userinfo)


def unreachable(url: str, error: Exception) -> LaminaError:
    """The one cause that is of use, out of what urllib3 wraps around it."""
    cause: BaseException = error
    while (inner := getattr(cause, "reason", None) or cause.__cause__) is not None and isinstance(
        inner, BaseException
    ):
        cause = inner
    text = str(cause)
    hint = ""
    if "CERTIFICATE_VERIFY_FAILED" in text:
        hint = "set a CA bundle: --ca-bundle, LAMINA_CA_BUNDLE or SSL_CERT_FILE"
    return LaminaError(
        f"cannot download {url}: {text or type(cause).__name__}", kind=Kind.UNAVAILABLE, hint=hint
    )


def is_direct(host: str, port: int | None, no_proxy: str) -> bool:
    """Whether NO_PROXY names the host: `*`, a name (and what is below it), an address, a network,
    each perhaps with a port.
    """
    host = host.lower().rstrip(".")
    for entry in no_proxy.lower().split(","):
        name = entry.strip()
        head, colon, tail = name.rpartition(":")
        if colon and tail.isdigit() and "]" not in tail and head.count(":") == 0:
            if int(tail) != port:
                continue
            name = head
        if name == "*" or (name and _covers(name.strip("[]"), host)):
            return True
    return False


def _covers(name: str, host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        bare = name.removeprefix("*").lstrip(".")
        return host == bare or host.endswith("." + bare)
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False
