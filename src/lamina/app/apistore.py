# SPDX-License-Identifier: Apache-2.0
"""Which store and which host a Python program means that says nothing about it."""

from __future__ import annotations

import os

from lamina.app.containers import Host
from lamina.app.settings import load_settings, store_root
from lamina.image import resolve
from lamina.spec.platform import Platform
from lamina.spec.platform import host as host_platform
from lamina.store import open_store as _open_store
from lamina.system.userns import own_uid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.app.settings import Settings
    from lamina.image.view import Image
    from lamina.store.ports import Store

_stores: dict[str, Store] = {}


def open_store(root: str = "") -> Store:
    """The store at `root` (empty: `LAMINA_ROOT` or the user's); opened once, then shared.

    Raises:
        LaminaError: the store belongs to someone else, or cannot be made.
    """
    path = os.path.abspath(root) if root else store_root(os.environ, own_uid())
    if path not in _stores:
        _stores[path] = _open_store(path, layers=_layer_form)
    return _stores[path]


def close_store(root: str = "") -> None:
    """Close the store at `root` (as for `open_store`), if it is open; the next use opens it again."""
    path = os.path.abspath(root) if root else store_root(os.environ, own_uid())
    if path in _stores:
        _stores.pop(path).close()


def _layer_form() -> str:
    return load_settings(os.environ, uid=own_uid()).layers


def host(settings: Settings | None) -> Host:
    """What containers of this program need to know of the host."""
    chosen = settings or load_settings(os.environ, uid=own_uid())
    return Host(runtime=chosen.runtime, subnet=chosen.subnet)


def find_image(name: str, *, platform: str = "", root: str = "") -> Image:
    """The stored image of this name, id or beginning of an id; of images for several platforms that
    for `platform`, else for this host, else the first.

    Raises:
        LaminaError: NOT_FOUND, or USAGE for a platform that is none.
    """
    store = open_store(root)
    if platform:
        return resolve.find_image(store, name, Platform.parse(platform))
    return resolve.preferred_image(store, name, host_platform(os.uname().machine))
