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

A context is copied, and not bound, so that a step sees what a cache key was made of: files that
`.dockerignore` leaves out are not there, owners are root's, nothing changes while the step runs,
and no link of the context leads out of it (CVE-2024-23651: the directory that is mounted is found
by descriptor beneath a root that only lamina writes).
"""

from __future__ import annotations

import os
import shlex
import stat
import threading
from contextlib import ExitStack, contextmanager

from lamina.builder.secrets import Redactor
from lamina.container.ports import Mount
from lamina.errors import Kind, LaminaError
from lamina.events import Notice
from lamina.plan.mounts import (
    BindMount,
    CacheMount,
    ScriptMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from lamina.record import Record, replace
from lamina.store.working import working_key
from lamina.system.paths import lookup_in_root, open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lamina.builder.scratch import Scratch
    from lamina.builder.secrets import Secrets
    from lamina.builder.selection import Selection
    from lamina.builder.sshagents import SshAgents
    from lamina.builder.tree import Tree
    from lamina.events import Emitter
    from lamina.layer.entry import Item, Items
    from lamina.plan.ops import Exec
    from lamina.spec.digest import DiffID
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

    Result = tuple[DiffID, ...]

_PRIVATE_SIZE = 64 << 20  # bytes; a limit of the tmpfs, not what it takes
_HIDDEN = ("ro", "nosuid", "nodev", "noexec")  # of secrets, as BuildKit mounts them
_O_PATH = os.O_PATH | os.O_CLOEXEC
_CONTENT = "m"  # what is copied lies under this name


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


class MountInput(Record):
    """What a mount takes files from: a stage's `result`, or `tree` and `selection` of a context."""

    result: Result | None
    tree: Tree | None = None
    selection: Selection | None = None


class Mounter:
    """Makes the mounts of the steps of one solve. Any thread may call it; `close` it."""

    def __init__(
        self,
        store: Store,
        scratch: Scratch,
        *,
        secrets: Secrets | None,
        agents: SshAgents | None,
        emit: Emitter,
    ) -> None:
        self._store = store
        self._scratch = scratch
        self._secrets = secrets
        self._agents = agents
        self._emit = emit
        self._copies: dict[str, str] = {}  # digest of a selection -> key of its snapshot
        self._guard = threading.Lock()
        self._lasting = ExitStack()

    def close(self) -> None:
        """Undo what lasted for the whole solve."""
        self._lasting.close()
        self._copies.clear()

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
            made = _Made(self, op, rootfs, inputs, user, cancel, stack)
            yield made.all()

    def memory(self, stack: ExitStack, what: str) -> str:
        """A directory on a new tmpfs that no other process of the host sees; `stack` undoes it."""
        from lamina.system.mounts import tmpfs, unmount

        path = self._scratch.path(working_key(f"mount:{what}"))
        os.mkdir(path, 0o700)
        stack.callback(os.rmdir, path)
        tmpfs(path, size=_PRIVATE_SIZE, mode=0o700)
        stack.callback(unmount, path)
        return path

    def environment(self, made: StepMounts, stack: ExitStack) -> StepMounts:
        """`made` with a file that sets its secret variables, for any user of the container."""
        if not made.secret_env:
            return made
        path = os.path.join(self.memory(stack, "environment"), "environment")
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in made.secret_env)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(lines)
            os.fchmod(file.fileno(), 0o444)
        return replace(made, environment=path)

    # What the store is asked for --------------------------------------------------------------

    def _new_directory(self, stack: ExitStack, what: str) -> str:
        """An empty directory on the store's disk, removed by `stack`. It is an active snapshot, so
        that after a crash the next build removes it.
        """
        key = working_key(f"mount:{what}")
        self._store.snapshots.prepare(key, None)
        stack.callback(self._store.snapshots.remove, key)
        path = self._store.snapshots.layer_dir(key)
        os.chmod(path, 0o755)  # noqa: S103  # the step's user looks at it
        return path

    def _copy(self, found: MountInput, stack: ExitStack, cancel: CancelToken) -> str:
        """A copy of a selection in a new directory."""
        from lamina.builder.changes import Changes, EmptyBase
        from lamina.builder.copying import copy_match
        from lamina.layer.apply import extract

        assert found.tree is not None
        assert found.selection is not None
        match = found.selection.matches[0]
        path = self._new_directory(stack, "copy")
        changes = Changes(EmptyBase())
        dest = f"/{_CONTENT}".encode()
        copy_match(changes, found.tree, match, dest=dest, owner=None, mode=None, inode_space=0)
        items = _while_not(cancel, changes.items())
        extract(items, path, owners=True, privileged=True)
        content = os.path.join(path, _CONTENT)
        if match.is_dir:
            status = found.tree.status(found.tree.resolve(match.path))
            os.makedirs(content, exist_ok=True)
            if status is not None:
                if found.tree.keeps_owner:
                    os.chown(content, status.st_uid, status.st_gid)
                os.chmod(content, stat.S_IMODE(status.st_mode))
                os.utime(content, ns=(status.st_mtime_ns, status.st_mtime_ns))
        return content

    def _shared_copy(self, found: MountInput, cancel: CancelToken) -> str:
        """A copy that all steps of the solve look at; nobody writes to it."""
        assert found.selection is not None
        name = str(found.selection.digest)
        with self._guard:
            if name not in self._copies:
                self._copies[name] = self._copy(found, self._lasting, cancel)
            return self._copies[name]


