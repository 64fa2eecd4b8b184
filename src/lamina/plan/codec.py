# SPDX-License-Identifier: Apache-2.0
"""Ops as plain JSON values, for digests, cache keys and text dumps."""

from __future__ import annotations

from lamina.spec.digest import Digest
from lamina.start.record import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.plan.mounts import RunMount
    from lamina.plan.ops import FileAction, Op


def encode_op(op: Op | FileAction | RunMount) -> dict[str, object]:
    """The op as a JSON object: `type` and every field, in the order of the class."""
    document: dict[str, object] = {"type": type(op).__name__}
    for name in fields(type(op)):
        document[name] = _encode(getattr(op, name))
    return document


def _encode(value: object) -> object:
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if isinstance(value, Digest):
        return str(value)
    if value is None or isinstance(value, str | int | bool):
        return value
    return encode_op(value)  # type: ignore[arg-type]  # the only other values are actions and mounts
