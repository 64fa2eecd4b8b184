# SPDX-License-Identifier: Apache-2.0
"""The mounts of a RUN step, made for one process and undone after it.

| mount | what the step sees |
|---|---|
| bind of a stage or image | its snapshots mounted read-only, or with a throw-away layer on top |
| bind of a build context | a copy of exactly what is mounted, made once a build |
| cache | a directory of the store, locked as its sharing says |
| tmpfs | a tmpfs of the runtime's |
| secret, ssh | files and sockets on a tmpfs of this process's mount namespace |
| script | a directory with the heredoc's text |

`MountPlaces` makes the directories; why contexts are copied stands there.
"""

from __future__ import annotations

import os
import shlex
import stat
import threading
from contextlib import ExitStack, contextmanager

from lamina.builder.mountplaces import MountInput, MountPlaces
from lamina.builder.secrets import Redactor
from lamina.builder.selection import select_path
from lamina.builder.sshagents import AgentSocket
from lamina.builder.tree import Tree
from lamina.container.ports import Mount
from lamina.errors import Kind, LaminaError, never
from lamina.plan.mounts import (
    BindMount,
    CacheMount,
    ScriptMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from lamina.start.record import Record, replace
from lamina.system.paths import lookup_in_root, open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lamina.builder.scratch import Scratch
    from lamina.builder.secrets import Secrets
    from lamina.builder.sshagents import SshAgents
    from lamina.plan.ops import Exec
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken, Work


_HIDDEN = ("ro", "nosuid", "nodev", "noexec")  # of secrets, as BuildKit mounts them
_O_PATH = os.O_PATH | os.O_CLOEXEC


class StepMounts(Record):
    """What a step's process gets. `secret_env` is part of its environment and written nowhere;
    `secrets` are values that its output must not show. `environment` is a file in memory that sets
    `secret_env`, for a shell whose own environment is stored (see `Mounter.environment`).
    """

    mounts: tuple[Mount, ...] = ()
    secret_env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[bytes, ...] = ()
    environment: str = ""

    def redacted(self, output: Callable[[int, bytes], None]) -> Redactor:
        """`output` behind a mask for the secrets."""
        return Redactor(self.secrets, output)


class Mounter:
    """Makes the mounts of the steps of one solve. Any thread may call it; `close` it."""

    def __init__(
        self,
        store: Store,
        scratch: Scratch,
        *,
        secrets: Secrets | None,
        agents: SshAgents | None,
        work: Work,
    ) -> None:
        self._secrets = secrets
        self._agents = agents
        self._places = MountPlaces(store, scratch, work=work)
        self._guard = threading.Lock()

    def close(self) -> None:
        """Undo what lasted for the whole solve."""
        self._places.close()

    @contextmanager
    def mounted(
        self,
        op: Exec,
        rootfs: str,
        *,
        inputs: Callable[[BindMount | CacheMount], MountInput],
        user: Mapping[str, str],
        cancel: CancelToken,
    ) -> Iterator[StepMounts]:
        """The mounts of `op` in the mounted tree `rootfs`, inside the block. `inputs` tells what a
        mount that has a source takes its files from, `user` which build and step it is.

        Raises:
            LaminaError: what is to be mounted does not exist, or a required secret is missing.
            Cancelled: while waiting for a locked cache.
        """
        with ExitStack() as stack:
            making = _StepMounting(
                self, op, rootfs=rootfs, inputs=inputs, user=user, cancel=cancel, stack=stack
            )
            yield making.all()

    def environment(self, made: StepMounts, stack: ExitStack) -> StepMounts:
        """`made` with a file that sets its secret variables, for any user of the container."""
        if not made.secret_env:
            return made
        path = os.path.join(self._places.memory("environment", stack), "environment")
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in made.secret_env)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(lines)
            os.fchmod(file.fileno(), 0o444)
        return replace(made, environment=path)

    # What is the whole solve's ----------------------------------------------------------------

    @property
    def places(self) -> MountPlaces:
        """What makes the directories that mounts show."""
        return self._places

    def secret(self, id: str) -> bytes | None:
        """The value of a secret; None if there is none of that id."""
        return self._secrets.get(id) if self._secrets is not None else None

    def agent(self, id: str) -> str | None:
        """The address of an SSH agent, started at the first use; None if there is none of that id."""
        agents = self._agents
        if agents is None or not agents.has(id):
            return None
        with self._guard:
            place = ""
            if agents.needs_directory(id):
                place = self._places.memory("agent", self._places.lasting)
                self._places.lasting.callback(agents.close)
            return agents.address(id, place)


