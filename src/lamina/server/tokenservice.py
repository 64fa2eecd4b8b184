# SPDX-License-Identifier: Apache-2.0
"""`/token`: access and refresh tokens for the users of the password file.

Source: distribution's docs/spec/auth/token.md (GET, Basic credentials) and oauth.md (POST, a form:
`password` and `refresh_token` grants). An access token holds what was asked for and the rules allow.
A refresh token holds no rights: it stands for the user until it expires, the password changes or
the user is removed, and is kept nowhere. Errors are the registry's document with the fields of
RFC 6749 §5.2 in it.
"""

from __future__ import annotations

import base64
import binascii
from urllib.parse import parse_qs

from lamina.server.rights import Grant
from lamina.server.tokens import parse_scopes
from lamina.server.wire import Blocking, Buffered, Refusal, Response, json_response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from lamina.server.config import TokenTrust
    from lamina.server.passwords import Htpasswd
    from lamina.server.tokens import Issuer
    from lamina.server.wire import Answer, Request

    class May(Protocol):
        """Whether a user may do an action in a repository."""

        def __call__(self, user: str, repository: str, action: str, /) -> bool: ...


_MAX_FORM = 64 * 1024  # bytes; a refresh token is at most 16 KiB
_MAX_FIELDS = 64
_FORM = "application/x-www-form-urlencoded"
_NO_STORE = ("cache-control", "no-store")


class TokenService:
    """Answers `/token`. `refuse` makes the error for who is not known."""

    def __init__(
        self,
        trust: TokenTrust,
        issuer: Issuer,
        users: Htpasswd,
        *,
        may: May,
        refuse: Callable[[str], Refusal],
    ) -> None:
        self._trust = trust
        self._issuer = issuer
        self._users = users
        self._may = may
        self._refuse = refuse

    def answer(self, request: Request) -> Answer:
        """The first step towards the token that a request asks for.

        Raises:
            Refusal: it is not one for a token.
        """
        if request.method == "GET":
            return Blocking(lambda: self._get(request))
        if request.method != "POST":
            raise Refusal("UNSUPPORTED", "only GET and POST", headers=(("allow", "GET, POST"),))
        kind = request.header("content-type").partition(";")[0].strip().lower()
        if kind != _FORM:
            raise _bad_request("invalid_request", f"the body must be {_FORM}")
        return Buffered(_MAX_FORM, self._post)

    def _get(self, request: Request) -> Response:
        """Nobody in particular gets a token too, for what is open to everybody."""
        user = self._basic_user(request.header("authorization"))
        asked = _fields(request.query)
        offline = asked.get("offline_token", [""])[0] in {"true", "1"}
        if asked.get("service", [self._trust.service]) != [self._trust.service]:
            raise Refusal("UNSUPPORTED", "tokens for that service are not issued here", status=400)
        document, _ = self._access_token(user, asked.get("scope", []))
        if offline and user:
            document["refresh_token"] = self._issuer.refresh_token(user, self._users.stamp(user))
        return json_response(document, headers=(_NO_STORE,))

    def _post(self, body: bytes) -> Answer:
        try:
            asked = _fields(body.decode())
        except UnicodeDecodeError as error:
            raise _bad_request("invalid_request", "the form is not UTF-8") from error
        for name in ("grant_type", "service", "client_id"):
            if not asked.get(name):
                raise _bad_request("invalid_request", f"{name} is missing")
        if any(len(values) > 1 for values in asked.values()):
            raise _bad_request("invalid_request", "a parameter is there twice")
        if asked["service"] != [self._trust.service]:
            raise _bad_request("invalid_target", "tokens for that service are not issued here")
        grant = asked["grant_type"][0]
        refresh = ""
        if grant == "password":
            user = self._password_user(asked)
            if asked.get("access_type") == ["offline"]:
                refresh = self._issuer.refresh_token(user, self._users.stamp(user))
        elif grant == "refresh_token":
            given = asked.get("refresh_token", [""])[0]
            user = self._refreshed_user(given)
            if asked.get("access_type") == ["offline"]:
                refresh = given
        else:
            raise _bad_request("unsupported_grant_type", f"unknown grant_type {grant[:50]!r}")
        document, grants = self._access_token(user, asked.get("scope", []))
        document["scope"] = " ".join(
            f"repository:{grant.repository}:{','.join(sorted(grant.actions))}" for grant in grants
        )
        document["token_type"] = "Bearer"  # noqa: S105  # RFC 6749 §5.1
        if refresh:
            document["refresh_token"] = refresh
        return json_response(document, headers=(_NO_STORE,))

    def _basic_user(self, header: str) -> str:
        if not header:
            return ""
        scheme, _, rest = header.partition(" ")
        found = parse_basic(rest) if scheme.lower() == "basic" else None
        if found is None:
            raise self._refuse("credentials of this kind are not taken here")
        if found == ("", ""):
            return ""
        if not self._users.check(*found):
            raise self._refuse("user or password is wrong")
        return found[0]

    def _password_user(self, asked: dict[str, list[str]]) -> str:
        user, password = asked.get("username", [""])[0], asked.get("password", [""])[0]
        if not self._users.check(user, password):
            raise self._grant_refused("user or password is wrong")
        return user

    def _refreshed_user(self, token: str) -> str:
        try:
            user, stamp = self._issuer.refreshed(token)
        except Refusal as error:
            raise self._grant_refused(error.what) from error
        if not stamp or stamp != self._users.stamp(user):
            raise self._grant_refused("the user's password has changed, or the user is gone")
        return user

    def _grant_refused(self, what: str) -> Refusal:
        refusal = self._refuse(what)
        refusal.members = _oauth("invalid_grant", what)
        return refusal

    def _access_token(
        self, user: str, scopes: Sequence[str]
    ) -> tuple[dict[str, object], list[Grant]]:
        """(the document with a token, what the token grants)."""
        allowed = [
            Grant(
                grant.repository,
                frozenset(a for a in grant.actions if self._may(user, grant.repository, a)),
            )
            for grant in parse_scopes(scopes)
        ]
        grants = [grant for grant in allowed if grant.actions]
        return self._issuer.token(user, grants), grants


def parse_basic(credentials: str) -> tuple[str, str] | None:
    """(user, password) after the word Basic (RFC 7617); None if they cannot be read."""
    try:
        text = base64.b64decode(credentials.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


def _fields(text: str) -> dict[str, list[str]]:
    try:
        return parse_qs(text, max_num_fields=_MAX_FIELDS, errors="strict", keep_blank_values=True)
    except ValueError as error:
        raise _bad_request("invalid_request", "invalid parameters") from error


def _bad_request(code: str, what: str) -> Refusal:
    return Refusal("UNSUPPORTED", what, status=400, members=_oauth(code, what))


def _oauth(code: str, what: str) -> dict[str, object]:
    return {"error": code, "error_description": what}
