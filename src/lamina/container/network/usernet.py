# SPDX-License-Identifier: Apache-2.0
"""An ordinary user's network: a namespace for each container, led out by pasta or slirp4netns.

They carry packets between a tap device in the namespace and sockets of the host, with no privilege
there. Ports are published by the forwarder (`forward`), whose sockets towards the container are made in
the namespace: it is faster than theirs, finds conflicts, and works whichever leads out, or none.

Rules
- The program that leads out runs as long as the process that attached, kill -9 included (`keeping`).
- It finds the namespace by a file in `directory` on which the namespace is mounted, in this process's
  mount namespace only: pasta drops what it takes to look into /proc of others.
- Nothing is shared between containers, so there is nothing to reap.
"""

from __future__ import annotations

import errno
import os
import select
import time

from lamina.container.network import links
from lamina.container.network.addresses import Subnet, parse_ip
from lamina.container.network.attachment import Attachment
from lamina.container.network.bridge import enter_namespace, explained
from lamina.container.network.forward import Forwarder
from lamina.container.network.ports import reserve
from lamina.errors import Kind, LaminaError
from lamina.start.lowlevel import allocate_lock
from lamina.start.record import Record
from lamina.start.socketmodule import socket
from lamina.system.mounts import bind, unmount
from lamina.system.netns import create_namespace
from lamina.system.programs import find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamina.container.network.netlink import Netlink
    from lamina.container.network.publish import PortMapping
    from lamina.container.ports import Helpers

TUN = "/dev/net/tun"
SEARCH_PATH = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin"
ADDRESS, GATEWAY, PREFIX = "10.0.2.100", "10.0.2.2", 24  # slirp4netns's, and so both's
_PATIENCE = 10.0  # seconds until the program must have led out
_STEP = 2  # milliseconds between two looks
_NEEDED = "install passt (or slirp4netns)"


class Way(Record):
    """What leads out of namespaces here: (name, path) of programs, best first; `why` none does."""

    programs: tuple[tuple[str, str], ...] = ()
    why: str = ""
    mend: str = ""


