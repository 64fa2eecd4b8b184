# SPDX-License-Identifier: Apache-2.0
"""The colours of the live view: BuildKit's, with its BUILDKIT_COLORS, and none with NO_COLOR."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# parameters of "select graphic rendition" (ECMA-48 §8.3.117)
_NAMES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_CODES = {
    "default": "39",
    **{name: str(30 + number) for number, name in enumerate(_NAMES)},
    **{f"light-{name}": str(90 + number) for number, name in enumerate(_NAMES)},
}
_ROLES = ("run", "cancel", "warning", "error")
_HINT = "it is written as run=blue:cancel=yellow:warning=yellow:error=255,0,0"


class Palette(Record):
    """The code of each kind of line, empty for none: of what ran or was cached, was cancelled, is a
    warning, failed; and of the output of a step that runs.
    """

    run: str = ""
    cancel: str = ""
    warning: str = ""
    error: str = ""
    output: str = ""


NO_COLOURS = Palette()


def palette(env: Mapping[str, str], *, is_terminal: bool) -> Palette:
    """The colours for standard error, as the environment wants them.

    Raises:
        LaminaError: kind USAGE, if BUILDKIT_COLORS is malformed.
    """
    if not is_terminal or env.get("NO_COLOR") or env.get("TERM") == "dumb":
        return NO_COLOURS
    chosen = {"run": "34", "cancel": "33", "warning": "33", "error": "31"}
    for field in filter(None, env.get("BUILDKIT_COLORS", "").split(":")):
        role, _, colour = field.lower().partition("=")
        code = _CODES.get(colour) or _rgb(colour)
        if role not in _ROLES or not code:
            raise LaminaError(f"invalid BUILDKIT_COLORS: {field!r}", kind=Kind.USAGE, hint=_HINT)
        chosen[role] = code
    return Palette(**chosen, output="2")


def painted(line: str, code: str) -> str:
    """The line in that colour."""
    return f"\x1b[{code}m{line}\x1b[0m" if code else line


def _rgb(text: str) -> str:
    parts = text.split(",")
    if len(parts) == 3 and all(p.isascii() and p.isdigit() and int(p) < 256 for p in parts):
        return "38;2;" + ";".join(str(int(part)) for part in parts)
    return ""
