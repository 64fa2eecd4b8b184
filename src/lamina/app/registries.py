# SPDX-License-Identifier: Apache-2.0
"""Registries from this user's configuration: the edge where environment becomes settings."""

from __future__ import annotations

from lamina.registry import registriesconf
from lamina.registry.client import Registries
from lamina.registry.config import CredentialStore, credential_files
from lamina.registry.endpoints import CERTIFICATE_DIRECTORIES, Hosts, NetworkSettings
from lamina.registry.transport import Proxies
from lamina.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lamina.app.settings import Settings
    from lamina.tasks import CancelToken


def connect(
    env: Mapping[str, str],
    *,
    uid: int,
    settings: Settings,
    clock: Callable[[], float],
    cancel: CancelToken,
) -> Registries:
    """The way into registries for this user; nothing is sent before it is asked something.

    Raises:
        LaminaError: INVALID for a broken registries.conf.
    """
    return Registries(
        Hosts(network(env, settings=settings), clock=clock),
        registriesconf.load(env),
        find_credentials=credential_store(env, uid=uid).find,
        cancel=cancel,
    )


def network(env: Mapping[str, str], *, settings: Settings) -> NetworkSettings:
    """How hosts are reached: proxies, certificates, trusted token servers."""
    base = env.get("XDG_CONFIG_HOME", "") or (f"{env['HOME']}/.config" if env.get("HOME") else "")
    directories = (f"{base}/containers/certs.d",) if base else ()
    return NetworkSettings(
        user_agent=f"lamina/{__version__}",
        proxies=_proxies(env),
        certificate_directories=(*directories, *CERTIFICATE_DIRECTORIES),
        allowed_realms=tuple(settings.token_realms.replace(",", " ").split()),
    )


def credential_store(env: Mapping[str, str], *, uid: int) -> CredentialStore:
    """Where this user's passwords for registries are."""
    return CredentialStore(credential_files(env, uid=uid))


def _proxies(env: Mapping[str, str]) -> Proxies:
    def value(name: str) -> str:
        return env.get(name, "") or env.get(name.lower(), "")

    return Proxies(value("HTTP_PROXY"), value("HTTPS_PROXY"), value("NO_PROXY"))
