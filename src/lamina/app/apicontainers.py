# SPDX-License-Identifier: Apache-2.0
"""`lamina.containers`: containers as Python programs use them."""

from __future__ import annotations

import os
import shlex
import time
from typing import overload

from lamina.app import apart, containers
from lamina.app.apistore import find_image, host, open_store
from lamina.app.container_json import container_json
from lamina.app.run_options import RunOptions
from lamina.container import console
from lamina.container.lifecycle import signal_named
from lamina.container.network.publish import PortMapping
from lamina.container.state import EXITED
from lamina.container.usage import Usage, read_usage
from lamina.errors import Kind, LaminaError
from lamina.events import silent
from lamina.image.notebook import table
from lamina.image.unpack import ensure_snapshot
from lamina.image.view import Image
from lamina.start.record import Record, replace
from lamina.system.programs import memory_file
from lamina.tasks import CancelToken, Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import IO, Any, Literal, Self

    from lamina.app.settings import Settings
    from lamina.container.logs import Entry
    from lamina.events import Emitter
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

    Stream = IO[bytes] | IO[str] | int

__all__ = ["Container", "ContainerFailed", "Containers", "ExecResult", "containers_api"]


class ExecResult(Record):
    """What a command in a container came to: its exit status and what it wrote."""

    status: int
    stdout: bytes
    stderr: bytes


class ContainerFailed(LaminaError):
    """A command ended with another status than 0; `status`, `stdout` and `stderr` are its own."""

    kind = Kind.STEP_FAILED

    def __init__(self, what: str, result: ExecResult) -> None:
        last = result.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        super().__init__(f"{what} ended with status {result.status}", hint=last)
        self.status = result.status
        self.stdout = result.stdout
        self.stderr = result.stderr


