# SPDX-License-Identifier: Apache-2.0
"""What is done to containers: create, start, signal, stop, wait, exec, delete.

Everything works from any process, through the container's directory, its lock and its monitor's
socket (see `state` for the table of states, `console` for the protocol, docs/adr/0038 for why).
"""

from __future__ import annotations

import os
import time

from lamina.container import console, forking, instance, state
from lamina.container.state import KIND, State
from lamina.errors import Kind, LaminaError
from lamina.start.lowlevel import signal
from lamina.store.eventlog import note
from lamina.store.ports import Document
from lamina.system.paths import unlink_if_there
from lamina.system.process import signal_pidfd
from lamina.system.removal import remove_tree
from lamina.system.sockets import pair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.container.instance import ExecRequest
    from lamina.container.state import ContainerConfig
    from lamina.spec.digest import ChainID
    from lamina.store.ports import Store
    from lamina.system.sockets import Socket

_ENDING = (signal.SIGKILL, signal.SIGTERM)
_ENDS_RESTARTS = frozenset((*_ENDING, signal.SIGINT, signal.SIGQUIT))
_PAUSE = 0.01  # seconds between two looks at a container that is just being started
_MONITOR_ENV = {"PATH": os.defpath + ":/usr/sbin:/sbin:/usr/local/bin:/usr/local/sbin"}


def create(
    store: Store,
    config: ContainerConfig,
    *,
    id: str,
    name: str,
    created: float,
    chain: ChainID | None,
) -> tuple[Document, int]:
    """Record the container and prepare its rootfs; nothing runs yet. What was recorded, and the
    container's lock: until the caller closes it or hands it to `start`, nobody removes it.

    The lock comes before the record, so that who finds the record finds it held. Raises LaminaError
    of kind CONFLICT if the name is taken, NOT_FOUND if `chain` is not unpacked.
    """
    directory = state.directory_of(store.root, id)
    document = Document(kind=KIND, id=id, name=name, body=config.to_json(), created=created)
    lock = _claim(directory)
    try:
        _record(store, document, config, chain)
    except BaseException:
        instance.remove_tree(directory)
        os.close(lock)
        raise
    return document, lock


def _claim(directory: str) -> int:
    """The lock of a container's directory, which is made; see `remove_stray` for who else may have
    it for a moment.
    """
    while True:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        try:
            lock = state.acquire(directory)
        except state.ContainerNotFound:
            continue
        if lock is not None:
            return lock


def _record(
    store: Store, document: Document, config: ContainerConfig, chain: ChainID | None
) -> None:
    try:
        store.documents.insert(document)
    except LaminaError as error:
        if error.kind is not Kind.CONFLICT:
            raise
        raise name_conflict(store, document.name) from error
    try:
        store.snapshots.prepare(document.id, chain)
        if any(mount.type == "volume" for mount in config.process.mounts):
            from lamina.container.volumemounts import make_volumes

            make_volumes(store, config.process.mounts)
    except BaseException:
        delete(store, document.id, volumes=True)
        raise


def name_conflict(store: Store, name: str) -> LaminaError:
    holders = [document.id for document in store.documents.find(KIND, name)]
    return LaminaError(
        f'Conflict. The container name "/{name}" is already in use by container '
        f'"{holders[0] if holders else "?"}". You have to remove (or rename) that container '
        "to be able to reuse that name.",
        kind=Kind.CONFLICT,
        hint=f"lamina rm {name}",
    )


