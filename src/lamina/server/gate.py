# SPDX-License-Identifier: Apache-2.0
"""The gate that a configuration describes: passwords, tokens, rules per repository.

Without a token service clients are asked for Basic credentials, with one for a Bearer token. A
token decides alone (its issuer has looked at the rules); a password's user may what the rules say,
and where there are no rules every user may everything.
"""

from __future__ import annotations

from lamina.server.passwords import Htpasswd
from lamina.server.rights import (
    ADMIN,
    ANONYMOUS,
    DELETE,
    PULL,
    PUSH,
    Identity,
    Rules,
)
from lamina.server.tokens import Issuer, Verifier
from lamina.server.tokenservice import TokenService, parse_basic
from lamina.server.wire import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.server.config import Config
    from lamina.server.wire import Answer, Request


class ConfiguredGate:
    """The `Gate` of a configuration.

    Raises:
        LaminaError: the files that it names are missing or broken.
    """

    def __init__(self, config: Config, *, clock: Callable[[], float]) -> None:
        self._rules = Rules(config.rules) if config.rules else None
        self._realm = config.basic_realm
        self._htpasswd = Htpasswd(config.htpasswd, clock=clock) if config.htpasswd else None
        self.signs_in = self._htpasswd is not None
        self._trust = config.token
        self._verifier: Verifier | None = None
        self._token_service: TokenService | None = None
        if config.token is not None:
            self._verifier = Verifier(config.token, clock=clock)
            if config.token.signing_key and self._htpasswd is not None:
                issuer = Issuer(config.token, clock=clock)
                self._verifier.trust_also(issuer.algorithm, issuer.public_key)
                self._token_service = TokenService(
                    config.token,
                    issuer,
                    self._htpasswd,
                    may=self._may,
                    refuse=lambda what: self._unauthorized(what, basic=True),
                )

    def known(self, request: Request) -> Identity | None:
        header = request.header("authorization")
        if not header:
            return ANONYMOUS
        scheme, _, rest = header.partition(" ")
        if scheme.lower() == "bearer" and self._verifier is not None:
            try:
                return self._verifier.identity(rest.strip())
            except Refusal as error:
                raise self._unauthorized(error.what, error="invalid_token") from error
        own = _own(request)
        user, password = self._basic(scheme, rest, own=own)
        if not user and not password:
            return ANONYMOUS  # what some clients send when they have no credentials
        if self._htpasswd is not None and self._htpasswd.remembered(user, password):
            return Identity(user, by_password=own)
        return None

    def identify(self, request: Request) -> Identity:
        scheme, _, rest = request.header("authorization").partition(" ")
        own = _own(request)
        user, password = self._basic(scheme, rest, own=own)
        if self._htpasswd is not None and self._htpasswd.check(user, password):
            return Identity(user, by_password=own)
        raise self._unauthorized("user or password is wrong", basic=own)

    def allows(self, identity: Identity, repository: str, action: str) -> bool:
        if identity.grants is not None:
            return any(
                grant.repository == repository and action in grant.actions
                for grant in identity.grants
            )
        if self._verifier is not None and repository and not identity.by_password:
            # credentials belong to the token service; without a token only what is open to all
            return self._rules is not None and self._rules.allow("", repository, action)
        if self._rules is None:
            return bool(identity.user)
        return self._rules.allow(identity.user, repository, action)

    def check_known(self, identity: Identity) -> None:
        if not identity.user and identity.grants is None:
            raise self._unauthorized("authentication required")

    def refusal(self, identity: Identity, repository: str, action: str) -> Refusal:
        if self._verifier is not None and repository and action != ADMIN:
            needed = {PULL: "pull", PUSH: "pull,push", DELETE: "delete"}.get(action, "*")
            error = "insufficient_scope" if identity.grants is not None else ""
            return self._unauthorized(
                "the token does not allow this" if error else "authentication required",
                error=error,
                scope=f"repository:{repository}:{needed}",
            )
        if identity.user:
            return Refusal("DENIED", f"{identity.user} may not {action} here")
        return self._unauthorized(
            "authentication required", basic=not repository or action == ADMIN
        )

    def token(self, request: Request) -> Answer:
        if self._token_service is None:
            raise Refusal("UNSUPPORTED", "no tokens are issued here", status=404)
        return self._token_service.answer(request)

    def _may(self, user: str, repository: str, action: str) -> bool:
        """Whether a token of the user (empty: of nobody in particular) may allow it."""
        if self._rules is None:
            return bool(user)
        if action == ADMIN:
            return False
        return self._rules.allow(user, repository, action)

    def _basic(self, scheme: str, rest: str, *, own: bool = False) -> tuple[str, str]:
        if scheme.lower() != "basic":
            raise self._unauthorized("credentials of this kind are not taken here", basic=own)
        if self._verifier is not None and not own:
            raise self._unauthorized("a token is needed")
        found = parse_basic(rest)
        if found is None:
            raise self._unauthorized("invalid credentials", basic=own)
        return found

    def _unauthorized(
        self, what: str, *, error: str = "", scope: str = "", basic: bool = False
    ) -> Refusal:
        if self._trust is not None and not basic:
            challenge = f'Bearer realm="{self._trust.realm}",service="{self._trust.service}"'
            challenge += f',scope="{scope}"' if scope else ""
            challenge += f',error="{error}"' if error else ""
        else:
            challenge = f'Basic realm="{self._realm}"'
        return Refusal("UNAUTHORIZED", what, headers=(("www-authenticate", challenge),))


def _own(request: Request) -> bool:
    """Whether the path is one of the registry's own: no repository's, so no token is for it."""
    return not request.path.startswith("/v2/")
