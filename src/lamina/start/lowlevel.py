# SPDX-License-Identifier: Apache-2.0
"""What the interpreter has loaded when it starts, without the modules that are written around it.

`signal` imports `enum` to give its numbers names, `threading` `functools` and `collections`. Here
`signal` is the C module, whose numbers have no names; locks and threads that nobody joins are those
that `threading` is made of. A Python that hides the C module gives the standard one.
"""

from __future__ import annotations

from _thread import allocate_lock, get_ident, start_new_thread  # documented: of every Python

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    try:
        import _signal as signal
    except ImportError:
        import signal

__all__ = ["allocate_lock", "get_ident", "signal", "start_new_thread"]
