# SPDX-License-Identifier: Apache-2.0
"""The identity of a stack of layers (image-spec config.md §Layer ChainID)."""

from __future__ import annotations

from lamina.spec.digest import ChainID, DiffID, Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LAYERS = 500
"""Layers of a stack that Linux can mount (OVL_MAX_STACK, fs/overlayfs/params.h)."""


def chain_ids(diff_ids: Iterable[DiffID]) -> tuple[ChainID, ...]:
    """The chainID of every prefix of the stack, lowest layer first.

    ChainID(L0) = DiffID(L0); ChainID(L0|...|Ln) = Digest(ChainID(L0|...|Ln-1) + " " + DiffID(Ln)).
    """
    chain: list[ChainID] = []
    for diff_id in diff_ids:
        if not chain:
            chain.append(ChainID(diff_id))
        else:
            chain.append(ChainID(Digest.of(f"{chain[-1]} {diff_id}".encode())))
    return tuple(chain)


def chain_id(diff_ids: Iterable[DiffID]) -> ChainID | None:
    """The chainID of the whole stack; None for no layers (`FROM scratch`)."""
    chain = chain_ids(diff_ids)
    return chain[-1] if chain else None
