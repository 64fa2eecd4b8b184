# SPDX-License-Identifier: Apache-2.0
"""The module behind `socket`, which imports `selectors` and `enum` to give its numbers names (4 ms)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
else:
    try:
        import _socket as socket
    except ImportError:
        import socket

__all__ = ["socket"]
