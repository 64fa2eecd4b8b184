# SPDX-License-Identifier: Apache-2.0
"""The host's apt sources, one-line and deb822 (sources.list(5)): which mirror it uses. Pure."""

from __future__ import annotations

import re

from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# suites that have neither -updates nor -security
_ROLLING = frozenset({"sid", "unstable", "experimental", "rc-buggy", "devel"})
_OPTIONS = re.compile(r"\[([^\]]*)\]")


class AptSource(Record):
    """One suite of one repository; `signed_by` is a keyring's path or empty."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""

    def line(self, *, with_keyring: bool = False) -> str:
        """The one-line form."""
        options = f" [signed-by={self.signed_by}]" if with_keyring and self.signed_by else ""
        return f"deb{options} {self.uri} {self.suite} {' '.join(self.components)}".rstrip()


def parse_one_line(text: str) -> list[AptSource]:
    """The `deb` entries of a .list file; malformed lines are left out, as they may be anything."""
    found = []
    for line in text.splitlines():
        words = line.partition("#")[0]
        options = _OPTIONS.search(words)
        fields = _OPTIONS.sub(" ", words).split()
        if len(fields) < 3 or fields[0] != "deb":
            continue
        signed_by = ""
        for option in options[1].split() if options else ():
            name, _, value = option.partition("=")
            signed_by = value if name.lower() == "signed-by" else signed_by
        found.append(AptSource(fields[1], fields[2], tuple(fields[3:]), _keyring(signed_by)))
    return found


def parse_deb822(text: str) -> list[AptSource]:
    """The enabled `deb` entries of a .sources file, one for each URI and suite."""
    found = []
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields = _fields(stanza)
        if "deb" not in fields.get("types", "").split():
            continue
        if fields.get("enabled", "yes").lower() in {"no", "false", "without", "off", "disable"}:
            continue
        components = tuple(fields.get("components", "").split())
        signed_by = _keyring(fields.get("signed-by", ""))
        found += [
            AptSource(uri, suite, components, signed_by)
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return found


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0] in " \t" and name:
            fields[name] += "\n" + line.strip()
            continue
        key, colon, value = line.partition(":")
        if colon:
            name = key.strip().lower()
            fields[name] = value.strip()
    return fields


def _keyring(text: str) -> str:
    """A keyring's path; an embedded key or a fingerprint is none."""
    first = text.split("\n", maxsplit=1)[0].strip()
    return first if first.startswith("/") else ""


def sources_for(
    host: Sequence[AptSource], *, distribution: str, suite: str, components: Iterable[str] = ()
) -> list[AptSource]:
    """Sources of `suite` on the mirrors that the host uses for `distribution`; empty if it has none.

    A repository is the distribution's if its URI's last part begins with the name (`debian`,
    `debian-security`). The host's `-updates` and `-security` suites are taken over, with the name
    of the wanted suite in place of the host's.
    """
    own = [source for source in host if _is_of(source, distribution)]
    plain = [source for source in own if _is_plain(source)]
    if not plain:
        return []
    chosen = tuple(components) or ("main",)
    found = [replace(plain[0], suite=suite, components=chosen)]
    if suite in _ROLLING:
        return found
    for ending in ("-updates", "-security"):
        match = next((source for source in own if source.suite.endswith(ending)), None)
        if match is not None:
            found.append(replace(match, suite=suite + ending, components=chosen))
    return found


def _is_plain(source: AptSource) -> bool:
    last = _last_part(source)
    return "-" not in source.suite and "/" not in source.suite and not last.endswith("-security")


def _is_of(source: AptSource, distribution: str) -> bool:
    last = _last_part(source)
    return last == distribution or last.startswith(f"{distribution}-")


def _last_part(source: AptSource) -> str:
    return source.uri.rstrip("/").rpartition("/")[2]
