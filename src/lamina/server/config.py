# SPDX-License-Identifier: Apache-2.0
"""The registry's configuration: a TOML file, read once, errors with the line they are on.

docs/registry-server.md lists every key. An unknown key, a value of the wrong type, or keys that
contradict each other are errors; nothing is ignored.
"""

from __future__ import annotations

import os
import re
import tomllib

from lamina.errors import Kind, LaminaError, SourceError
from lamina.server.ledger import DEFAULT_WINDOW
from lamina.server.limits import EdgeLimits, Limits
from lamina.server.objectstore.bucket import Location
from lamina.server.policies import Proxy, read_proxies, read_quotas, read_retention
from lamina.server.quotas import Quota
from lamina.server.retention import RetentionRule
from lamina.server.rights import ACTIONS, Rule
from lamina.server.tables import Reader
from lamina.spec.span import SourceText, Span
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Webhook(Record):
    """Where events are posted, and a secret that signs them (HMAC-SHA256; empty: none)."""

    url: str
    events: frozenset[str] = frozenset({"push", "delete"})
    secret: str = ""


class TokenTrust(Record):
    """Whose bearer tokens are believed: `keys` are PEM files of public keys or certificates."""

    issuer: str
    service: str
    realm: str
    keys: tuple[str, ...] = ()
    signing_key: str = ""
    lifetime: float = 300.0
    refresh_lifetime: float = 30 * 86400.0


class Config(Record):
    """Everything that can be configured; times in seconds, sizes in bytes, paths absolute."""

    root: str = ""
    bucket: Location | None = None
    share_store: str = ""
    listen: str = "127.0.0.1:5000"
    tls_certificate: str = ""
    tls_key: str = ""
    threads: int = 1
    header_timeout: float = 30.0
    read_only: bool = False
    access_log: str = ""
    limits: Limits = Limits()
    edge: EdgeLimits = EdgeLimits()
    max_uploads: int = 10_000
    upload_expiry: float = 86400.0
    gc_interval: float = 600.0
    grace: float = 3600.0
    untagged_after: float | None = None
    scrub_interval: float = 0.0
    htpasswd: str = ""
    basic_realm: str = "lamina registry"
    token: TokenTrust | None = None
    rules: tuple[Rule, ...] = ()
    webhooks: tuple[Webhook, ...] = ()
    window: float = DEFAULT_WINDOW
    retention: tuple[RetentionRule, ...] = ()
    retention_interval: float = 3600.0
    quotas: tuple[Quota, ...] = ()
    proxies: tuple[Proxy, ...] = ()
    web: bool = True

    @property
    def authenticates(self) -> bool:
        """Whether anything but "everybody may do everything" is configured."""
        return bool(self.htpasswd or self.token is not None or self.rules)

    @property
    def place(self) -> str:
        """Where everything is kept, for people."""
        if self.bucket is None:
            return self.root
        return f"s3://{self.bucket.bucket}/{self.bucket.prefix}".rstrip("/")

    def address(self) -> tuple[str, int]:
        """(host, port) of `listen`.

        Raises:
            LaminaError: kind INVALID.
        """
        host, colon, port = self.listen.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            raise LaminaError(
                f"invalid address {self.listen!r}: expected HOST:PORT", kind=Kind.INVALID
            )
        return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104  # asked for


