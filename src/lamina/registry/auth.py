# SPDX-License-Identifier: Apache-2.0
"""Authentication with one registry host: Basic, and Bearer tokens as distribution describes them.

Rules (docs/registry.md §Credentials):
1. Nothing is sent before the registry asks, and then only to that registry or to the token server
   (*realm*) it names, if `check_realm` allows that realm.
2. A token is asked for one repository and the actions at hand, and kept in memory for those only.
3. A password given to a registry never goes to a realm of another owner.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import threading
from urllib.parse import urlencode, urlsplit

from lamina.errors import Kind, LaminaError
from lamina.registry.protocol import MAX_ERROR_BODY, RegistryError, error_of, with_query
from lamina.registry.transport import Request, bare_address, is_loopback
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamina.registry.protocol import Challenge
    from lamina.registry.transport import Transport

CLIENT_ID = "lamina"
_DEFAULT_LIFE = 60.0  # seconds of a token that does not say (distribution token.md)
_MARGIN = 10.0  # seconds before its end at which a token is not used any more
_MAX_TOKEN = 1024 * 1024  # bytes of a token server's answer
# second-level labels under which strangers register names (`co.uk`): no common owner below them
_SHARED_LABELS = frozenset(
    ["ac", "co", "com", "edu", "gob", "go", "gov", "mil", "ne", "net", "nom", "or", "org"]
)


class Credentials(Record):
    """A user's name and password, or the identity token that stands for them. May be all empty."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __bool__(self) -> bool:
        return bool(self.username or self.password or self.identity_token)

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, ...)"  # never a secret in a log or traceback


class _Token(Record):
    text: str
    expires: float

    def __repr__(self) -> str:
        return f"_Token(..., {self.expires})"


class Authenticator:
    """The credentials and tokens for one registry endpoint. Any thread may call it.

    `base` is the endpoint's address (`https://host:port`), `allowed_realms` hosts of token servers
    that the user trusts with this registry's password.
    """

    def __init__(
        self,
        base: str,
        transport_of: Callable[[str], Transport],
        *,
        credentials: Callable[[], Credentials],
        clock: Callable[[], float],
        allowed_realms: Sequence[str] = (),
    ) -> None:
        self.base = base
        self._transport_of = transport_of
        self._find_credentials = credentials
        self._clock = clock
        self._allowed_realms = tuple(allowed_realms)
        self._lock = threading.Lock()
        self._credentials: Credentials | None = None
        self._basic = False
        self._bearer: Challenge | None = None
        self._tokens: dict[tuple[str, ...], _Token] = {}
        self.refresh_token = ""

    @property
    def credentials(self) -> Credentials:
        """What the user stored for this registry, looked up once."""
        if self._credentials is None:
            self._credentials = self._find_credentials()
        return self._credentials

    def authorization(self, scopes: Sequence[str]) -> str:
        """The header for a request with these scopes; empty while the registry did not ask."""
        with self._lock:
            if self._bearer is not None:
                return f"Bearer {self._token(self._bearer, scopes)}"
            if self._basic:
                return _basic(self.credentials)
            return ""

    def answer(self, challenges: Sequence[Challenge], scopes: Sequence[str], *, used: str) -> bool:
        """Whether another try, with a new `authorization`, may be let in.

        `used` is the header that was refused.
        """
        with self._lock:
            bearer = next((c for c in challenges if c.scheme == "bearer"), None)
            if bearer is not None:
                self._tokens.pop(_key(scopes), None)  # expired early, or revoked
                self._bearer = bearer
                self._basic = False
                return True
            if any(c.scheme == "basic" for c in challenges) and self.credentials:
                self._bearer = None
                self._basic = True
                return _basic(self.credentials) != used
            return False

    def _token(self, challenge: Challenge, scopes: Sequence[str]) -> str:
        key = _key(scopes)
        known = self._tokens.get(key)
        if known is not None and known.expires > self._clock():
            return known.text
        token = self._fetch(challenge, scopes)
        self._tokens[key] = token
        return token.text

    def login(self, challenge: Challenge) -> None:
        """Exchange the credentials for a token without scope, and a refresh token if there is one.

        Raises:
            RegistryError: kind DENIED for a wrong user or password.
        """
        with self._lock:
            self._tokens[()] = self._fetch(challenge, (), offline=True)
            self._bearer = challenge

    def _fetch(
        self, challenge: Challenge, scopes: Sequence[str], *, offline: bool = False
    ) -> _Token:
        realm = challenge.parameter("realm")
        credentials = self.credentials
        check_realm(
            self.base, realm, with_credentials=bool(credentials), allowed=self._allowed_realms
        )
        service = challenge.parameter("service")
        if credentials.identity_token:
            refresh = self.refresh_token or credentials.identity_token
            request = _refresh_request(realm, service, scopes, refresh)
        else:
            request = _token_request(realm, service, scopes, credentials, offline=offline)
        answer = self._transport_of(realm).send(request)
        try:
            body = answer.read(_MAX_TOKEN) if answer.status == 200 else answer.read(MAX_ERROR_BODY)
            status = answer.status
        finally:
            answer.close()
        if status != 200:
            raise _refused(status, body, realm, with_credentials=bool(credentials))
        return self._parse(body, realm)

    def _parse(self, body: bytes, realm: str) -> _Token:
        try:
            document = json.loads(body)
            text = document.get("token") or document.get("access_token")
            life = document.get("expires_in")
            refresh = document.get("refresh_token")
        except (ValueError, AttributeError, RecursionError):
            text = None
        if not isinstance(text, str) or not text.isascii() or not text.isprintable():
            raise RegistryError(
                f"the token server {bare_address(realm)} did not send a token",
                kind=Kind.UNAVAILABLE,
            )
        seconds = float(life) if isinstance(life, int | float) and life > 0 else _DEFAULT_LIFE
        if isinstance(refresh, str):
            self.refresh_token = refresh
        return _Token(text, self._clock() + max(seconds - _MARGIN, seconds / 2))


