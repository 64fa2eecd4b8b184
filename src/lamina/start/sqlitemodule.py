# SPDX-License-Identifier: Apache-2.0
"""The module behind `sqlite3`, without what it brings along.

`_sqlite3` takes `lru_cache` from `functools` when it is imported (CPython, Modules/_sqlite), and
`functools` brings `collections`, `operator`, `reprlib` and `types`: 4 ms, for a cache of statements
that is in C anyway. While it is imported a stand-in offers that one function. Neither a program that
has `functools` already nor one with threads, which might ask for it meanwhile, ever sees the stand-in.
What fails on the way goes to `sqlite3`, which also adds date adapters (`datetime`) that nothing here uses.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
else:
    import _thread
    import sys

    def _load():  # noqa: ANN202
        """Import `_sqlite3` with the stand-in. Raises ImportError."""
        from _functools import _lru_cache_wrapper

        class _Functools:
            @staticmethod
            def lru_cache(maxsize):  # noqa: ANN001, ANN205
                return lambda function: _lru_cache_wrapper(function, maxsize, False, tuple)

        sys.modules["functools"] = _Functools
        try:
            import _sqlite3  # noqa: F401
        finally:
            del sys.modules["functools"]

    try:
        if not (sys.modules.keys() & {"_sqlite3", "functools", "threading"} or _thread._count()):
            _load()
        import _sqlite3 as sqlite3
    except ImportError:
        import sqlite3

__all__ = ["sqlite3"]
