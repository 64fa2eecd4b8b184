# SPDX-License-Identifier: Apache-2.0
"""What happened in a store, and what happens: the event log, selected as `docker events` does."""

from __future__ import annotations

import time

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record
from lamina.store.eventreader import EventReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lamina.store.eventreader import Occurrence

_POLL_SECONDS = 0.05  # between two looks at the log
_FUZZY = ("container", "volume", "network")  # by the beginning of id or name
_NAMED = frozenset((*_FUZZY, "event", "image", "label", "scope", "type"))
_ABSENT = {
    "config": "configs",
    "daemon": "a daemon",
    "node": "nodes",
    "plugin": "plugins",
    "secret": "secrets that outlive a build",
    "service": "services",
}
# moby, daemon/events/filter.go: what follows a colon need not be named
_WITH_DETAIL = frozenset({"health_status", "exec_create", "exec_start"})


class Selection(Record):
    """Which events: those of all `filters`, of whose values one must fit (of labels: all)."""

    filters: Mapping[str, Sequence[str]]

    def includes(self, occurrence: Occurrence) -> bool:
        """Whether the event is one of them (moby, daemon/events/filter.go)."""
        attributes = dict(occurrence.attributes)
        return all(
            _fits(occurrence, attributes, name, values) for name, values in self.filters.items()
        )


def parse_filters(texts: Sequence[str]) -> Selection:
    """The selection of several `name=value`. Raises LaminaError of kind USAGE or UNSUPPORTED."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().lower()
        if not equals:
            raise LaminaError(
                f"invalid argument {text!r} for --filter: bad format of filter "
                "(expected name=value)",
                kind=Kind.USAGE,
            )
        if name in _ABSENT:
            raise LaminaError(
                f"filter {name!r} is not supported: lamina has no {_ABSENT[name]}",
                kind=Kind.UNSUPPORTED,
            )
        if name not in _NAMED:
            raise LaminaError(f"invalid filter {name!r}", kind=Kind.USAGE)
        found.setdefault(name, []).append(value.strip())
    return Selection(found)


def _fits(
    occurrence: Occurrence, attributes: Mapping[str, str], name: str, values: Sequence[str]
) -> bool:
    if name == "type":
        return occurrence.type in values
    if name == "scope":
        return "local" in values
    if name == "event":
        if not _WITH_DETAIL.isdisjoint(values):
            return occurrence.action.startswith(tuple(values))
        return occurrence.action in values
    if name == "label":
        return all(_has_label(attributes, text) for text in values)
    if name == "image":
        shown = attributes.get("name" if occurrence.type == "image" else "image", "")
        names = {occurrence.id, shown, _untagged(occurrence.id), _untagged(shown)}
        return not names.isdisjoint(values)
    return (occurrence.id.startswith(tuple(values))) or attributes.get("name", "").startswith(
        tuple(values)
    )


def _has_label(attributes: Mapping[str, str], text: str) -> bool:
    name, equals, value = text.partition("=")
    return name in attributes and (not equals or attributes[name] == value)


def _untagged(name: str) -> str:
    """A reference without its tag or digest."""
    base = name.partition("@")[0]
    head, colon, tag = base.rpartition(":")
    return head if colon and "/" not in tag else base


def happenings(
    root: str,
    selection: Selection,
    *,
    now: Callable[[], int],
    since: int | None = None,
    until: int | None = None,
    pause: Callable[[float], object] = time.sleep,
) -> Iterator[Occurrence]:
    """The events of the store at `root` from `since` on (None: from now on) to `until` (None: for
    ever), in POSIX nanoseconds. A moment `until` that lies in the future is waited for.
    """
    with EventReader(root, from_end=since is None and until is None) as reader:
        while True:
            is_last = until is not None and now() >= until  # before reading: what comes after waits
            for occurrence in reader.new():
                if until is not None and occurrence.at > until:
                    continue
                if (since is None or occurrence.at >= since) and selection.includes(occurrence):
                    yield occurrence
            if is_last:
                return
            pause(_POLL_SECONDS)
