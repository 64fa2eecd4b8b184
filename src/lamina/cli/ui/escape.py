# SPDX-License-Identifier: Apache-2.0
"""Make text from logs, names and labels harmless on a terminal (CSI, OSC, C1 and the rest)."""

from __future__ import annotations


def printable(text: str, *, keep_newlines: bool = False) -> str:
    r"""The text with control characters shown as `\x1b`; undecodable bytes as `\xff`."""
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or char == "\t" or (keep_newlines and char == "\n")
        else _shown(char)
        for char in text
    )


def decode(data: bytes) -> str:
    """Bytes a process wrote, for people: UTF-8, anything else escaped."""
    return data.decode("utf-8", "backslashreplace")


def _shown(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a surrogate-escaped byte
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
