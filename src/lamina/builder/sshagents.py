# SPDX-License-Identifier: Apache-2.0
"""SSH agents for steps: the user's own, or one with given keys that lives as long as the build.

A step never gets the agent's socket itself. `AgentSocket` listens on one of its own, with the owner
and mode that the step asked for, and passes on requests to list keys and to sign; adding, removing
and locking are answered with a failure, as BuildKit does. (The protocol is the IETF draft
draft-miller-ssh-agent: a length of 4 bytes, a type, a body.)

`ssh-agent COMMAND` ends when COMMAND does; COMMAND here waits for the end of a pipe of ours. So the
agent of given keys cannot outlive this process, kill -9 included.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FAILURE = b"\x00\x00\x00\x01\x05"  # SSH_AGENT_FAILURE
_ALLOWED = frozenset({11, 13})  # SSH_AGENTC_REQUEST_IDENTITIES, SSH_AGENTC_SIGN_REQUEST
_MAX_MESSAGE = 256 * 1024  # bytes, ssh-agent's own limit
MAX_KEY = 100 * 1024  # bytes of a key file; BuildKit's limit
_TIMEOUT = 10.0  # seconds for ssh-add
_WAIT = "echo $SSH_AGENT_PID; exec cat"


class AgentSource(Record):
    """An agent's socket, or else the files of the private keys for one."""

    socket: str = ""
    keys: tuple[str, ...] = ()


class SshAgents:
    """The agents of a build by id. `search_path` is where ssh-agent and ssh-add are looked for.

    `close` ends what was started.
    """

    def __init__(self, sources: Mapping[str, AgentSource], *, search_path: str) -> None:
        self._sources = dict(sources)
        self._search_path = search_path
        self._started: dict[str, _KeyAgent] = {}
        self._guard = threading.Lock()

    def has(self, id: str) -> bool:
        """Whether an agent of this id was given."""
        return id in self._sources

    def address(self, id: str, directory: str) -> str:
        """The path of the agent's socket; an agent with given keys is started in `directory`, an
        empty one on a tmpfs that stays until `close`.

        Raises:
            LaminaError: ssh-agent is missing, or a key cannot be read.
        """
        source = self._sources[id]
        if source.socket:
            return source.socket
        with self._guard:
            if id not in self._started:
                self._started[id] = _KeyAgent(source.keys, directory, path=self._search_path)
            return self._started[id].address

    def needs_directory(self, id: str) -> bool:
        """Whether `address` will start an agent."""
        return not self._sources[id].socket and id not in self._started

    def close(self) -> None:
        """End the agents that were started. Idempotent."""
        while self._started:
            self._started.popitem()[1].close()


class _KeyAgent:
    """An ssh-agent process that holds some keys."""

    def __init__(self, keys: Sequence[str], directory: str, *, path: str) -> None:
        agent, add = _tool("ssh-agent", path), _tool("ssh-add", path)
        self.address = os.path.join(directory, "agent")
        self._pid = 0
        environment = {"PATH": path}
        self._waiter: subprocess.Popen[bytes] = subprocess.Popen(
            [agent, "-a", "agent", "/bin/sh", "-c", _WAIT],  # relative: a socket's path is short
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._waiter.stdout is not None
        line = self._waiter.stdout.readline().strip()
        if not line.isdigit():
            self.close()
            raise LaminaError("ssh-agent did not start")
        self._pid = int(line)
        environment |= {"SSH_AUTH_SOCK": "agent", "SSH_ASKPASS_REQUIRE": "never"}
        try:
            for key in keys:
                # on standard input: the mode of the file does not matter, as for BuildKit
                done = subprocess.run(
                    [add, "-q", "-"],
                    cwd=directory,
                    env=environment,
                    input=_read_key(key),
                    capture_output=True,
                    timeout=_TIMEOUT,
                    start_new_session=True,  # no terminal on which to ask for a passphrase
                    check=False,
                )
                if done.returncode:
                    raise LaminaError(
                        f"cannot use the SSH key {key}: it is no private key, or has a passphrase",
                        kind=Kind.INVALID,
                        hint="add it to an agent and forward that: --ssh default",
                    )
        except subprocess.TimeoutExpired as error:
            self.close()
            raise LaminaError("ssh-add did not answer") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        assert self._waiter.stdin is not None
        assert self._waiter.stdout is not None
        self._waiter.stdin.close()
        self._waiter.stdout.close()
        if self._pid:
            try:  # noqa: SIM105
                os.kill(self._pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        self._waiter.wait()


def _tool(name: str, search_path: str) -> str:
    found = shutil.which(name, path=search_path)
    if found is None:
        raise LaminaError(
            f"{name} is needed to use a key file with --ssh",
            kind=Kind.NOT_FOUND,
            hint="install openssh-client, or forward an agent's socket",
        )
    return found


def _read_key(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_KEY)
    except OSError as error:
        raise LaminaError(
            f"cannot read the SSH key {path}: {error.strerror}", kind=Kind.NOT_FOUND
        ) from error


class AgentSocket:
    """A socket at `path` that speaks for the agent at `address`. A context manager."""

    def __init__(self, path: str, address: str, *, uid: int, gid: int, mode: int) -> None:
        self._address = address
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._is_closed = False
        self._listener = _bound(path)
        os.chown(path, uid, gid)
        os.chmod(path, mode)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve, name="ssh-agent", daemon=True)
        self._thread.start()

    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None:
        with self._guard:
            self._is_closed = True
            for connection in self._open:
                _shut(connection)
        _shut(self._listener)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(connection,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        """One connection: a request, its answer, and so on until an end closes."""
        agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with client, agent:
            with self._guard:
                if self._is_closed:
                    return
                self._open |= {client, agent}
            try:
                _connect(agent, self._address)
                while (request := _message(client)) is not None:
                    if request[4:5] and request[4] in _ALLOWED:
                        agent.sendall(request)
                        answer = _message(agent)
                        if answer is None:
                            return
                        client.sendall(answer)
                    else:
                        client.sendall(_FAILURE)
            except OSError:
                return  # either end went away: the step's ssh reports it
            finally:
                with self._guard:
                    self._open -= {client, agent}


def _shut(connection: socket.socket) -> None:
    try:  # noqa: SIM105
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def _bound(path: str) -> socket.socket:
    """A socket bound to `path`, however long it is (sun_path holds 108 bytes)."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(directory)
    return listener


def _connect(agent: socket.socket, path: str) -> None:
    directory = os.open(os.path.dirname(path) or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        agent.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        os.close(directory)


def _message(connection: socket.socket) -> bytes | None:
    """The next message with its length; None at the end, or for one that is too long."""
    head = _exactly(connection, 4)
    if head is None:
        return None
    size = int.from_bytes(head, "big")
    if size > _MAX_MESSAGE:
        return None
    body = _exactly(connection, size)
    return None if body is None else head + body


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            return None
        data += piece
    return data
