# SPDX-License-Identifier: Apache-2.0
"""Namespaces that stand for hosts, for tests of the network.

Run as a module it is a process that attaches, for tests of several processes and of kill -9:
`python -m lamina.testing.network DIRECTORY OWNER COUNT [HOST_PORT]` prints one line of JSON, then
holds what it has until its stdin ends.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from lamina.container.network.attachment import Network, PortMapping
from lamina.store.local import open_store
from lamina.system.netns import CLONE_NEWNET, create_namespace, setns, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    T = TypeVar("T")

BRIDGE = "lamtest0"


@contextmanager
def fresh_host() -> Iterator[None]:
    """Move the calling thread (and what it starts) into a new, empty host; back at the end."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    unshare(CLONE_NEWNET)
    try:
        run("ip link set lo up")
        yield
    finally:
        setns(home, CLONE_NEWNET)
        os.close(home)


@contextmanager
def neighbour(*, host_ip: str, ip: str, interface: str = "up0", mtu: int = 1500) -> Iterator[int]:
    """Another host on a cable to this one; the descriptor of its namespace.

    This host gets `host_ip`/24 on `interface`; the neighbour `ip`/24 and no route to anything
    else, so that only what this host masquerades can be answered.
    """
    far, _ = create_namespace(lambda: run("ip link set lo up"))
    try:
        me = os.getpid()
        run(
            f"ip link add {interface} mtu {mtu} type veth "
            f"peer name cable mtu {mtu} netns /proc/{me}/fd/{far}"
        )
        run(f"ip addr add {host_ip}/24 dev {interface}; ip link set {interface} up")
        run_inside(far, lambda: run(f"ip addr add {ip}/24 dev cable; ip link set cable up"))
        yield far
    finally:
        run(f"ip link del {interface}")
        os.close(far)


def run(script: str) -> str:
    """The output of a shell script in the calling thread's namespace; fails loudly."""
    done = subprocess.run(
        ["sh", "-euc", script], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, f"{script}: {done.stderr}{done.stdout}"
    return done.stdout


def run_inside(ns_fd: int, function: Callable[[], T]) -> T:
    """What `function` gives, or raises, in a thread inside the namespace."""

    def enter() -> T:
        setns(ns_fd, CLONE_NEWNET)
        return function()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(enter).result()


def listen(ns_fd: int, port: int, *, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket in the namespace, on every IPv4 address."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, kind)
        made.settimeout(10)
        made.bind(("0.0.0.0", port))  # noqa: S104  # a test namespace
        if kind == socket.SOCK_STREAM:
            made.listen()
        return made

    return run_inside(ns_fd, make)


@contextmanager
def serving(ns_fd: int, port: int, text: str, *, udp: bool = False) -> Iterator[None]:
    """A server in the namespace that answers `text` and the address it sees its client at."""
    server = listen(ns_fd, port, kind=socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    stop = threading.Event()
    server.settimeout(0.1)

    def serve() -> None:
        while not stop.is_set():
            try:
                if udp:
                    _, source = server.recvfrom(100)
                    server.sendto(f"{text} {source[0]}".encode(), source)
                else:
                    client, source = server.accept()
                    with client:
                        client.sendall(f"{text} {source[0]}".encode())
            except TimeoutError:
                continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        server.close()


def ask(ip: str, port: int, *, udp: bool = False) -> str:
    """What the server there answers to the calling thread's namespace."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect((ip, port))
        if udp:
            client.send(b"?")
        return client.recv(100).decode()


def _main(directory: str, owner: str, count: int, host_port: int) -> None:
    store = open_store(f"{directory}/store")
    network = Network(
        store.documents,
        root=directory,
        bridge=BRIDGE,
        lock_path=f"{directory}/lock",
    )
    attachments = []
    threads = [
        threading.Thread(
            target=lambda: attachments.append(network.attach(owner, hold_pid=os.getpid()))
        )
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if host_port:
        network.publish(attachments[0], [PortMapping(80, host_port=host_port)])
    report = {"ips": [a.ip for a in attachments], "interfaces": [a.interface for a in attachments]}
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    network.close()
    store.close()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int((sys.argv[4:] or ["0"])[0]))