def start(
    store: Store,
    id: str,
    *,
    lock: int | None = None,
    runtime: str = "",
    subnet: str = "",
    mode: str = "",
    stdin: bool = False,
    holds: bool = False,
    size: tuple[int, int] | None = None,
    forks: bool = False,
) -> Socket:
    """Start the container's monitor; its connection, on which STARTED or FAILED comes first.

    `lock` is what `create` gave (None: it is taken here), and is closed. `mode` is `attach` to get the
    output on the connection, or empty; with `holds` the container waits for who reads it. `runtime` is a name or path
    (empty: what was found to work). With `forks` the monitor is a fork of this process if it has
    one thread: for lamina's own commands. The caller closes the connection.

    Raises LaminaError of kind CONFLICT if the container runs or is being changed.
    """
    if lock is None:
        lock = state.acquire_soon(state.directory_of(store.root, id), boot=state.boot_id())
    if lock is None:
        raise LaminaError(f"container {id[:12]} is running or being changed", kind=Kind.CONFLICT)
    unlink_if_there(f"{state.directory_of(store.root, id)}/{state.STOPPED_FILE}")
    ours, theirs = pair()
    try:
        with theirs:
            hello: dict[str, object] = {"mode": mode, "stdin": stdin, "holds": holds, "size": size}
            ours.sendall(console.json_frame(console.HELLO, hello))
            arguments = [store.root, id, str(lock), str(theirs.fileno()), runtime, subnet]
            with _Descriptor(_open_monitor_log(store.root, id)) as log:
                if forks and forking.can_fork():
                    store.close()  # sqlite must know of no open database when a process forks
                    _fork_monitor(arguments, log)
                else:
                    _spawn_monitor(arguments, log)
    except BaseException:
        ours.close()
        raise
    finally:
        os.close(lock)  # the monitor has its copy, and with it the lock
    return ours


