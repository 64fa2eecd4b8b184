# SPDX-License-Identifier: Apache-2.0
"""Use cases of volumes: list them with who uses them, show one as JSON (`app.disk` prunes them)."""

from __future__ import annotations

import re
import time

from lamina.container import volumes
from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.container.volumes import Volume
    from lamina.store.ports import Store


class VolumeUse(Record):
    """A volume and the ids of its containers."""

    volume: Volume
    containers: tuple[str, ...]


class VolumeFilter(Record):
    """Of `volume ls --filter`: names and drivers are alternatives, labels must all be there.

    `names` are regular expressions that match anywhere. `dangling`: whether no container has it.
    """

    names: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    labels: tuple[tuple[str, str | None], ...] = ()
    dangling: bool | None = None

    def takes(self, use: VolumeUse) -> bool:
        """Whether the volume is to be listed."""
        volume, labels = use.volume, dict(use.volume.labels)
        if self.drivers and "local" not in self.drivers:
            return False
        if self.names and not any(re.search(name, volume.name) for name in self.names):
            return False
        if self.dangling is not None and self.dangling is bool(use.containers):
            return False
        return all(
            name in labels and (value is None or labels[name] == value)
            for name, value in self.labels
        )


def list_volumes(store: Store, wanted: VolumeFilter | None = None) -> list[VolumeUse]:
    """The volumes in the order of their names, as people count (`v2` before `v10`)."""
    users = volumes.users(store)
    found = [
        VolumeUse(volume, tuple(users.get(volume.name, ()))) for volume in volumes.listed(store)
    ]
    chosen = [use for use in found if wanted is None or wanted.takes(use)]
    return sorted(chosen, key=lambda use: _natural(use.volume.name))


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in parts if part]


def volume_json(store: Store, volume: Volume) -> dict[str, object]:
    """The volume as `docker volume inspect` shows it."""
    return {
        "CreatedAt": _local_time(volume.created),
        "Driver": "local",
        "Labels": dict(volume.labels) or None,
        "Mountpoint": volumes.data_of(store.root, volume.name),
        "Name": volume.name,
        "Options": dict(volume.options) or None,
        "Scope": "local",
    }


def _local_time(seconds: float) -> str:
    """RFC 3339 in whole seconds, in the host's time zone."""
    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))
    return text[:-5] + "Z" if text.endswith("+0000") else f"{text[:-2]}:{text[-2:]}"


def parse_labels(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The labels of `KEY=VALUE` texts; the last one of a key wins. Raises kind USAGE."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name:
            raise LaminaError(f"invalid label: {text!r}", kind=Kind.USAGE)
        found[name] = value
    return tuple(found.items())
