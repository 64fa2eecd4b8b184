# SPDX-License-Identifier: Apache-2.0
"""Keys of active snapshots that live no longer than their process, and the removal of dead ones.

A key is `PURPOSE@PID-STARTTIME-NUMBER`. (A container's snapshot outlives processes: its key is the
container's id, without an `@`.)
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.system.process import ProcessIdentity, unique_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.store.ports import Store


def working_key(purpose: str) -> str:
    """A new key for an active snapshot of this process."""
    return f"{purpose}@{unique_name()}"


def sweep_working(store: Store) -> None:
    """Remove the active snapshots of processes that are gone. No error if another is faster."""
    for snapshot in store.snapshots.walk():
        if not snapshot.committed and _is_abandoned(snapshot.name):
            try:
                store.snapshots.remove(snapshot.name)
            except LaminaError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise


def _is_abandoned(key: str) -> bool:
    parts = key.rpartition("@")[2].split("-")
    if "@" not in key or len(parts) != 3 or not all(part.isdigit() for part in parts):
        return False
    return not ProcessIdentity(int(parts[0]), int(parts[1])).alive()
