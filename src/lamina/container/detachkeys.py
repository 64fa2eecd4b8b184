# SPDX-License-Identifier: Apache-2.0
"""The keys that leave a container and let it run: Docker's `--detach-keys` (moby/term, ascii.go)."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

_CONTROL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"  # what ctrl- goes before; its place is the code


class DetachKeys:
    """Finds the sequence in typed bytes, also when it arrives in pieces."""

    def __init__(self, keys: bytes) -> None:
        self.keys = keys
        self._held = b""  # how the sequence begins, typed last and not passed on

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(the bytes to pass on, whether the sequence is complete)."""
        if not self.keys:
            return data, False
        passed = bytearray()
        for code in data:
            self._held += bytes((code,))
            while not self.keys.startswith(self._held):
                passed.append(self._held[0])
                self._held = self._held[1:]
            if self._held == self.keys:
                return bytes(passed), True
        return bytes(passed), False


def parse_detach_keys(text: str) -> bytes:
    r"""The bytes of `--detach-keys`: characters, `ctrl-` with one of a-z @ [ \ ] ^ _, and `DEL`, with
    commas between them. Raises LaminaError of kind USAGE.
    """
    keys = bytearray()
    for word in text.split(","):
        letter = word.removeprefix("ctrl-")
        if len(word) == 1 and word.isascii():
            keys.append(ord(word))
        elif word == "DEL":
            keys.append(127)
        elif letter != word and len(letter) == 1 and letter in _CONTROL:
            keys.append(_CONTROL.index(letter))
        else:
            raise LaminaError(
                f"Invalid detach keys ({text}) provided: unknown key {word!r}",
                kind=Kind.USAGE,
                hint="use keys such as ctrl-p,ctrl-q",
            )
    return bytes(keys)
