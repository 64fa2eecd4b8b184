# SPDX-License-Identifier: Apache-2.0
"""The process that stays with a container: one per running container, instead of a daemon.

It is started by `lifecycle.start`, in a session of its own, with the container's lock. It mounts
the rootfs in a mount namespace of its own, attaches the network, starts the runtime, moves output
to the log and to attached clients, waits for the container's first process (whose reaper it is),
writes the state, and undoes everything. Killed at any moment it leaves no mount and no port; what
it leaves is found by `state.observe` and undone by `lifecycle.remove`.

Order at the end, each step safe to lose: drain output - log - network - mounts - state `exited` -
remove (--rm) - lock - EXIT to clients. So a client that has seen EXIT sees the final state.
"""

from __future__ import annotations

import errno
import os
import time

from lamina.container import console, instance, state
from lamina.container.logs import LogWriter
from lamina.errors import Kind, LaminaError
from lamina.start.jsontext import loads
from lamina.start.lowlevel import signal
from lamina.start.record import replace
from lamina.store.eventlog import note
from lamina.system.paths import unlink_if_there
from lamina.system.process import open_pidfd
from lamina.system.sockets import READ, WRITE, Poll, Socket, listen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from lamina.container.instance import Process
    from lamina.container.probing import Prober
    from lamina.container.restarts import Restarts
    from lamina.container.state import ContainerConfig
    from lamina.store.ports import Store
    from lamina.system.sockets import Source

_BLOCK = 64 * 1024
_QUIT = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # a terminal's: not for us
BACKLOG = 1 << 20  # bytes a client may lag behind before output is left out, or held back for it