def _open_monitor_log(root: str, id: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    return os.open(f"{state.directory_of(root, id)}/monitor.log", flags, 0o600)


def _fork_monitor(arguments: list[str], log: int) -> None:
    from lamina.container import monitor

    keep = (int(arguments[2]), int(arguments[3]))
    forking.fork_detached(
        lambda: monitor.serve(arguments),
        title=f"lamina-monitor {arguments[0]} {arguments[1]}",
        keep=keep,
        log=log,
        env=_MONITOR_ENV,
    )


def _spawn_monitor(arguments: list[str], log: int) -> None:
    import subprocess

    try:
        subprocess.run(
            instance.lean_python(f"from lamina.container.monitor import main; main({arguments!r})"),
            pass_fds=(int(arguments[2]), int(arguments[3])),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=_MONITOR_ENV,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise LaminaError(f"the monitor of container {arguments[1][:12]} did not start") from error


def started(connection: Socket) -> None:
    """Wait for STARTED. Raises console.StartFailed."""
    session = console.Session(connection, stdin=None, stdout=1, stderr=2)
    session.await_start()


def open_socket(store: Store, id: str, *, mode: str, stdin: bool = False) -> Socket | None:
    """A connection to the running container's monitor; None if it has none."""
    try:
        connection = console.connect(state.directory_of(store.root, id), state.SOCKET_FILE)
    except FileNotFoundError:
        return None
    if connection is not None:
        hello: dict[str, object] = {"mode": mode, "stdin": stdin}
        try:
            connection.sendall(console.json_frame(console.HELLO, hello))
        except (BrokenPipeError, ConnectionResetError):  # it ends at this moment
            connection.close()
            return None
    return connection


def tell(store: Store, id: str, action: str, **attributes: str) -> None:
    """Note an event of the container; nothing if it is not there."""
    document = store.documents.get(KIND, id)
    if document is not None:
        note(store.root, "container", action, id, {**_attributes(document), **attributes})


def _attributes(document: Document) -> dict[str, str]:
    return attributes_of(document.body, document.name)


def attributes_of(body: str, name: str) -> dict[str, str]:
    """What every event of a container carries; its name alone if its record is damaged."""
    try:
        return state.event_attributes(state.ContainerConfig.parse(body), name)
    except LaminaError:
        return {"name": name}


def send_signal(store: Store, id: str, number: int, *, boot: str) -> bool:
    """Send a signal to the container's first process; False if it does not run.

    One that ends programs also ends the container's restarts, as in Docker.
    """
    directory = state.directory_of(store.root, id)
    found = state.observe(directory, boot=boot)
    if not found.is_up:
        return False
    ends = number in _ENDS_RESTARTS or number == _stop_signal(store, id)
    if ends:
        _end_restarts(directory)
    tell(store, id, "kill", signal=str(number))
    while found.is_running and not state.is_alive(found, boot=boot):
        time.sleep(_PAUSE)  # it has just ended, and its monitor is about to say so
        found = state.observe(directory, boot=boot)
    if not found.is_running:
        return ends
    was_sent = instance.send_signal(found.pid, number, started=found.pid_started)
    if number in _ENDING:  # a paused container takes it when it goes on, as in Docker
        _thaw(found.pid, id)
    return was_sent


def _stop_signal(store: Store, id: str) -> int:
    """The signal that stops the container; 0 if that is not known."""
    document = store.documents.get(KIND, id)
    try:
        config = state.ContainerConfig.parse(document.body) if document is not None else None
    except LaminaError:
        config = None
    return signal_named(config.stop_signal) if config is not None else 0


def _end_restarts(directory: str) -> None:
    """Let the container's monitor start it no more, also if it waits to do so at this moment."""
    state.mark_stopped(directory)
    try:
        connection = console.connect(directory, state.SOCKET_FILE)  # wakes it up
    except (FileNotFoundError, NotADirectoryError):
        return
    if connection is not None:
        connection.close()


def _thaw(pid: int, id: str) -> None:
    from lamina.container import freezer

    freezer.thaw(pid, id)


def stop(
    store: Store,
    id: str,
    *,
    boot: str,
    number: int,
    timeout: float | None,
) -> None:
    """Send `number`, and SIGKILL after `timeout` seconds (None or negative: wait for ever).

    Returns when the container has ended and its monitor has cleaned up. Idempotent. It is started
    again by hand only, whatever its restart policy.
    """
    directory = state.directory_of(store.root, id)
    _end_restarts(directory)
    pid = _pidfd(store, id, boot=boot)
    while pid is None:
        if not state.is_locked(directory):
            return
        time.sleep(_PAUSE)  # it is being started, or its monitor is about to end
        pid = _pidfd(store, id, boot=boot)
    with _Descriptor(pid):
        tell(store, id, "kill", signal=str(number))
        _kill(pid, number)
        _thaw(state.read_state(directory).pid, id)
        if timeout is not None and timeout >= 0 and not _ends(pid, timeout):
            tell(store, id, "kill", signal=str(int(signal.SIGKILL)))
            _kill(pid, signal.SIGKILL)
        _ends(pid, None)
    _wait_unlocked(store, id)


class _Descriptor:
    """A descriptor that is closed at the end of a `with` block."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __enter__(self) -> int:
        return self.descriptor

    def __exit__(self, *exc: object) -> None:
        os.close(self.descriptor)


def _pidfd(store: Store, id: str, *, boot: str) -> int | None:
    """A pidfd of the container's first process; None if it does not run."""
    found = state.observe(state.directory_of(store.root, id), boot=boot)
    if not found.is_running:
        return None
    return instance.open_pidfd(found.pid, started=found.pid_started)


def _kill(pidfd: int, number: int) -> None:
    try:
        signal_pidfd(pidfd, number)
    except ProcessLookupError:
        return


def _ends(pidfd: int, timeout: float | None) -> bool:
    """Wait until the process has ended; False after `timeout` seconds."""
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))


def _wait_unlocked(store: Store, id: str) -> None:
    """Wait until nobody is in charge of the container (it may be gone by then)."""
    import fcntl

    directory = state.directory_of(store.root, id)
    try:
        descriptor = os.open(f"{directory}/{state.LOCK_FILE}", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with _Descriptor(descriptor):
        # a shared lock: taken and let go at once, it makes no later `acquire` fail for long
        request = state.FLOCK.pack(fcntl.F_RDLCK, 0, 0, 0, 0)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, request)


