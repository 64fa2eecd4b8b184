# SPDX-License-Identifier: Apache-2.0
"""`--network` and what belongs to it: which networks a container asks for, and how (docker/cli opts/network.go)."""

from __future__ import annotations

from lamina.app.run_options import NetworkRequest
from lamina.app.runnetworks import check_request, refuse_addresses
from lamina.errors import Kind, LaminaError
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import NoReturn

_ALONE = ("host", "none")  # these, and `container:`, go with no other
_OWN = {  # Docker's words for what another container's network has already
    "publish": "port publishing and the container type network mode",
    "publish_all": "port publishing and the container type network mode",
    "expose": "port exposing and the container type network mode",
    "hostname": "hostname and the network mode",
    "dns": "dns and the network mode",
    "dns_search": "dns and the network mode",
    "dns_option": "dns and the network mode",
    "add_host": "custom host-to-IP mapping and the network mode",
    "mac_address": "mac-address and the network mode",
}


def read_networks(args: argparse.Namespace) -> tuple[str, tuple[NetworkRequest, ...]]:
    """(the network mode, what each network is asked for). Raises LaminaError of kind USAGE or
    UNSUPPORTED.
    """
    requests = [_request(text) for text in args.network] or [NetworkRequest("bridge")]
    names = [each.name for each in requests]
    for name in names:
        if names.count(name) > 1:
            _refuse(f'network "{name}" is specified multiple times')
    alone = [name for name in names if name in _ALONE or name.startswith("container:")]
    if alone and len(names) > 1:
        _refuse(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        )
    requests[0] = _with_flags(requests[0], args)
    if alone:
        _check_alone(requests[0], args)
        return alone[0], ()
    for each in requests:
        check_request(each)
    return names[0], tuple(requests)


def _request(text: str) -> NetworkRequest:
    """`NAME`, or Docker's long form `name=NAME,alias=A,ip=IP`."""
    if "=" not in text:
        return NetworkRequest("bridge" if text == "default" else text)
    values: dict[str, list[str]] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if not equals or not value.strip():
            _refuse(f"invalid field {part!r} of --network {text}: KEY=VALUE")
        if key in {"driver-opt", "gw-priority", "link-local-ip"}:
            raise LaminaError(f"--network {key}= is not supported", kind=Kind.UNSUPPORTED)
        if key not in {"name", "alias", "ip", "ip6", "mac-address"}:
            _refuse(f"invalid field key {key} of --network {text}")
        values.setdefault(key, []).append(value.strip())
    if "name" not in values:
        _refuse(f"network name is not specified: --network {text}")
    last = {key: found[-1] for key, found in values.items()}
    return NetworkRequest(
        "bridge" if last["name"] == "default" else last["name"],
        aliases=tuple(values.get("alias", ())),
        ip=last.get("ip", ""),
        ip6=last.get("ip6", ""),
        mac=last.get("mac-address", ""),
    )


def _with_flags(request: NetworkRequest, args: argparse.Namespace) -> NetworkRequest:
    """The first network has what the flags of their own say."""
    for flag, own, said in (
        ("--network-alias", request.aliases, args.network_alias),
        ("--ip", request.ip, args.ip),
        ("--ip6", request.ip6, args.ip6),
        ("--mac-address", request.mac, args.mac_address),
    ):
        if own and said:
            _refuse(f"conflicting options: cannot specify both {flag} and that of the network")
    return replace(
        request,
        aliases=request.aliases or tuple(args.network_alias),
        ip=request.ip or args.ip,
        ip6=request.ip6 or args.ip6,
        mac=request.mac or args.mac_address,
    )


def _check_alone(request: NetworkRequest, args: argparse.Namespace) -> None:
    is_container = request.name.startswith("container:")
    if is_container and not request.name.removeprefix("container:"):
        _refuse("invalid container format container:<name|id>")
    for name, words in _OWN.items():
        if getattr(args, name) and (is_container or name == "mac_address"):
            _refuse(f"conflicting options: {words}")
    refuse_addresses(request)


def _refuse(what: str) -> NoReturn:
    raise LaminaError(what, kind=Kind.USAGE)
