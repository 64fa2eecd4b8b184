# SPDX-License-Identifier: Apache-2.0
"""Who is called what in the networks of one container: what its resolver answers from.

Asked of the store each time: containers come, go and are renamed without anybody telling. A container is
known by its name, aliases, short id and host name, and by each of them with `.NETWORK` behind it.
"""

from __future__ import annotations

import ipaddress

from lamina.container.network import endpoints, networks
from lamina.container.network.endpoints import Endpoint, present
from lamina.start.jsontext import loads
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.container.network.endpoints import Presence
    from lamina.store.ports import Document, Documents

_CONTAINER = "container"  # the documents' kind


class Answer(Record):
    """The addresses of a name, packed: a name that is known may have none of a family."""

    v4: tuple[bytes, ...] = ()
    v6: tuple[bytes, ...] = ()


class Names:
    """The names that the container `owner` may use."""

    def __init__(self, documents: Documents, owner: str) -> None:
        self._documents = documents
        self._owner = owner

    def find(self, name: str) -> Answer | None:
        """The addresses of the name (in lower case); None if nobody has it."""
        found = [
            presence
            for presence, network, names in self._others()
            if name in names or (name.endswith(f".{network}") and _head(name, network) in names)
        ]
        if not found:
            return None
        return Answer(
            tuple(dict.fromkeys(ipaddress.ip_address(each.ip).packed for each in found)),
            tuple(
                dict.fromkeys(
                    ipaddress.ip_address(each.claim.ip6).packed for each in found if each.claim.ip6
                )
            ),
        )

    def name_of(self, pointer: str) -> str | None:
        """The name of an address, asked as `2.0.18.172.in-addr.arpa` or its IPv6 equal."""
        address = _address_of(pointer)
        if address is None:
            return None
        for presence, network, _ in self._others():
            theirs = [text for text in (presence.ip, presence.claim.ip6) if text]
            if address in [ipaddress.ip_address(text) for text in theirs]:
                document = self._documents.get(_CONTAINER, presence.claim.owner)
                return f"{document.name}.{network}" if document is not None else None
        return None

    def _others(self) -> Iterator[tuple[Presence, str, set[str]]]:
        """Who is in a network of the container, itself too: (where, the network's name, names)."""
        everybody = [each for each in present(self._documents) if each.claim.network]
        mine = {each.network for each in everybody if each.claim.owner == self._owner}
        named = {each.id: each.name.lower() for each in self._documents.list(networks.KIND)}
        containers = {each.id: each for each in self._documents.list(_CONTAINER)}
        asked = {each.id: each for each in self._documents.list(endpoints.KIND)}
        for presence in everybody:
            owner = containers.get(presence.claim.owner)
            network = presence.network
            if network not in mine or network not in named or owner is None:
                continue
            document = asked.get(Endpoint(owner.id, network).id)
            aliases = Endpoint.parse(document).aliases if document is not None else ()
            yield presence, named[network], _names_of(owner, aliases)


def _names_of(container: Document, aliases: tuple[str, ...]) -> set[str]:
    try:
        hostname = str(loads(container.body)["process"]["hostname"])
    except (ValueError, TypeError, KeyError):
        hostname = ""  # a damaged record has its other names
    names = (container.name, container.id[:12], hostname, *aliases)
    return {name.lower() for name in names if name}


def _head(name: str, network: str) -> str:
    return name[: -len(network) - 1]


def _address_of(pointer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address whose name is asked for; None if it is none."""
    labels = pointer.split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return ipaddress.IPv4Address(".".join(reversed(labels[:4])))
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34:
            return ipaddress.IPv6Address(int("".join(reversed(labels[:32])), 16))
    except ValueError:
        pass
    return None
