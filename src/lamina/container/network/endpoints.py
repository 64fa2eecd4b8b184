# SPDX-License-Identifier: Apache-2.0
"""Which networks a container is in: what was asked for (`Endpoint`), and where it is now (`Claim`).

A container whose mode is `bridge` is in that network without a document; a document says what differs:
that it was disconnected, or its addresses. Documents go with the container (`lifecycle.delete`).
"""

from __future__ import annotations

from lamina.container.network.claims import ADDRESS, Claim
from lamina.container.network.told import PREDEFINED
from lamina.container.state import ENDPOINT
from lamina.start.jsontext import dumps, loads
from lamina.start.record import Record
from lamina.store.ports import Document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.store.ports import Documents

KIND = ENDPOINT
BRIDGE = PREDEFINED["bridge"]


class Endpoint(Record):
    """What a container asked a network for. `number` orders its interfaces. `gone`: it is not in the
    network that its mode says.
    """

    container: str
    network: str
    number: int = 0
    aliases: tuple[str, ...] = ()
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    gone: bool = False

    @property
    def id(self) -> str:
        """The document's id and name, which begins with the container's."""
        return f"{self.container}:{self.network}"

    def document(self) -> Document:
        """The document."""
        body = {
            "number": self.number,
            "aliases": list(self.aliases),
            "ip": self.ip,
            "ip6": self.ip6,
            "mac": self.mac,
            "gone": self.gone,
        }
        return Document(KIND, self.id, self.id, dumps(body), float(self.number))

    @staticmethod
    def parse(document: Document) -> Endpoint:
        """The endpoint in a document; of a damaged one only which network it is in is known."""
        container, _, network = document.id.partition(":")
        try:
            body = loads(document.body)
            return Endpoint(
                container,
                network,
                number=int(body["number"]),
                aliases=tuple(str(alias) for alias in body["aliases"]),
                ip=str(body["ip"]),
                ip6=str(body["ip6"]),
                mac=str(body["mac"]),
                gone=body["gone"] is True,
            )
        except (ValueError, TypeError, KeyError):
            return Endpoint(container, network)


def endpoints_of(documents: Documents, container: str, *, mode: str) -> list[Endpoint]:
    """The networks that the container is to be in, in the order of their interfaces. `mode` is its
    configuration's `network`.
    """
    found = [Endpoint.parse(each) for each in documents.find(KIND, f"{container}:")]
    if mode == "bridge" and all(each.network != BRIDGE for each in found):
        found.append(Endpoint(container, BRIDGE))
    return sorted((each for each in found if not each.gone), key=lambda each: each.number)


class Presence(Record):
    """A container in a network at this moment, at `ip`."""

    ip: str
    claim: Claim

    @property
    def network(self) -> str:
        """The network's id."""
        return self.claim.network or BRIDGE


def present(documents: Documents) -> list[Presence]:
    """Every live address of the store, oldest first; those of builds too."""
    found = [Presence(each.name, Claim.parse(each)) for each in documents.list(ADDRESS)]
    return [each for each in found if each.claim.is_alive()]
