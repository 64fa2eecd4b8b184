# SPDX-License-Identifier: Apache-2.0
"""`registries.conf` version 2: mirrors, insecure and blocked registries, rewriting, short names.

Source: containers-registries.conf(5). Values are read as that page defines them; keys it does not
know are an error in the main file's `[[registry]]` tables, so that a typing error is not silent.
"""

from __future__ import annotations

import os
import tomllib

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SYSTEM = "/etc/containers"
_FROM = frozenset({"all", "digest-only", "tag-only"})
_REGISTRY_KEYS = {"prefix", "location", "insecure", "blocked", "mirror", "mirror-by-digest-only"}
_MIRROR_KEYS = {"location", "insecure", "pull-from-mirror"}


class Mirror(Record):
    """A place to try first. `pull_from`: all, digest-only or tag-only."""

    location: str
    insecure: bool = False
    pull_from: str = "all"


class Registry(Record):
    """A `[[registry]]` table: `prefix` is what names must begin with, `location` what replaces it
    (empty: nothing is replaced).
    """

    prefix: str
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()


class Place(Record):
    """Where a repository can be asked: `location` is `host[:port]/path`."""

    location: str
    insecure: bool
    is_mirror: bool = False


class RegistriesConf(Record):
    """All that the files say; later drop-ins win."""

    registries: tuple[Registry, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()

    def places(self, name: str, *, by_digest: bool, mirrors: bool = True) -> tuple[Place, ...]:
        """Where `registry/repository` can be had, in the order to try; without `mirrors` only the
        registry itself (for pushing).

        Raises:
            LaminaError: DENIED if the registry is blocked.
        """
        entry = self._find(name)
        if entry is None:
            return (Place(name, insecure=False),)
        if entry.blocked:
            raise LaminaError(
                f"{name} is blocked by registries.conf (prefix {entry.prefix})", kind=Kind.DENIED
            )
        rest = name[len(_matched(entry.prefix, name) or "") :]
        found = [
            Place(mirror.location + rest, mirror.insecure, is_mirror=True)
            for mirror in (entry.mirrors if mirrors else ())
            if mirror.pull_from == "all" or (mirror.pull_from == "digest-only") == by_digest
        ]
        own = entry.location + rest if entry.location else name
        return (*found, Place(own, entry.insecure))

    def alias(self, short: str) -> str:
        """What a short name (no registry, no tag) stands for; empty if it has no alias."""
        return dict(self.aliases).get(short, "")

    def _find(self, name: str) -> Registry | None:
        matching = [
            (len(matched), position)
            for position, entry in enumerate(self.registries)
            if (matched := _matched(entry.prefix, name)) is not None
        ]
        return self.registries[max(matching)[1]] if matching else None


def _matched(prefix: str, name: str) -> str | None:
    """The beginning of `name` that the prefix stands for; None if it does not match."""
    if prefix.startswith("*."):
        host = name.partition("/")[0]
        domain, _, path = prefix[1:].partition("/")
        if not host.partition(":")[0].endswith(domain.partition(":")[0]):
            return None
        if ":" in domain and not host.endswith(domain):
            return None
        return _matched(f"{host}/{path}" if path else host, name)
    if name == prefix or name.startswith((prefix + "/", prefix + ":", prefix + "@")):
        return prefix
    return None


def load(env: Mapping[str, str]) -> RegistriesConf:
    """What is configured for this user: CONTAINERS_REGISTRIES_CONF, else the user's file, else the
    system's; drop-ins of `registries.conf.d` on top of the last two.

    Raises:
        LaminaError: INVALID for a broken file, NOT_FOUND for a missing CONTAINERS_REGISTRIES_CONF.
    """
    explicit = env.get("CONTAINERS_REGISTRIES_CONF", "")
    if explicit:
        if not os.path.exists(explicit):
            raise LaminaError(
                f"CONTAINERS_REGISTRIES_CONF: {explicit} does not exist", kind=Kind.NOT_FOUND
            )
        return _merge(RegistriesConf(), _parse_file(explicit))
    home = env.get("HOME", "")
    base = env.get("XDG_CONFIG_HOME", "") or (f"{home}/.config" if home else "")
    user = f"{base}/containers" if base else ""
    conf = RegistriesConf()
    for directory in (user, SYSTEM):
        if directory and os.path.exists(f"{directory}/registries.conf"):
            conf = _parse_file(f"{directory}/registries.conf")
            break
    for directory in (SYSTEM, user):
        if directory:
            for path in _drop_ins(f"{directory}/registries.conf.d"):
                conf = _merge(conf, _parse_file(path))
    return conf


def _drop_ins(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    return [f"{directory}/{name}" for name in names if name.endswith(".conf")]


def _merge(below: RegistriesConf, above: RegistriesConf) -> RegistriesConf:
    replaced = {entry.prefix for entry in above.registries}
    kept = tuple(entry for entry in below.registries if entry.prefix not in replaced)
    aliases = dict(below.aliases) | dict(above.aliases)
    return replace(
        below,
        registries=kept + above.registries,
        aliases=tuple((name, value) for name, value in aliases.items() if value),
    )


def _parse_file(path: str) -> RegistriesConf:
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except ValueError as error:
        raise LaminaError(f"{path}: {error}", kind=Kind.INVALID) from error
    except PermissionError as error:
        raise LaminaError(f"cannot read {path}: permission denied", kind=Kind.DENIED) from error
    return parse(document, path=path)


def parse(document: Mapping[str, object], *, path: str) -> RegistriesConf:
    """A parsed TOML document as configuration. Raises LaminaError of kind INVALID."""
    if "registries" in document:
        raise LaminaError(
            f"{path}: it is in version 1 of the format, which is not read",
            kind=Kind.INVALID,
            hint="write [[registry]] tables: see containers-registries.conf(5)",
        )
    registries = tuple(_registry(entry, path) for entry in _tables(document, "registry", path))
    aliases = document.get("aliases", {})
    if not isinstance(aliases, dict) or not all(isinstance(v, str) for v in aliases.values()):
        raise LaminaError(f"{path}: aliases is not a table of strings", kind=Kind.INVALID)
    return RegistriesConf(registries, tuple(aliases.items()))


def _registry(entry: Mapping[str, object], path: str) -> Registry:
    _check_keys(entry, _REGISTRY_KEYS, path)
    location = _text(entry, "location", path)
    prefix = _text(entry, "prefix", path) or location
    if not prefix:
        raise LaminaError(f"{path}: a registry has no prefix and no location", kind=Kind.INVALID)
    only_digest = _flag(entry, "mirror-by-digest-only", path)
    mirrors = []
    for table in _tables(entry, "mirror", path):
        _check_keys(table, _MIRROR_KEYS, path)
        pull_from = _text(table, "pull-from-mirror", path) or "all"
        if pull_from not in _FROM:
            raise LaminaError(
                f"{path}: pull-from-mirror is {pull_from!r}, not all, digest-only or tag-only",
                kind=Kind.INVALID,
            )
        mirror = Mirror(
            _location(_text(table, "location", path), path),
            _flag(table, "insecure", path),
            "digest-only" if only_digest else pull_from,
        )
        mirrors.append(mirror)
    return Registry(
        prefix.rstrip("/"),
        _location(location, path) if location else "",
        _flag(entry, "insecure", path),
        _flag(entry, "blocked", path),
        tuple(mirrors),
    )


def _location(text: str, path: str) -> str:
    if not text or "://" in text:
        raise LaminaError(
            f"{path}: location {text!r} must be host[:port][/path], without scheme",
            kind=Kind.INVALID,
        )
    return text.rstrip("/")


def _check_keys(entry: Mapping[str, object], known: set[str], path: str) -> None:
    unknown = sorted(set(entry) - known)
    if unknown:
        raise LaminaError(f"{path}: unknown key {unknown[0]!r}", kind=Kind.INVALID)


def _tables(entry: Mapping[str, object], key: str, path: str) -> Sequence[Mapping[str, object]]:
    value = entry.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise LaminaError(f"{path}: {key} is not an array of tables", kind=Kind.INVALID)
    return value


def _text(entry: Mapping[str, object], key: str, path: str) -> str:
    value = entry.get(key, "")
    if not isinstance(value, str):
        raise LaminaError(f"{path}: {key} is not a string", kind=Kind.INVALID)
    return value


def _flag(entry: Mapping[str, object], key: str, path: str) -> bool:
    value = entry.get(key, False)
    if not isinstance(value, bool):
        raise LaminaError(f"{path}: {key} is not true or false", kind=Kind.INVALID)
    return value