def wait(store: Store, id: str, *, boot: str) -> int:
    """Wait until the container does not run; its exit status."""
    while True:
        connection = open_socket(store, id, mode="wait")
        if connection is not None:
            with connection:
                session = console.Session(connection, stdin=None, stdout=1, stderr=2)
                status = session.run()
            if status is not None:
                return status
        found = state.observe(state.directory_of(store.root, id), boot=boot)
        if not found.is_up:
            return found.exit_status
        if not found.is_running:
            continue
        pidfd = instance.open_pidfd(found.pid, started=found.pid_started)
        if pidfd is not None:
            with _Descriptor(pidfd):
                _ends(pidfd, None)
        _wait_unlocked(store, id)


def reconcile_networks(store: Store, id: str) -> bool:
    """Let the container's monitor make its networks those of its endpoints; False if it does not run.

    Raises LaminaError: what went wrong there; CONFLICT if it runs and its monitor was killed.
    """
    directory = state.directory_of(store.root, id)
    # A monitor has the lock before it looks at the endpoints, and answers when the container runs.
    if not state.is_locked(directory):
        if state.observe(directory, boot=state.boot_id()).is_running:
            raise LaminaError(
                f"the monitor of container {id[:12]} was killed: its networks cannot be changed",
                kind=Kind.CONFLICT,
                hint="stop the container and start it again",
            )
        return False
    connection = open_socket(store, id, mode="networks")
    if connection is None:  # it begins, or ends, at this moment
        return False
    with connection:
        frames = console.Frames()
        while data := console.receive(connection):
            for type, payload in frames.feed(data):
                if type == console.FAILED:
                    raise console.failure_of(payload)[0]
                if type == console.RECONCILED:
                    return True
    return False


def execute(
    store: Store,
    id: str,
    config: ContainerConfig,
    request: ExecRequest,
    *,
    boot: str,
    runtime: str,
    streams: tuple[int | None, int | None, int | None],
) -> int:
    """Run another process in a running container; see `instance.execute`.

    Raises LaminaError of kind CONFLICT if the container does not run.
    """
    found = state.observe(state.directory_of(store.root, id), boot=boot)
    if found.status == state.RESTARTING:
        raise restarting(id)
    if not found.is_running:
        raise LaminaError(f"container {id} is not running", kind=Kind.CONFLICT)
    return instance.execute(
        store, id, config, request, pid=found.pid, runtime_name=runtime, streams=streams
    )


def restarting(id: str) -> LaminaError:
    return LaminaError(
        f"Container {id} is restarting, wait until the container is running", kind=Kind.CONFLICT
    )


def remove(
    store: Store,
    id: str,
    *,
    name: str,
    force: bool,
    boot: str,
    runtime: str = "",
    volumes: bool = False,
) -> None:
    """Delete a container that does not run; with `force`, kill it first. With `volumes`, or if it
    was to be removed when it ended, its anonymous volumes go too.

    Whatever a killed monitor left (processes, cgroup, runtime state, address, firewall rules) goes
    too. Raises LaminaError of kind CONFLICT if it runs and `force` is False.
    """
    document = store.documents.get(KIND, id)
    directory = state.directory_of(store.root, id)
    if not os.path.isdir(directory):  # a create or a delete was interrupted
        delete(store, id, volumes=volumes)
        return
    found = _observed_for_removal(directory, boot=boot, force=force)
    if found.is_up:
        if not force:
            raise LaminaError(
                f'cannot remove container "/{name}": container is {found.status}: stop the container '
                "before removing or force remove",
                kind=Kind.CONFLICT,
                hint=f"lamina rm -f {name}",
            )
        stop(store, id, boot=boot, number=signal.SIGKILL, timeout=None)
    try:
        lock = state.acquire_soon(directory, boot=boot)
    except state.ContainerNotFound:  # --rm was faster
        delete(store, id, volumes=volumes)
        return
    if lock is None:
        raise LaminaError(
            f'cannot remove container "/{name}": it is being started', kind=Kind.CONFLICT
        )
    try:
        instance.clean_up(store, id, directory=directory, runtime=runtime)
        attributes = _attributes(document) if document is not None else {"name": name}
        delete(store, id, volumes=volumes)
        note(store.root, "container", "destroy", id, attributes)
    finally:
        os.close(lock)


