# SPDX-License-Identifier: Apache-2.0
"""Events of networks, in Docker's words (`lamina events`)."""

from __future__ import annotations

from lamina.store.eventlog import note

PREDEFINED = {name: name.encode().hex().ljust(64, "0") for name in ("bridge", "host", "none")}
"""Name and id; `none` has Docker's driver `null`, the others one of their name."""


def driver_of(name: str) -> str:
    """Docker's word for how the network of this name is done."""
    return {"host": "host", "none": "null"}.get(name, "bridge")


def tell(root: str, action: str, id: str, name: str, *, container: str = "") -> None:
    """Note that a network was made or removed, or that a `container` came into it or left."""
    about = {"name": name, "type": driver_of(name)}
    note(root, "network", action, id, about | ({"container": container} if container else {}))
