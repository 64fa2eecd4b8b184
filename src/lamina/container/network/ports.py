# SPDX-License-Identifier: Apache-2.0
"""Reservations: sockets bound to the published port on the host.

The kernel is the referee: whoever binds first has the port, and other programs get EADDRINUSE.
The sockets also serve what DNAT does not see (`forward.py`).
"""

from __future__ import annotations

import errno
import socket

from lamina.container.network.publish import PortMapping, join_host
from lamina.errors import Kind, LaminaError
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_BACKLOG = 128
_FIRST_PORT = "net/ipv4/ip_unprivileged_port_start"
_EPHEMERAL_TRIES = 32
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def reserve(mapping: PortMapping) -> tuple[PortMapping, list[socket.socket]]:
    """Bind the mapping's port; return it with the port chosen, and non-blocking sockets.

    TCP sockets listen. For every address of the host there is one IPv4 socket and, where the host
    has IPv6, one IPv6 socket. The caller closes them.

    Raises:
        LaminaError: kind CONFLICT (the port, or every port of the range, is taken), DENIED (a
            privileged port), EXHAUSTED (no descriptor is left), USAGE (the address is not one of this host's).
    """
    ports: Iterable[int] = [mapping.host_port]
    if mapping.host_port_end:
        ports = range(mapping.host_port, mapping.host_port_end + 1)
    elif not mapping.host_port:
        ports = [0] * _EPHEMERAL_TRIES
    last: OSError | None = None
    for port in ports:
        try:
            sockets = _bind_all(mapping, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise _explain(mapping, port, error) from error
            last = error
        else:
            chosen = int(sockets[0].getsockname()[1])
            return replace(mapping, host_port=chosen, host_port_end=0), sockets
    assert last is not None
    raise _explain(mapping, mapping.host_port, last) from last


def _bind_all(mapping: PortMapping, port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        if mapping.host_ip:
            sockets.append(_bind(mapping.protocol, mapping.host_ip, port))
            return sockets
        sockets.append(_bind(mapping.protocol, "0.0.0.0", port))  # noqa: S104  # publishing means it
        try:
            chosen = sockets[0].getsockname()[1]
            sockets.append(_bind(mapping.protocol, "::", chosen))
        except OSError as error:
            if error.errno not in _NO_SUCH_FAMILY:
                raise
        return sockets
    except OSError:
        for bound in sockets:
            bound.close()
        raise


def _bind(protocol: str, ip: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    bound = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "tcp":
            # Only skips TIME_WAIT: Linux still refuses a port that another socket listens on.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((ip, port))
        if protocol == "tcp":
            bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def first_free_port() -> int:
    """The lowest port that every user of this host may listen on."""
    try:
        with open(f"/proc/sys/{_FIRST_PORT}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1024


def _explain(mapping: PortMapping, port: int, error: OSError) -> LaminaError:
    host = join_host(mapping.host_ip or "0.0.0.0", port)  # noqa: S104  # text, not a bind
    if error.errno == errno.EADDRINUSE:
        return LaminaError(
            f"Bind for {host} failed: port is already allocated",
            kind=Kind.CONFLICT,
            hint="publish another port, or stop what uses it: "
            f"`ss -Hlnp 'sport = :{port}'` shows it",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return LaminaError(
            f"Bind for {host} failed: no interface of this host has the address",
            kind=Kind.USAGE,
        )
    kind = Kind.SYSTEM
    if error.errno in {errno.EACCES, errno.EPERM}:
        return LaminaError(
            f"Bind for {host} failed: ports below {first_free_port()} are root's on this host",
            kind=Kind.DENIED,
            hint=f"publish a port from {first_free_port()} on, or allow it: "
            f"sudo sysctl -w {_FIRST_PORT.replace('/', '.')}={port}",
        )
    if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
        kind = Kind.EXHAUSTED
    return LaminaError(f"Bind for {host} failed: {error.strerror}", kind=kind)