class Container:
    """A container in a store: a handle, which may outlive what it names. In a `with` block it is
    removed at the end, running or not.
    """

    def __init__(self, base: containers.Container, store: Store) -> None:
        self._base = base
        self._store = store

    def __repr__(self) -> str:
        return f"<Container {self.short_id} {self.name} {self._status_text()}>"

    def _repr_html_(self) -> str:
        """The container in a notebook."""
        config = self._base.config
        ports = ", ".join(map(str, self._ports_or_none()))
        row = (
            self.short_id,
            config.image,
            " ".join(config.process.argv),
            self._status_text(),
            ports,
        )
        headers = ("Container", "Image", "Command", "Status", "Ports", "Name")
        return table(headers, [(*row, self.name)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.remove(force=True)
        except LaminaError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Container) and (other.id, other._store) == (self.id, self._store)

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def id(self) -> str:
        """The whole id: 64 hex digits."""
        return self._base.id

    @property
    def short_id(self) -> str:
        """The first twelve of them."""
        return self._base.id[:12]

    @property
    def name(self) -> str:
        """Its name, when this handle was made or `rename` was called."""
        return self._base.name

    @property
    def image(self) -> str:
        """The name of the image it was made from, as it was given."""
        return self._base.config.image

    @property
    def labels(self) -> dict[str, str]:
        """Its labels and its image's."""
        return dict(self._base.config.labels)

    @property
    def attrs(self) -> dict[str, Any]:
        """All that `docker inspect` shows, now. Raises LaminaError (NOT_FOUND) if it is gone."""
        return container_json(containers.get(self._store, self.id))

    @property
    def status(self) -> str:
        """created, running, paused or exited, now.

        Raises:
            LaminaError: NOT_FOUND if it is gone.
        """
        containers.get(self._store, self.id)
        return "paused" if self._base.is_paused else self._base.state().status

    def _status_text(self) -> str:
        try:
            return self.status
        except LaminaError:
            return "removed"

    def _ports_or_none(self) -> tuple[PortMapping, ...]:
        try:
            return self.ports
        except LaminaError:
            return ()

    @property
    def exit_status(self) -> int | None:
        """What its command ended with; None if it has not."""
        found = self._base.state()
        return found.exit_status if found.status == EXITED else None

    @property
    def ip_address(self) -> str:
        """Its address on its network; empty if it has none now."""
        found = self._base.state()
        return found.ip_address if found.is_running else ""

    @property
    def ports(self) -> tuple[PortMapping, ...]:
        """The ports that are published now."""
        return self._base.ports

    def host_port(self, port: int, protocol: str = "tcp") -> int:
        """The host's port that leads to the container's.

        Raises:
            LaminaError: NOT_FOUND if it is not published (or the container does not run).
        """
        for mapping in self.ports:
            if (mapping.container_port, mapping.protocol) == (port, protocol):
                return mapping.host_port
        raise LaminaError(f"port {port}/{protocol} is not published", kind=Kind.NOT_FOUND)

    @property
    def log_path(self) -> str:
        """Its log file (rotated ones lie beside it)."""
        return self._base.log_path

    def logs(
        self,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Iterator[Entry]:
        """Its output, oldest line first: each has `stream` (1 or 2), `data` and `at`. With `follow` until
        it ends. `tail` counts lines, `since` and `until` are POSIX nanoseconds, as `at` is.

        Raises:
            LaminaError: UNSUPPORTED if it keeps no log.
        """
        return self._base.logs(follow=follow, tail=tail, since=since, until=until)

    def output(self, *, stdout: bool = True, stderr: bool = True) -> bytes:
        """What it has written so far, both streams in order. Raises as `logs`."""
        return self._base.output(stdout=stdout, stderr=stderr)

    def start(self) -> None:
        """Start it; returns while it runs.

        Raises:
            LaminaError: CONFLICT if it runs, or whatever kept it from starting.
        """
        try:
            self._base.start().close()
        except console.StartFailed as failure:
            raise failure.error from None

    def stop(self, *, timeout: float | None = None) -> None:
        """Send its stop signal, and SIGKILL after `timeout` seconds (None: its own; -1: never)."""
        self._base.stop(timeout=timeout)

    def restart(self, *, timeout: float | None = None) -> None:
        """Stop it if it runs, and start it. Raises as `start`."""
        self.stop(timeout=timeout)
        self.start()

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send a signal (`"HUP"`, `"SIGTERM"`, 15); returns when it has ended, if that was SIGKILL.

        Raises:
            LaminaError: USAGE (no such signal), CONFLICT if it does not run.
        """
        self._base.kill(signal_named(str(int(signal) if isinstance(signal, int) else signal)))

    def pause(self) -> None:
        """Stop all its processes. Raises LaminaError: CONFLICT, UNSUPPORTED without a freezer."""
        self._base.pause()

    def unpause(self) -> None:
        """Let its processes go on. Raises LaminaError (CONFLICT) if it is not paused."""
        self._base.unpause()

    def rename(self, name: str) -> None:
        """Give it another name. Raises LaminaError: USAGE, or CONFLICT if it is taken."""
        self._base.rename(name)

    def stats(self) -> Usage:
        """What it has used: counters since its start, and memory and processes now.

        Raises:
            LaminaError: CONFLICT if it does not run, NOT_FOUND if it is gone.
        """
        base = containers.get(self._store, self.id)
        found = base.state()
        if not found.is_running:
            raise LaminaError(f"container {self.name} does not run", kind=Kind.CONFLICT)
        own = base.config.network not in {"host", "none"}
        return read_usage(found.pid, self.id, network=own)

    def wait(self) -> int:
        """Wait until it does not run; its exit status."""
        return self._base.wait()

    def remove(self, *, force: bool = False) -> None:
        """Delete it, with its log and anonymous volumes; with `force`, kill it first.

        Raises:
            LaminaError: CONFLICT if it runs and `force` is False, NOT_FOUND if it is gone.
        """
        containers.get(self._store, self.id)
        if apart.is_needed():  # its files may be other owners'
            function = "lamina.app.apicontainers:remove_here"
            apart.call(function, {"root": self._store.root, "id": self.id, "force": force})
        else:
            self._base.remove(force=force, volumes=True)

    def exec(
        self,
        command: Sequence[str] | str,
        *,
        input: bytes | None = None,
        stdin: Stream | None = None,
        stdout: Stream | None = None,
        stderr: Stream | None = None,
        env: Mapping[str, str] | None = None,
        user: str = "",
        working_dir: str = "",
        privileged: bool = False,
        check: bool = False,
    ) -> ExecResult:
        """Run a command in it and wait. A text is cut into words as a shell would, and nothing else.

        Its input is `input`, or the file or descriptor `stdin`, or empty. What it writes is in the
        result, unless a file or descriptor for it is given.

        Raises:
            ContainerFailed: with `check`, its status was not 0.
            LaminaError: CONFLICT if the container does not run, or the command cannot be run.
        """
        descriptors = _Captured(input, stdin, stdout, stderr)
        with descriptors:
            try:
                status = self._base.exec(
                    _words(command),
                    env=tuple((env or {}).items()),
                    user=user,
                    working_dir=working_dir,
                    privileged=privileged,
                    stdin=descriptors.stdin,
                    stdout=descriptors.stdout,
                    stderr=descriptors.stderr,
                )
            except console.StartFailed as failure:
                raise failure.error from None
            result = descriptors.result(status)
        if check and status:
            raise ContainerFailed(f"{_words(command)[0]} in container {self.name}", result)
        return result


class Containers:
    """The containers of a store, which is the user's unless a `root` is given."""

    def __repr__(self) -> str:
        return "<lamina.containers: list, get, create, run>"

    def list(self, *, all: bool = False, root: str = "") -> list[Container]:
        """Those that run, newest first; with `all`, the others too."""
        store = open_store(root)
        found = containers.list_containers(store)
        return [Container(each, store) for each in found if all or each.state().is_running]

    def get(self, name: str, *, root: str = "", settings: Settings | None = None) -> Container:
        """The container of this name, id or beginning of an id.

        Raises:
            LaminaError: NOT_FOUND, or INVALID if several ids begin so.
        """
        store = open_store(root)
        return Container(containers.find(store, name, host=host(settings)), store)

    def create(
        self,
        image: Image | str,
        command: Sequence[str] | str = (),
        *,
        name: str = "",
        ports: Mapping[int, int] | None = None,
        env: Mapping[str, str] | None = None,
        options: RunOptions | None = None,
        root: str = "",
        settings: Settings | None = None,
        on_event: Emitter = silent,
        cancel: CancelToken | None = None,
    ) -> Container:
        """A new container that is not started. The arguments are `run`'s.

        Raises:
            LaminaError: NOT_FOUND (image), CONFLICT (name), USAGE (options).
        """
        store = open_store(root)
        chosen = _merged(options, command, name=name, ports=ports, env=env)
        text = str(image.id) if isinstance(image, Image) else image
        if apart.is_needed():
            apart.call("lamina.app.apicontainers:unpack", {"image": text, "root": store.root})
        made = containers.create(
            store,
            text,
            chosen,
            host=host(settings),
            work=Work(on_event, cancel or CancelToken(), time.time),
        )
        made.release()
        return Container(made, store)

    @overload
    def run(
        self,
        image: Image | str,
        command: Sequence[str] | str = ...,
        *,
        detach: Literal[True],
        remove: bool = ...,
        name: str = ...,
        ports: Mapping[int, int] | None = ...,
        env: Mapping[str, str] | None = ...,
        input: bytes | None = ...,
        options: RunOptions | None = ...,
        root: str = ...,
        settings: Settings | None = ...,
        on_event: Emitter = ...,
        cancel: CancelToken | None = ...,
    ) -> Container: ...
    @overload
    def run(
        self,
        image: Image | str,
        command: Sequence[str] | str = ...,
        *,
        detach: Literal[False] = ...,
        remove: bool = ...,
        name: str = ...,
        ports: Mapping[int, int] | None = ...,
        env: Mapping[str, str] | None = ...,
        input: bytes | None = ...,
        options: RunOptions | None = ...,
        root: str = ...,
        settings: Settings | None = ...,
        on_event: Emitter = ...,
        cancel: CancelToken | None = ...,
    ) -> bytes: ...
    def run(
        self,
        image: Image | str,
        command: Sequence[str] | str = (),
        *,
        detach: bool = False,
        remove: bool = False,
        name: str = "",
        ports: Mapping[int, int] | None = None,
        env: Mapping[str, str] | None = None,
        input: bytes | None = None,
        options: RunOptions | None = None,
        root: str = "",
        settings: Settings | None = None,
        on_event: Emitter = silent,
        cancel: CancelToken | None = None,
    ) -> Container | bytes:
        """Run a container of `image`: what it wrote on its standard output, once it has ended and is
        removed; with `detach` the container, while it runs.

        A text as command is cut into words as a shell would. `ports` maps ports of the container to
        ports of the host (0: a free one), `input` is what it reads, `remove` lets a detached one
        vanish when it ends. `options` has what `lamina run` has flags for; what is given here wins.

        Raises:
            ContainerFailed: it ended with another status than 0.
            LaminaError: NOT_FOUND (image), CONFLICT (name or port), USAGE (options), and whatever
                kept it from starting.
        """
        chosen = replace(
            options or RunOptions(),
            interactive=input is not None or (options is not None and options.interactive),
        )
        if detach:
            if input is not None:
                raise LaminaError("a detached container reads no input", kind=Kind.USAGE)
            chosen = replace(chosen, attach=(), auto_remove=remove or chosen.auto_remove)
        else:
            chosen = replace(chosen, auto_remove=False)  # we do it, when its output is here
        made = self.create(
            image,
            command,
            name=name,
            ports=ports,
            env=env,
            options=chosen,
            root=root,
            settings=settings,
            on_event=on_event,
            cancel=cancel,
        )
        if detach:
            made.start()
            return made
        with made:
            return _output_of(made, input)


def _output_of(container: Container, input: bytes | None) -> bytes:
    """Start it and wait; its standard output. Raises ContainerFailed."""
    with _Captured(input, None, None, None) as captured:
        with container._base.start(
            attach=True, stdin=captured.stdin is not None, holds=True
        ) as connection:
            session = console.Session(
                connection,
                stdin=captured.stdin,
                stdout=captured.stdout,
                stderr=captured.stderr,
            )
            try:
                session.await_start()
            except console.StartFailed as failure:
                raise failure.error from None
            status = session.run()
        result = captured.result(container.wait() if status is None else status)
    if result.status:
        raise ContainerFailed(f"container {container.name} ({container.image})", result)
    return result.stdout


class _Captured:
    """The descriptors for a command's streams; what was not given is a file in memory."""

    def __init__(
        self,
        input: bytes | None,
        stdin: Stream | None,
        stdout: Stream | None,
        stderr: Stream | None,
    ) -> None:
        if input is not None and stdin is not None:
            raise LaminaError("input and stdin cannot both be given", kind=Kind.USAGE)
        self._own: list[int] = []
        self.stdin = _descriptor(stdin)
        if input is not None:
            self.stdin = self._memory("stdin")
            with open(self.stdin, "wb", closefd=False) as file:
                file.write(input)
            os.lseek(self.stdin, 0, os.SEEK_SET)
        given = _descriptor(stdout), _descriptor(stderr)
        self._is_own = tuple(each is None for each in given)
        self.stdout = self._memory("stdout") if given[0] is None else given[0]
        self.stderr = self._memory("stderr") if given[1] is None else given[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for descriptor in self._own:
            os.close(descriptor)

    def _memory(self, name: str) -> int:
        self._own.append(memory_file(name))
        return self._own[-1]

    def result(self, status: int) -> ExecResult:
        """The status and what is in our files."""
        return ExecResult(
            status,
            _content(self.stdout) if self._is_own[0] else b"",
            _content(self.stderr) if self._is_own[1] else b"",
        )


def _content(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()


def _descriptor(stream: Stream | None) -> int | None:
    if stream is None or isinstance(stream, int):
        return stream
    if stream.writable():
        stream.flush()  # ours comes before the command's
    return stream.fileno()


def _words(command: Sequence[str] | str) -> tuple[str, ...]:
    return tuple(shlex.split(command) if isinstance(command, str) else command)


def _merged(
    options: RunOptions | None,
    command: Sequence[str] | str,
    *,
    name: str,
    ports: Mapping[int, int] | None,
    env: Mapping[str, str] | None,
) -> RunOptions:
    chosen = options or RunOptions()
    network = chosen.network
    if chosen.networks and network == "bridge":  # its default: in which networks says the other
        network = chosen.networks[0].name
    return replace(
        chosen,
        network=network,
        command=_words(command) or chosen.command,
        name=name or chosen.name,
        env=(*chosen.env, *(env or {}).items()),
        ports=(*chosen.ports, *(PortMapping(c, host_port=h) for c, h in (ports or {}).items())),
    )


def unpack(image: str, root: str, cancel: CancelToken) -> None:
    """Unpack the image that a container of this name would be made from. Called in a process apart."""
    diff_ids = find_image(image, root=root).config().diff_ids
    store = open_store(root)
    with store.lease("run"):
        ensure_snapshot(store, diff_ids, work=Work(silent, cancel, time.time))


def remove_here(root: str, id: str, *, force: bool, cancel: CancelToken) -> None:  # noqa: ARG001
    """Remove the container in this process, which was made for that and gives a token: see `apart`."""
    containers.get(open_store(root), id, host=host(None)).remove(force=force, volumes=True)


containers_api = Containers()
