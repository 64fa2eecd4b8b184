# SPDX-License-Identifier: Apache-2.0
"""A port is reserved for the HTTP server: nobody else gets it, whatever was there before."""

from __future__ import annotations

import socket

import pytest

from lamina.errors import Kind, LaminaError
from lamina.server.serve import reserved

HOST = "127.0.0.1"


def bound(port: int, *options: int) -> socket.socket:
    """A socket on the port, as somebody else would make it."""
    made = socket.socket()
    try:
        for option in options:
            made.setsockopt(socket.SOL_SOCKET, option, 1)
        made.bind((HOST, port))
    except OSError:
        made.close()
        raise
    return made


@pytest.mark.parametrize("port", [0, 1], ids=["any port", "port that was asked for"])
def test_reserved_port_is_taken_for_all_but_the_http_server(port: int) -> None:
    if port:
        with bound(0) as free:
            port = free.getsockname()[1]
    with reserved(HOST, port) as number:
        assert port in {0, number}
        with pytest.raises(LaminaError, match="Address already in use") as caught:
            reserved(HOST, number).__enter__()
        assert caught.value.kind is Kind.CONFLICT
        with pytest.raises(OSError, match="Address already in use"):
            bound(number, socket.SO_REUSEADDR)
        with bound(number, socket.SO_REUSEADDR, socket.SO_REUSEPORT) as server:  # granian's
            server.listen()
            with socket.create_connection((HOST, number), timeout=30):
                server.accept()[0].close()


@pytest.mark.parametrize(
    "options",
    [(socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)],
    ids=["docker-registry's", "granian's"],
)
def test_port_with_past_connections_of_another_server_is_free(options: tuple[int, ...]) -> None:
    with bound(0, *options) as server:
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection((HOST, port)) as client:
            server.accept()[0].close()  # who closes first keeps the connection, for a minute
            assert client.recv(1) == b""

    with reserved(HOST, port) as number:
        assert number == port
