# SPDX-License-Identifier: Apache-2.0
"""`redacted`: text without the secrets of the URLs in it (docs/adr/0107-redaction.md).

A password (or what may be a token in its place) becomes `xxxxx`, and so does the value of a query
that is named as a signature or a token is. Everything else is left as it was written.
"""

from __future__ import annotations

from lamina.start.pattern import pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from re import Match

MASK = "xxxxx"  # BuildKit's
_MARK = "://"
# Lengths are bounded where a search would begin anew at each character of a long line.
_URL = pattern(r"([a-zA-Z][a-zA-Z0-9+.-]{0,30})://([^\s\"<>]+)")
# A password with a bare `/`, `?` or `#` makes no URL; it is one that somebody got wrong.
_USERINFO = pattern(r"[^/?#]*@|[^/?#@:\[]*:(?![0-9]*(?:[/?#]|\Z)).*@")
_SECRET_QUERY = pattern(
    r"(?i:([?&](?:sig|key|auth|hmac|jwt|pwd|policy|verify|[^=&#]{0,40}"
    r"(?:token|secret|passw|credential|signature|api[-_]?key|access[-_]?key)[^=&#]{0,40})=)[^&#']+)"
)
_NO_SECRET = frozenset({"", "x-oauth-basic"})  # as a password: the user is the token then


def redacted(text: str) -> str:
    """The text with `xxxxx` for what is secret in its URLs. Redacting twice changes nothing."""
    return _URL.sub(_url, text) if _MARK in text else text


def _url(match: Match[str]) -> str:
    scheme, rest = match[1], match[2]
    found = _USERINFO.match(rest)
    if found is not None:
        rest = f"{_userinfo(scheme, found[0][:-1])}@{rest[found.end() :]}"
    return f"{scheme}{_MARK}{_SECRET_QUERY.sub(_masked, rest)}"


def _userinfo(scheme: str, text: str) -> str:
    user, colon, password = text.partition(":")
    if scheme.lower() in {"ssh", "git"} and not colon:
        return user
    return MASK if password in _NO_SECRET else f"{user}:{MASK}"


def _masked(match: Match[str]) -> str:
    return match[1] + MASK
