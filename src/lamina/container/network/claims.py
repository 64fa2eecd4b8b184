# SPDX-License-Identifier: Apache-2.0
"""A claim: the document that says which process holds an address, and which ports it published.

A holder is a pid with its start time, so that a pid used again is not mistaken for it. The body is
JSON: `{"owner": text, "pid": n, "start": ticks, "ports": [[container, protocol, ip, host], ...]}`, and
`network`, `ip6` and `mac` of an address in a user's network.
"""

from __future__ import annotations

from lamina.container.network.publish import PortMapping
from lamina.errors import LaminaError
from lamina.start.jsontext import dumps, loads
from lamina.start.record import Record
from lamina.store.ports import Document

ADDRESS = "address"
"""The documents' kind; id and name are the address in dotted form."""


_OF_NETWORKS = ("network", "ip6", "mac")


class Claim(Record):
    """Who holds an address. `start` is in clock ticks since boot (proc(5), field 22). `network` is the
    id of a user's network, empty for the default one.
    """

    owner: str
    pid: int
    start: int
    mappings: tuple[PortMapping, ...] = ()
    network: str = ""
    ip6: str = ""
    mac: str = ""

    @staticmethod
    def of(owner: str, pid: int, *, network: str = "") -> Claim:
        """The claim of a live process, without ports.

        Raises:
            LaminaError: kind SYSTEM, if /proc shows no such process.
        """
        start = start_time(pid)
        if not start:
            raise LaminaError(f"no process {pid} in /proc to hold an address")
        return Claim(owner, pid, start, network=network)

    @staticmethod
    def parse(document: Document) -> Claim:
        """The claim in a document; a damaged one belongs to nobody and counts as dead."""
        try:
            body = loads(document.body)
            ports = [PortMapping(int(c), str(p), str(i), int(h)) for c, p, i, h in body["ports"]]
            network, ip6, mac = (str(body.get(name, "")) for name in _OF_NETWORKS)
            pid, start = int(body["pid"]), int(body["start"])
            return Claim(str(body["owner"]), pid, start, tuple(ports), network, ip6, mac)
        except (ValueError, TypeError, KeyError, AttributeError):
            return Claim(owner="", pid=0, start=0)

    def body(self) -> str:
        """The JSON text."""
        ports = [
            [mapping.container_port, mapping.protocol, mapping.host_ip, mapping.host_port]
            for mapping in self.mappings
        ]
        document = {"owner": self.owner, "pid": self.pid, "start": self.start, "ports": ports}
        if self.network:
            document |= {name: getattr(self, name) for name in _OF_NETWORKS}
        return dumps(document)

    def document(self, ip: str, *, at: float) -> Document:
        """The document for the address `ip`, made at `at` (POSIX seconds)."""
        return Document(kind=ADDRESS, id=ip, name=ip, body=self.body(), created=at)

    def is_alive(self) -> bool:
        """Whether the process that made the claim still runs."""
        return self.pid > 0 and self.start > 0 and start_time(self.pid) == self.start


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 if it does not run (or is a zombie,
    whose descriptors are closed already).
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The command (field 2) may hold spaces and parentheses: fields go on after the last.
            fields = stat.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in {b"Z", b"X"} else int(fields[19])
