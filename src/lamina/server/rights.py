# SPDX-License-Identifier: Apache-2.0
"""Who asks, and what they may do in a repository."""

from __future__ import annotations

import re

from lamina.server.wire import Refusal
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from lamina.server.wire import Answer, Request
else:
    Protocol = object

PULL, PUSH, DELETE, ADMIN = "pull", "push", "delete", "admin"
ADMIN_PATH = "/lamina/v1/"  # of pages that need the right `admin`
ACTIONS = (PULL, PUSH, DELETE, ADMIN)


class Grant(Record):
    """What a token allows in one repository."""

    repository: str
    actions: frozenset[str]


class Identity(Record):
    """Who asks. `user` is empty for nobody in particular; `grants` are a token's (None: no token).

    `by_password`: said on one of the registry's own pages, where a password counts though the API
    takes only tokens.
    """

    user: str = ""
    grants: tuple[Grant, ...] | None = None
    by_password: bool = False


ANONYMOUS = Identity()


class Gate(Protocol):
    """Says who asks and what they may. Methods may be called from several threads."""

    @property
    def signs_in(self) -> bool:
        """Whether somebody can say who they are with a password."""

    def known(self, request: Request) -> Identity | None:
        """Who asks, if that can be said without blocking.

        Raises:
            Refusal: UNAUTHORIZED for credentials that are wrong.
        """

    def identify(self, request: Request) -> Identity:
        """Who asks; may take the time of a password hash. Raises as `known`."""

    def allows(self, identity: Identity, repository: str, action: str) -> bool:
        """Whether they may do it."""

    def check_known(self, identity: Identity) -> None:
        """Nothing, or UNAUTHORIZED for somebody who should say who they are first."""

    def refusal(self, identity: Identity, repository: str, action: str) -> Refusal:
        """The error for what is not allowed: UNAUTHORIZED with a challenge, or DENIED."""

    def token(self, request: Request) -> Answer:
        """The answer of `/token`: a bearer token for who asks, where tokens are issued here."""


class OpenGate:
    """Everybody may do everything: no authentication is configured."""

    signs_in = False

    def known(self, request: Request) -> Identity | None:
        return ANONYMOUS

    def identify(self, request: Request) -> Identity:
        return ANONYMOUS

    def allows(self, identity: Identity, repository: str, action: str) -> bool:
        return True

    def check_known(self, identity: Identity) -> None:
        return None

    def refusal(self, identity: Identity, repository: str, action: str) -> Refusal:
        return Refusal("DENIED", "denied")

    def token(self, request: Request) -> Answer:
        raise Refusal("UNSUPPORTED", "no tokens are issued here", status=404)


class Rule(Record):
    """`users` may do `actions` in repositories that match `pattern`.

    In the pattern `*` stands for anything but a slash, `**` for anything. Users: names, `*` for
    every known user, `anonymous` for everybody.
    """

    pattern: str
    users: frozenset[str]
    actions: frozenset[str]


class Rules:
    """The rules of a configuration; what no rule allows is denied."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._rules = [(compile_pattern(rule.pattern), rule) for rule in rules]

    def allow(self, user: str, repository: str, action: str) -> bool:
        """Whether a rule lets the user (empty: nobody in particular) do it."""
        for pattern, rule in self._rules:
            if action not in rule.actions and ADMIN not in rule.actions:
                continue
            named = "anonymous" in rule.users or (
                user and (user in rule.users or "*" in rule.users)
            )
            if named and pattern.fullmatch(repository):
                return True
        return False


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The pattern of a rule as a regular expression."""
    parts = re.split(r"(\*\*|\*)", pattern)
    wild = {"**": ".*", "*": "[^/]*"}
    return re.compile("".join(wild.get(part) or re.escape(part) for part in parts))
