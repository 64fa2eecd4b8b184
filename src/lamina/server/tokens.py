# SPDX-License-Identifier: Apache-2.0
"""Bearer tokens: JWTs that a configured issuer signed, and the issuer that the registry can be.

Source: distribution's token specification (docs/spec/auth/token.md, jwt.md). Keys come from the
configuration only: `jwk`, `x5c` and `jku` in a token's header are never looked at (CVE-2025-24976),
and the algorithm must be one that fits the kind of the key. Issuer, audience, expiry and not-before
are required to be right.
"""

from __future__ import annotations

import secrets
import time

from lamina.errors import Kind, LaminaError
from lamina.server.rights import ACTIONS, Grant, Identity
from lamina.server.routes import check_name
from lamina.server.wire import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamina.server.config import TokenTrust

_LEEWAY = 30  # seconds by which clocks may differ
_MAX_SCOPES = 32
_MAX_TOKEN = 16384  # characters


class Verifier:
    """Turns tokens into identities."""

    def __init__(self, trust: TokenTrust, *, clock: Callable[[], float]) -> None:
        self._trust = trust
        self._clock = clock
        self._keys = [load_public_key(path) for path in trust.keys]
        self._seen: dict[str, tuple[float, Identity]] = {}

    def trust_also(self, algorithm: str, key: object) -> None:
        """Believe the registry's own issuer."""
        self._keys.append((algorithm, key))

    def identity(self, token: str) -> Identity:
        """Whom the token is of, and what it grants.

        Raises:
            Refusal: UNAUTHORIZED.
        """
        known = self._seen.get(token)
        if known is not None and known[0] > self._clock():
            return known[1]
        claims = self._claims(token)
        identity = Identity(_subject(claims), _grants(claims.get("access")))
        expiry = claims["exp"]
        assert isinstance(expiry, (int, float))
        if len(self._seen) > 4096:
            self._seen.clear()
        self._seen[token] = (float(expiry), identity)
        return identity

    def _claims(self, token: str) -> dict[str, object]:
        import jwt

        if len(token) > _MAX_TOKEN:
            raise _invalid("the token is too long")
        for algorithm, key in self._keys:
            try:
                claims: dict[str, object] = jwt.decode(
                    token,
                    key,  # type: ignore[arg-type]  # a key object of cryptography
                    algorithms=[algorithm],
                    audience=self._trust.service,
                    issuer=self._trust.issuer,
                    leeway=_LEEWAY,
                    options={
                        "require": ["exp", "iss", "aud"],
                        "verify_exp": False,
                        "verify_nbf": False,
                        "verify_iat": False,
                    },
                )
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                continue
            except (jwt.PyJWTError, ValueError, TypeError) as error:
                raise _invalid(f"invalid token: {error}") from error
            self._check_times(claims)
            return claims
        raise _invalid("the token is not signed by a key that is trusted here")

    def _check_times(self, claims: dict[str, object]) -> None:
        """By the registry's clock, which tests set; PyJWT has one of its own."""
        now = self._clock()
        expiry, begin = claims.get("exp"), claims.get("nbf", 0)
        if not isinstance(expiry, (int, float)) or not isinstance(begin, (int, float)):
            raise _invalid("invalid token: exp or nbf is not a number")
        if expiry + _LEEWAY < now:
            raise _invalid("the token has expired")
        if begin - _LEEWAY > now:
            raise _invalid("the token is not valid yet")


