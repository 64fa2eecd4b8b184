# SPDX-License-Identifier: Apache-2.0
"""Early cut-off: a RUN that ran again and changed nothing but times gives its earlier result.

What stands on a RUN knows it by its chainID, and a layer has the times of its making, so that it would
always be another one. Only the layer that is nearest by its key is looked at, on the same base and of
the same size; then both are digested with their times taken away (docs/adr/0106).
"""

from __future__ import annotations

from lamina.errors import LaminaError
from lamina.layer.create import create_layer
from lamina.layer.walk import overlay_items
from lamina.spec.identity import chain_id
from lamina.system.mounts import opened_layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.spec.digest import DiffID, Stack
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken


def is_alike(store: Store, made: Stack, earlier: Stack, *, cancel: CancelToken) -> bool:
    """Whether the stacks differ only in times of the files of their topmost layers."""
    if made[:-1] != earlier[:-1] or not earlier or made[-1] == earlier[-1]:
        return False
    layers = [store.metadata.get_layer(stack[-1]) for stack in (made, earlier)]
    if None in layers or len({layer.size for layer in layers if layer is not None}) > 1:
        return False
    found = _timeless(store, earlier, cancel)
    return found is not None and found == _timeless(store, made, cancel)


def _timeless(store: Store, stack: Stack, cancel: CancelToken) -> DiffID | None:
    """The diffID that the snapshot's layer has without times; None if there is no snapshot, or if it
    cannot be read: a collector may remove the earlier one, and the step itself has succeeded.
    """
    chain = chain_id(stack)
    if chain is None or not store.snapshots.exists(chain):
        return None
    try:
        with opened_layers([store.snapshots.layer(str(chain))]) as (directory,):
            return create_layer(
                overlay_items(directory), None, clamp_mtime=0, cancel=cancel
            ).diff_id
    except (LaminaError, OSError):
        return None
