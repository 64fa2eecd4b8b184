# SPDX-License-Identifier: Apache-2.0
r"""Use cases of containers: create, run, list, inspect, logs, stop, remove.

    container = run(store, "alpine", command=["echo", "hello"])
    container.wait()            # 0
    container.output()          # b"hello\n"
    container.remove()

`Host` holds what the caller decides about this host; everything else is in the store.
"""

from __future__ import annotations

import os
import time

from lamina.app.run_options import NetworkRequest, Origin, RunOptions, configure, named_by_id
from lamina.container import console, lifecycle, state
from lamina.container.instance import ExecRequest
from lamina.container.names import check_name, new_id, new_name
from lamina.container.network.publish import PortMapping
from lamina.container.state import KIND, ContainerConfig, State, event_attributes
from lamina.errors import Kind, LaminaError
from lamina.events import Notice, silent
from lamina.start.lowlevel import signal
from lamina.start.record import Record, replace
from lamina.store.eventlog import note
from lamina.system.userns import enter, is_host_root
from lamina.tasks import CancelToken, Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from lamina.app.places import Membership
    from lamina.container.logs import Entry
    from lamina.container.ports import Mount
    from lamina.events import Emitter
    from lamina.image.view import Image
    from lamina.spec.digest import ChainID, DiffID
    from lamina.spec.platform import Platform
    from lamina.store.ports import Document, Store
    from lamina.system.sockets import Socket


class Host(Record):
    """What is chosen for this host: the OCI runtime and the bridge's subnet (empty: found).

    `forks`: this process is a command of lamina's, and a monitor may be a fork of it.
    """

    runtime: str = ""
    subnet: str = ""
    forks: bool = False


