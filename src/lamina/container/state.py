# SPDX-License-Identifier: Apache-2.0
"""What is known of a container: its configuration (never changes), its state, and who is alive.

The configuration is the body of the container's document in the store. The state is the file
`state.json` of the container's directory, written by the container's monitor alone (write aside,
rename). Who creates a container takes `lock` in that directory before the document is there, and
hands it to the monitor, which holds it until it is gone: "is somebody in charge" is a question to
the kernel and never a guess from a pid.

| state.json | lock held | init alive | status                                                    |
|------------|-----------|------------|-----------------------------------------------------------|
| created    | no        |            | created                                                   |
| created    | yes       |            | created (being made or started)                           |
| running    | yes       |            | running                                                   |
| running    | no        | yes        | running, orphaned: its monitor was killed                 |
| running    | no        | no         | exited, status unknown (255): monitor killed, or reboot   |
| restarting | yes       |            | restarting: it ended, and its monitor waits before the next run |
| restarting | no        |            | exited: its monitor was killed while it waited            |
| exited     |           |            | exited                                                    |

The file `stopped` beside it says that somebody stopped the container: its monitor starts it no more.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time

from lamina.container.network.publish import PortMapping
from lamina.container.ports import Mount, ProcessSpec
from lamina.errors import Kind, LaminaError
from lamina.start.jsontext import dumps, loads
from lamina.start.record import Record, fields, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lamina.spec.config import Healthcheck

KIND = "container"  # of the store's documents
ENDPOINT = "endpoint"  # the kind of those about a container's networks, whose ids begin with its id
FORMAT = 1  # of the configuration's JSON
UNKNOWN_STATUS = 255  # what Docker reports for a container that died while nobody looked
STATE_FILE = "state.json"
LOCK_FILE = "lock"
_LETS_GO = 5.0  # seconds in which a monitor ends that has written that its container has
LOG_FILE = "container.log"
SOCKET_FILE = "attach.sock"
STOPPED_FILE = "stopped"

CREATED, RUNNING, RESTARTING, EXITED = "created", "running", "restarting", "exited"


class ContainerNotFound(LaminaError):
    kind = Kind.NOT_FOUND


class ContainerConfig(Record):
    """Everything `run` was asked for, merged with the image's defaults.

    `image` is the text the user gave, `image_id` the config digest and `chain` the chainID the
    rootfs stands on (empty: no layers). `network` is bridge, host, none, `container:ID` or the name of the
    first network that it was made for (`network.endpoints` says in which it is). `volumes` are the
    destinations that the image, or `-v` without a source, wants volumes at (their mounts are those
    of `process`); `volumes_from` the texts of that flag.
    `restart` is a restart policy (`restarts.parse_policy`), which alone may change later; `health` is
    None without a health check.
    With `stdin_once` the end of a client's input is that of the container's. `attach` names the streams
    that whoever created it wanted to be attached to: stdin, stdout, stderr.
    `stop_timeout` in seconds. `log_max_size` in bytes (0: no rotation). `runtime` is what `--runtime` named.
    """

    image: str
    image_id: str
    chain: str
    process: ProcessSpec
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    network: str = "bridge"
    ports: tuple[PortMapping, ...] = ()
    exposed: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    volumes_from: tuple[str, ...] = ()
    stdin_open: bool = False
    stdin_once: bool = False
    attach: tuple[str, ...] = ()
    auto_remove: bool = False
    stop_signal: str = "SIGTERM"
    stop_timeout: int = 10
    log_driver: str = "json-file"
    log_max_size: int = 0
    log_max_file: int = 1
    runtime: str = ""
    restart: str = "no"
    health: Healthcheck | None = None

    def to_json(self) -> str:
        """The document's body; `pins` and `image_id` are read by GC and `rmi` too."""
        document: dict[str, object] = {"format": FORMAT}
        document.update(_plain(self))
        document["pins"] = [text for text in (self.chain, self.image_id) if text]
        return dumps(document, separators=(",", ":"))

    @staticmethod
    def parse(text: str) -> ContainerConfig:
        """The configuration in a document's body. Raises LaminaError of kind INVALID."""
        try:
            document = loads(text)
            if document.pop("format") != FORMAT:
                raise LaminaError(
                    "the container was made by another version of lamina", kind=Kind.UNSUPPORTED
                )
            document.pop("pins")
            process = _tuples(document.pop("process"))
            mounts = tuple(Mount(**_named(mount)) for mount in process.pop("mounts"))
            ports = tuple(PortMapping(**_named(port)) for port in document.pop("ports"))
            if process.get("extras"):
                from lamina.container.extras import Extras

                process["extras"] = Extras.parse(_tuples(process["extras"]))
            return ContainerConfig(
                process=ProcessSpec(mounts=mounts, **process),
                ports=ports,
                health=_health(document.pop("health", None)),
                **_tuples(document),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LaminaError(
                f"the container's configuration is damaged: {error}", kind=Kind.INVALID
            ) from error


def _health(document: Any) -> Healthcheck | None:
    if document is None:
        return None
    from lamina.spec.config import Healthcheck as Check

    return Check(**_named(document))


def event_attributes(config: ContainerConfig, name: str) -> dict[str, str]:
    """What every event of a container carries, as moby's: its labels, image and name."""
    return {**dict(config.labels), "image": config.image, "name": name}


class State(Record):
    """What the monitor wrote last. Times are POSIX seconds, 0 if it has not happened.

    `pid` and `pid_started` (clock ticks since boot) name the container's first process, `boot` the
    boot they belong to. `orphaned` is never stored: see `observe`.
    """

    status: str = CREATED
    pid: int = 0
    pid_started: int = 0
    boot: str = ""
    monitor_pid: int = 0
    exit_status: int = 0
    started: float = 0.0
    finished: float = 0.0
    error: str = ""
    oom_killed: bool = False
    ip_address: str = ""
    ports: tuple[PortMapping, ...] = ()
    restart_count: int = 0
    orphaned: bool = False

    @property
    def is_running(self) -> bool:
        """Whether the container's first process is alive."""
        return self.status == RUNNING

    @property
    def is_up(self) -> bool:
        """Whether it runs or will soon run again: what Docker calls running."""
        return self.status in {RUNNING, RESTARTING}


def directory_of(root: str, id: str) -> str:
    """The container's directory in the store at `root`."""
    return f"{root}/containers/{id}"


def write_state(directory: str, state: State) -> None:
    """Replace `state.json`: a reader sees the old one or the new one, whatever happens."""
    aside = f"{directory}/{STATE_FILE}.new"
    with open(aside, "w", encoding="utf-8") as file:
        file.write(dumps(_plain(state)))
        file.flush()
        os.fsync(file.fileno())
    os.rename(aside, f"{directory}/{STATE_FILE}")


def read_state(directory: str) -> State:
    """What the monitor wrote last; a container that never started is `created`.

    Raises LaminaError of kind INVALID for a damaged file.
    """
    try:
        with open(f"{directory}/{STATE_FILE}", encoding="utf-8") as file:
            document = loads(file.read())
        ports = tuple(PortMapping(**_named(port)) for port in document.pop("ports"))
        return State(ports=ports, **_named(document))
    except FileNotFoundError:
        return State()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LaminaError(
            f"{directory}/{STATE_FILE} is damaged: {error}",
            kind=Kind.INVALID,
            hint="'lamina rm -f' removes the container",
        ) from error


def observe(directory: str, *, boot: str) -> State:
    """The state as it is now: what was written, checked against who is alive (table above)."""
    state = read_state(directory)
    if not state.is_up or is_locked(directory):
        return state
    again = read_state(directory)  # the monitor may have ended between the two looks
    if not again.is_up:
        return again
    if not again.is_running:
        return replace(again, status=EXITED, error="the container's monitor was killed")
    if is_alive(again, boot=boot):
        return replace(again, orphaned=True)
    return replace(
        again,
        status=EXITED,
        exit_status=UNKNOWN_STATUS,
        finished=_modified(directory),
        error="the container's monitor was killed, or the host was restarted",
    )


def mark_stopped(directory: str) -> None:
    """Let the container's monitor not start it again; nothing if the container has gone."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    try:
        os.close(os.open(f"{directory}/{STOPPED_FILE}", flags, 0o600))
    except FileNotFoundError:
        return


def is_marked_stopped(directory: str) -> bool:
    """Whether somebody stopped it since its last start."""
    return os.path.exists(f"{directory}/{STOPPED_FILE}")


def is_alive(state: State, *, boot: str) -> bool:
    """Whether the container's first process still runs (the same one: pids are reused)."""
    if state.pid == 0 or state.boot != boot:
        return False
    return start_ticks(state.pid) == state.pid_started != 0


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 if it is gone or a zombie.

    Source: proc(5), /proc/pid/stat fields 3 and 22 (the name in field 2 may hold anything).
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    rest = text[text.rindex(b")") + 2 :].split()
    return 0 if rest[0] in {b"Z", b"X"} else int(rest[19])


def boot_id() -> str:
    """The kernel's id of this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        return file.read().strip()


# The lock is an open-file-description lock: it can be handed to the monitor with its descriptor,
# and it can be looked at without being taken (F_OFD_GETLK), which flock(2) cannot do.
FLOCK = struct.Struct("hhqqi4x")  # l_type, l_whence, l_start, l_len, l_pid


def acquire(directory: str) -> int | None:
    """Take the container's lock: its descriptor (the lock goes with it), or None if it is held.

    Raises ContainerNotFound if the directory has gone.
    """
    try:
        descriptor = os.open(
            f"{directory}/{LOCK_FILE}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except FileNotFoundError as error:
        raise ContainerNotFound(f"no such container: {os.path.basename(directory)}") from error
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0))
    except OSError as error:
        os.close(descriptor)
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            return None
        raise
    if not _is_current(descriptor, directory):  # removed by whoever held it before us
        os.close(descriptor)
        raise ContainerNotFound(f"no such container: {os.path.basename(directory)}")
    return descriptor


def acquire_soon(directory: str, *, boot: str) -> int | None:
    """As `acquire`, but waits for a monitor that has written the end, and lets go in a moment."""
    deadline = time.monotonic() + _LETS_GO
    while True:
        lock = acquire(directory)
        if lock is not None:
            return lock
        if observe(directory, boot=boot).status != EXITED or time.monotonic() > deadline:
            return None
        time.sleep(0.002)


def release(lock: int) -> None:
    """Give the container's lock back. Closing is not enough where a fork of another thread may have the
    descriptor for a moment, too.
    """
    fcntl.fcntl(lock, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_UNLCK, 0, 0, 0, 0))
    os.close(lock)


def is_locked(directory: str) -> bool:
    """Whether somebody holds the container's lock."""
    try:
        descriptor = os.open(f"{directory}/{LOCK_FILE}", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        asked = FLOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0)
        found: bytes = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
        return bool(FLOCK.unpack(found)[0] != fcntl.F_UNLCK)
    finally:
        os.close(descriptor)


def _is_current(descriptor: int, directory: str) -> bool:
    try:
        here = os.stat(f"{directory}/{LOCK_FILE}")
    except FileNotFoundError:
        return False
    return here.st_ino == os.fstat(descriptor).st_ino


def _modified(directory: str) -> float:
    try:
        return os.stat(f"{directory}/{LOG_FILE}").st_mtime
    except FileNotFoundError:
        return os.stat(f"{directory}/{STATE_FILE}").st_mtime


def _plain(value: Any) -> Any:
    """Records as objects, tuples as arrays."""
    if hasattr(type(value), "__record_fields__"):
        return {name: _plain(getattr(value, name)) for name in fields(type(value))}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return value


def _tuples(document: dict[str, Any]) -> dict[str, Any]:
    return {name: _tuple(value) for name, value in document.items()}


def _tuple(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuple(entry) for entry in value)
    return value


def _named(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise TypeError("not an object")
    return _tuples(document)
