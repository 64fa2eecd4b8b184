# SPDX-License-Identifier: Apache-2.0
"""`RUN --mount`: from the flag's text to the mounts of an `Exec`, after BuildKit's `parseMount`,
`dispatchRunMounts`, `dispatchSecret` and `dispatchSSH`.

A flag is read twice, as in BuildKit. `named_source` needs only `from`, in which nothing is
expanded, so that it is known which stages and images a step needs. `MountLowering` expands every
other value with the stage's variables and understands it.
"""

from __future__ import annotations

from lamina.dockerfile import ast
from lamina.dockerfile.operands import clean
from lamina.dockerfile.values import InvalidValue, go_bool, go_size
from lamina.dockerfile.words import suggest
from lamina.errors import SourceError
from lamina.plan.mounts import BindMount, CacheMount, SecretMount, SshMount, TmpfsMount
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamina.plan.graph import Edge
    from lamina.plan.mounts import RunMount

_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_KEYS = (
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
)
SSH_ID = "default"
_SECRET_DIRECTORY = "/run/secrets"  # noqa: S105  # a path
_SSH_SOCKET = "/run/buildkit/ssh_agent"  # BuildKit's: scripts know it
_MAX_ID = (1 << 32) - 1


class MountSource(Record):
    """What `from` names: an edge, or None for an empty tree; `is_given` is False without `from`."""

    edge: Edge | None
    is_given: bool


class LoweredMounts(Record):
    """Mounts, the vertex's inputs after the base, and SSH_AUTH_SOCK (empty: no SSH mount)."""

    mounts: tuple[RunMount, ...]
    inputs: tuple[Edge | None, ...]
    ssh_socket: str


def mount_flags(command: ast.Command) -> tuple[ast.Flag, ...]:
    """The `--mount` flags of a RUN, in order."""
    if not isinstance(command, ast.Run):
        return ()
    return tuple(flag for flag in command.flags if flag.name == "mount")


def named_source(flag: ast.Flag) -> str:
    """What `from` says, empty without one. Raises SourceError."""
    found = ""
    for field in _fields(flag):
        key, equals, value = field.partition("=")
        if key.lower() != "from" or not equals:
            continue
        if "$" in value[:-1]:
            raise SourceError(
                "'from' doesn't support variable expansion, define alias stage instead",
                span=flag.span,
                hint=f"give the image a name with `FROM {value} AS name` and mount from that",
            )
        found = value
    return found


def secret_variables(flags: Sequence[ast.Flag]) -> list[str]:
    """Names that secrets get in the environment, as written: steps' names show `****` for them."""
    names = []
    for flag in flags:
        options = dict(field.partition("=")[::2] for field in _fields(flag))
        if options.get("type") == "secret" and options.get("env"):
            names.append(options["env"])
    return names