def load_config(path: str, *, root: str) -> Config:
    """The configuration in the file; paths in it are relative to its directory.

    Raises:
        LaminaError: kind NOT_FOUND if the file is not there.
        SourceError: what is wrong, and where.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError as error:
        raise LaminaError(f"{path} does not exist", kind=Kind.NOT_FOUND) from error
    except ValueError as error:
        raise LaminaError(f"{path}: not UTF-8 text", kind=Kind.INVALID) from error
    return parse_config(text, name=path, root=root)


def parse_config(text: str, *, name: str, root: str = "") -> Config:
    """The configuration in `text`. Raises as `load_config`."""
    source = SourceText(name, tuple(text.splitlines()))
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"at line (\d+)", str(error))
        line = int(place[1]) if place is not None else max(1, len(source.lines))
        what = re.sub(r" \(at .*\)$", "", str(error))
        raise SourceError(what, span=Span(source, line, line)) from error
    reader = _ConfigReader(source, document, os.path.dirname(os.path.abspath(name)))
    return reader.config(root)


class _ConfigReader(Reader):
    """Reads the tables that are not a module's own."""

    def config(self, root: str) -> Config:
        self.known(self._document, "", _TABLES)
        http = self.table("http")
        storage = self.table("storage")
        limits = self.table("limits")
        gc = self.table("gc")
        auth = self.table("auth")
        history = self.table("history")
        for table, keys in _KEYS.items():
            self.known(self.table(table), table, keys)
        bucket = self._bucket(storage)
        found = Config(
            root=root or self.path(storage, "storage", "root"),
            bucket=bucket,
            share_store=self.path(storage, "storage", "share-store"),
            listen=self.text(http, "http", "listen", "127.0.0.1:5000"),
            tls_certificate=self.path(http, "http", "tls-certificate"),
            tls_key=self.path(http, "http", "tls-key"),
            threads=self.number(http, "http", "threads", 1, least=1),
            access_log=self.text(http, "http", "access-log", ""),
            header_timeout=self.time(http, "http", "header-timeout", 30.0),
            read_only=self.boolean(storage, "storage", "read-only"),
            limits=Limits(
                manifest=self.size(limits, "limits", "manifest", 4 << 20),
                blob=self.size(limits, "limits", "blob", 0),
                page=self.number(limits, "limits", "page", 1000, least=1),
            ),
            edge=EdgeLimits(
                idle=self.time(limits, "limits", "idle-timeout", 60.0),
                body=self.time(limits, "limits", "body-timeout", 6 * 3600.0),
                per_client=self.number(limits, "limits", "requests-per-client", 0, least=0),
            ),
            max_uploads=self.number(limits, "limits", "uploads", 10_000, least=1),
            upload_expiry=self.time(limits, "limits", "upload-expiry", 86400.0),
            gc_interval=self.time(gc, "gc", "interval", 600.0),
            grace=self.time(gc, "gc", "grace", 3600.0),
            untagged_after=(
                self.time(gc, "gc", "untagged-after", 0.0) if "untagged-after" in gc else None
            ),
            scrub_interval=self.time(gc, "gc", "scrub-interval", 0.0),
            htpasswd=self.path(auth, "auth", "htpasswd"),
            basic_realm=self.text(auth, "auth", "realm", "lamina registry"),
            token=self._token(auth),
            rules=self._rules(),
            webhooks=self._webhooks(),
            window=self.time(history, "history", "window", DEFAULT_WINDOW),
            retention=read_retention(self),
            retention_interval=self.time(gc, "gc", "retention-interval", 3600.0),
            quotas=read_quotas(self),
            proxies=read_proxies(self),
            web=self.boolean(self.table("web"), "web", "enabled", default=True),
        )
        self._check(found, http, auth)
        return found

    def _check(self, found: Config, http: Mapping[str, object], auth: Mapping[str, object]) -> None:
        if bool(found.tls_certificate) != bool(found.tls_key):
            present = "tls-certificate" if found.tls_certificate else "tls-key"
            self.fail("http", present, "tls-certificate and tls-key go together")
        if '"' in found.basic_realm or not found.basic_realm.isprintable():
            self.fail("auth", "realm", "quotes and control characters are not possible in a realm")
        try:
            found.address()
        except LaminaError as error:
            self.fail("http", "listen", error.what)
        if found.bucket is not None and found.root:
            self.fail("storage.s3", "", "a registry is in a bucket or in a directory, not in both")
        if found.bucket is not None:
            for name in ("retention", "quotas", "proxy", "history"):
                if name in self._document:
                    place = name if name == "history" else f"{name}#0"
                    self.fail(place, "", f"{name} is not possible for a registry in a bucket")
        if not found.root and found.bucket is None:
            raise SourceError("storage.root is missing", span=None, hint="or give --root DIR")

    def _bucket(self, storage: Mapping[str, object]) -> Location | None:
        if "s3" not in storage:
            return None
        place = "storage.s3"
        table = self.table(place)
        found = Location(
            bucket=self.text(table, place, "bucket", ""),
            prefix=self.text(table, place, "prefix", "").strip("/"),
            endpoint=self.text(table, place, "endpoint", "").rstrip("/"),
            region=self.text(table, place, "region", ""),
            access_key_id=self.text(table, place, "access-key-id", ""),
            secret_access_key=self.text(table, place, "secret-access-key", ""),
            session_token=self.text(table, place, "session-token", ""),
            path_style=self.boolean(table, place, "path-style", default=True),
            ca_certificate=self.path(table, place, "ca-certificate"),
            redirect=self.boolean(table, place, "redirect"),
            signed_for=self.time(table, place, "signed-for", 1200.0),
        )
        if not _BUCKET.fullmatch(found.bucket):
            self.fail(place, "bucket", f"invalid bucket name {found.bucket!r}")
        if found.endpoint and not found.endpoint.startswith(("http://", "https://")):
            self.fail(place, "endpoint", "endpoint must begin with http:// or https://")
        if bool(found.access_key_id) != bool(found.secret_access_key):
            present = "access-key-id" if found.access_key_id else "secret-access-key"
            self.fail(place, present, "access-key-id and secret-access-key go together")
        if found.signed_for < 1:
            self.fail(place, "signed-for", "signed-for must be at least a second")
        return found

    def _token(self, auth: Mapping[str, object]) -> TokenTrust | None:
        value = auth.get("token")
        if value is None:
            return None
        table = self.table("auth.token")
        keys = self.texts(table, "auth.token", "keys")
        trust = TokenTrust(
            issuer=self.text(table, "auth.token", "issuer", ""),
            service=self.text(table, "auth.token", "service", ""),
            realm=self.text(table, "auth.token", "realm", ""),
            keys=tuple(self.absolute(key) for key in keys),
            signing_key=self.path(table, "auth.token", "signing-key"),
            lifetime=self.time(table, "auth.token", "lifetime", 300.0),
            refresh_lifetime=self.time(table, "auth.token", "refresh-lifetime", 30 * 86400.0),
        )
        for key, given in (("issuer", trust.issuer), ("service", trust.service)):
            if not given or '"' in given:
                self.fail("auth.token", key, f"{key} is missing or contains a quote")
        if not trust.keys and not trust.signing_key:
            self.fail("auth.token", "", "keys (of another issuer) or signing-key is needed")
        if trust.signing_key and "htpasswd" not in auth:
            self.fail(
                "auth.token", "signing-key", "tokens are issued to the users of auth.htpasswd"
            )
        if not trust.realm or '"' in trust.realm:
            self.fail("auth.token", "realm", "realm, the address of the token service, is missing")
        return trust

    def _rules(self) -> tuple[Rule, ...]:
        found = []
        for position, table in enumerate(self.tables("rules")):
            place = f"rules#{position}"
            self.known(table, place, ("repositories", "users", "actions"))
            actions = self.texts(table, place, "actions")
            for action in actions:
                if action not in ACTIONS:
                    self.fail(place, "actions", f"unknown action {action!r}: {', '.join(ACTIONS)}")
            if not actions:
                self.fail(place, "actions", "actions are missing")
            users = self.texts(table, place, "users")
            if not users:
                self.fail(place, "users", "users are missing")
            pattern = self.text(table, place, "repositories", "")
            if not pattern:
                self.fail(place, "repositories", "repositories is missing")
            found.append(Rule(pattern, frozenset(users), frozenset(actions)))
        return tuple(found)

    def _webhooks(self) -> tuple[Webhook, ...]:
        found = []
        for position, table in enumerate(self.tables("webhooks")):
            place = f"webhooks#{position}"
            self.known(table, place, ("url", "events", "secret"))
            url = self.text(table, place, "url", "")
            if not url.startswith(("http://", "https://")):
                self.fail(place, "url", "url must begin with http:// or https://")
            events = frozenset(self.texts(table, place, "events")) or Webhook(url).events
            for event in events - Webhook(url).events:
                self.fail(place, "events", f"unknown event {event!r}: push, delete")
            found.append(Webhook(url, events, self.text(table, place, "secret", "")))
        return tuple(found)


