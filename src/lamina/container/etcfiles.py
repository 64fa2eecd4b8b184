# SPDX-License-Identifier: Apache-2.0
"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container, as text (pure).

The files are bind-mounted; the image's own are never changed.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FALLBACK_NAMESERVERS = ("8.8.8.8", "8.8.4.4")
"""What Docker uses when the host only has resolvers on loopback addresses."""

SYSTEMD_RESOLV_CONF = "/run/systemd/resolve/resolv.conf"
"""Where systemd-resolved keeps the real servers behind its stub 127.0.0.53."""

_HOSTS = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


class ResolvConf(Record):
    """A resolv.conf. `fallback` says that the public servers had to be used."""

    text: str
    fallback: bool = False


def hosts_file(
    *,
    hostname: str,
    address: str = "",
    extra_hosts: Sequence[tuple[str, str]] = (),
    host_gateway: str = "",
    more_addresses: Sequence[str] = (),
    domainname: str = "",
) -> str:
    """/etc/hosts: the loopback names, `extra_hosts` (name, address), then the container itself.

    `host-gateway` as an address stands for `host_gateway`. Without an address of its own the
    container's name means loopback. A container in several networks has `more_addresses`.

    Raises:
        LaminaError: kind USAGE for a bad name or address, or host-gateway when none is known.
    """
    lines = [_HOSTS]
    for name, text in extra_hosts:
        target = text
        if text == "host-gateway":
            if not host_gateway:
                raise LaminaError(
                    f"cannot derive host-gateway for {name}: the container has no gateway",
                    kind=Kind.USAGE,
                    hint="give the address itself, or use the bridge network",
                )
            target = host_gateway
        _check(name, target.strip("[]"))
        lines.append(f"{target.strip('[]')}\t{name}\n")
    if hostname:
        names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
        lines += [f"{own}\t{names}\n" for own in (address or "127.0.1.1", *more_addresses)]
    return "".join(lines)


def _check(name: str, address: str) -> None:
    if not name or any(c.isspace() or c == "#" or not c.isprintable() for c in name):
        raise LaminaError(f"invalid host name {name!r}", kind=Kind.USAGE)
    if not _is_address(address):
        raise LaminaError(f"invalid IP address {address!r} for host {name}", kind=Kind.USAGE)


def _is_address(text: str) -> bool:
    from ipaddress import ip_address  # only for containers with extra hosts or --dns

    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def resolv_conf(
    host: str,
    *,
    systemd: str = "",
    dns: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    host_network: bool = False,
) -> ResolvConf:
    """The container's resolv.conf, made from the host's text.

    With the host's network it is the host's, unchanged. Otherwise servers on loopback addresses
    (systemd-resolved's stub, dnsmasq) cannot be reached and are left out; if none remains,
    `systemd` (the text of SYSTEMD_RESOLV_CONF) is used, and then the public servers. `dns`
    replaces the servers in any case; search domains and options of the host are kept, unless `search`
    (`.` for none) or `options` say others.

    Raises:
        LaminaError: kind USAGE for a `dns` that is not an address.
    """
    for text in dns:
        if not _is_address(text):
            raise LaminaError(f"invalid DNS server address {text!r}", kind=Kind.USAGE)
    if host_network and not (dns or search or options):
        return ResolvConf(host)
    others = _other_lines(host)
    if search:
        others = [line for line in others if line.split()[0] == "options"]
        others += [] if tuple(search) == (".",) else [f"search {' '.join(search)}"]
    if options:
        others = [line for line in others if line.split()[0] != "options"]
        others.append(f"options {' '.join(options)}")
    if dns:
        return ResolvConf(_render(dns, others))
    if host_network:
        return ResolvConf(_render(_nameservers(host), others))
    if search or options:
        host = _render(_nameservers(host), others)
        systemd = _render(_nameservers(systemd), others)
    for source in (host, systemd):
        servers = [text for text in _nameservers(source) if not _is_loopback(text)]
        if servers:
            return ResolvConf(_render(servers, _other_lines(source)))
    return ResolvConf(_render(FALLBACK_NAMESERVERS, _other_lines(host)), fallback=True)


def upstream_servers(host: str) -> list[str]:
    """The servers of the host's resolv.conf, as the host itself asks them: also those on loopback."""
    return _nameservers(host) or list(FALLBACK_NAMESERVERS)


def _render(servers: Sequence[str], others: Sequence[str]) -> str:
    return "".join([f"nameserver {text}\n" for text in servers] + [f"{line}\n" for line in others])


def _nameservers(text: str) -> list[str]:
    words = (line.split() for line in text.splitlines())
    return [found[1] for found in words if len(found) >= 2 and found[0] == "nameserver"]


def _other_lines(text: str) -> list[str]:
    """`search`, `domain` and `options` lines."""
    return [
        line.strip()
        for line in text.splitlines()
        if line.split()[:1] and line.split()[0] in ("search", "domain", "options")
    ]


def _is_loopback(server: str) -> bool:
    return server.startswith("127.") or server in ("::1", "0.0.0.0", "::")  # noqa: S104
