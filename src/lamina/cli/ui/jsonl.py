# SPDX-License-Identifier: Apache-2.0
"""`--progress=json`: the event stream, one JSON object a line (docs/events.md)."""

from __future__ import annotations

import base64
import json

from lamina.spec.digest import Digest
from lamina.spec.span import Span
from lamina.start.enumeration import Enumeration
from lamina.start.record import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from lamina.events import Event


class JsonView:
    """Writes each event as one line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __call__(self, event: Event) -> None:
        self._out.write(json.dumps(event_to_json(event)) + "\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing is held back."""


def event_to_json(event: Event) -> dict[str, object]:
    r"""The event as a JSON object: `event` is its class name, then its fields.

    Digests are text, enums their values, a span is {file, start, end, column, width}. `data` of a
    VertexLog becomes `text` (UTF-8, other bytes as `\\xNN`), and `base64` beside it if it was not
    valid UTF-8.
    """
    document: dict[str, object] = {"event": type(event).__name__}
    for name in fields(type(event)):
        value = getattr(event, name)
        if isinstance(value, bytes):
            document.update(_bytes(value))
        else:
            document[name] = _plain(value)
    return document


def _plain(value: object) -> object:
    if isinstance(value, Digest):
        return str(value)
    if isinstance(value, Enumeration):
        return value.value
    if isinstance(value, Span):
        return {
            "file": value.source.name,
            "start": value.start,
            "end": value.end,
            "column": value.column,
            "width": value.width,
        }
    return list(value) if isinstance(value, tuple) else value


def _bytes(data: bytes) -> dict[str, object]:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {
            "text": data.decode("utf-8", "backslashreplace"),
            "base64": base64.b64encode(data).decode(),
        }
