# SPDX-License-Identifier: Apache-2.0
"""`LaminaError`, its kinds, and the exit status of each kind.

Raise the class (or `LaminaError` with a kind) beside the cause; whoever knows the subject adds it
while the error rises (`raise ... from`, or `error.about("layer sha256:...")`). What a user sees is
`what: why`, then `hint`; passwords of URLs are masked in both, whoever made the text. Anything that
is not a `LaminaError` is a bug of lamina's.
"""

from __future__ import annotations

from lamina.start.enumeration import Enumeration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Never, Self

    from lamina.spec.span import Span


class Kind(Enumeration):
    """What went wrong, from the user's point of view. Each has one exit status."""

    USAGE = "usage"  # the command line itself: unknown flag, bad port, missing argument
    INVALID = "invalid"  # input that does not follow its format: Dockerfile, manifest, tar, JSON
    NOT_FOUND = "not found"  # a named image, container, file or stage does not exist
    CONFLICT = "conflict"  # a name or port is taken, a container is still running
    DENIED = "denied"  # permission, credentials, or a privilege this process lacks
    INTEGRITY = "integrity"  # bytes do not match their digest or size
    UNAVAILABLE = "unavailable"  # the network, a registry or another process does not answer
    UNSUPPORTED = "unsupported"  # understood, but lamina (or this host) does not do it
    EXHAUSTED = "exhausted"  # disk full, too many files, a size or depth limit reached
    STEP_FAILED = "step failed"  # a RUN step or a started process exited with a failure
    SYSTEM = "system"  # the host: a missing tool, a kernel call that failed


EXIT_STATUS: dict[Kind, int] = {
    Kind.STEP_FAILED: 1,  # what `docker build` returns
    Kind.INVALID: 2,
    Kind.NOT_FOUND: 3,
    Kind.CONFLICT: 4,
    Kind.DENIED: 5,
    Kind.INTEGRITY: 6,
    Kind.UNAVAILABLE: 7,
    Kind.UNSUPPORTED: 8,
    Kind.EXHAUSTED: 9,
    Kind.SYSTEM: 10,
    Kind.USAGE: 125,  # what `docker` returns for an unknown flag
}
"""Exit status by kind. `run` and `exec` map every failure of lamina's own to 125 (126: the
command cannot be executed, 127: it was not found), as Docker does."""

EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h: an exception nobody foresaw
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def _masked(text: str) -> str:
    if "://" not in text:
        return text  # as nearly all are: the module is not loaded for them
    from lamina.redaction import redacted

    return redacted(text)


class LaminaError(Exception):
    """An error that the user can act on.

    `what` is one line without a trailing full stop. `hint` says what to do, if anything is known.
    """

    kind: Kind = Kind.SYSTEM

    def __init__(self, what: str, *, kind: Kind | None = None, hint: str = "") -> None:
        self.what = _masked(what)
        super().__init__(self.what)
        self.hint = _masked(hint)
        if kind is not None:
            self.kind = kind

    def about(self, subject: str) -> Self:
        """Put `subject: ` before the message and return self, for use while the error rises."""
        self.what = _masked(f"{subject}: {self.what}")
        self.args = (self.what,)
        return self

    def __str__(self) -> str:
        return self.what


class SourceError(LaminaError):
    """An error at a place in a text the user wrote; prints `file:line` and the excerpt."""

    kind = Kind.INVALID

    def __init__(
        self, what: str, *, span: Span | None, kind: Kind | None = None, hint: str = ""
    ) -> None:
        super().__init__(what, kind=kind, hint=hint)
        self.span = span

    def __str__(self) -> str:
        if self.span is None:
            return self.what
        return f"{self.span.location()}: {self.what}\n{self.span.excerpt()}"


class Cancelled(BaseException):
    """The work was asked to stop. Not an `Exception`, so that no handler swallows it by accident."""


def never(value: Never) -> Never:
    """Ends a decision over a closed union: a member that was forgotten fails mypy here.

    `typing.assert_never` without importing `typing`, which a start does not need otherwise.
    """
    raise AssertionError(f"unforeseen: {value!r}")