class Issuer:
    """Signs tokens for users of this registry."""

    def __init__(self, trust: TokenTrust, *, clock: Callable[[], float]) -> None:
        self._trust = trust
        self._clock = clock
        self._key, self.algorithm, self.public_key = load_private_key(trust.signing_key)

    def refresh_token(self, user: str, stamp: str) -> str:
        """A token that is good for access tokens of the user, as long as `stamp` is the user's."""
        import jwt

        now = int(self._clock())
        claims = {
            "iss": self._trust.issuer,
            "sub": user,
            "aud": self._refresh_audience(),
            "exp": now + int(self._trust.refresh_lifetime),
            "iat": now,
            "jti": secrets.token_urlsafe(16),
            "stamp": stamp,
        }
        return jwt.encode(claims, self._key, algorithm=self.algorithm)  # type: ignore[arg-type]  # a key object of cryptography

    def refreshed(self, token: str) -> tuple[str, str]:
        """(user, stamp) of a refresh token of this issuer.

        Raises:
            Refusal: UNAUTHORIZED for one that has expired or was not issued here.
        """
        import jwt

        if len(token) > _MAX_TOKEN:
            raise _invalid("the token is too long")
        try:
            claims: dict[str, object] = jwt.decode(
                token,
                self.public_key,  # type: ignore[arg-type]  # as above
                algorithms=[self.algorithm],
                audience=self._refresh_audience(),
                issuer=self._trust.issuer,
                options={
                    "require": ["exp", "iss", "aud", "sub"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise _invalid("the refresh token is not one of this registry") from error
        expiry, stamp = claims["exp"], claims.get("stamp")
        if not isinstance(expiry, (int, float)) or not isinstance(stamp, str):
            raise _invalid("the refresh token is not one of this registry")
        if expiry < self._clock():
            raise _invalid("the refresh token has expired")
        return _subject(claims), stamp

    def _refresh_audience(self) -> str:
        """Another audience than access tokens have: a refresh token opens nothing by itself."""
        return f"refresh {self._trust.service}"

    def token(self, user: str, grants: Sequence[Grant]) -> dict[str, object]:
        """The document a token service answers with."""
        import jwt

        now = int(self._clock())
        claims = {
            "iss": self._trust.issuer,
            "sub": user,
            "aud": self._trust.service,
            "exp": now + int(self._trust.lifetime),
            "nbf": now - 10,
            "iat": now,
            "jti": secrets.token_urlsafe(16),
            "access": [
                {"type": "repository", "name": grant.repository, "actions": sorted(grant.actions)}
                for grant in grants
            ],
        }
        token = jwt.encode(claims, self._key, algorithm=self.algorithm)  # type: ignore[arg-type]  # a key object of cryptography
        return {
            "token": token,
            "access_token": token,
            "expires_in": int(self._trust.lifetime),
            "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        }


def parse_scopes(scopes: Sequence[str]) -> list[Grant]:
    """What `scope` parameters ask for: `repository:NAME:pull,push`, several by spaces.

    Raises:
        Refusal: UNSUPPORTED for too many, NAME_INVALID; other types and unknown actions are left
            out, as token services do.
    """
    words = [word for scope in scopes for word in scope.split()]
    if len(words) > _MAX_SCOPES:
        raise Refusal("UNSUPPORTED", f"more than {_MAX_SCOPES} scopes", status=400)
    found = []
    for word in words:
        kind, _, rest = word.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind != "repository":
            continue
        asked = set(actions.split(","))
        if "*" in asked:
            asked = set(ACTIONS)
        found.append(Grant(check_name(name), frozenset(asked & set(ACTIONS))))
    return found


def load_public_key(path: str) -> tuple[str, object]:
    """(algorithm, key) of a PEM file: a public key or a certificate.

    Raises:
        LaminaError: kind NOT_FOUND or INVALID.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    raw = _read(path)
    try:
        if b"BEGIN CERTIFICATE" in raw:
            key: object = x509.load_pem_x509_certificate(raw).public_key()
        else:
            key = load_pem_public_key(raw)
        return _algorithm(key), key
    except ValueError as error:
        raise LaminaError(f"{path}: {error}", kind=Kind.INVALID) from error


def load_private_key(path: str) -> tuple[object, str, object]:
    """(private key, algorithm, public key) of a PEM file. Raises as `load_public_key`."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    raw = _read(path)
    try:
        key = load_pem_private_key(raw, password=None)
        public = key.public_key()
        return key, _algorithm(public), public
    except (ValueError, TypeError) as error:
        raise LaminaError(f"{path}: {error}", kind=Kind.INVALID) from error


def _algorithm(key: object) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < 2048:
            raise ValueError("an RSA key of fewer than 2048 bits")
        return "RS256"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return "ES256"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "EdDSA"
    raise ValueError("not an RSA, P-256 or Ed25519 key")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise LaminaError(f"{path} does not exist", kind=Kind.NOT_FOUND) from error


def _subject(claims: dict[str, object]) -> str:
    subject = claims.get("sub", "")
    return subject if isinstance(subject, str) else ""


def _grants(access: object) -> tuple[Grant, ...]:
    found = []
    for entry in access if isinstance(access, list) else []:
        if not isinstance(entry, dict) or entry.get("type") != "repository":
            continue
        name, actions = entry.get("name"), entry.get("actions")
        if isinstance(name, str) and isinstance(actions, list):
            names = frozenset(a for a in actions if isinstance(a, str))
            found.append(Grant(name, frozenset(ACTIONS) if "*" in names else names))
    return tuple(found)


def _invalid(what: str) -> Refusal:
    return Refusal("UNAUTHORIZED", what)
