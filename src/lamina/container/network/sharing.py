# SPDX-License-Identifier: Apache-2.0
"""`--network container:ID`: the network namespace of a container that runs."""

from __future__ import annotations

import os

from lamina.container import state
from lamina.errors import Kind, LaminaError
from lamina.start.record import Record
from lamina.system.userns import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.store.ports import Store


class Shared(Record):
    """Another container's namespace (an open descriptor), its host name, and the directory in which
    its files for /etc are. `is_hosts`: it is the host's.
    """

    descriptor: int
    hostname: str
    directory: str
    is_hosts: bool


def approach(store: Store, id: str) -> None:
    """Move an ordinary user's process into the user namespace of a container that runs, from where its
    network can be joined; before the process has entered one of its own. Nothing, for root of the host.

    Raises LaminaError: DENIED, if it has entered another one.
    """
    found = state.observe(state.directory_of(store.root, id), boot=state.boot_id())
    if found.is_running:
        join(found.pid)


def namespace_of(store: Store, id: str) -> Shared:
    """The namespace of the container with this id. The caller closes the descriptor.

    Raises LaminaError: NOT_FOUND, or CONFLICT if it does not run.
    """
    document = store.documents.get(state.KIND, id)
    if document is None:
        raise state.ContainerNotFound(f"No such container: {id}")
    config = state.ContainerConfig.parse(document.body)
    directory = state.directory_of(store.root, id)
    boot = state.boot_id()
    found = state.observe(directory, boot=boot)
    if not found.is_running or found.orphaned:
        raise _not_running(document.name)
    try:
        descriptor = os.open(f"/proc/{found.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise _not_running(document.name) from error
    if not state.is_alive(found, boot=boot):  # the pid may have been another's when it was opened
        os.close(descriptor)
        raise _not_running(document.name)
    if config.network.startswith("container:"):  # whose files it has itself
        directory = state.directory_of(store.root, config.network.removeprefix("container:"))
    is_hosts = os.stat("/proc/self/ns/net").st_ino == os.fstat(descriptor).st_ino
    return Shared(descriptor, config.process.hostname, directory, is_hosts)


def _not_running(name: str) -> LaminaError:
    return LaminaError(
        f"cannot join network of a non running container: {name}",
        kind=Kind.CONFLICT,
        hint=f"lamina start {name}",
    )