def find_way(*, search_path: str = SEARCH_PATH, tun: str = TUN) -> Way:
    """The programs that could lead out. Nothing is started."""
    found = [(name, find_program(name, search_path=search_path)) for name in _COMMANDS]
    programs = tuple((name, path) for name, path in found if path)
    if not programs:
        return Way((), "neither pasta nor slirp4netns is installed", f"sudo {_installation()}")
    try:
        os.close(os.open(tun, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
            return Way((), f"there is no {tun}", "sudo modprobe tun")
        return Way((), f"{tun} cannot be opened: {error.strerror}", f"sudo chmod 666 {tun}")
    return Way(programs)


def _installation() -> str:
    for manager in ("apt-get", "dnf", "zypper"):
        if find_program(manager, search_path=SEARCH_PATH):
            return f"{manager} install passt"
    return "pacman -S passt" if find_program("pacman", search_path=SEARCH_PATH) else "install passt"


def _pasta(path: str, namespace: str) -> list[str]:
    # its own port forwarding is off, and the gateway is no way to the host's loopback
    off = [word for flag in ("-t", "-u", "-T", "-U") for word in (flag, "none")]
    address = ["-a", ADDRESS, "-n", str(PREFIX), "-g", GATEWAY]
    return [
        *(path, "--config-net", "--foreground", "--quiet", "-4", "-I", "eth0", "--no-map-gw"),
        *(*off, *address, "--netns-only", "--netns", namespace),
    ]


def _slirp4netns(path: str, namespace: str) -> list[str]:
    return [
        *(path, "--configure", "--mtu=65520", "--disable-host-loopback", "--disable-dns"),
        *("--netns-type=path", namespace, "eth0"),
    ]


_COMMANDS: dict[str, Callable[[str, str], list[str]]] = {
    "pasta": _pasta,
    "slirp4netns": _slirp4netns,
}


class _Held:
    """What an attachment of this process holds."""

    def __init__(self, attachment: Attachment, helper: str) -> None:
        self.attachment = attachment
        self.helper = helper
        self.forwarder: Forwarder | None = None


class UserNetwork:
    """The network of one process. Methods may be called from several threads.

    `directory` is for the files on which namespaces are mounted, and exists. `way` leads out; without
    one a namespace has its loopback interface and published ports.
    """

    def __init__(self, helpers: Helpers, *, directory: str, way: Way) -> None:
        self._helpers = helpers
        self._directory = directory
        self._way = way
        self._guard = allocate_lock()
        self._held: dict[str, _Held] = {}
        self._number = 0

    def attach(self, owner: str, *, hold_pid: int) -> Attachment:
        """As `Network.attach`: a namespace with an address and, if anything leads out, a way there.

        Raises:
            LaminaError: kind UNAVAILABLE (what should lead out ended, with its words), DENIED,
                EXHAUSTED.
        """
        with self._guard:
            self._number += 1
            file = f"{self._directory}/netns-{self._number}"
        with explained("set up the network"):
            ns_fd, inner = create_namespace(enter_namespace)
        try:
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            bind(f"/proc/self/fd/{ns_fd}", file)
            with inner:
                helper = self._lead_out(f"{owner}-{self._number}", file, inner)
        except BaseException:
            _unmount(file)
            os.close(ns_fd)
            raise
        attachment = Attachment(
            owner=owner,
            ns_path=f"/proc/{hold_pid}/fd/{ns_fd}",
            ns_fd=ns_fd,
            ip=ADDRESS,
            prefix=PREFIX,
            gateway=_address_of_host(),
            mac="",
            mtu=65520,
            interface=file,
        )
        with self._guard:
            self._held[file] = _Held(attachment, helper)
        return attachment

    def _lead_out(self, id: str, namespace: str, inner: Netlink) -> str:
        """Start the first program that works; the id it is kept under, empty if there is none."""
        words: list[str] = []
        for name, path in self._way.programs:
            kept = self._helpers.keep(f"{id}-{name}", _COMMANDS[name](path, namespace))
            try:
                if _is_up(inner, kept.ended):
                    return f"{id}-{name}"
                words.append(f"{name}: {_last_words(kept.words)}")
            finally:
                kept.close()
            self._helpers.drop(f"{id}-{name}")
        if words:
            raise LaminaError(
                f"nothing leads out of the network namespace: {'; '.join(words)}",
                kind=Kind.UNAVAILABLE,
                hint="use `--network host`, or `--network none`",
            )
        links.add_address(inner, _LOOPBACK, address=Subnet(parse_ip(ADDRESS), 32))
        return ""

    def publish(
        self, attachment: Attachment, mappings: Sequence[PortMapping]
    ) -> tuple[PortMapping, ...]:
        """As `Network.publish`."""
        with self._guard:
            held = self._held[attachment.interface]
        reserved: list[tuple[PortMapping, list[socket.socket]]] = []
        try:
            reserved.extend(reserve(mapping) for mapping in mappings)
        except BaseException:
            for _, sockets in reserved:
                for one in sockets:
                    one.close()
            raise
        if held.forwarder is None:
            held.forwarder = Forwarder(namespace=attachment.ns_fd)
        for mapping, sockets in reserved:
            held.forwarder.serve(sockets, ip=ADDRESS, port=mapping.container_port)
        return tuple(mapping for mapping, _ in reserved)

    def release(self, attachment: Attachment) -> None:
        """Take back ports and namespace. Idempotent."""
        self.release_all([attachment])

    def release_all(self, attachments: Sequence[Attachment]) -> None:
        """Release several. Idempotent."""
        for attachment in attachments:
            with self._guard:
                held = self._held.pop(attachment.interface, None)
            if held is None:
                continue
            if held.forwarder is not None:
                held.forwarder.close()
            if held.helper:
                self._helpers.drop(held.helper)
            _unmount(attachment.interface)
            os.close(attachment.ns_fd)

    def close(self) -> None:
        """Release every attachment that this process still has. Idempotent."""
        with self._guard:
            attachments = [held.attachment for held in self._held.values()]
        self.release_all(attachments)


_LOOPBACK = 1  # the index of `lo` in every namespace


def _is_up(inner: Netlink, ended: int) -> bool:
    """Wait until the namespace has a default route; False if the program ended before."""
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    deadline = time.monotonic() + _PATIENCE
    while not links.has_default_route(inner):
        if poll.poll(_STEP) or time.monotonic() > deadline:
            return links.has_default_route(inner)
    return True


def _last_words(words: int) -> str:
    text = os.pread(words, 1 << 16, 0).decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if line and "syslog" not in line]
    return lines[-1] if lines else "it ended without a word"


def _unmount(file: str) -> None:
    try:  # noqa: SIM105  # contextlib would cost start-up time
        unmount(file)
    except LaminaError:
        pass  # it was not mounted yet
    try:  # noqa: SIM105
        os.unlink(file)
    except FileNotFoundError:
        pass


def _address_of_host() -> str:
    """The address by which the host reaches others, where containers reach its services; or empty."""
    with_route = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        with_route.connect(("192.0.2.1", 9))  # sends nothing (TEST-NET-1, RFC 5737)
        return str(with_route.getsockname()[0])
    except OSError:
        return ""
    finally:
        with_route.close()