class _StepMounting:
    """The mounts of one step while they are made; `stack` undoes them."""

    def __init__(
        self,
        mounter: Mounter,
        op: Exec,
        *,
        rootfs: str,
        inputs: Callable[[BindMount | CacheMount], MountInput],
        user: Mapping[str, str],
        cancel: CancelToken,
        stack: ExitStack,
    ) -> None:
        self._mounter = mounter
        self._places = mounter.places
        self._op = op
        self._rootfs = rootfs
        self._inputs = inputs
        self._user = user
        self._cancel = cancel
        self._stack = stack
        self._mounts: list[Mount] = []
        self._env: list[tuple[str, str]] = []
        self._values: list[bytes] = []
        self._private = ""
        self._caches: dict[tuple[str, str], str] = {}

    def all(self) -> StepMounts:
        self._open_caches()
        for mount in self._op.mounts:
            match mount:
                case BindMount():
                    self._bind(mount)
                case CacheMount():
                    self._cache(mount)
                case TmpfsMount():
                    self._tmpfs(mount)
                case SecretMount():
                    self._secret(mount)
                case SshMount():
                    self._ssh(mount)
                case ScriptMount():
                    self._script(mount)
                case _:
                    never(mount)
        return StepMounts(tuple(self._mounts), tuple(self._env), tuple(self._values))

    def _add(self, target: str, source: str, *options: str) -> None:
        """Bind `source`. Said again of what is mounted so: a runtime that makes a bind read-only
        sets all its flags anew.
        """
        guard = () if self._op.security == "insecure" or "nodev" in options else ("nodev",)
        options = ("rbind", "rprivate", *guard, *options)
        self._mounts.append(Mount(target, "bind", source, options))

    # Binds ------------------------------------------------------------------------------------

    def _bind(self, mount: BindMount) -> None:
        options = ("ro",) if mount.read_only else ()
        if mount.source is None:
            if mount.path:
                raise _missing(mount.path)
            self._add(mount.target, self._places.directory("empty", self._stack), *options)
            return
        source, cancel = self._inputs(mount), self._cancel
        if source.result is not None:
            root = self._places.stage(
                source.result,
                self._stack,
                read_only=mount.read_only,
                devices=self._op.security == "insecure",
                cancel=cancel,
            )
            self._add(mount.target, self._beneath(root, mount.path), *options)
        elif mount.read_only:
            self._add(mount.target, self._places.shared_copy(source, cancel=cancel), "ro")
        else:
            self._add(mount.target, self._places.copy(source, self._stack, cancel=cancel))

    def _beneath(self, root: str, path: str) -> str:
        """What `path` leads to in the tree mounted at `root`, links resolved inside it: opened
        once, and mounted by that descriptor.
        """
        if not path:
            return root
        top = os.open(root, _O_PATH | os.O_DIRECTORY)
        try:
            fd = open_in_root(top, os.fsencode(path), _O_PATH)
        except LaminaError as error:
            if error.kind is Kind.NOT_FOUND:
                raise _missing(path) from error
            raise
        finally:
            os.close(top)
        self._stack.callback(os.close, fd)
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise LaminaError(
                f'"/{path}" is neither a file nor a directory: it cannot be mounted',
                kind=Kind.INVALID,
            )
        return f"/proc/self/fd/{fd}"

    # Caches -----------------------------------------------------------------------------------

    def _open_caches(self) -> None:
        """Take hold of the step's caches, in an order that all steps share: no deadlock."""
        caches = [mount for mount in self._op.mounts if isinstance(mount, CacheMount)]
        keyed = [(self._cache_key(mount), mount) for mount in caches]
        for key, mount in sorted(keyed, key=lambda pair: pair[0]):
            if key not in self._caches:
                self._caches[key] = self._open_cache(*key, mount)

    def _cache_key(self, mount: CacheMount) -> tuple[str, str]:
        """The id, and what tells caches of one id apart: what they begin with."""
        variant = ""
        if mount.source is not None:
            source = self._inputs(mount)
            if source.selection is not None:
                variant = str(source.selection.digest)
            else:
                variant = " ".join([*map(str, source.result or ()), mount.path])
        if (mount.uid, mount.gid, mount.mode) != (None, None, None):
            variant += f" {mount.uid or 0}:{mount.gid or 0} {_mode(mount):o}"
        return mount.id, variant

    def _open_cache(self, id: str, variant: str, mount: CacheMount) -> str:
        held = self._places.cache(
            id,
            variant,
            sharing=mount.sharing,
            fill=lambda path: self._fill(path, mount),
            user=self._user,
            cancel=self._cancel,
        )
        self._stack.enter_context(held)
        return held.path

    def _fill(self, path: str, mount: CacheMount) -> None:
        """The first content of a new cache, and its owner."""
        if mount.source is not None:
            self._seed(path, mount)
        if (mount.uid, mount.gid, mount.mode) != (None, None, None):
            os.chown(path, mount.uid or 0, mount.gid or 0)
            os.chmod(path, _mode(mount))

    def _seed(self, path: str, mount: CacheMount) -> None:
        source = self._inputs(mount)
        with ExitStack() as stack:
            if source.result is not None:
                stage = self._places.stage(
                    source.result,
                    self._stack,
                    read_only=True,
                    devices=False,
                    cancel=self._cancel,
                )
                root = os.open(stage, os.O_RDONLY | os.O_CLOEXEC)
                tree = Tree(root, what="the stage", ignore=None, keeps_owner=True)
                stack.callback(tree.close)
                selection = select_path(tree, mount.path, cache=None, cancel=self._cancel)
                source = MountInput(None, tree, selection)
            copy = self._places.copy(source, stack, cancel=self._cancel)
            if not os.path.isdir(copy):
                raise LaminaError(
                    f'"/{mount.path}" is not a directory: a cache mount cannot begin with it',
                    kind=Kind.INVALID,
                )
            _move_into(copy, path)

    def _cache(self, mount: CacheMount) -> None:
        options = ("ro",) if mount.read_only else ()
        path = self._caches[self._cache_key(mount)]
        if mount.source is None and mount.path:
            path = self._beneath(path, mount.path)
        self._add(mount.target, path, *options)

    # In memory --------------------------------------------------------------------------------

    def _tmpfs(self, mount: TmpfsMount) -> None:
        """Mode 1777 where the image has no such directory, else that directory's mode."""
        root = os.open(self._rootfs, _O_PATH | os.O_DIRECTORY)
        try:
            status = lookup_in_root(root, os.fsencode(mount.target[1:]))
        finally:
            os.close(root)
        is_dir = status is not None and stat.S_ISDIR(status.st_mode)
        mode = stat.S_IMODE(status.st_mode) if status is not None and is_dir else 0o1777
        options = ["dev", "exec", f"mode={mode:o}"]
        if mount.size:
            options.append(f"size={mount.size}")
        if mount.read_only:
            options.append("ro")
        self._mounts.append(Mount(mount.target, "tmpfs", "", tuple(options)))

    def _secret(self, mount: SecretMount) -> None:
        value = self._mounter.secret(mount.id)
        if value is None:
            if mount.required:
                raise LaminaError(
                    f"secret {mount.id}: not found",
                    kind=Kind.NOT_FOUND,
                    hint=f"give it with --secret id={mount.id},src=FILE",
                )
            return
        self._values.append(value)
        if mount.env:
            self._env.append((mount.env, _text(mount.id, value)))
        if mount.target:
            path = self._private_path()
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(value)
                os.fchown(fd, mount.uid, mount.gid)
                os.fchmod(fd, mount.mode)
            self._add(mount.target, path, *_HIDDEN)

    def _ssh(self, mount: SshMount) -> None:
        address = self._mounter.agent(mount.id)
        if address is None:
            if mount.required:
                raise LaminaError(
                    f'no SSH key "{mount.id}" forwarded from the client',
                    kind=Kind.NOT_FOUND,
                    hint=f"give one with --ssh {mount.id}",
                )
            return
        path = self._private_path()
        socket = AgentSocket(path, address, uid=mount.uid, gid=mount.gid, mode=mount.mode & 0o777)
        self._stack.enter_context(socket)
        self._add(mount.target, path)

    def _private_path(self) -> str:
        """A new path on the step's own tmpfs, which no other process of the host sees."""
        if not self._private:
            self._private = self._places.memory("private", self._stack)
        return os.path.join(self._private, str(len(self._mounts)))

    def _script(self, mount: ScriptMount) -> None:
        directory = self._places.directory("script", self._stack)
        path = os.path.join(directory, mount.name)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o755)
            file.write(mount.content.encode("utf-8", "surrogateescape"))
        self._add(mount.target, directory, "ro")


def _text(id: str, value: bytes) -> str:
    """The value as a variable holds it: a container's configuration is JSON text."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise LaminaError(
            f"secret {id} is not text and cannot be a variable",
            kind=Kind.INVALID,
            hint="mount it as a file",
        ) from None
    return text


def _missing(path: str) -> LaminaError:
    return LaminaError(f'"/{path}": not found', kind=Kind.NOT_FOUND)


def _mode(mount: CacheMount) -> int:
    return 0o755 if mount.mode is None else mount.mode


def _move_into(source: str, target: str) -> None:
    """Move what directory `source` holds to the empty `target`, which gets its attributes."""
    status = os.stat(source)
    for name in os.listdir(source):
        os.rename(os.path.join(source, name), os.path.join(target, name))
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