class MountLowering:
    """Lowers the `--mount` flags of one RUN.

    `expand` replaces variables, `context` gives the build context's edge when it is needed, `cwd`
    is the working directory, `namespace` stands before the ids of cache mounts.
    """

    def __init__(
        self,
        *,
        expand: Callable[[str], str],
        context: Callable[[], Edge],
        cwd: str,
        namespace: str,
    ) -> None:
        self._expand = expand
        self._context = context
        self._cwd = cwd
        self._namespace = namespace
        self._inputs: list[Edge | None] = []
        self._ssh: list[SshMount] = []

    def lower(self, flags: Sequence[ast.Flag], sources: Sequence[MountSource]) -> LoweredMounts:
        """All mounts in order; inputs are numbered from 1. Raises SourceError."""
        mounts: list[RunMount] = []
        for flag, source in zip(flags, sources, strict=True):
            options = _Options(flag, self._expand)
            mounts.append(self._mount(options, source))
        socket = self._ssh[0].target if self._ssh else ""
        return LoweredMounts(tuple(mounts), tuple(self._inputs), socket)

    def _mount(self, options: _Options, source: MountSource) -> RunMount:
        match options.type:
            case "bind":
                return self._bind(options, source)
            case "cache":
                return self._cache(options, source)
            case "tmpfs":
                return TmpfsMount(self._target(options), options.size, options.is_read_only)
            case "secret":
                return self._secret(options)
            case _:
                return self._agent(options)

    def _bind(self, options: _Options, source: MountSource) -> BindMount:
        edge = source.edge if source.is_given else self._context()
        return BindMount(
            self._target(options),
            self._input(edge),
            clean("/" + options.source)[1:],
            options.is_read_only,
        )

    def _cache(self, options: _Options, source: MountSource) -> CacheMount:
        id = options.id or (clean(options.target) if options.target else ".")
        return CacheMount(
            self._target(options),
            f"{self._namespace}/{id}",
            self._input(source.edge if source.is_given else None),
            clean("/" + options.source)[1:],
            options.is_read_only,
            options.sharing or "shared",
            options.uid,
            options.gid,
            options.mode,
        )

    def _secret(self, options: _Options) -> SecretMount:
        id = options.source or options.id or options.target.rpartition("/")[2]
        target = options.target
        if not target and not options.env:
            target = f"{_SECRET_DIRECTORY}/{id.rpartition('/')[2]}"
        return SecretMount(
            id,
            self._absolute(target, options) if target else "",
            options.env,
            options.is_required,
            options.uid or 0,
            options.gid or 0,
            0o400 if options.mode is None else options.mode,
        )

    def _agent(self, options: _Options) -> SshMount:
        if options.source:
            raise options.error("ssh does not support source")
        target = options.target or f"{_SSH_SOCKET}.{len(self._ssh)}"
        mount = SshMount(
            options.id or SSH_ID,
            self._absolute(target, options),
            options.is_required,
            options.uid or 0,
            options.gid or 0,
            0o600 if options.mode is None else options.mode,
        )
        self._ssh.append(mount)
        return mount

    def _input(self, edge: Edge | None) -> int | None:
        """The index of the input, 0 being the base; None for an empty tree."""
        if edge is None:
            return None
        if edge not in self._inputs:
            self._inputs.append(edge)
        return self._inputs.index(edge) + 1

    def _target(self, options: _Options) -> str:
        return self._absolute(options.target, options)

    def _absolute(self, target: str, options: _Options) -> str:
        path = target if target.startswith("/") else f"{self._cwd}/{target}"
        path = clean("/" + path)
        if path == "/":
            raise options.error(f'invalid mount target "{path}"')
        return path


