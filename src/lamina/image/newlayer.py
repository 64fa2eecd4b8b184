# SPDX-License-Identifier: Apache-2.0
"""A layer that is composed and mounted soon: its snapshot is made in the pass that writes its blob."""

from __future__ import annotations

import os
from contextlib import ExitStack

from lamina.errors import Kind, LaminaError
from lamina.layer.create import create_layer
from lamina.layer.erofs import NotWrappable
from lamina.layer.twin import DirectoryTwin, ImageTwin
from lamina.spec.identity import chain_id
from lamina.store.working import working_key
from lamina.system.mounts import opened_layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from lamina.layer.create import CreatedLayer
    from lamina.layer.entry import Items
    from lamina.layer.twin import Twin
    from lamina.spec.digest import DiffID, Digest
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken


class NewLayer:
    """A context manager around one layer on `base`, every layer of which is a snapshot already.

    `create`, then have the blob in the store, then `commit`. Without that nothing is left. The
    caller holds a lease.
    """

    def __init__(self, store: Store, base: Sequence[DiffID]) -> None:
        self._store = store
        self._base = tuple(base)
        self._key = working_key("compose")
        self._stack = ExitStack()
        self._is_whole = False

    def __enter__(self) -> Self:
        self._mount = self._store.snapshots.prepare(self._key, chain_id(self._base))
        self._stack.callback(self._drop)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def create(
        self,
        items: Items,
        write: Callable[[bytes], object],
        *,
        compression: str,
        level: int | None,
        digest: Callable[[], Digest] | None = None,
        cancel: CancelToken,
    ) -> CreatedLayer:
        """As `create_layer`."""
        with ExitStack() as stack:
            twin = self._twin(stack)
            created = create_layer(
                items,
                write,
                compression=compression,
                level=level,
                digest=digest,
                cancel=cancel,
                twin=twin,
            )
            try:
                twin.finish()
            except NotWrappable:
                return created  # it is unpacked when it is mounted
            self._take_root(twin)
            self._is_whole = True
        return created

    def _twin(self, stack: ExitStack) -> Twin:
        lowers = stack.enter_context(opened_layers(self._mount.lowers))
        image = self._store.snapshots.image_for(self._key)
        twin = (
            ImageTwin(image, lowers=lowers)
            if image is not None
            else DirectoryTwin(self._mount.upper, lowers=lowers)
        )
        stack.callback(twin.close)
        return twin

    def _take_root(self, twin: Twin) -> None:
        """Give the directory beside an image the attributes of the layer's root."""
        if isinstance(twin, ImageTwin):
            root = twin.root
            os.chown(self._mount.upper, root.uid, root.gid)
            os.chmod(self._mount.upper, root.mode)
            os.utime(self._mount.upper, ns=(root.mtime_ns, root.mtime_ns))

    def commit(self, diff_id: DiffID) -> None:
        """Make it the snapshot of the stack with this layer on top, if it could be made."""
        if self._is_whole:
            chain = chain_id((*self._base, diff_id))
            assert chain is not None
            self._store.snapshots.commit(chain, self._key)
            self._stack.pop_all()

    def _drop(self) -> None:
        try:
            self._store.snapshots.remove(self._key)
        except LaminaError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
