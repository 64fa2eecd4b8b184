# SPDX-License-Identifier: Apache-2.0
"""Docker's `-p` grammar: `[[IP:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/PROTOCOL]`. Pure."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_PROTOCOLS = ("tcp", "udp")
_HINT = "write it as in `-p 8080:80`, `-p 127.0.0.1:8080:80/udp` or `-p 8000-8010:8000-8010`"


class PortMapping(Record):
    """A port of a container and where the host offers it.

    `host_ip` empty means every address of the host, IPv6 too; `host_port` 0 means a free port,
    from `host_port` to `host_port_end` if that is not 0.
    """

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0
    host_port_end: int = 0

    def __str__(self) -> str:
        """As `docker ps` prints it: `0.0.0.0:8080->80/tcp`."""
        host = self.host_ip or "0.0.0.0"  # noqa: S104  # text, not a bind
        return f"{join_host(host, self.host_port)}->{self.container_port}/{self.protocol}"


def join_host(ip: str, port: int) -> str:
    """`ip:port`, with brackets round an IPv6 address."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def parse_publish(text: str) -> tuple[PortMapping, ...]:
    """The mappings that one `-p` argument asks for, lowest port first.

    Raises:
        LaminaError: kind USAGE, in Docker's words; kind UNSUPPORTED for sctp.
    """
    host_ip, host_ports, container = _split(text)
    container_ports, _, protocol = container.partition("/")
    if not container_ports:
        _refuse(f"no port specified: {text}<empty>")
    protocol = _check_protocol(protocol.lower() or "tcp")
    host_ip = _check_ip(host_ip)
    first, last = _parse_range(container_ports, "containerPort")
    if not host_ports:
        return tuple(PortMapping(port, protocol, host_ip) for port in range(first, last + 1))
    low, high = _parse_range(host_ports, "hostPort")
    if last - first == high - low:
        return tuple(
            PortMapping(first + n, protocol, host_ip, low + n) for n in range(last - first + 1)
        )
    if first != last:
        _refuse(
            f"invalid ranges specified for container and host Ports: {container_ports} "
            f"and {host_ports}"
        )
    return (PortMapping(first, protocol, host_ip, low, high),)


def _split(text: str) -> tuple[str, str, str]:
    head, _, container = text.rpartition(":")
    if head.endswith("]"):
        _refuse(f"no host port specified: {head}:<empty>:{container}")
    host_ip, _, host_ports = head.rpartition(":")
    return host_ip, host_ports, container


def _check_protocol(protocol: str) -> str:
    if protocol == "sctp":
        raise LaminaError(
            "publishing sctp ports is not supported",
            kind=Kind.UNSUPPORTED,
            hint="use tcp or udp, or `--network host`",
        )
    if protocol not in _PROTOCOLS:
        _refuse(f"invalid proto: {protocol}")
    return protocol


def _check_ip(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not bare:
        if text:
            _refuse(f"invalid IP address: {text}")
        return ""
    import socket

    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, bare))
    except (OSError, ValueError):
        _refuse(f"invalid IP address: {text}")


def _parse_range(text: str, name: str) -> tuple[int, int]:
    """`80` or `80-90`. A host port of 0 is Docker's "any"; a container's port cannot be 0."""
    low_text, dash, high_text = text.partition("-")
    low = _parse_port(low_text)
    high = _parse_port(high_text) if dash else low
    lowest = 1 if name == "containerPort" or dash else 0
    if low is None or high is None or high < low or low < lowest:
        _refuse(f"invalid {name}: {text}")
    return low, high


def _parse_port(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return None
    port = int(text)
    return port if port <= 65535 else None


def _refuse(what: str) -> NoReturn:
    raise LaminaError(what, kind=Kind.USAGE, hint=_HINT)