class Container:
    """A container in a store: a handle, which may outlive what it names."""

    def __init__(
        self,
        store: Store,
        document: Document,
        *,
        host: Host = Host(),  # noqa: B008  # immutable
        config: ContainerConfig | None = None,
        lock: int | None = None,
    ) -> None:
        """`lock` is that of a container just created, for `start`."""
        self._lock = lock
        self._store = store
        self._host = host
        self.id = document.id
        self.name = document.name
        self.created = document.created
        self._body = document.body
        self._config = config

    def __repr__(self) -> str:
        return f"<Container {self.id[:12]} {self.name}>"

    @property
    def config(self) -> ContainerConfig:
        """What it was created with. Raises LaminaError of kind INVALID."""
        if self._config is None:
            self._config = ContainerConfig.parse(self._body)
        return self._config

    @property
    def directory(self) -> str:
        """Where its state and log are."""
        return state.directory_of(self._store.root, self.id)

    def volume_path(self, name: str) -> str:
        """Where the files of a volume of its store are."""
        from lamina.container.volumes import data_of

        return data_of(self._store.root, name)

    @property
    def log_path(self) -> str:
        """Its log file (rotated ones lie beside it)."""
        return f"{self.directory}/{state.LOG_FILE}"

    def _runtime(self) -> str:
        """The runtime it was created for, else the host's; a damaged configuration has none."""
        try:
            return self.config.runtime or self._host.runtime
        except LaminaError:
            return self._host.runtime

    def tell(self, action: str, **attributes: str) -> None:
        """Note an event of it, as `docker events` names them."""
        known = lifecycle.attributes_of(self._body, self.name)
        note(self._store.root, "container", action, self.id, {**known, **attributes})

    def state(self) -> State:
        """Its state now."""
        return state.observe(self.directory, boot=state.boot_id())

    def health(self, found: State) -> dict[str, object] | None:
        """Its health in the state `found`, as `docker inspect` shows it; None without a check.

        Of what does not run, or is paused, it is `unhealthy` (moby, container/health.go).
        """
        if self.config.health is None:
            return None
        from lamina.container.health import UNHEALTHY, read_health

        document = read_health(self.directory)
        if document is not None and (not found.is_running or self.is_paused):
            document["Status"] = UNHEALTHY
        return document

    @property
    def store(self) -> Store:
        """The store that it is in."""
        return self._store

    def memberships(self) -> list[Membership]:
        """The networks that it is in, or will be when it runs; none if the network is another's."""
        from lamina.app.places import memberships

        return memberships(self._store, self.id, mode=self.config.network)

    def connect(self, request: NetworkRequest) -> None:
        """Put it into a network, now if it runs. Raises LaminaError as `membership.connect`."""
        from lamina.app.membership import connect

        connect(self._store, self.id, request, name=self.name, mode=self.config.network)

    def disconnect(self, network: str, *, force: bool = False) -> None:
        """Take it out of a network, now if it runs. Raises LaminaError as `membership.disconnect`."""
        from lamina.app.membership import disconnect

        mode = self.config.network
        disconnect(self._store, self.id, network, name=self.name, mode=mode, force=force)

    @property
    def ports(self) -> tuple[PortMapping, ...]:
        """The ports that are published now."""
        found = self.state()
        return found.ports if found.is_running else ()

    def size(self) -> int:
        """Bytes on disk of what it wrote to its root file system."""
        enter()  # it may have made files of other owners
        return disk_usage(self._store.snapshots.layer_dir(self.id))

    def start(
        self,
        *,
        attach: bool = False,
        stdin: bool = False,
        holds: bool = False,
        size: tuple[int, int] | None = None,
    ) -> Socket:
        """Start it. The connection is for `console.Session` if `attach`, else only to close. With
        `holds` it waits for who reads from there; else it never does.

        Raises console.StartFailed, and LaminaError of kind CONFLICT if it runs.
        """
        lock, self._lock = self._lock, None
        if attach:
            self.tell("attach")
        connection = lifecycle.start(
            self._store,
            self.id,
            lock=lock,
            runtime=self._runtime(),
            subnet=self._host.subnet,
            mode="attach" if attach else "",
            stdin=stdin,
            holds=holds,
            size=size,
            forks=self._host.forks,
        )
        if not attach:
            try:
                lifecycle.started(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def check_attachable(self) -> State:
        """Its state. Raises LaminaError of kind CONFLICT if nobody can attach to it as it is."""
        found = self.state()
        if found.status == state.RESTARTING:
            raise LaminaError(
                "You cannot attach to a restarting container, wait until it is running",
                kind=Kind.CONFLICT,
            )
        if not found.is_running:
            raise LaminaError(
                "You cannot attach to a stopped container, start it first",
                kind=Kind.CONFLICT,
                hint=f"lamina start -a {self.name}",
            )
        if self.is_paused:
            raise LaminaError(
                "You cannot attach to a paused container, unpause it first",
                kind=Kind.CONFLICT,
                hint=f"lamina unpause {self.name}",
            )
        return found

    def attach(self, *, stdin: bool = False) -> Socket:
        """A connection for `console.Session`. Raises LaminaError of kind CONFLICT if there is none."""
        found = self.check_attachable()
        connection = lifecycle.open_socket(self._store, self.id, mode="attach", stdin=stdin)
        if connection is not None:
            self.tell("attach")
            return connection
        if found.orphaned:
            raise LaminaError(
                f"cannot attach to container {self.name}: its monitor was killed, which held its "
                "streams",
                kind=Kind.CONFLICT,
                hint=f"lamina restart {self.name}",
            )
        raise LaminaError(  # it has ended meanwhile
            "You cannot attach to a stopped container, start it first", kind=Kind.CONFLICT
        )

    def _can_join(self) -> bool:
        """Whether this process may enter a container's user namespace: not one of a program's, which
        has other things to do.
        """
        from lamina.container.forking import can_fork

        return is_host_root() or (self._host.forks and can_fork())

    def logs(
        self,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Iterator[Entry]:
        """Its output, oldest first; with `follow`, until it ends. Times in POSIX nanoseconds.

        Raises LaminaError of kind UNSUPPORTED if it keeps no log.
        """
        from lamina.container.logs import LogReader, selected

        if self.config.log_driver == "none":
            raise LaminaError(
                "configured logging driver does not support reading", kind=Kind.UNSUPPORTED
            )
        connection = None
        if follow:  # before reading, so that nothing falls between
            connection = lifecycle.open_socket(self._store, self.id, mode="follow")
        try:
            with LogReader(self.log_path) as reader:
                yield from selected(
                    _followed(reader, connection, tail=tail), since=since, until=until
                )
        finally:
            if connection is not None:
                connection.close()

    def output(self, *, stdout: bool = True, stderr: bool = True) -> bytes:
        """What it has written so far, both streams in order."""
        wanted = {number for number, is_on in ((1, stdout), (2, stderr)) if is_on}
        return b"".join(entry.data for entry in self.logs() if entry.stream in wanted)

    def send_signal(self, number: int) -> bool:
        """Send a signal; False if it does not run."""
        return lifecycle.send_signal(self._store, self.id, number, boot=state.boot_id())

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal. Raises LaminaError of kind CONFLICT if it does not run."""
        if not self.send_signal(number):
            raise LaminaError(
                f"cannot kill container: {self.name}: container {self.id} is not running",
                kind=Kind.CONFLICT,
            )
        if number == signal.SIGKILL:
            self.wait()

    def stop(self, *, timeout: float | None = None, number: int | None = None) -> None:
        """Send its stop signal, and SIGKILL after `timeout` seconds (-1: never). Idempotent."""
        config = self.config
        was_running = self.state().is_up
        lifecycle.stop(
            self._store,
            self.id,
            boot=state.boot_id(),
            number=number or lifecycle.signal_named(config.stop_signal),
            timeout=config.stop_timeout if timeout is None else timeout,
        )
        if was_running:
            self.tell("stop")

    def restart(self, *, timeout: float | None = None, number: int | None = None) -> None:
        """Stop it as `stop` does, if it runs, and start it."""
        self.stop(timeout=timeout, number=number)
        self.start().close()
        self.tell("restart")

    def wait(self) -> int:
        """Wait until it does not run; its exit status."""
        return lifecycle.wait(self._store, self.id, boot=state.boot_id())

    def pause(self) -> None:
        """Stop all its processes. Raises LaminaError: CONFLICT (not running, paused), UNSUPPORTED."""
        from lamina.container import freezer

        found = self.state()
        if found.status == state.RESTARTING:
            raise lifecycle.restarting(self.id)
        if not found.is_running:
            raise LaminaError(f"container {self.id} is not running", kind=Kind.CONFLICT)
        if freezer.is_frozen(found.pid, self.id):
            raise LaminaError(f"container {self.id} is already paused", kind=Kind.CONFLICT)
        freezer.freeze(found.pid, self.id)
        self.tell("pause")

    def unpause(self) -> None:
        """Let its processes go on. Raises LaminaError of kind CONFLICT if it is not paused."""
        from lamina.container import freezer

        if not self.is_paused:
            raise LaminaError(f"Container {self.id} is not paused", kind=Kind.CONFLICT)
        freezer.thaw(self.state().pid, self.id)
        self.tell("unpause")

    @property
    def is_paused(self) -> bool:
        """Whether its processes stand still."""
        from lamina.container import freezer

        found = self.state()
        return found.is_running and freezer.is_frozen(found.pid, self.id)

    def rename(self, name: str) -> None:
        """Give it another name. Raises LaminaError of kind USAGE, or CONFLICT if it is taken."""
        chosen = check_name(name)
        if chosen == self.name:
            raise LaminaError(
                "Renaming a container with the same name as its current name", kind=Kind.INVALID
            )
        lifecycle.rename(self._store, self.id, chosen)
        old, self.name = self.name, chosen
        self.tell("rename", oldName=f"/{old}")

    def release(self) -> None:
        """Let others start or remove it, if it was just created here. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            state.release(lock)

    def fill_volumes(self) -> None:
        """Give its empty volumes what the image has there, as its first start would.

        Raises LaminaError of kind CONFLICT if it is being started or removed.
        """
        from lamina.container.rootfs import Rootfs

        self.release()
        with Rootfs(self._store, self.id, self.config, visible=True):
            pass

    def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Delete it, with its log; with `volumes`, its anonymous ones too.

        Raises LaminaError of kind CONFLICT if it runs and `force` is False.
        """
        lifecycle.remove(
            self._store,
            self.id,
            name=self.name,
            force=force,
            boot=state.boot_id(),
            runtime=self._runtime(),
            volumes=volumes,
        )

    def exec(
        self,
        command: Sequence[str],
        *,
        env: Sequence[tuple[str, str]] = (),
        user: str = "",
        working_dir: str = "",
        privileged: bool = False,
        terminal: bool = False,
        detach: bool = False,
        detach_keys: bytes = b"",
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> int:
        """Run `command` in it and wait; its exit status (0 if `detach`).

        Streams are descriptors, None is /dev/null. Raises LaminaError of kind CONFLICT if the
        container does not run; console.StartFailed if the command cannot be run;
        console.Detached if the detach keys were typed, for which it needs a terminal.
        """
        if self.is_paused:
            raise LaminaError(
                f"Container {self.id} is paused, unpause the container before exec",
                kind=Kind.CONFLICT,
            )
        exec_id = new_id(os.urandom)
        words = " ".join(command)
        self.tell(f"exec_create: {words}", execID=exec_id)
        self.tell(f"exec_start: {words}", execID=exec_id)
        request = ExecRequest(
            command=tuple(command),
            env=tuple(env),
            user=user,
            working_dir=working_dir,
            privileged=privileged,
            terminal=terminal,
            detach=detach,
        )
        if terminal or not self._can_join():
            from lamina.container import execsession

            status = execsession.run(
                self._store,
                self.id,
                request,
                runtime=self._runtime(),
                streams=(stdin, stdout, stderr),
                detach_keys=detach_keys,
                forks=self._host.forks,
            )
        else:
            status = lifecycle.execute(
                self._store,
                self.id,
                self.config,
                request,
                boot=state.boot_id(),
                runtime=self._runtime(),
                streams=(stdin, stdout, stderr),
            )
        if not detach:  # nobody is there when a detached one ends
            self.tell("exec_die", execID=exec_id, exitCode=str(status))
        return status


def _followed(reader: Any, connection: Socket | None, *, tail: int | None) -> Iterator[Entry]:
    yield from reader.history(tail=tail)
    if connection is None:
        return
    while console.receive(connection):
        yield from reader.new()
    yield from reader.new()


def disk_usage(path: str) -> int:
    """Bytes of the regular files beneath a directory."""
    total = 0
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += disk_usage(entry.path)
            elif entry.is_file(follow_symlinks=False):
                total += entry.stat(follow_symlinks=False).st_size
    return total


def create(
    store: Store,
    image: str,
    options: RunOptions,
    *,
    platform: Platform | None = None,
    host: Host = Host(),  # noqa: B008  # immutable
    work: Work,
    random: Callable[[int], bytes] = os.urandom,
) -> Container:
    """A new container from `image` (a name or id), not started; nobody can remove it before its
    `start`, unless this process ends.

    Raises LaminaError: NOT_FOUND (image), CONFLICT (name taken), USAGE (options).
    """
    name = check_name(options.name) if options.name else ""
    with store.lease("run"):
        found = _find_image(store, image, platform, work.emit)
        config = found.config()
        id = new_id(random)
        merged = configure(
            named_by_id(options, lambda text: _donor(store, text)),
            config.config,
            origin=Origin(image, str(found.id), ""),
            id=id,
            host_name=os.uname().nodename,
            inherited=_inherited(store, options.volumes_from),
        )
        _check_name_free(store, name)
        merged, requests = _with_networks(store, merged, options)
        if merged.network == "bridge" and not is_host_root():
            _tell_of_network(bool(merged.ports), work.emit)
        chain = _unpacked(store, config.diff_ids, work=work)
        merged = replace(
            merged,
            chain=str(chain) if chain is not None else "",
            runtime=host.runtime,
            process=replace(
                merged.process,
                architecture=config.platform.architecture,
                mounts=_with_names(merged.process.mounts, random),
            ),
        )
        with _Joining(store, id, requests):
            while True:
                chosen = name or new_name(random)
                try:
                    made, lock = lifecycle.create(
                        store, merged, id=id, name=chosen, created=work.clock(), chain=chain
                    )
                except LaminaError as error:
                    if name or error.kind is not Kind.CONFLICT:
                        raise
                    continue
                note(store.root, "container", "create", id, event_attributes(merged, chosen))
                return Container(store, made, host=host, config=merged, lock=lock)


def _with_networks(
    store: Store, config: ContainerConfig, options: RunOptions
) -> tuple[ContainerConfig, tuple[NetworkRequest, ...]]:
    """The configuration with its network mode as it is kept, and the networks to join beyond that.

    Raises LaminaError: as `membership.check`.
    """
    if config.network in {"bridge", "host", "none"} and not options.networks:
        return config, ()
    if config.network.startswith("container:"):
        from lamina.container.network.sharing import approach

        other = find(store, config.network.removeprefix("container:"))
        approach(store, other.id)
        return replace(config, network=f"container:{other.id}"), ()
    from lamina.app import membership

    requests = options.networks or (NetworkRequest(config.network),)
    membership.check(store, requests)
    return config, requests


class _Joining:
    """The networks of a container that is made inside a `with`: recorded with it, or not at all."""

    def __init__(self, store: Store, id: str, requests: Sequence[NetworkRequest]) -> None:
        self._store, self._id, self._requests = store, id, requests
        self._lock: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        if not self._requests:
            return
        from lamina.app import membership

        self._lock = membership.locked(self._store)
        self._lock.__enter__()
        try:
            membership.record(self._store, self._id, self._requests)
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise

    def __exit__(self, kind: object, *rest: object) -> None:
        if self._lock is None:
            return
        try:
            if kind is not None:
                for endpoint in self._store.documents.find(state.ENDPOINT, f"{self._id}:"):
                    self._store.documents.delete(state.ENDPOINT, endpoint.id)
        finally:
            self._lock.__exit__(None, None, None)


def _inherited(store: Store, texts: Sequence[str]) -> list[Mount]:
    """The mounts of other containers that `--volumes-from` names."""
    if not texts:
        return []
    from lamina.container.volumemounts import inherited

    found: list[Mount] = []
    for text in texts:
        name, _, mode = text.partition(":")
        other = find(store, name)
        found += inherited(other.config, other.directory, mode=mode)
    return found


def _with_names(mounts: tuple[Mount, ...], random: Callable[[int], bytes]) -> tuple[Mount, ...]:
    """The mounts; volumes without a name have one that is made up."""
    if not any(mount.type == "volume" and not mount.source for mount in mounts):
        return mounts
    return tuple(
        replace(mount, source=new_id(random), options=("anonymous", *mount.options))
        if mount.type == "volume" and not mount.source
        else mount
        for mount in mounts
    )


def _donor(store: Store, text: str) -> tuple[str, ContainerConfig]:
    container = find(store, text)
    return container.id, container.config


def _unpacked(store: Store, diff_ids: Sequence[DiffID], *, work: Work) -> ChainID | None:
    """The image's chain, unpacked: `ensure_snapshot` without its modules where nothing is missing."""
    from lamina.spec.identity import chain_id

    chain = chain_id(diff_ids)
    if chain is None or store.snapshots.exists(chain):
        return chain
    from lamina.image.unpack import ensure_snapshot

    return ensure_snapshot(store, diff_ids, work=work)


def _tell_of_network(publishes: bool, emit: Emitter) -> None:  # noqa: FBT001  # private
    """Say so where nothing leads an ordinary user's containers out of their own network."""
    from lamina.container.network.usernet import find_way

    way = find_way()
    if way.programs:
        return
    does = "has its published ports only" if publishes else "has the host's network"
    emit(Notice(f"the container {does}: {way.why} ({way.mend})"))


def _find_image(store: Store, text: str, platform: Platform | None, emit: Emitter) -> Image:
    """The image for `platform`; without one, for this host, or the first there is, with a notice."""
    from lamina.image.resolve import find_image, preferred_image
    from lamina.spec import platform as platforms

    if platform is not None:
        return find_image(store, text, platform)
    host = platforms.host(os.uname().machine)
    image = preferred_image(store, text, host)
    actual = image.config().platform
    if host.preference(actual) is None:
        emit(
            Notice(
                f"the requested image's platform ({actual}) does not match the detected host "
                f"platform ({host}) and no specific platform was requested"
            )
        )
    return image


def _check_name_free(store: Store, name: str) -> None:
    """Fail before an image is unpacked for nothing; `lifecycle.create` decides."""
    for document in store.documents.find(KIND, name) if name else ():
        if document.name == name:
            raise lifecycle.name_conflict(store, name)


def run(
    store: Store,
    image: str,
    command: Sequence[str] = (),
    *,
    ports: Mapping[int, int] | None = None,
    env: Mapping[str, str] | None = None,
    name: str = "",
    options: RunOptions | None = None,
    host: Host = Host(),  # noqa: B008  # immutable
    emit: Emitter = silent,
) -> Container:
    """Create a container and start it; returns while it runs.

    `ports` maps ports of the container to ports of the host (0: a free one). `options` has all
    the rest; what is given here wins.

    Raises LaminaError: as `create`, CONFLICT (port taken), and whatever kept it from starting.
    """
    chosen = options or RunOptions()
    chosen = replace(
        chosen,
        command=tuple(command) or chosen.command,
        name=name or chosen.name,
        env=(*chosen.env, *(env or {}).items()),
        ports=(*chosen.ports, *(PortMapping(c, host_port=h) for c, h in (ports or {}).items())),
        attach=(),
    )
    container = create(store, image, chosen, host=host, work=Work(emit, CancelToken(), time.time))
    try:
        container.start().close()
    except console.StartFailed as failure:
        raise failure.error from None
    return container


def get(store: Store, id: str, *, host: Host = Host()) -> Container:  # noqa: B008  # immutable
    """The container with this full id. Raises LaminaError of kind NOT_FOUND."""
    document = store.documents.get(KIND, id)
    if document is None:
        raise state.ContainerNotFound(f"No such container: {id}")
    return Container(store, document, host=host)


def find(store: Store, text: str, *, host: Host = Host()) -> Container:  # noqa: B008  # immutable
    """The container of this name, id, or beginning of an id.

    Raises LaminaError of kind NOT_FOUND, or INVALID if several ids begin with `text`.
    """
    found = store.documents.find(KIND, text.removeprefix("/")) if text.strip("/") else []
    if not found:
        raise state.ContainerNotFound(f"No such container: {text}")
    if len(found) > 1:
        raise LaminaError(
            f"Multiple containers found with provided prefix: {text}", kind=Kind.INVALID
        )
    return Container(store, found[0], host=host)


def list_containers(store: Store) -> list[Container]:
    """Every container, newest first."""
    return [Container(store, document) for document in reversed(store.documents.list(KIND))]
