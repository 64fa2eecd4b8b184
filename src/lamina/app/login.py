# SPDX-License-Identifier: Apache-2.0
"""Log in to registries and out again."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.registry.auth import Credentials
from lamina.registry.config import normalise_key
from lamina.registry.protocol import RegistryError, parse_challenges
from lamina.registry.transport import Request
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.registry.client import Registries
    from lamina.registry.config import CredentialStore


class LoggedIn(Record):
    """Where the credentials are kept: `helper` True for a credential helper, else a plain file."""

    host: str
    place: str
    helper: bool


def server_of(text: str) -> str:
    """The registry that the user means: `docker.io` for nothing and for Docker Hub's addresses.

    Raises:
        LaminaError: kind USAGE for what is no host.
    """
    host = normalise_key(text or "docker.io")
    if not host or "/" in host or any(c.isspace() or c == "@" for c in host):
        raise LaminaError(f"invalid registry {text!r}: expected HOST[:PORT]", kind=Kind.USAGE)
    return host


def login(
    registries: Registries, store: CredentialStore, server: str, credentials: Credentials
) -> LoggedIn:
    """Check the credentials with the registry, then keep them; nothing is kept if it refuses.

    A token server's refresh token is kept in place of the password.

    Raises:
        RegistryError: kind DENIED for a wrong user or password.
    """
    host = server_of(server)
    place = registries.conf.places(host, by_digest=False, mirrors=False)[-1]
    endpoint = registries.endpoint(
        place.location.partition("/")[0], "", insecure=place.insecure, given=credentials
    )
    answer = endpoint.send_plain(Request("GET", f"{endpoint.base}/v2/"))
    answer.close()
    if answer.status == 401:
        challenges = parse_challenges(answer.header("WWW-Authenticate"))
        bearer = next((c for c in challenges if c.scheme == "bearer"), None)
        if bearer is not None:
            endpoint.auth.login(bearer)
        elif not any(c.scheme == "basic" for c in challenges):
            raise RegistryError(
                f"{host} asks for no kind of login that lamina knows", kind=Kind.UNSUPPORTED
            )
        endpoint.send(
            Request("GET", "/v2/"), scopes=(), what=f"logging in to {host}", expect=(200,)
        ).close()
    elif answer.status != 200:
        raise RegistryError(
            f"{host} is no registry: HTTP status {answer.status} for /v2/", kind=Kind.UNAVAILABLE
        )
    kept = credentials
    if endpoint.auth.refresh_token:
        kept = Credentials(credentials.username, "", endpoint.auth.refresh_token)
    where = store.store(host, kept)
    return LoggedIn(host, where, store.uses_helper(host))


def logout(store: CredentialStore, server: str) -> tuple[str, bool]:
    """Forget the credentials of a registry: (host, whether there were any)."""
    host = server_of(server)
    return host, store.erase(host)