def _key(scopes: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(scopes))


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _token_request(
    realm: str, service: str, scopes: Sequence[str], credentials: Credentials, *, offline: bool
) -> Request:
    """Distribution spec/auth/token.md: GET with Basic credentials, or none."""
    query = [("service", service)] if service else []
    query += [("scope", each) for each in scopes]
    if offline:
        query += [("offline_token", "true"), ("client_id", CLIENT_ID)]
    headers: tuple[tuple[str, str], ...] = ()
    if credentials:
        query.append(("account", credentials.username))
        headers = (("Authorization", _basic(credentials)),)
    return Request("GET", with_query(realm, query), headers)


def _refresh_request(
    realm: str, service: str, scopes: Sequence[str], refresh_token: str
) -> Request:
    """Distribution spec/auth/oauth.md: POST with the refresh token, the last one that was given."""
    form = {
        "grant_type": "refresh_token",
        "service": service,
        "client_id": CLIENT_ID,
        "scope": " ".join(scopes),
        "refresh_token": refresh_token,
    }
    body = urlencode(form).encode()
    headers = (("Content-Type", "application/x-www-form-urlencoded"),)
    return Request("POST", realm, headers, body, len(body))


def _refused(status: int, body: bytes, realm: str, *, with_credentials: bool) -> RegistryError:
    host = urlsplit(realm).netloc
    who = "these credentials" if with_credentials else "access without credentials"
    return error_of(status, body, what=f"the token server {host} refused {who}")


# --- which token servers may be asked --------------------------------------------------------


class RealmRefused(LaminaError):
    """A registry named a token server that it may not name."""

    kind = Kind.DENIED


def check_realm(
    base: str, realm: str, *, with_credentials: bool, allowed: Sequence[str] = ()
) -> None:
    """Refuse a realm that a hostile registry could use to collect passwords or reach inside.

    It must be https unless the registry itself speaks http on the same host; not a private or
    loopback address unless the registry is there too; and, if a password goes with it, of the
    registry's own host or domain, or in `allowed`.

    Raises:
        RealmRefused.
    """
    registry = urlsplit(base)
    try:
        parts = urlsplit(realm)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        host, port = "", None
    if not host or parts.scheme not in {"http", "https"} or parts.username or parts.fragment:
        raise RealmRefused(f"{registry.netloc} named {bare_address(realm)!r} as its token server")
    own = (registry.hostname or "").lower()
    same_host = host == own or (is_loopback(host) and is_loopback(own))
    subject = f"{registry.netloc} wants a token of {parts.scheme}://{parts.netloc}"
    if parts.scheme == "http" and (registry.scheme == "https" or not same_host):
        raise RealmRefused(f"{subject}, which is not https")
    trusted = {entry.lower() for entry in allowed}
    if same_host or host in trusted or f"{host}:{port}" in trusted:
        return
    if is_private(host) and not is_private(own):
        raise RealmRefused(f"{subject}, an address inside this network")
    if with_credentials and not same_owner(own, host):
        raise RealmRefused(
            f"{subject}, which is not of the same domain: no password was sent",
            hint=f'if you trust it: token-realms = "{host}" in config.toml',
        )


def same_owner(registry: str, realm: str) -> bool:
    """Whether two names are one domain or siblings in it (`registry.example.com`, `example.com`)."""
    left, right = registry.split("."), realm.split(".")
    if is_literal(registry) or is_literal(realm):
        return False
    if right[-len(left) :] == left or left[-len(right) :] == right:
        shorter = min(left, right, key=len)
        return _is_owned(shorter)
    parent = left[1:]
    return _is_owned(parent) and right[-len(parent) :] == parent


def _is_owned(labels: Sequence[str]) -> bool:
    """Whether the labels can be one owner's domain, not a suffix that strangers share."""
    if len(labels) < 2:
        return False
    return not (len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _SHARED_LABELS)


def is_literal(host: str) -> bool:
    """Whether the host is an address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_private(host: str) -> bool:
    """Whether the host is not on the public network by its spelling."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))
