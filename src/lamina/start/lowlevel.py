# SPDX-License-Identifier: Apache-2.0
"""What the interpreter has loaded when it starts, without the modules that are written around it.

`signal` imports `enum` to give its numbers names, `threading` and `operator` import `functools` and
`collections`. Here `signal` is the C module, whose numbers have no names; locks and threads that nobody joins are those that `threading` is made of. A Python that hides
them gives the standard ones.
"""

from __future__ import annotations

from _thread import allocate_lock, get_ident, start_new_thread  # documented: of every Python

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from operator import attrgetter
else:
    try:
        import _signal as signal
        from _operator import attrgetter
    except ImportError:
        import signal
        from operator import attrgetter

__all__ = ["allocate_lock", "attrgetter", "get_ident", "signal", "start_new_thread"]
