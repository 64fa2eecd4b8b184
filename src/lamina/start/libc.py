# SPDX-License-Identifier: Apache-2.0
"""Functions of the C library that `os` does not have, or not in every Python.

An interpreter that was built with an old C library, as those of uv and conda are, has no
`os.memfd_create` and no `os.pidfd_open` on any host.

On the C module behind `ctypes`, which itself takes 2 ms more to import (with `struct` and `types`),
for kinds of data that nothing here has. What is used of `_ctypes` is what `ctypes/__init__` uses;
without that module `ctypes` does it. Import this one where it is called: most commands call nothing.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    def get_errno() -> int: ...

    def _function(name: str) -> Any: ...
    def _Long(value: int) -> object: ...  # noqa: N802
    def _Bytes(value: bytes | None) -> object: ...  # noqa: N802
else:
    try:
        from _ctypes import (
            FUNCFLAG_CDECL,
            FUNCFLAG_USE_ERRNO,
            CFuncPtr,
            _SimpleCData,
            dlopen,
            get_errno,
        )
    except ImportError:
        from ctypes import CDLL, c_char_p, c_long, get_errno

        _library = CDLL(None, use_errno=True)
        _Long, _Bytes = c_long, c_char_p

        def _function(name):  # noqa: ANN001, ANN202
            found = _library[name]
            if name == "syscall":
                found.restype = c_long
            return found
    else:

        class _Int(_SimpleCData):
            _type_ = "i"

        class _Long(_SimpleCData):
            _type_ = "l"

        class _Bytes(_SimpleCData):
            _type_ = "z"

        class _Function(CFuncPtr):
            _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
            _restype_ = _Int

        class _Syscall(CFuncPtr):
            _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
            _restype_ = _Long

        class _Library:
            _handle = dlopen(None, 0)  # what the interpreter is linked with

        _library = _Library()

        def _function(name):  # noqa: ANN001, ANN202
            return (_Syscall if name == "syscall" else _Function)((name, _library))


__all__ = ["call", "checked", "get_errno"]

_known: dict[str, Any] = {}


def call(name: str, *arguments: int | bytes | None) -> int:
    """What the function returned; after a failure `get_errno` says why. Any thread may call it.

    Integers are passed as longs, because the kernel reads whole registers (a negative descriptor
    is sign-extended), bytes as a pointer to them with a NUL at their end, None as a null pointer.
    """
    function = _known.get(name)
    if function is None:
        function = _known[name] = _function(name)
    result: int = function(
        *[_Long(value) if isinstance(value, int) else _Bytes(value) for value in arguments]
    )
    return result


def checked(name: str, *arguments: int | bytes | None) -> int:
    """What the function returned. Raises OSError if it failed, which it says by a negative number."""
    result = call(name, *arguments)
    if result < 0:
        code = get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result
