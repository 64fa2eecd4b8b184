# SPDX-License-Identifier: Apache-2.0
"""List networks."""

from __future__ import annotations

import re

from lamina.app.networks import every_network
from lamina.app.places import users_of
from lamina.cli.format import go_time, listing
from lamina.container.network.networks import truth
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context
    from lamina.container.network.networks import NamedNetwork

USAGE = "[OPTIONS]"
STATUS_OF_FAILURE = 1
HEADERS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
}
_DEFAULT = ("ID", "Name", "Driver", "Scope")


def configure(parser: Parser) -> None:
    parser.add_argument(
        "-f", "--filter", action="append", default=[], help="name=, id=, driver=, label=, ..."
    )
    parser.add_argument("--format", default=None, help="table, json, or a Go template")
    parser.switch("--no-trunc", help="do not shorten")
    parser.switch("-q", "--quiet", help="ids only")


def run(args: argparse.Namespace, context: Context) -> int:
    tests = _tests(args.filter, context)
    found = [each for each in every_network(context.store()) if all(test(each) for test in tests)]
    rows = [_row(each, no_trunc=args.no_trunc) for each in found]
    quiet = "ID" if args.quiet else ""
    for line in listing(args.format, headers=HEADERS, default=_DEFAULT, rows=rows, quiet=quiet):
        context.print(line)
    return 0


def _row(network: NamedNetwork, *, no_trunc: bool) -> dict[str, object]:
    config = network.config
    return {
        "ID": network.id if no_trunc else network.id[:12],
        "Name": network.name,
        "Driver": network.driver,
        "Scope": "local",
        "IPv4": "true",
        "IPv6": str(bool(config and config.subnet6)).lower(),
        "Internal": str(bool(config and config.internal)).lower(),
        "Labels": ",".join(f"{name}={value}" for name, value in config.labels) if config else "",
        "CreatedAt": go_time(network.created),
    }


def _tests(texts: list[str], context: Context) -> list[Callable[[NamedNetwork], bool]]:
    """One test for each key: several values of one are alternatives, but labels must all be there.

    Raises LaminaError of kind USAGE or INVALID.
    """
    values: dict[str, list[str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise LaminaError("bad format of filter (expected name=value)", kind=Kind.USAGE)
        values.setdefault(name.strip().lower(), []).append(value.strip())
    return [_test(name, wanted, context) for name, wanted in values.items()]


def _test(name: str, wanted: list[str], context: Context) -> Callable[[NamedNetwork], bool]:
    match name:
        case "driver":
            return lambda network: network.driver in wanted
        case "scope":
            return lambda network: "local" in wanted  # noqa: ARG005
        case "name":
            return lambda network: _matches(network.name, wanted)
        case "id":
            return lambda network: _matches(network.id, wanted)
        case "label":
            return lambda network: all(_has_label(network, text) for text in wanted)
        case "type":
            if bad := [text for text in wanted if text not in {"custom", "builtin"}]:
                raise LaminaError(f"invalid filter 'type={bad[0]}'", kind=Kind.INVALID)
            return lambda network: ("builtin" if network.config is None else "custom") in wanted
        case "dangling":
            return _dangling(wanted, context)
    raise LaminaError(f"invalid filter '{name}'", kind=Kind.INVALID)


def _matches(text: str, patterns: list[str]) -> bool:
    """As moby's filters.Args.Match: equal, or found by the regular expression."""
    try:
        return any(text == pattern or re.search(pattern, text) for pattern in patterns)
    except re.error as error:
        raise LaminaError(f"invalid filter: {error}", kind=Kind.INVALID) from error


def _has_label(network: NamedNetwork, text: str) -> bool:
    name, has_value, value = text.partition("=")
    labels = dict(network.config.labels) if network.config else {}
    return name in labels and (not has_value or labels[name] == value)


def _dangling(wanted: list[str], context: Context) -> Callable[[NamedNetwork], bool]:
    try:
        asked = {truth(text) for text in wanted}
    except ValueError:
        raise LaminaError(f"invalid filter 'dangling={wanted[0]}'", kind=Kind.INVALID) from None
    if len(asked) > 1:
        raise LaminaError("got more than one value for filter key 'dangling'", kind=Kind.INVALID)

    def test(network: NamedNetwork) -> bool:
        unused = network.config is not None and not users_of(context.store(), network.id)
        return unused in asked

    return test
