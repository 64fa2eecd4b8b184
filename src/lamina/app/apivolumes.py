# SPDX-License-Identifier: Apache-2.0
"""`lamina.volumes`: volumes as Python programs use them."""

from __future__ import annotations

import builtins
import os
from typing import cast

from lamina.app import apart, disk
from lamina.app.apistore import open_store
from lamina.app.volumes import list_volumes, volume_json
from lamina.container import volumes
from lamina.container.names import new_id
from lamina.errors import Kind, LaminaError
from lamina.image.notebook import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

__all__ = ["Volume", "Volumes", "volumes_api"]


class Volume:
    """A volume in a store: a handle, which may outlive what it names."""

    def __init__(self, name: str, store: Store) -> None:
        self._name = name
        self._store = store

    def __repr__(self) -> str:
        return f"<Volume {self._name}>"

    def _repr_html_(self) -> str:
        """The volume in a notebook."""
        return table(("Volume", "Mountpoint"), [(self._name, self.mountpoint)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Volume) and (other.name, other._store) == (self.name, self._store)

    def __hash__(self) -> int:
        return hash(self._name)

    @property
    def name(self) -> str:
        """Its name, which is all that identifies it."""
        return self._name

    @property
    def mountpoint(self) -> str:
        """Where its files are on the host; of a volume with a `device`, that directory has them."""
        return volumes.data_of(self._store.root, self._name)

    @property
    def labels(self) -> dict[str, str]:
        """Its labels. Raises LaminaError (NOT_FOUND) if it is gone."""
        return dict(volumes.find(self._store, self._name).labels)

    @property
    def attrs(self) -> dict[str, Any]:
        """All that `docker volume inspect` shows. Raises LaminaError (NOT_FOUND) if it is gone."""
        return volume_json(self._store, volumes.find(self._store, self._name))

    def remove(self) -> None:
        """Delete it and all in it.

        Raises:
            LaminaError: CONFLICT if a container has it, NOT_FOUND if it is gone.
        """
        if apart.is_needed():  # its files may be other owners'
            arguments: dict[str, object] = {"root": self._store.root, "name": self._name}
            apart.call("lamina.app.apivolumes:remove_here", arguments)
        else:
            volumes.remove(self._store, self._name)


class Volumes:
    """The volumes of a store, which is the user's unless a `root` is given."""

    def __repr__(self) -> str:
        return "<lamina.volumes: list, get, create, remove, prune>"

    def list(self, *, root: str = "") -> builtins.list[Volume]:
        """All of them, by name."""
        store = open_store(root)
        return [Volume(use.volume.name, store) for use in list_volumes(store)]

    def get(self, name: str, *, root: str = "") -> Volume:
        """The volume of this name.

        Raises:
            LaminaError: NOT_FOUND.
        """
        store = open_store(root)
        return Volume(volumes.find(store, name).name, store)

    def create(
        self,
        name: str = "",
        *,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        root: str = "",
    ) -> Volume:
        """The volume of this name, made if it is not there; without a name, a new anonymous one.
        `options` are those of `volume create -o`.

        Raises:
            LaminaError: USAGE or UNSUPPORTED (name, options).
        """
        store = open_store(root)
        given = dict(labels or {})
        if not name:
            name, given[volumes.ANONYMOUS] = new_id(os.urandom), ""
        wanted = volumes.Volume(name, tuple(given.items()), tuple((options or {}).items()))
        return Volume(volumes.create(store, wanted).name, store)

    def remove(self, volume: Volume | str, *, force: bool = False, root: str = "") -> None:
        """Delete a volume and all in it. With `force` it need not be there.

        Raises:
            LaminaError: CONFLICT if a container has it, NOT_FOUND if there is none.
        """
        found = volume if isinstance(volume, Volume) else Volume(volume, open_store(root))
        try:
            found.remove()
        except LaminaError as error:
            if not (force and error.kind is Kind.NOT_FOUND):
                raise

    def prune(self, *, all: bool = False, root: str = "") -> builtins.list[str]:
        """Delete the anonymous volumes that no container has, with `all` those with names too; what
        was deleted.
        """
        store = open_store(root)
        if apart.is_needed():
            function = "lamina.app.apivolumes:prune_here"
            gone = apart.call(function, {"root": store.root, "all_unused": all})
            return cast("builtins.list[str]", gone)
        return _prune(store, all_unused=all)


def _prune(store: Store, *, all_unused: bool) -> list[str]:
    wanted = disk.PruneFilter()
    return builtins.list(disk.prune_volumes(store, all_unused=all_unused, wanted=wanted).lines)


def remove_here(root: str, name: str, cancel: CancelToken) -> None:  # noqa: ARG001
    """Remove the volume in this process, which was made for that and gives a token: see `apart`."""
    volumes.remove(open_store(root), name)


def prune_here(root: str, *, all_unused: bool, cancel: CancelToken) -> list[str]:  # noqa: ARG001
    """As `Volumes.prune`, in this process, which was made for that."""
    return _prune(open_store(root), all_unused=all_unused)


volumes_api = Volumes()
