# SPDX-License-Identifier: Apache-2.0
"""The store: blobs, snapshots, metadata, leases under one root, safe for many processes.

May import layer, system, spec, tasks, events, errors. Start with `ports` (the contracts), then
`local` (how the parts make a store), `content`, `snapshots`, `metadata`, `leases`, `durability`,
`gc`. docs/store-layout.md draws it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.store.local import LocalStore as LocalStore
    from lamina.store.local import open_store as open_store

__all__ = ["LocalStore", "open_store"]


def __getattr__(name: str) -> object:
    """The two names above, imported when asked for: `ports` alone must not load sqlite."""
    if name in __all__:
        from lamina.store import local

        return getattr(local, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
