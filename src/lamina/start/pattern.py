# SPDX-License-Identifier: Apache-2.0
"""`pattern(text)`: a regular expression that costs nothing until it is used, and then little.

Importing `re` and compiling the patterns of one build takes 12 ms. The result of compiling is a list
of numbers for the C engine, the same for all interpreters of one `_sre.MAGIC`: `patterncodes` holds
those lists (scripts/patterns.py writes it, a test of each Python compares them with what `re` makes).
A pattern that is not in it, and an interpreter with another engine, compile with `re` as usual.
"""

from __future__ import annotations

__all__ = ["ASCII", "DOTALL", "pattern"]

ASCII = 256  # re.ASCII
DOTALL = 16  # re.DOTALL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from re import Pattern

    def pattern(text: str, flags: int = 0) -> Pattern[str]: ...
else:

    def pattern(text, flags=0):
        """The pattern, compiled on first use (a mistake in it is found then)."""
        return _Lazy(text, flags)

    class _Lazy:
        __slots__ = ("__dict__", "_flags", "_text")

        def __init__(self, text, flags):
            self._text = text
            self._flags = flags

        def __getattr__(self, name):
            value = getattr(_compiled(self._text, self._flags), name)
            self.__dict__[name] = value
            return value

    def _compiled(text, flags):
        try:
            import _sre

            from lamina.start.patterncodes import CODES, CODESIZE, ENGINES

            if _sre.MAGIC in ENGINES and _sre.CODESIZE == CODESIZE:
                flags_found, code, groups, names, by_number = CODES[text, flags]
                return _sre.compile(
                    text, flags_found, list(code), groups, dict(names), tuple(by_number)
                )
        except (ImportError, KeyError):
            pass
        import re

        return re.compile(text, flags)
