# SPDX-License-Identifier: Apache-2.0
"""A command of `exec` that a process of its own holds: its terminal stays when who typed it leaves.

That process is to the command what the monitor is to the container: the same frames go to its one
client, and nothing of what comes when the client has gone. It is used for commands on a terminal, and
where this process may not enter the container's user namespace, because it has threads.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time

from lamina.container import console, forking, instance, state
from lamina.container.bundle import write_text
from lamina.container.console import Detached, StartFailed
from lamina.container.errorlog import read_error
from lamina.container.monitor import Client, Monitor, catch_signals, finish_clients, greeting
from lamina.container.runtime import find_runtime
from lamina.errors import Kind, LaminaError
from lamina.start.jsontext import dumps, loads
from lamina.start.record import fields, replace
from lamina.store import open_store
from lamina.system.programs import memory_file
from lamina.system.sockets import Socket, listen, pair
from lamina.system.userns import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from lamina.container.host import Runtime
    from lamina.container.instance import ExecRequest
    from lamina.container.state import ContainerConfig
    from lamina.store.ports import Store

Streams = tuple[int | None, int | None, int | None]

_NOT_STARTED = 0  # status of a FAILED frame: the error says it all
_CONSOLE, _PID, _LOG, _PROCESS = "console.sock", "pid", "log.json", "process.json"


def run(
    store: Store,
    id: str,
    request: ExecRequest,
    *,
    runtime: str,
    streams: Streams,
    detach_keys: bytes = b"",
    forks: bool = False,
) -> int:
    """Run the command, this process's descriptors joined to its streams; its exit status.

    Raises StartFailed, Detached, and LaminaError of kind CONFLICT if the container does not run.
    """
    size = None
    if request.terminal:
        sides = [fd for fd in (streams[1], streams[0]) if fd is not None]
        size = next(filter(None, map(console.window_size, sides)), None)
    with _open(
        store, id, request, runtime=runtime, streams=streams, size=size, forks=forks
    ) as connection:
        # without a terminal the command has the streams themselves
        own = streams if request.terminal else (None, None, None)
        session = console.Session(
            connection,
            stdin=own[0],
            stdout=own[1],
            stderr=own[2],
            terminal=request.terminal,
            detach_keys=detach_keys,
        )
        try:
            session.await_start()
        except StartFailed as failure:
            if failure.status == _NOT_STARTED:
                raise failure.error from None
            raise
        status = session.run()
    if session.is_detached:
        raise Detached
    if status is None:
        raise LaminaError("the process that held the command's terminal was killed")
    return status


def _open(
    store: Store,
    id: str,
    request: ExecRequest,
    *,
    runtime: str,
    streams: Streams,
    size: tuple[int, int] | None,
    forks: bool,
) -> Socket:
    """Start the process that holds the command; the connection to it."""
    directory = state.directory_of(store.root, id)
    ours, theirs = pair()
    opened: list[int] = []
    try:
        with theirs:
            has_stdin = request.terminal and streams[0] is not None
            hello: dict[str, object] = {"mode": "attach", "stdin": has_stdin, "holds": True}
            ours.sendall(console.json_frame(console.HELLO, hello | {"size": size}))
            opened.append(_write_request(request, streams))
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            opened.append(os.open(f"{directory}/monitor.log", flags, 0o600))
            arguments = [store.root, id, str(theirs.fileno()), str(opened[0]), runtime]
            keep = [theirs.fileno(), opened[0]]
            if not request.terminal:
                keep += [fd for fd in streams if fd is not None]
            title = f"lamina-exec {store.root} {id}"
            env = {"PATH": os.defpath + ":/usr/sbin:/sbin:/usr/local/bin:/usr/local/sbin"}
            if forks and forking.can_fork():
                store.close()  # sqlite must know of no open database when a process forks
                forking.fork_detached(
                    lambda: serve(arguments), title=title, keep=keep, log=opened[1], env=env
                )
            else:
                _spawn(arguments, keep, log=opened[1], env=env)
    except BaseException:
        ours.close()
        raise
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return ours


def _spawn(arguments: list[str], keep: Sequence[int], *, log: int, env: dict[str, str]) -> None:
    code = f"from lamina.container.execsession import main; main({arguments!r})"
    subprocess.run(
        instance.lean_python(code),
        pass_fds=tuple(keep),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        cwd="/",
        env=env,
        check=True,
    )


def _write_request(request: ExecRequest, streams: Streams) -> int:
    """A file in memory with the request: its arguments may be long, and are for no `ps`."""
    document: dict[str, object] = {name: getattr(request, name) for name in fields(type(request))}
    descriptor = memory_file("request")
    with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
        file.write(dumps([document, streams]))
    return descriptor


def _read_request(descriptor: int) -> tuple[ExecRequest, Streams]:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, encoding="utf-8") as file:
        document, (stdin, stdout, stderr) = loads(file.read())
    found: dict[str, Any] = {**document, "command": tuple(document["command"])}
    found["env"] = tuple((name, value) for name, value in document["env"])
    return instance.ExecRequest(**found), (stdin, stdout, stderr)


def main(argv: Sequence[str]) -> NoReturn:
    """`ROOT ID SOCKET_FD REQUEST_FD RUNTIME`: the entry point of a new interpreter."""
    if os.fork():  # whoever started us has nothing to wait for
        os._exit(0)
    serve(argv)


def serve(argv: Sequence[str]) -> NoReturn:
    """Run the command and hold it until it has ended; ends this process."""
    root, id, connection, request, runtime = argv
    with open("/proc/self/comm", "w", encoding="utf-8") as file:
        file.write("lamina-exec")
    os.set_inheritable(int(connection), False)
    os.set_inheritable(int(request), False)
    first = Client(Socket(fileno=int(connection)))
    try:
        store = open_store(root)
        try:
            _hold(store, id, *_read_request(int(request)), first=first, runtime=runtime)
        finally:
            store.close()
    except StartFailed as failure:
        first.send(console.failed_frame(failure.error, failure.status))
    except LaminaError as error:
        first.send(console.failed_frame(error, _NOT_STARTED))
    except OSError as error:
        wrapped = LaminaError(f"running a command in the container: {error}", kind=Kind.SYSTEM)
        first.send(console.failed_frame(wrapped, _NOT_STARTED))
        raise
    os._exit(0)


def _hold(
    store: Store,
    id: str,
    request: ExecRequest,
    streams: Streams,
    *,
    first: Client,
    runtime: str,
) -> None:
    directory = state.directory_of(store.root, id)
    document = store.documents.get(state.KIND, id)
    found = state.observe(directory, boot=state.boot_id()) if document else None
    if document is None or found is None or not found.is_running:
        raise LaminaError(f"container {id} is not running", kind=Kind.CONFLICT)
    config = state.ContainerConfig.parse(document.body)
    if not request.terminal:
        status = instance.execute(
            store, id, config, request, pid=found.pid, runtime_name=runtime, streams=streams
        )
        first.send(console.json_frame(console.STARTED, {"pid": 0}))
        finish_clients([first], status)
        return
    wakeup = catch_signals()
    size = greeting(first)
    instance.become_subreaper()
    process = _start(store, id, config, request, pid=found.pid, runtime=runtime, size=size)
    first.send(console.json_frame(console.STARTED, {"pid": process.pid}))
    monitor = Monitor(
        replace(config, stdin_once=False),
        process,
        log=None,
        listener=None,
        clients=[first],
        clock=time.time_ns,
        wakeup=wakeup,
        reconcile=lambda: None,
    )
    status = monitor.supervise()
    finish_clients(monitor.clients, status)


def _start(
    store: Store,
    id: str,
    config: ContainerConfig,
    request: ExecRequest,
    *,
    pid: int,
    runtime: str,
    size: tuple[int, int] | None,
) -> instance.Process:
    """The command as our child, on a terminal whose other side is ours."""
    join(pid)
    found = find_runtime(store.root, override=runtime)
    with tempfile.TemporaryDirectory(
        prefix="exec-", dir=state.directory_of(store.root, id)
    ) as scratch:
        os.chdir(scratch)  # sockets are bound by short relative names
        try:
            document = instance.exec_process(config, request, found, pid=pid)
            if size is not None:
                instance.set_console_size(document, size)
            write_text(_PROCESS, dumps(document))
            return _start_here(store, id, found, scratch)
        finally:
            os.chdir("/")


def _start_here(store: Store, id: str, runtime: Runtime, scratch: str) -> instance.Process:
    """The command that `process.json` of the working directory, `scratch`, describes."""
    log = f"{scratch}/{_LOG}"
    arguments = ["--process", _PROCESS, "--detach"]
    arguments += ["--pid-file", _PID, "--console-socket", _CONSOLE]
    root = instance.runtime_root(state.directory_of(store.root, id))
    with listen(_CONSOLE, backlog=1) as listener:
        argv = runtime.command("exec", *arguments, id, root=root, log=log)
        null = subprocess.DEVNULL
        status = subprocess.run(
            instance.shielded(argv, runtime), stdin=null, stdout=null, stderr=null, check=False
        ).returncode
        if status != 0:
            message = read_error(log) or f"{runtime.name} ended with status {status}"
            raise instance.start_failure(message, doing="cannot run the command")
        master = console.receive_terminal(listener)
    # both ends stay open until we end: see Instance._run_on_terminal
    instance.open_peer(master)
    with open(_PID, encoding="utf-8") as file:
        child = int(file.read())
    return instance.Process(child, stdin=master, stdout=master, terminal=master)
