# SPDX-License-Identifier: Apache-2.0
"""What a container may ask a network for, as values of `RunOptions.networks`."""

from __future__ import annotations

from lamina.app.run_options import NetworkRequest
from lamina.container.network.addresses import parse_ip, parse_ip6
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["check_request", "network_request", "refuse_addresses"]


def network_request(
    name: str, *, aliases: Sequence[str] = (), ip: str = "", ip6: str = "", mac: str = ""
) -> NetworkRequest:
    """A place in the network `name`: further names there, and addresses of its own choice.

    Raises:
        LaminaError: USAGE for what is no address, or not for the default network.
    """
    request = NetworkRequest(name, tuple(aliases), ip, ip6, mac)
    check_request(request)
    return request


def refuse_addresses(request: NetworkRequest) -> None:
    """Raise LaminaError of kind USAGE for what there is in networks of one's own only."""
    if request.ip or request.ip6:
        _refuse("user specified IP address is supported on user defined networks only")
    if request.aliases:
        _refuse("network-scoped alias is supported only for containers in user defined networks")


def check_request(request: NetworkRequest) -> None:
    """Raise LaminaError of kind USAGE for what is no address, or not for the default network."""
    if request.name == "bridge":
        refuse_addresses(request)
    for text, read in ((request.ip, parse_ip), (request.ip6, parse_ip6)):
        try:
            if text:
                read(text)
        except ValueError:
            _refuse(f"invalid IP address: {text}")
    if request.mac:
        _check_mac(request.mac)


def _check_mac(text: str) -> None:
    parts: Sequence[str] = text.replace("-", ":").split(":")
    try:
        octets = bytes.fromhex("".join(parts))
    except ValueError:
        octets = b""
    if len(octets) != 6 or any(len(part) != 2 for part in parts):
        _refuse(f"{text} is not a valid mac address")
    if octets[0] & 1:  # the kernel takes a group's address for no interface
        _refuse(f"{text} is the address of a group")


def _refuse(what: str) -> NoReturn:
    raise LaminaError(what, kind=Kind.USAGE)