class Client:
    """One connection: what it asked for, and the bytes it has not taken yet."""

    def __init__(self, connection: Socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.frames = console.Frames()
        self.outgoing = bytearray()
        self.mode = ""
        self.stdin = False
        self.holds = False
        self.is_gone = False
        self.ends = False  # it goes once it has taken everything
        self._lost = 0  # bytes that it was too slow for, and was not told of

    def send(self, data: bytes) -> None:
        """Queue bytes and send what the socket takes now."""
        self.outgoing += data
        self.flush()

    @property
    def has_all(self) -> bool:
        """Whether it may go: it was sent EXIT, and has taken it."""
        return self.ends and not self.outgoing

    def deliver(self, stream: int, data: bytes) -> None:
        """Send output, or leave it out until the client, which nobody waits for, has taken the rest."""
        late = self._lost or len(self.outgoing) > BACKLOG
        if late and self.outgoing and not self.holds:
            self._lost += len(data)
            return
        self.tell_of_loss()
        self.send(console.frame(stream, data))

    def tell_of_loss(self) -> None:
        """Say how much was left out here, if anything was."""
        if self._lost:
            self.send(console.json_frame(console.LOST, {"bytes": self._lost}))
            self._lost = 0

    def flush(self) -> None:
        """Send what the socket takes now."""
        while self.outgoing and not self.is_gone:
            try:
                sent = self.connection.send(self.outgoing)
            except BlockingIOError:
                return
            except OSError:
                self.is_gone = True
                return
            del self.outgoing[:sent]


class Monitor:
    """Supervises one started container until its first process has ended."""

    def __init__(
        self,
        config: ContainerConfig,
        process: Process,
        *,
        log: LogWriter | None,
        listener: Socket | None,
        clients: Sequence[Client],
        clock: Callable[[], int],
        wakeup: int,
        reconcile: Callable[[], None],
        prober: Prober | None = None,
    ) -> None:
        self._config = config
        self._reconcile = reconcile
        self._prober = prober
        self._process = process
        self._log = log
        self._listener = listener
        self._clients = list(clients)
        self._clock = clock
        self._wakeup = wakeup
        self._poll = Poll()
        self._stdin = bytearray()
        self._stdin_ends = False
        self.is_ending = False  # the host shuts down

    @property
    def clients(self) -> list[Client]:
        """Those who are connected."""
        return self._clients

    def supervise(self) -> int:
        """Serve until the container's first process ends; its exit status (128 + N: signal N)."""
        pidfd = open_pidfd(self._process.pid)
        try:
            for source in (pidfd, self._wakeup, self._listener):
                if source is not None:
                    self._poll.watch(source, READ)
            for descriptor in self._process.outputs:
                os.set_blocking(descriptor, False)
                self._poll.watch(descriptor, READ)
            for client in self._clients:
                self._poll.watch(client.connection, READ)
            while not self._step(pidfd, timeout=self._probe()):
                pass
        finally:
            self._poll.watch(pidfd, 0)
            os.close(pidfd)
            self._end_prober()
        status = _wait_for(self._process.pid)
        self._drain()
        if status is None:
            return state.UNKNOWN_STATUS
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def rest(self, seconds: float, *, directory: str) -> bool:
        """Serve clients for so long without a container; False if it is not to be started again."""
        self._process = instance.Process(0, stdin=-1, stdout=-1)
        end = time.monotonic() + seconds
        while not (self.is_ending or state.is_marked_stopped(directory)):
            left = end - time.monotonic()
            if left <= 0:
                return True
            self._step(-1, timeout=left)
        return False

    def dismiss(self, status: int) -> None:
        """Tell clients that the container has ended; who is slow does not hold up the next run."""
        for client in self._clients:
            client.tell_of_loss()
            client.mode, client.stdin, client.ends = "", False, True
            client.send(console.json_frame(console.EXIT, {"status": status}))
        self._pace()

    def _step(self, pidfd: int, *, timeout: float | None = None) -> bool:
        """Handle one round of events, or none in `timeout`; True once the process has ended."""
        ended = False
        for source, events in self._poll.wait(timeout):
            if source == pidfd:
                ended = True
            elif source == self._wakeup:
                self._on_signal()
            elif source is self._listener:
                self._accept()
            elif not isinstance(source, int):
                self._on_client(self._client_of(source), events)
            elif self._prober is not None and source == self._prober.descriptor:
                self._read_probe(self._prober)
            elif source == self._process.stdin and events & WRITE:
                self._write_stdin()
            if isinstance(source, int) and source in self._process.outputs and events & READ:
                self._read_output(source)
        self._pace()
        return ended

    def _probe(self) -> float | None:
        """Let the prober act; seconds until it has something to do."""
        if self._prober is None:
            return None
        self._prober.act()
        if self._prober.descriptor >= 0:
            self._poll.watch(self._prober.descriptor, READ)
        return self._prober.seconds()

    def _read_probe(self, prober: Prober) -> None:
        self._poll.watch(prober.descriptor, 0)  # it is watched again if there can be more
        prober.read()

    def _end_prober(self) -> None:
        if self._prober is not None:
            if self._prober.descriptor >= 0:
                self._poll.watch(self._prober.descriptor, 0)
            self._prober.close()
            self._prober = None

    def _reaped(self, pid: int, status: int) -> None:
        if self._prober is not None and pid == self._prober.pid:
            if self._prober.descriptor >= 0:
                self._poll.watch(self._prober.descriptor, 0)
            self._prober.ended(status)

    def _on_signal(self) -> None:
        """SIGTERM (the host shuts down) is passed on as the container's stop signal."""
        numbers = os.read(self._wakeup, 64)
        if signal.SIGCHLD in numbers:
            _reap_others(self._process.pid, self._reaped)
        if signal.SIGTERM in numbers:
            self.is_ending = True
            instance.send_signal(
                self._process.pid, instance.signal_number(self._config.stop_signal)
            )

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        client = Client(connection)
        self._clients.append(client)
        if self._process.pid:
            client.send(console.json_frame(console.STARTED, {"pid": self._process.pid}))
        self._poll.watch(connection, READ)

    def _client_of(self, source: Source) -> Client:
        return next(client for client in self._clients if client.connection is source)

    def _on_client(self, client: Client, events: int) -> None:
        if events & WRITE:
            client.flush()
        if events & READ:
            try:
                data = client.connection.recv(_BLOCK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                client.is_gone = True
            try:
                for type, payload in client.frames.feed(data):
                    self._on_frame(client, type, payload)
            except ValueError:  # not a client of ours
                client.is_gone = True

    def _on_frame(self, client: Client, type: int, payload: bytes) -> None:
        if type == console.HELLO:
            greet(client, payload)
            if client.mode == "networks":
                self._change_networks(client)
            if client.mode == "follow":  # what was logged since it read the log, and before this
                client.send(console.frame(console.LOGGED))
        elif type == console.RESIZE and self._process.terminal >= 0:
            console.set_window_size(self._process.terminal, *console.parse_size(payload))
        elif type == console.STDIN and client.stdin and self._process.stdin >= 0:
            if payload:
                self._stdin += payload
                self._write_stdin()
            else:
                self._end_stdin(client)

    def _end_stdin(self, client: Client) -> None:
        """A client's input has ended, and the container's with it if it was created so (StdinOnce)."""
        if client.stdin and self._config.stdin_once:
            self._stdin_ends = True
            self._write_stdin()

    def _change_networks(self, client: Client) -> None:
        """Join and leave networks, as the store says now; the output waits meanwhile."""
        try:
            self._reconcile()
        except LaminaError as error:
            client.send(console.failed_frame(error, 1))
        except OSError as error:  # the container goes on with the networks it has
            wrapped = LaminaError(f"changing the networks: {error}", kind=Kind.SYSTEM)
            client.send(console.failed_frame(wrapped, 1))
        else:
            client.send(console.frame(console.RECONCILED))

    def _write_stdin(self) -> None:
        descriptor = self._process.stdin
        if descriptor < 0:
            return
        os.set_blocking(descriptor, False)
        try:
            while self._stdin:
                del self._stdin[: os.write(descriptor, self._stdin)]
        except BlockingIOError:
            pass
        except OSError:  # the container has closed its input
            self._stdin.clear()
            self._stdin_ends = True
        if self._stdin_ends and not self._stdin and self._process.terminal < 0:
            self._forget(descriptor)
            self._process.close_stdin()

    def _read_output(self, descriptor: int) -> bool:
        """Move one block of output; False at its end or if there is none now."""
        try:
            data = os.read(descriptor, _BLOCK)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # a pty without a reader on the other side
                raise
            data = b""
        if not data:
            self._forget(descriptor)
            return False
        stream = self._process.stream_of(descriptor)
        logged = self._log is not None and self._log.write(stream, data, now=self._clock())
        for client in self._clients:
            if client.mode == "attach":
                client.deliver(stream, data)
            elif client.mode == "follow" and logged and not client.outgoing:
                client.send(console.frame(console.LOGGED))
        return True

    def _pace(self) -> None:
        """Watch exactly what can make progress: a client that holds, and a slow container, hold back."""
        for client in [client for client in self._clients if client.is_gone or client.has_all]:
            self._end_stdin(client)
            self._forget(client.connection)
            client.connection.close()
            self._clients.remove(client)
        paused = any(
            client.holds and len(client.outgoing) > BACKLOG and not client.ends
            for client in self._clients
        )
        full = len(self._stdin) > BACKLOG
        for client in self._clients:
            reads = 0 if full and client.stdin else READ
            writes = WRITE if client.outgoing else 0
            self._poll.watch(client.connection, reads | writes)
        wants_stdin = WRITE if self._stdin else 0
        for descriptor in self._process.outputs:
            events = 0 if paused else READ
            if descriptor == self._process.stdin:  # a pty: one descriptor, both directions
                events |= wants_stdin
            self._poll.watch(descriptor, events)
        if self._process.stdin >= 0 and self._process.stdin not in self._process.outputs:
            self._poll.watch(self._process.stdin, wants_stdin)

    def _forget(self, source: Source) -> None:
        self._poll.watch(source, 0)  # first: a closed descriptor cannot be named any more
        if isinstance(source, int):
            self._process.ended(source)

    def _drain(self) -> None:
        """Take what the container wrote before it ended; nobody is left to write more."""
        for descriptor in list(self._process.outputs):
            while self._read_output(descriptor):
                pass


def _wait_for(pid: int) -> int | None:
    """The wait status of the container's first process, which has ended.

    A runtime that detached may be its parent for a moment longer, until it ends itself and the
    process becomes ours. None if somebody else has reaped it.
    """
    while True:
        try:
            return os.waitpid(pid, 0)[1]
        except ChildProcessError:
            if not os.path.exists(f"/proc/{pid}"):
                return None
            time.sleep(0.001)


def _reap_others(pid: int, reaped: Callable[[int, int], object]) -> None:
    """Reap children that are not the container's first process: what a runtime left to us."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid == pid:
            return
        reaped(*os.waitpid(found.si_pid, 0))


def greet(client: Client, payload: bytes) -> None:
    """Take in a HELLO frame. Raises ValueError if it is none."""
    document = loads(payload.decode())
    if not isinstance(document, dict):
        raise ValueError("HELLO is not an object")  # noqa: TRY004  # callers handle one type
    client.mode = str(document.get("mode", ""))
    client.stdin = document.get("stdin") is True
    client.holds = document.get("holds") is True


def finish_clients(clients: Sequence[Client], status: int) -> None:
    """Send EXIT to everybody and wait until each has taken everything or gone away."""
    poll = Poll()
    for client in clients:
        client.tell_of_loss()
        client.send(console.json_frame(console.EXIT, {"status": status}))
    while waiting := [client for client in clients if client.outgoing and not client.is_gone]:
        for client in clients:
            poll.watch(client.connection, WRITE if client in waiting else 0)
        poll.wait()
        for client in waiting:
            client.flush()
    for client in clients:
        client.connection.close()


def run_container(
    store: Store,
    id: str,
    *,
    lock: int,
    first: Client,
    runtime: str,
    subnet: str,
    clock: Callable[[], int],
) -> None:
    """Start the container, stay until it ends, undo everything. The body of the process."""
    directory = state.directory_of(store.root, id)
    os.chdir(directory)  # sockets are bound by short relative names
    wakeup = catch_signals()
    listener = _listen()
    size = greeting(first)
    clients = [first]
    restarts: Restarts | None = None
    while True:
        config, name = _configuration(store, id)
        built = instance.Instance(
            store, id, config, directory=directory, runtime=runtime, subnet=subnet
        )
        try:
            process = built.start(size=size, again=restarts is not None)
        except console.StartFailed as failure:
            built.undo()
            _record_failure(store, id, config, directory, failure, clock)
            os.close(lock)
            for client in clients:
                client.send(console.failed_frame(failure.error, failure.status))
            return
        running = state.State(
            status=state.RUNNING,
            pid=process.pid,
            pid_started=process.started,
            boot=state.boot_id(),
            monitor_pid=os.getpid(),
            started=clock() / 1e9,
            restart_count=restarts.count if restarts is not None else 0,
        )
        running = built.told(running)
        # first: what is seen to run has its health, and not that of the run before
        prober = _prober(store, id, config, process.pid, runtime, clock)
        state.write_state(directory, running)
        note(store.root, "container", "start", id, state.event_attributes(config, name))
        for client in clients:
            client.send(console.json_frame(console.STARTED, {"pid": process.pid}))
        log = _open_log(config, directory)
        monitor = Monitor(
            config,
            process,
            log=log,
            listener=listener,
            clients=clients,
            clock=clock,
            wakeup=wakeup,
            reconcile=_reconciler(built, running),
            prober=prober,
        )
        status = monitor.supervise()
        running = built.told(running)
        if log is not None:
            log.close(now=clock())
        oom_killed = built.undo()
        lost = f"{log.lost} log lines were lost: the disk is full" if log and log.lost else ""
        ended = _exited(running, status, at=clock(), oom_killed=oom_killed, error=lost)
        config, name = _configuration(store, id, known=(config, name))
        if config.restart != "no" and not monitor.is_ending:
            restarts = restarts or _restarts()
            if _goes_on(monitor, restarts, ended, config, name, store, id):
                clients = monitor.clients
                continue
        else:
            state.write_state(directory, ended)
            _tell_of_end(store, id, ended, state.event_attributes(config, name))
        break
    listener.close()
    if config.auto_remove:
        _remove(store, id)
        note(store.root, "container", "destroy", id, state.event_attributes(config, name))
    os.close(lock)
    finish_clients(monitor.clients, status)


def _reconciler(built: instance.Instance, running: state.State) -> Callable[[], None]:
    return lambda: built.reconcile(running)


def _configuration(
    store: Store, id: str, *, known: tuple[ContainerConfig, str] | None = None
) -> tuple[ContainerConfig, str]:
    """The container's configuration and name, which `update` and `rename` may change.

    What is `known` holds on if the record cannot be read any more: a run is ended all the same.
    """
    try:
        document = store.documents.get(state.KIND, id)
        if document is None:
            raise state.ContainerNotFound(f"no such container: {id}")
        return state.ContainerConfig.parse(document.body), document.name
    except LaminaError:
        if known is None:
            raise
        return known


def _prober(
    store: Store,
    id: str,
    config: ContainerConfig,
    first_pid: int,
    runtime: str,
    clock: Callable[[], int],
) -> Prober | None:
    """Who runs the container's health checks; None if it has none."""
    if config.health is None:
        return None
    from lamina.container.health import command_of
    from lamina.container.probing import Prober

    if not command_of(config.health):
        return None

    def tell(status: str) -> None:
        known, name = _configuration(store, id, known=(config, ""))
        attributes = state.event_attributes(known, name)
        note(store.root, "container", f"health_status: {status}", id, attributes)

    return Prober(
        store.root,
        id,
        config,
        config.health,
        first_pid=first_pid,
        directory=state.directory_of(store.root, id),
        runtime=runtime,
        tell=tell,
        clock=clock,
    )


def _restarts() -> Restarts:
    from lamina.container.restarts import Restarts

    return Restarts()


def _goes_on(
    monitor: Monitor,
    restarts: Restarts,
    ended: state.State,
    config: ContainerConfig,
    name: str,
    store: Store,
    id: str,
) -> bool:
    """Wait as the restart policy says; whether the container is to be started again."""
    from lamina.container.restarts import parse_policy

    directory = state.directory_of(store.root, id)
    delay: float | None = None
    if not state.is_marked_stopped(directory):
        policy = parse_policy(config.restart)
        seconds = ended.finished - ended.started
        delay = restarts.after(policy, ended.exit_status, seconds=seconds)
    ended = replace(ended, restart_count=restarts.count)
    waiting = replace(ended, status=state.RESTARTING, monitor_pid=os.getpid())
    state.write_state(directory, ended if delay is None else waiting)
    _tell_of_end(store, id, ended, state.event_attributes(config, name))
    if delay is None:
        return False
    monitor.dismiss(ended.exit_status)
    goes_on = monitor.rest(delay, directory=directory)
    if not goes_on:
        state.write_state(directory, ended)
    return goes_on


def _tell_of_end(store: Store, id: str, ended: state.State, attributes: dict[str, str]) -> None:
    if ended.oom_killed:
        note(store.root, "container", "oom", id, attributes)
    seconds = str(int(ended.finished - ended.started))
    how = {"exitCode": str(ended.exit_status), "execDuration": seconds}
    note(store.root, "container", "die", id, {**attributes, **how})


def _exited(
    running: state.State, status: int, *, at: int, oom_killed: bool, error: str
) -> state.State:
    """The state after the process ended, `at` nanoseconds."""
    return replace(
        running,
        status=state.EXITED,
        pid=0,
        pid_started=0,
        monitor_pid=0,
        exit_status=status,
        finished=at / 1e9,
        oom_killed=oom_killed,
        error=error,
    )


def _remove(store: Store, id: str) -> None:
    from lamina.container import lifecycle

    os.chdir("/")
    lifecycle.delete(store, id)


def _record_failure(
    store: Store,
    id: str,
    config: ContainerConfig,
    directory: str,
    failure: console.StartFailed,
    clock: Callable[[], int],
) -> None:
    """Docker keeps a container that could not be started, with its error; --rm removes it."""
    if config.auto_remove:
        _remove(store, id)
        return
    last = state.read_state(directory)
    state.write_state(
        directory,
        replace(
            last,
            status=state.EXITED if last.is_up else last.status,  # up: it was to be started again
            exit_status=failure.status,
            error=failure.error.what,
            finished=clock() / 1e9,
        ),
    )


def greeting(first: Client) -> tuple[int, int] | None:
    """Take the HELLO of whoever started us (sent before us); the size of its terminal."""
    first.connection.setblocking(True)
    size = None
    for type, payload in first.frames.feed(first.connection.recv(_BLOCK)):
        if type == console.HELLO:
            greet(first, payload)
            rows, columns = loads(payload.decode()).get("size") or (0, 0)
            size = (int(rows), int(columns)) if rows and columns else None
    first.connection.setblocking(False)
    return size


def _listen() -> Socket:
    unlink_if_there(state.SOCKET_FILE)
    with_name = listen(state.SOCKET_FILE, backlog=128)
    os.chmod(state.SOCKET_FILE, 0o600)  # as its directory, which lets nobody else near it
    with_name.setblocking(False)
    return with_name


def _open_log(config: ContainerConfig, directory: str) -> LogWriter | None:
    if config.log_driver == "none":
        return None
    return LogWriter(
        f"{directory}/{state.LOG_FILE}",
        max_size=config.log_max_size,
        max_file=config.log_max_file,
    )


def catch_signals() -> int:
    """The descriptor that signal numbers arrive on; a terminal's signals are ignored."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    # what the caller ignores (nohup, a shell's `&`) is not ignored in a container of Docker's
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # Python's own
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    for number in (*_QUIT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, _noted)  # not SIG_IGN, which the container would inherit
    return read_end


def _noted(number: int, frame: object) -> None:
    """The byte on the wake-up descriptor says it all."""


def _detach() -> None:
    """Become a child of init: whoever started us has nothing to wait for."""
    if os.fork():
        os._exit(0)


def main(argv: Sequence[str]) -> NoReturn:
    """`monitor ROOT ID LOCK_FD SOCKET_FD RUNTIME SUBNET`: the entry point of a new interpreter."""
    _detach()
    serve(argv)


def serve(argv: Sequence[str]) -> NoReturn:
    """Supervise the container in this process, which has nothing else to do; ends it."""
    root, id, lock, connection, runtime, subnet = argv
    with open("/proc/self/comm", "w", encoding="utf-8") as file:
        file.write("lamina-monitor")
    for inherited in (int(lock), int(connection)):
        os.set_inheritable(inherited, False)
    first = Client(Socket(fileno=int(connection)))
    try:
        from lamina.store import open_store

        instance.become_subreaper()
        store = open_store(root)
        try:
            run_container(
                store,
                id,
                lock=int(lock),
                first=first,
                runtime=runtime,
                subnet=subnet,
                clock=time.time_ns,
            )
        finally:
            store.close()
    except LaminaError as error:
        first.send(console.failed_frame(error, 125))
        os._exit(1)
    except OSError as error:
        wrapped = LaminaError(f"starting the container: {error}", kind=Kind.SYSTEM)
        first.send(console.failed_frame(wrapped, 125))
        raise
    os._exit(0)