class _Options:
    """The options of one flag, each understood and checked. Raises SourceError."""

    def __init__(self, flag: ast.Flag, expand: Callable[[str], str]) -> None:
        self._flag = flag
        self.type = "bind"
        self.source = self.target = self.id = self.sharing = self.env = ""
        self.size = 0
        self.is_required = False
        self.uid: int | None = None
        self.gid: int | None = None
        self.mode: int | None = None
        self._read_only: bool | None = None
        self._has_from = False
        for field in _fields(flag):
            key, equals, value = field.partition("=")
            if equals:
                self._set(key.lower(), expand(value), field)
            else:
                self._switch(key.lower(), field)
        self._check()

    @property
    def is_read_only(self) -> bool:
        """As written; by default caches and tmpfs may be written to, the others not."""
        if self._read_only is None:
            return self.type not in {"cache", "tmpfs"}
        return self._read_only

    def error(self, what: str) -> SourceError:
        return SourceError(what, span=self._flag.span)

    def _switch(self, key: str, field: str) -> None:
        """An option without `=`."""
        match key:
            case "readonly" | "ro":
                self._read_only = True
            case "readwrite" | "rw":
                self._read_only = False
            case "required":
                self._require_type(key, "secret", "ssh")
                self.is_required = True
            case _:
                raise self.error(f"invalid field '{field}' must be a key=value pair")

    def _set(self, key: str, value: str, field: str) -> None:
        match key:
            case "type":
                self.type = self._one_of(value, _TYPES, f'unsupported mount type "{value}"')
            case "from":
                self._has_from = bool(value)
            case "source" | "src":
                self.source = value
            case "target" | "dst" | "destination":
                self.target = value
            case "readonly" | "ro":
                self._read_only = self._bool(key, value)
            case "readwrite" | "rw":
                self._read_only = not self._bool(key, value)
            case "required":
                self._require_type(key, "secret", "ssh")
                self.is_required = self._bool(key, value)
            case "size":
                self._require_type(key, "tmpfs")
                self.size = self._size(key, value)
            case "id":
                self.id = value
            case "sharing":
                self.sharing = self._one_of(value, _SHARING, f'unsupported sharing value "{value}"')
            case "mode":
                self.mode = self._number(key, value, base=8)
            case "uid":
                self.uid = self._number(key, value, base=10)
            case "gid":
                self.gid = self._number(key, value, base=10)
            case "env":
                self.env = value
            case _:
                raise self.error(f"unexpected key '{key}' in '{field}'" + _nearest(key, _KEYS))

    def _check(self) -> None:
        """What goes with what; the words are BuildKit's."""
        if self.type in {"bind", "tmpfs"}:
            for name in ("mode", "uid", "gid"):
                if getattr(self, name) is not None:
                    raise self.error(f'{name} not allowed for "{self.type}" type mounts')
        if self.type == "secret":
            if self._has_from:
                raise self.error("secret mount should not have a from")
            if self.sharing:
                raise self.error("secret mount should not define sharing")
            if not (self.source or self.target or self.id):
                raise self.error("invalid secret mount. one of source, target required")
            if self.source and self.id:
                raise self.error("both source and id can't be set")
            if "=" in self.env or "\0" in self.env:
                raise self.error(f"invalid variable name '{self.env}' for env")
        elif self.env:
            raise self.error(f'env not allowed for "{self.type}" type mounts')
        if self.sharing and self.type != "cache":
            raise self.error(f"invalid cache sharing set for {self.type} mount")

    def _require_type(self, key: str, *types: str) -> None:
        if self.type not in types:
            raise self.error(f"unexpected key '{key}' for mount type '{self.type}'")

    def _one_of(self, value: str, allowed: tuple[str, ...], what: str) -> str:
        if value.lower() not in allowed:
            raise self.error(what + _nearest(value, allowed))
        return value.lower()

    def _bool(self, key: str, value: str) -> bool:
        try:
            return go_bool(value)
        except InvalidValue as error:
            raise self.error(f"invalid value for {key}: {value}") from error

    def _size(self, key: str, value: str) -> int:
        try:
            return go_size(value)
        except InvalidValue as error:
            raise self.error(f"invalid value for {key}: {value}") from error

    def _number(self, key: str, value: str, *, base: int) -> int:
        digits = "01234567" if base == 8 else "0123456789"
        if not value or any(char not in digits for char in value) or len(value) > 12:
            raise self.error(f"invalid value {value} for {key}")
        number = int(value, base)
        if number > (0o7777 if base == 8 else _MAX_ID):
            raise self.error(f"invalid value {value} for {key}")
        return number


def _nearest(word: str, known: Sequence[str]) -> str:
    found = suggest(word, list(known))
    return f" (did you mean {found}?)" if found else ""


def _fields(flag: ast.Flag) -> list[str]:
    """The flag's value cut at commas by the rules of Go's encoding/csv: a field in double quotes
    may hold commas, and `""` for a quote. Raises SourceError.
    """
    text = flag.value or ""
    fields: list[str] = []
    at = 0
    while True:
        if text.startswith('"', at):
            field, at = _quoted(flag, text, at + 1)
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            field, at = text[at:end], end
            if '"' in field:
                raise SourceError(
                    f'failed to parse csv mounts: bare " in non-quoted field {field!r}',
                    span=flag.span,
                )
        fields.append(field)
        if at >= len(text):
            return fields
        at += 1


def _quoted(flag: ast.Flag, text: str, at: int) -> tuple[str, int]:
    """The field whose opening quote is before `at`, and where its comma (or the end) is."""
    parts: list[str] = []
    while (end := text.find('"', at)) >= 0:
        parts.append(text[at:end])
        if text.startswith('"', end + 1):
            parts.append('"')
            at = end + 2
        elif end + 1 == len(text) or text[end + 1] == ",":
            return "".join(parts), end + 1
        else:
            break
    raise SourceError(
        'failed to parse csv mounts: extraneous or missing " in quoted-field', span=flag.span
    )
