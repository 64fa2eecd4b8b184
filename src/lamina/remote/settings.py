# SPDX-License-Identifier: Apache-2.0
"""What reaching the network depends on."""

from __future__ import annotations

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PASSED = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
GIT_PROTOCOLS = ("https", "http", "ssh", "git")


class RemoteSettings(Record):
    """`ca_bundle` is a PEM file (empty: the system's), `proxies` the proxy variables in lower case,
    `search_path` a PATH, `ssh_agent` the socket of an ssh agent (empty: none). `protocols` are those
    that git may speak; `file` is not among them, a test may add it.
    """

    ca_bundle: str = ""
    proxies: tuple[tuple[str, str], ...] = ()
    search_path: str = ""
    ssh_agent: str = ""
    protocols: tuple[str, ...] = GIT_PROTOCOLS

    def proxy(self, name: str) -> str:
        """The proxy variable's value, empty if it is not set."""
        return dict(self.proxies).get(name, "")


def remote_settings(env: Mapping[str, str], *, ca_bundle: str = "") -> RemoteSettings:
    """The settings in an environment; a bundle of the configuration comes first."""
    proxies = []
    for name in _PASSED:
        value = env.get(name) or env.get(name.upper(), "")
        if name == "http_proxy" and "REQUEST_METHOD" in env:
            value = env.get(name, "")  # CGI: HTTP_PROXY would be a request header (httpoxy)
        if value:
            proxies.append((name, value))
    return RemoteSettings(
        ca_bundle=ca_bundle or env.get("SSL_CERT_FILE", ""),
        proxies=tuple(proxies),
        search_path=env.get("PATH", ""),
        ssh_agent=env.get("SSH_AUTH_SOCK", ""),
    )