def _observed_for_removal(directory: str, *, boot: str, force: bool) -> State:
    try:
        return state.observe(directory, boot=boot)
    except LaminaError:
        if not force:  # a damaged state file
            raise
        return State()


def delete(store: Store, id: str, *, volumes: bool = False) -> None:
    """Forget a container that does not run: snapshot, directory, anonymous volumes (if they are to
    go), networks, record, in this order.

    The record goes last, so that an interrupted delete can be repeated. Idempotent.
    """
    try:  # noqa: SIM105  # contextlib would cost start-up time
        store.snapshots.remove(id)
    except LaminaError:
        pass  # not there; else the garbage collector's, once no record names it
    instance.remove_tree(state.directory_of(store.root, id))
    for endpoint in store.documents.find(state.ENDPOINT, f"{id}:"):
        store.documents.delete(state.ENDPOINT, endpoint.id)
    _remove_volumes(store, id, wanted=volumes)
    store.documents.delete(KIND, id)


def _remove_volumes(store: Store, id: str, *, wanted: bool) -> None:
    """Remove the container's anonymous volumes, if `wanted` or its `--rm` promised it."""
    document = store.documents.get(KIND, id)
    if document is None or '"anonymous"' not in document.body:
        return
    from lamina.container.state import ContainerConfig
    from lamina.container.volumemounts import remove_anonymous

    try:
        config = ContainerConfig.parse(document.body)
    except LaminaError:  # damaged: `volume prune` removes them
        return
    if wanted or config.auto_remove:
        remove_anonymous(store, config.process.mounts, container=id)


def remove_stray(store: Store, id: str) -> int:
    """Remove a container's directory that no record names, as a killed `create` leaves it; bytes
    freed. None are if somebody holds its lock, or it has a record by now.
    """
    directory = state.directory_of(store.root, id)
    try:
        lock = state.acquire(directory)
    except (state.ContainerNotFound, NotADirectoryError):
        return 0
    if lock is None:
        return 0
    try:
        return 0 if store.documents.get(KIND, id) is not None else remove_tree(directory)
    finally:
        os.close(lock)


def reconfigure(
    store: Store, id: str, change: Callable[[ContainerConfig], ContainerConfig]
) -> ContainerConfig:
    """Replace the container's configuration by `change` of it; what it is now.

    Its monitor reads it when the container ends, and when it starts it. Raises ContainerNotFound,
    LaminaError of kind INVALID (damaged), what `change` raises.
    """
    with store.lock(f"{KIND}:{id}"):  # against another change at the same moment
        document = store.documents.get(KIND, id)
        if document is None:
            raise state.ContainerNotFound(f"No such container: {id}")
        config = change(state.ContainerConfig.parse(document.body))
        store.documents.update(KIND, id, config.to_json())
    return config


def rename(store: Store, id: str, name: str) -> None:
    """Give the container another name. Raises LaminaError of kind CONFLICT."""
    try:
        store.documents.rename(KIND, id, name)
    except LaminaError as error:
        if error.kind is not Kind.CONFLICT:
            raise
        raise name_conflict(store, name) from error


def signal_named(text: str) -> int:
    """The number of `TERM`, `SIGTERM` or `15`. Raises LaminaError of kind USAGE."""
    return instance.signal_number(text)


__all__ = [
    "create",
    "delete",
    "open_socket",
    "reconcile_networks",
    "remove",
    "remove_stray",
    "rename",
    "send_signal",
    "signal_named",
    "start",
    "started",
    "stop",
    "wait",
]
