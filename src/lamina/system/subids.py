# SPDX-License-Identifier: Apache-2.0
"""The subordinate ids of a user (subuid(5), subgid(5)), and the maps of a user namespace made of them.

A map has the user's own id as 0 and the ranges behind it, from 1 on, as podman's and Docker's
rootless modes have: files of a store mean the same to each of a user's processes.
"""

from __future__ import annotations

import os
import pwd
import stat

from lamina.start.record import Record
from lamina.system.programs import find_program, output_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SUBUID, SUBGID = "/etc/subuid", "/etc/subgid"
_NSSWITCH = "/etc/nsswitch.conf"
MAX_LINES = 340  # of a map (user_namespaces(7), Linux 4.15)
_MAX_ID = (1 << 32) - 1  # the last one, -1, means "no change" to chown


class Range(Record):
    """`count` ids from `start` on."""

    start: int
    count: int


class Ranges(Record):
    """A user's subordinate uids and gids."""

    uids: tuple[Range, ...] = ()
    gids: tuple[Range, ...] = ()

    def __bool__(self) -> bool:
        """Whether there are any; uids alone are no use, nor are gids."""
        return bool(self.uids) and bool(self.gids)


def parse_ranges(text: str, owners: Iterable[str]) -> tuple[Range, ...]:
    """The ranges in a file's text that belong to any of `owners` (a name, a uid in digits). Pure.

    Lines that are no ranges are passed over, as newuidmap does; so are those that overlap an
    earlier one, which no map may have.
    """
    wanted = set(owners)
    found: list[Range] = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) != 3 or fields[0] not in wanted:
            continue
        if not all(field.isascii() and field.isdigit() for field in fields[1:]):
            continue
        start, count = int(fields[1]), int(fields[2])
        if count == 0 or start + count > _MAX_ID:
            continue
        if not any(start < r.start + r.count and r.start < start + count for r in found):
            found.append(Range(start, count))
    return tuple(found[: MAX_LINES - 1])


def parse_getsubids(text: str) -> tuple[Range, ...]:
    """The ranges that `getsubids` prints: `0: name 100000 65536`. Pure."""
    rows = [line.split() for line in text.splitlines()]
    lines = [f"any:{row[2]}:{row[3]}" for row in rows if len(row) == 4 and row[0].endswith(":")]
    return parse_ranges("\n".join(lines), ["any"])


def map_arguments(own: int, ranges: Sequence[Range]) -> list[str]:
    """The arguments of newuidmap(1) after the pid: 0 is `own`, then come the ranges. Pure."""
    words = ["0", str(own), "1"]
    inside = 1
    for each in ranges:
        words += [str(inside), str(each.start), str(each.count)]
        inside += each.count
    return words


def read_ranges(uid: int, name: str, *, search_path: str) -> Ranges:
    """The subordinate ids of the user, from the files or, where nsswitch.conf names another source,
    from `getsubids`.
    """
    owners = [text for text in (name, str(uid)) if text]
    found = Ranges(parse_ranges(_read(SUBUID), owners), parse_ranges(_read(SUBGID), owners))
    if found or not _has_other_source(_read(_NSSWITCH)):
        return found
    return Ranges(_ask(name or str(uid), search_path), _ask(name or str(uid), search_path, "-g"))


def _has_other_source(nsswitch: str) -> bool:
    for line in nsswitch.splitlines():
        database, colon, sources = line.partition("#")[0].partition(":")
        if colon and database.strip() == "subid":
            return sources.split() != ["files"]
    return False


def _ask(name: str, search_path: str, *options: str) -> tuple[Range, ...]:
    program = find_program("getsubids", search_path=search_path)
    if not program:
        return ()
    status, output, _ = output_of([program, *options, name], env={"PATH": search_path})
    return parse_getsubids(output.decode("utf-8", "replace")) if status == 0 else ()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def user_name(uid: int) -> str:
    """The name of the account with that uid; empty if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def mending_command(uid: int) -> str:
    """What gives the user subordinate ids, if nobody else has these."""
    name = user_name(uid)
    if not name:
        line = f"{uid}:100000:65536"
        return f"echo {line} | sudo tee -a {SUBUID} {SUBGID}"
    return f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"


def can_map(*, search_path: str) -> str:
    """Why newuidmap and newgidmap are no use here; empty if they are."""
    for name in ("newuidmap", "newgidmap"):
        path = find_program(name, search_path=search_path)
        if not path:
            return f"{name} is not installed (package uidmap, or shadow-utils)"
        if not _may_set_ids(path):
            return f"{path} is neither set-user-ID root nor has it the capability to set ids"
    return ""


def _may_set_ids(path: str) -> bool:
    found = os.stat(path)
    if found.st_mode & stat.S_ISUID and found.st_uid == 0:
        return True
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False
