# SPDX-License-Identifier: Apache-2.0
"""What a runtime says when it cannot start a command, and Docker's exit statuses for it."""

from __future__ import annotations

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as in Docker and shells
MAX_LOG = 1 << 16  # bytes read of a runtime's error log

_NOT_EXECUTABLE = (
    "permission denied",
    "operation not permitted",
    "exec format error",
    "is a directory",
)


def command_status(message: str) -> int | None:
    """127 or 126 if a runtime's message says that the command cannot be run, else None (pure)."""
    text = message.lower()
    if "executable file" in text and ("not found" in text or "no such file" in text):
        return NOT_FOUND
    if "exec" not in text:
        return None
    if "no such file or directory" in text:
        return NOT_FOUND
    return NOT_EXECUTABLE if any(reason in text for reason in _NOT_EXECUTABLE) else None


def late_failure(stderr: bytes) -> int | None:
    """The status when execve itself failed in the container (pure): too late for the log.

    The runtime's one line is then all there is on standard error, and its status is 1.
    """
    line = stderr.decode("utf-8", "replace").rstrip("\n")
    if "\n" in line or not line.startswith(("exec container process ", "exec /", "exec ./")):
        return None
    return command_status(line)


def read_error(log: str) -> str:
    """The last error in a runtime's log (JSON lines, or crun's plain ones), empty if none."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = file.read(MAX_LOG).splitlines()
    except FileNotFoundError:
        return ""
    for line in reversed(lines):
        message = _message(line)
        if message:
            return message
    return ""


def _message(line: str) -> str:
    if not line.startswith("{"):
        return line.strip()
    import json

    try:
        entry = json.loads(line)
    except ValueError:
        return line.strip()
    return str(entry.get("msg", "")) if entry.get("level") in ("error", "fatal") else ""