class _Made:
    """The mounts of one step while they are made; `stack` undoes them."""

    def __init__(
        self,
        mounter: Mounter,
        op: Exec,
        rootfs: str,
        inputs: Callable[[BindMount | CacheMount], MountInput],
        user: Mapping[str, str],
        cancel: CancelToken,
        stack: ExitStack,
    ) -> None:
        self._mounter = mounter
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
            self._add(mount.target, self._mounter._new_directory(self._stack, "empty"), *options)
            return
        found = self._inputs(mount)
        if found.result is not None:
            root = self._stage(found.result, read_only=mount.read_only)
            self._add(mount.target, self._beneath(root, mount.path), *options)
        elif mount.read_only:
            self._add(mount.target, self._mounter._shared_copy(found, self._cancel), "ro")
        else:
            self._add(mount.target, self._mounter._copy(found, self._stack, self._cancel))

    def _stage(self, result: Result, *, read_only: bool) -> str:
        """A mount point of the stage's tree; what is written to it goes to a throw-away layer."""
        from lamina.image.unpack import ensure_snapshot
        from lamina.system.mounts import mounted

        store, scratch = self._mounter._store, self._mounter._scratch
        chain = ensure_snapshot(store, result, emit=self._mounter._emit, cancel=self._cancel)
        unique = working_key("mount:stage")
        if read_only:
            overlay = store.snapshots.view(chain)
        else:
            overlay = store.snapshots.prepare(unique, chain)
            self._stack.callback(store.snapshots.remove, unique)
        target = scratch.path(unique)
        os.mkdir(target, 0o700)
        self._stack.callback(os.rmdir, target)
        insecure = self._op.security == "insecure"
        self._stack.enter_context(
            mounted(overlay, target, volatile=not read_only, devices=insecure)
        )
        return target

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
        found = [(self._cache_key(mount), mount) for mount in caches]
        for key, mount in sorted(found, key=lambda pair: pair[0]):
            if key not in self._caches:
                self._caches[key] = self._open_cache(*key, mount)

    def _cache_key(self, mount: CacheMount) -> tuple[str, str]:
        """The id, and what tells caches of one id apart: what they begin with."""
        variant = ""
        if mount.source is not None:
            found = self._inputs(mount)
            if found.selection is not None:
                variant = str(found.selection.digest)
            else:
                variant = " ".join([*map(str, found.result or ()), mount.path])
        if (mount.uid, mount.gid, mount.mode) != (None, None, None):
            variant += f" {mount.uid or 0}:{mount.gid or 0} {_mode(mount):o}"
        return mount.id, variant

    def _open_cache(self, id: str, variant: str, mount: CacheMount) -> str:
        from lamina.store.cachemounts import open_cache

        def waiting() -> None:
            self._mounter._emit(
                Notice(f"waiting for the cache mount {id.partition('/')[2]}: another step holds it")
            )

        held = open_cache(
            self._mounter._store.root,
            id,
            variant=variant,
            sharing=mount.sharing,
            fill=lambda path: self._fill(path, mount),
            waiting=waiting,
            cancel=self._cancel,
            user=self._user,
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
        from lamina.builder.selection import select_path
        from lamina.builder.tree import Tree

        found = self._inputs(mount)
        with ExitStack() as stack:
            if found.result is not None:
                root = os.open(
                    self._stage(found.result, read_only=True), os.O_RDONLY | os.O_CLOEXEC
                )
                tree = Tree(root, what="the stage", ignore=None, keeps_owner=True)
                stack.callback(tree.close)
                selection = select_path(tree, mount.path, cache=None, cancel=self._cancel)
                found = MountInput(None, tree, selection)
            copy = self._mounter._copy(found, stack, self._cancel)
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
        secrets = self._mounter._secrets
        value = secrets.get(mount.id) if secrets is not None else None
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
        from lamina.builder.sshagents import AgentSocket

        agents = self._mounter._agents
        if agents is None or not agents.has(mount.id):
            if mount.required:
                raise LaminaError(
                    f'no SSH key "{mount.id}" forwarded from the client',
                    kind=Kind.NOT_FOUND,
                    hint=f"give one with --ssh {mount.id}",
                )
            return
        with self._mounter._guard:
            place = ""
            if agents.needs_directory(mount.id):
                place = self._mounter.memory(self._mounter._lasting, "agent")
                self._mounter._lasting.callback(agents.close)
            address = agents.address(mount.id, place)
        path = self._private_path()
        socket = AgentSocket(path, address, uid=mount.uid, gid=mount.gid, mode=mount.mode & 0o777)
        self._stack.enter_context(socket)
        self._add(mount.target, path)

    def _private_path(self) -> str:
        """A new path on the step's own tmpfs, which no other process of the host sees."""
        if not self._private:
            self._private = self._mounter.memory(self._stack, "private")
        return os.path.join(self._private, str(len(self._mounts)))

    def _script(self, mount: ScriptMount) -> None:
        directory = self._mounter._new_directory(self._stack, "script")
        path = os.path.join(directory, mount.name)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o755)
            file.write(mount.content.encode("utf-8", "surrogateescape"))
        self._add(mount.target, directory, "ro")


def _while_not(cancel: CancelToken, items: Items) -> Iterator[Item]:
    for item in items:
        cancel.check()
        yield item


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
