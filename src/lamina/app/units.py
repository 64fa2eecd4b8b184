# SPDX-License-Identifier: Apache-2.0
"""systemd units that start a container after a reboot (pure).

Who starts it again when it ends depends on the container. One without a restart policy is attached
to, so that systemd sees it end, and its exit status. One with a policy is its monitor's: the unit starts and
stops it, and both would start it again otherwise.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# systemd.service(5), Restart=
POLICIES = ("no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always")
_MARGIN = 10  # seconds that taking a container down may take after its processes have ended
_SIGNALLED = 128


class UnitRequest(Record):
    """What a unit is made of. `program` starts lamina; `subject` is the container's name or id;
    `is_user`: of a user's own service manager; `restarts_itself`: it has a restart policy; `policy`
    of systemd (empty: on-failure). `stop_signal` is a number, `stop_timeout` seconds.
    """

    program: tuple[str, ...]
    root: str
    name: str
    subject: str
    stop_timeout: int
    stop_signal: int
    is_user: bool
    restarts_itself: bool
    policy: str = ""


def file_name(subject: str) -> str:
    """The unit's file, as podman names it."""
    return f"container-{subject}.service"


def unit(request: UnitRequest) -> str:
    """The text of the unit. Raises LaminaError: USAGE (no policy of systemd), CONFLICT."""
    if request.policy and request.policy not in POLICIES:
        raise LaminaError(
            f"{request.policy} is not a valid restart policy",
            kind=Kind.USAGE,
            hint=f"systemd has {', '.join(POLICIES)}",
        )
    if request.policy and request.restarts_itself:
        raise LaminaError(
            f"container {request.name} has a restart policy of its own",
            kind=Kind.CONFLICT,
            hint="leave out --restart-policy: its monitor starts it again",
        )
    lamina = (*request.program, "--root", request.root)
    start, stop = (*lamina, "start"), (*lamina, "stop")
    limit = request.stop_timeout
    lines = ["[Unit]", f"Description=lamina container {_plain(request.name)}"]
    if not request.is_user:  # a user's manager knows no such targets
        lines += ["Wants=network-online.target", "After=network-online.target"]
    lines += [f"RequiresMountsFor={_quoted(request.root)}", "", "[Service]"]
    if request.restarts_itself:
        lines += ["Type=oneshot", "RemainAfterExit=yes"]
        lines += [f"ExecStart={_command((*start, request.subject))}"]
    else:
        lines += ["Type=exec", f"Restart={request.policy or 'on-failure'}"]
        # the log is lamina's: the journal need not have it twice
        lines += ["StandardOutput=null"]
        lines += [f"ExecStart={_command((*start, '--attach', request.subject))}"]
        lines += [f"SuccessExitStatus={_SIGNALLED + request.stop_signal}"]
    lines += [f"ExecStop={_command((*stop, request.subject))}"]
    # -1: never killed
    lines += [f"TimeoutStopSec={limit + _MARGIN if limit >= 0 else 'infinity'}", "", "[Install]"]
    lines += [f"WantedBy={'default' if request.is_user else 'multi-user'}.target", ""]
    return "\n".join(lines)


def _command(words: Sequence[str]) -> str:
    return " ".join(_quoted(word).replace("$", "$$") for word in words)


def _quoted(text: str) -> str:
    """A word of a unit. systemd.syntax(7), Quoting; systemd.unit(5), Specifiers."""
    if any(ord(char) < 32 for char in text):
        raise LaminaError(f"{text!r} cannot stand in a unit", kind=Kind.UNSUPPORTED)
    escaped = _plain(text)
    if text and all(char.isalnum() or char in "/._-:=+,@%" for char in text):
        return escaped
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _plain(text: str) -> str:
    return text.replace("%", "%%")
