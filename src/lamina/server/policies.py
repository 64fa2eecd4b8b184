# SPDX-License-Identifier: Apache-2.0
"""Three tables of the configuration: `[[proxy]]`, `[[quotas]]`, `[[retention]]`."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from lamina.server.quotas import Quota
from lamina.server.retention import EVERY, RetentionRule
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.server.tables import Reader

_PREFIX = re.compile(r"(?:[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*/)*", re.ASCII)
_PROXY_KEYS = (
    "prefix",
    "upstream",
    "username",
    "password",
    "password-file",
    "tag-ttl",
    "serve-stale",
    "namespace",
)
_RETENTION_KEYS = (
    "repositories",
    "exclude-repositories",
    "tags",
    "exclude-tags",
    "protect",
    "keep-newest",
    "keep-pushed",
    "keep-pulled",
    "untagged-after",
)


class Proxy(Record):
    """Repositories below `prefix` (empty, or with a slash at its end) are cached from `upstream`.

    `tag_ttl` in seconds: for so long the upstream is not asked again about a tag. `serve_stale`:
    what is known is served while the upstream does not answer.
    """

    prefix: str
    upstream: str
    username: str = ""
    password: str = ""
    tag_ttl: float = 300.0
    serve_stale: bool = True
    namespace: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.prefix!r}, ...)"  # never the password in a log or traceback


def read_proxies(reader: Reader) -> tuple[Proxy, ...]:
    """The `[[proxy]]` tables. Raises SourceError, as the others here."""
    found: list[Proxy] = []
    for position, table in enumerate(reader.tables("proxy")):
        place = f"proxy#{position}"
        reader.known(table, place, _PROXY_KEYS)
        prefix = reader.text(table, place, "prefix", "")
        if prefix and not prefix.endswith("/"):
            prefix += "/"
        if "prefix" not in table:
            reader.fail(place, "", 'prefix is missing (prefix = "" means every repository)')
        if not _PREFIX.fullmatch(prefix):
            reader.fail(place, "prefix", f"{prefix!r} cannot begin a repository's name")
        if any(other.prefix == prefix for other in found):
            reader.fail(place, "prefix", f"another proxy has the prefix {prefix!r}")
        upstream = reader.text(table, place, "upstream", "")
        parts = urlsplit(upstream)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            reader.fail(place, "upstream", "upstream must be an http:// or https:// address")
        if parts.username is not None or parts.query or parts.fragment:
            reader.fail(place, "upstream", "upstream may have no user, query or fragment in it")
        password = reader.text(table, place, "password", "")
        if "password-file" in table:
            if password:
                reader.fail(place, "password-file", "password or password-file, not both")
            password = _read_secret(reader, table, place)
        username = reader.text(table, place, "username", "")
        if bool(username) != bool(password):
            reader.fail(place, "username", "username and password (or password-file) go together")
        found.append(
            Proxy(
                prefix,
                upstream,
                username,
                password,
                reader.time(table, place, "tag-ttl", 300.0),
                serve_stale=reader.boolean(table, place, "serve-stale", default=True),
                namespace=reader.text(table, place, "namespace", ""),
            )
        )
    return tuple(found)


def read_quotas(reader: Reader) -> tuple[Quota, ...]:
    """The `[[quotas]]` tables."""
    found = []
    for position, table in enumerate(reader.tables("quotas")):
        place = f"quotas#{position}"
        reader.known(table, place, ("repositories", "bytes", "tags"))
        pattern = reader.text(table, place, "repositories", "")
        if not pattern:
            reader.fail(place, "repositories", "repositories is missing")
        if "bytes" not in table and "tags" not in table:
            reader.fail(place, "", "bytes or tags is needed")
        size = reader.size(table, place, "bytes", 0)
        tags = reader.number(table, place, "tags", 0, least=0)
        found.append(Quota(pattern, size, tags))
    return tuple(found)


def read_retention(reader: Reader) -> tuple[RetentionRule, ...]:
    """The `[[retention]]` tables."""
    found = []
    for position, table in enumerate(reader.tables("retention")):
        place = f"retention#{position}"
        reader.known(table, place, _RETENTION_KEYS)
        pattern = reader.text(table, place, "repositories", "")
        if not pattern:
            reader.fail(place, "repositories", "repositories is missing")
        protect = reader.boolean(table, place, "protect")
        actions = [
            key
            for key in ("keep-newest", "keep-pushed", "keep-pulled", "untagged-after")
            if key in table
        ]
        if protect and actions:
            reader.fail(place, actions[0], f"protect keeps everything: {actions[0]} has no meaning")
        if not protect and not actions:
            reader.fail(
                place,
                "",
                "protect, keep-newest, keep-pushed, keep-pulled or untagged-after is needed",
            )

        def seconds(key: str, table: dict[str, object] = table, place: str = place) -> float | None:
            return reader.time(table, place, key, 0.0) if key in table else None

        found.append(
            RetentionRule(
                pattern,
                reader.texts(table, place, "exclude-repositories"),
                reader.texts(table, place, "tags") if "tags" in table else EVERY,
                reader.texts(table, place, "exclude-tags"),
                protect=protect,
                keep_newest=(
                    reader.number(table, place, "keep-newest", 0, least=0)
                    if "keep-newest" in table
                    else None
                ),
                keep_pushed=seconds("keep-pushed"),
                keep_pulled=seconds("keep-pulled"),
                untagged_after=seconds("untagged-after"),
            )
        )
    return tuple(found)


def _read_secret(reader: Reader, table: dict[str, object], place: str) -> str:
    path = reader.path(table, place, "password-file")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().rstrip("\r\n")
    except (OSError, ValueError) as error:
        reader.fail(place, "password-file", f"cannot read {path}: {error}")
        raise AssertionError("unreachable: fail raises") from error