_TABLES = (
    "http",
    "storage",
    "limits",
    "gc",
    "auth",
    "rules",
    "webhooks",
    "history",
    "retention",
    "quotas",
    "proxy",
    "web",
)
_KEYS = {
    "http": ("listen", "tls-certificate", "tls-key", "threads", "access-log", "header-timeout"),
    "storage": ("root", "read-only", "share-store", "s3"),
    "storage.s3": (
        "bucket",
        "prefix",
        "endpoint",
        "region",
        "access-key-id",
        "secret-access-key",
        "session-token",
        "path-style",
        "ca-certificate",
        "redirect",
        "signed-for",
    ),
    "limits": (
        "manifest",
        "blob",
        "page",
        "idle-timeout",
        "body-timeout",
        "requests-per-client",
        "uploads",
        "upload-expiry",
    ),
    "gc": ("interval", "grace", "untagged-after", "scrub-interval", "retention-interval"),
    "history": ("window",),
    "auth": ("htpasswd", "realm", "token"),
    "auth.token": (
        "issuer",
        "service",
        "realm",
        "keys",
        "signing-key",
        "lifetime",
        "refresh-lifetime",
    ),
    "web": ("enabled",),
}
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")  # S3, "Bucket naming rules"


def with_flags(
    config: Config,
    *,
    listen: str = "",
    read_only: bool = False,
    access_log: str = "",
    share_store: str = "",
) -> Config:
    """The configuration with what the command line said instead."""
    if listen:
        config = replace(config, listen=listen)
    if read_only:
        config = replace(config, read_only=True)
    if access_log:
        config = replace(config, access_log=access_log)
    if share_store:
        config = replace(config, share_store=share_store)
    return config
