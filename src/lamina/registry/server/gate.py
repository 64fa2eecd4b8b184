# SPDX-License-Identifier: Apache-2.0
"""The gate that a configuration describes: passwords, tokens, rules per repository.

Without a token service clients are asked for Basic credentials, with one for a Bearer token. A
token decides alone (its issuer has looked at the rules); a password's user may what the rules say,
and where there are no rules every user may everything.
"""

from __future__ import annotations

import base64
import binascii

from lamina.registry.server.passwords import Htpasswd
from lamina.registry.server.rights import (
    ADMIN,
    ADMIN_PATH,
    ANONYMOUS,
    DELETE,
    PULL,
    PUSH,
    Grant,
    Identity,
    Rules,
)
from lamina.registry.server.tokens import Issuer, Verifier, parse_scopes
from lamina.registry.server.wire import Refusal, Work, json_response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.registry.server.config import Config
    from lamina.registry.server.wire import Answer, Request, Response


# Pages that are no part of the API: no token is for them, so passwords are taken.
_OWN = ("/metrics", ADMIN_PATH)


class ConfiguredGate:
    """The `Gate` of a configuration.

    Raises:
        LaminaError: the files that it names are missing or broken.
    """

    def __init__(self, config: Config, *, clock: Callable[[], float]) -> None:
        self._rules = Rules(config.rules) if config.rules else None
        self._realm = config.basic_realm
        self._htpasswd = Htpasswd(config.htpasswd, clock=clock) if config.htpasswd else None
        self._trust = config.token
        self._verifier: Verifier | None = None
        self._issuer: Issuer | None = None
        if config.token is not None:
            self._verifier = Verifier(config.token, clock=clock)
            if config.token.signing_key:
                self._issuer = Issuer(config.token, clock=clock)
                self._verifier.trust_also(self._issuer.algorithm, self._issuer.public_key)

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
        user, password = self._basic(scheme, rest, own=request.path.startswith(_OWN))
        if not user and not password:
            return ANONYMOUS  # what some clients send when they have no credentials
        if self._htpasswd is not None and self._htpasswd.remembered(user, password):
            return Identity(user)
        return None

    def identify(self, request: Request) -> Identity:
        scheme, _, rest = request.header("authorization").partition(" ")
        user, password = self._basic(scheme, rest, own=request.path.startswith(_OWN))
        if self._htpasswd is not None and self._htpasswd.check(user, password):
            return Identity(user)
        raise self._unauthorized("user or password is wrong")

    def allows(self, identity: Identity, repository: str, action: str) -> bool:
        if identity.grants is not None:
            return any(
                grant.repository == repository and action in grant.actions
                for grant in identity.grants
            )
        if self._verifier is not None and repository and not identity.user:
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
        if self._issuer is None:
            raise Refusal("UNSUPPORTED", "no tokens are issued here", status=404)
        if request.method != "GET":
            raise Refusal("UNSUPPORTED", "only GET", headers=(("allow", "GET"),))
        return Work(lambda: self._issue(request))

    def _issue(self, request: Request) -> Response:
        """A token for what was asked and the rules allow; nobody in particular gets one too."""
        from urllib.parse import parse_qs

        assert self._issuer is not None
        assert self._trust is not None
        user = ""
        header = request.header("authorization")
        if header:
            scheme, _, rest = header.partition(" ")
            name, password = self._basic(scheme, rest, own=True)
            if name or password:
                if self._htpasswd is None or not self._htpasswd.check(name, password):
                    raise self._unauthorized("user or password is wrong", basic=True)
                user = name
        try:
            asked = parse_qs(request.query, max_num_fields=64)
        except ValueError as error:
            raise Refusal("UNSUPPORTED", "invalid query string", status=400) from error
        if asked.get("service", [self._trust.service]) != [self._trust.service]:
            raise Refusal("UNSUPPORTED", "tokens for that service are not issued here", status=400)
        grants = [
            Grant(
                grant.repository, frozenset(a for a in grant.actions if self._may(user, grant, a))
            )
            for grant in parse_scopes(asked.get("scope", []))
        ]
        document = self._issuer.token(user, [grant for grant in grants if grant.actions])
        return json_response(document, headers=(("cache-control", "no-store"),))

    def _may(self, user: str, grant: Grant, action: str) -> bool:
        if self._rules is None:
            return bool(user)
        if action == ADMIN:
            return False
        return self._rules.allow(user, grant.repository, action)

    def _basic(self, scheme: str, rest: str, *, own: bool = False) -> tuple[str, str]:
        if scheme.lower() != "basic":
            raise self._unauthorized("credentials of this kind are not taken here")
        if self._verifier is not None and not own:
            raise self._unauthorized("a token is needed")
        try:
            text = base64.b64decode(rest.strip(), validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise self._unauthorized("invalid credentials") from error
        user, colon, password = text.partition(":")
        if not colon:
            raise self._unauthorized("invalid credentials")
        return user, password

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
