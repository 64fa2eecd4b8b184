# SPDX-License-Identifier: Apache-2.0
"""One stage, instruction by instruction: what it adds to the plan, the config and the history.

After BuildKit's `dockerfile2llb` (`dispatch*`). A stage has two environments: `config_env` is the
image's (ENV only), `env` is what a RUN sees and what variables expand from: ENV and ARG, the later
statement winning.
"""

from __future__ import annotations

from lamina.dockerfile import ast
from lamina.dockerfile.copying import copy_parts, expand_copy, history_words, source_title
from lamina.dockerfile.expand import BadExpansion, Expansion, expand
from lamina.dockerfile.operands import (
    clean,
    duration_flag,
    error_at,
    is_only_heredoc,
    join,
    refuse_flags,
    retries_flag,
)
from lamina.dockerfile.values import (
    InvalidValue,
    go_healthcheck,
    go_list,
    go_quote,
    go_quote_list,
    is_signal,
    parse_port,
)
from lamina.errors import Kind, never
from lamina.plan.graph import Edge, Plan, Vertex, VertexMeta, combined, vertex
from lamina.plan.ops import Exec, FileOp, LocalSource, Merge, MkdirAction
from lamina.spec.config import Healthcheck, History, ImageConfig, RunConfig
from lamina.spec.identity import MAX_LAYERS
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lamina.dockerfile.checks import Checker
    from lamina.dockerfile.copying import CopyRequest, Part
    from lamina.dockerfile.remotes import Remotes
    from lamina.dockerfile.runmounts import MountSource
    from lamina.plan.mounts import RunMount
    from lamina.plan.ops import Op
    from lamina.spec.platform import Platform

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
COMMENT = "buildkit.dockerfile.v0"  # other tools tell BuildKit's history entries by it
PROXY_ARGS = frozenset({"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"})
_NOT_IN_ENV = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
SCRIPTS = "/dev/pipes"  # where BuildKit shows a heredoc that is a program
MAX_PORTS = 3 * 65_536


class Vertices:
    """The vertices of a plan while it is built, each once, in order."""

    def __init__(self) -> None:
        self._known: dict[object, Vertex] = {}

    def add(self, op: Op, inputs: Iterable[Edge | None], meta: VertexMeta) -> Edge:
        """The edge of the vertex; one that exists is used again (and exported if either is)."""
        made = vertex(op, inputs, meta=meta)
        old = self._known.setdefault(made.digest, made)
        if old is not made:
            self._known[made.digest] = replace(old, meta=combined(old.meta, meta))
        return Edge(made.digest)

    def include(self, plan: Plan) -> Edge | None:
        """The plan's output, its vertices known from now on."""
        for made in plan.vertices:
            self._known.setdefault(made.digest, made)
        return plan.outputs[0]

    def all(self) -> tuple[Vertex, ...]:
        """Every vertex, inputs first."""
        return tuple(self._known.values())


class BuildScope(Record):
    """What all stages of a build share."""

    escape: str
    platform: Platform
    build_args: dict[str, str]
    global_env: dict[str, str]
    ignore: tuple[str, ...]
    extra_hosts: tuple[tuple[str, str], ...]
    shm_size: int
    ulimits: tuple[tuple[str, int, int], ...]
    network: str
    several_platforms: bool
    context: str
    allow: tuple[str, ...]
    vertices: Vertices
    checker: Checker
    remotes: Remotes


class Step(Record):
    """An instruction to lower: `trigger` if it comes from the base's ONBUILD; for COPY --from
    `source` is what it names (None is the build context), `empty_source` says it names nothing;
    `mount_sources` has one for each `--mount` of a RUN.
    """

    command: ast.Command
    trigger: bool = False
    source: Edge | None = None
    empty_source: bool = False
    mount_sources: tuple[MountSource, ...] = ()


class StageState:
    """The state of a stage after some of its instructions.

    `platform` is what its programs are for: that of its FROM, handed on to stages that stand on it.
    """

    def __init__(
        self, scope: BuildScope, *, name: str, exported: bool, ignore_cache: bool = False
    ) -> None:
        self.scope = scope
        self.name = name
        self.exported = exported
        self.platform = scope.platform
        self.ignore_cache = ignore_cache
        self.edge: Edge | None = None
        self.base_layers = 0
        self.layers = 0  # with those of the base
        self.index = 0
        self.total = 0
        self.env: dict[str, str] = {}
        self.args: dict[str, str | None] = {}
        self.config_env: dict[str, str] = {}
        self.base = ImageConfig("", "")
        self.run = RunConfig()
        self.labels: dict[str, str] = {}
        self.history: list[History] = []
        self.author = ""
        self.workdir_set = False
        self._once: dict[str, ast.Instruction] = {}
        self._trigger = False

    def start_from(self, config: ImageConfig, edge: Edge | None) -> None:
        """Begin on an image (its edge is None if it has no layers)."""
        self.edge = edge
        self.base = config
        self.base_layers = self.layers = len(config.diff_ids)
        self.run = replace(config.config, on_build=())
        self.config_env = dict(config.config.env)
        self.config_env.setdefault("PATH", DEFAULT_PATH)
        self.env = dict(self.config_env)
        self.labels = dict(config.config.labels)
        self.history = list(config.history)
        self.author = config.author

    def start_from_stage(self, parent: StageState) -> None:
        """Begin on an earlier stage: its files, config, ARGs and history."""
        self.edge = parent.edge
        self.platform = parent.platform
        self.base = parent.base
        self.base_layers = parent.base_layers
        self.layers = parent.layers
        self.run = replace(parent.run, on_build=())
        self.config_env = dict(parent.config_env)
        self.env = dict(parent.env)
        self.args = dict(parent.args)
        self.labels = dict(parent.labels)
        self.history = list(parent.history)
        self.author = parent.author
        self.workdir_set = parent.workdir_set

    def image_config(self, labels: Iterable[tuple[str, str]] = ()) -> ImageConfig:
        """The config so far, `labels` from the command line on top."""
        merged = sorted({**self.labels, **dict(labels)}.items())
        run = replace(self.run, env=tuple(self.config_env.items()), labels=tuple(merged))
        return replace(
            self.base,
            config=run,
            history=tuple(self.history),
            author=self.author,
            created="",
        )

    def title(self, text: str) -> str:
        """The next step's name: `[stage 2/4] RUN make`; secrets of URLs are masked."""
        text = _masked(text)
        if not self.total:
            return text
        self.index += 1
        number = str(self.index).rjust(len(str(self.total)))
        stage = self._platform_prefix() + (f"{self.name} " if self.name else "")
        trigger = "ONBUILD " if self._trigger else ""
        return f"[{stage}{number}/{self.total}] {trigger}{text}"

    def _platform_prefix(self) -> str:
        """`linux/amd64->arm64 ` in a build for several platforms, as BuildKit writes it: the arrow
        says for what a stage compiles that asked with an ARG.
        """
        if not self.scope.several_platforms:
            return ""
        own, target = self.platform, self.scope.platform
        asked = not {"TARGETPLATFORM", "TARGETARCH"}.isdisjoint(self.env)
        if not asked or own.architecture == target.architecture:
            return f"{own} "
        return f"{own}->{str(target).removeprefix(f'{own.os}/')} "

    def lower(self, step: Step) -> None:
        """Apply one instruction, whose text was checked (`check_text`). Raises SourceError."""
        command = step.command
        self._trigger = step.trigger
        refuse_flags(command)
        match command:
            case ast.Run():
                self._run(command, step)
            case ast.Copy():
                self._copy(command, step)
            case ast.Workdir():
                self._workdir(command)
            case ast.Env():
                self._env(command)
            case ast.Arg():
                self._arg(command)
            case ast.Label():
                self._label(command)
            case ast.Expose():
                self._expose(command)
            case ast.Cmd():
                self._cmd(command)
            case ast.Entrypoint():
                self._entrypoint(command)
            case ast.User():
                self._user(command)
            case ast.Volume():
                self._volume(command)
            case ast.Shell():
                self.run = replace(self.run, shell=command.words)
                self.add_history(f"SHELL {go_list(command.words)}")
            case ast.StopSignal():
                self._stop_signal(command)
            case ast.HealthCheck():
                self._healthcheck(command)
            case ast.Maintainer():
                self.author = command.maintainer
                self.add_history(f"MAINTAINER {command.maintainer}")
            case ast.OnBuild():
                on_build = (*self.run.on_build, command.expression)
                self.run = replace(self.run, on_build=on_build)
            case _:
                never(command)

    # -- steps that add a layer

    def _run(self, command: ast.Run, step: Step) -> None:
        argv, summary, script = self._argv(command)
        network = command.flag("network") or "default"
        if network not in {"default", "none", "host"}:
            raise error_at(command, f'invalid network mode "{network}"')
        security = command.flag("security") or "sandbox"
        if security not in {"sandbox", "insecure"}:
            raise error_at(command, f'security "{security}" is not valid')
        if network == "host":
            self._require("network.host", "RUN --network=host", command)
        if security == "insecure":
            self._require("security.insecure", "RUN --security=insecure", command)
        mounts, inputs, env = self._mounts(command, step)
        op = Exec(
            argv,
            env=env,
            cwd=clean(join("/", self.run.working_dir)),
            user=self.run.user,
            network=self.scope.network if network == "default" else network,
            security=security,
            extra_hosts=self.scope.extra_hosts,
            shm_size=self.scope.shm_size,
            ulimits=self.scope.ulimits,
            platform=str(self.platform),
            proxy_args=_proxies(self.scope.build_args),
            mounts=mounts + script,
            hostname=self.scope.build_args.get("BUILDKIT_SANDBOX_HOSTNAME", ""),
        )
        shown = self._shown(command, raw_quotes=True, keep_unset=True) + summary
        self._layer(op, (self.edge, *inputs), command, shown)
        self.add_history(f"RUN {self._with_args(argv)} # buildkit", layer=True)

    def _require(self, entitlement: str, what: str, command: ast.Run) -> None:
        if entitlement not in self.scope.allow:
            raise error_at(
                command,
                f"{what} is not allowed",
                kind=Kind.DENIED,
                hint=f"build with --allow {entitlement}",
            )

    def _mounts(
        self, command: ast.Run, step: Step
    ) -> tuple[tuple[RunMount, ...], tuple[Edge | None, ...], tuple[tuple[str, str], ...]]:
        """The mounts of a RUN, the inputs they need, and the step's environment."""
        if not step.mount_sources:
            return (), (), tuple(self.env.items())
        from lamina.dockerfile.runmounts import MountLowering, mount_flags

        lowering = MountLowering(
            expand=lambda text: self._expand(text, command),
            context=self._context,
            cwd=self.run.working_dir or "/",
            namespace=self.scope.build_args.get("BUILDKIT_CACHE_MOUNT_NS", ""),
        )
        found = lowering.lower(mount_flags(command), step.mount_sources)
        env = dict(self.env)
        if found.ssh_socket:
            env.setdefault("SSH_AUTH_SOCK", found.ssh_socket)
        return found.mounts, found.inputs, tuple(env.items())

    def _argv(self, command: ast.Run) -> tuple[tuple[str, ...], str, tuple[RunMount, ...]]:
        """The final argv, what the step's name says of a heredoc, and the mount of a script."""
        words = command.command.words
        if not command.command.shell:
            if not words:
                raise error_at(command, "RUN requires at least one argument")
            return words, "", ()
        text, summary = words[0], ""
        script: tuple[RunMount, ...] = ()
        if command.heredocs:
            first = command.heredocs[0]
            if is_only_heredoc(text):
                text = first.chomped()
                if first.content.startswith("#!"):
                    from lamina.plan.mounts import ScriptMount

                    if "/" in first.name or first.name in {".", ".."}:
                        raise error_at(
                            command, f"heredoc name {go_quote(first.name)} is no file name"
                        )
                    script = (ScriptMount(SCRIPTS, first.name, text),)
                    text = f"{SCRIPTS}/{first.name}"
                lines = first.content.strip().split("\n")
                summary = f" ({lines[0]}{'...' * (len(lines) > 1)})"
            else:
                text += "".join(f"\n{doc.content}{doc.name}" for doc in command.heredocs)
        return (*self._shell(), text), summary, script

    def _with_args(self, argv: Sequence[str]) -> str:
        """`|1 FOO=bar /bin/sh -c ...`: the ARGs in force stand before the command."""
        words = [f"{name}={self.env.get(name, value or '')}" for name, value in self.args.items()]
        prefix = [f"|{len(words)}", *words] if words else []
        return " ".join([*prefix, *argv])

    def _copy(self, command: ast.Copy, step: Step) -> None:
        request = expand_copy(
            command,
            lambda text: self._expand(text, command),
            lambda text: self._expand(text, command, plain_quotes=True),
        )
        parts = copy_parts(
            request, command, directory=self.run.working_dir, remotes=self.scope.remotes
        )
        inputs: list[Edge | None] = [None if request.link else self.edge]
        actions = []
        for part in parts:
            edge = self._source(part, command, step)
            if edge not in inputs[1:]:
                inputs.append(edge)
            actions.append(replace(part.action, source=inputs.index(edge, 1)))
        shown = self._shown(command)
        if request.link and self.edge is not None:
            self._linked(FileOp(tuple(actions)), inputs, command, shown, request)
        else:
            self._layer(FileOp(tuple(actions)), inputs, command, shown)
        self.add_history(history_words(request, command), layer=True)

    def _source(self, part: Part, command: ast.Copy, step: Step) -> Edge | None:
        """The tree that a part copies from."""
        if part.needed:
            return None  # this lowering is for the questions only
        if part.source is not None:
            meta = VertexMeta(f"[internal] {source_title(part.source)}", span=command.span)
            return self.scope.vertices.add(part.source, (), meta)
        if step.source is not None or step.empty_source:
            return step.source
        if not part.action.parents:
            self._check_ignored(command, part.action.patterns)
        return self._context()

    def _linked(
        self,
        op: FileOp,
        inputs: list[Edge | None],
        command: ast.Copy,
        shown: str,
        request: CopyRequest,
    ) -> None:
        """A layer made without a look at what is below, and the stack of both."""
        below = self.edge
        if request.owner is not None and not _is_numeric(request.owner):
            op = replace(op, owners=len(inputs))
            inputs = [*inputs, below]
        self._layer(op, inputs, command, shown)
        meta = VertexMeta(
            f"[internal] link {_masked(shown)}", self.name, command.span, self.exported
        )
        self.edge = self.scope.vertices.add(Merge(), (below, self.edge), meta)

    def _context(self) -> Edge:
        meta = VertexMeta("[internal] load build context")
        return self.scope.vertices.add(LocalSource(self.scope.context, self.scope.ignore), (), meta)

    def _check_ignored(self, command: ast.Copy, sources: Iterable[str]) -> None:
        if not self.scope.ignore or not self.scope.checker.wants("CopyIgnoredFile"):
            return
        from lamina.dockerfile.ignore import IgnoreMatcher

        matcher = IgnoreMatcher(self.scope.ignore)
        if matcher.has_exclusions:
            return  # a negation may bring some of it back: too hard to tell
        for path in sources:
            if path != "." and matcher.excludes(path):
                verb = "Add" if command.add else "Copy"
                self.scope.checker.report(
                    "CopyIgnoredFile",
                    f'Attempting to {verb} file "{path}" that is excluded by .dockerignore',
                    command.span,
                )

    def _workdir(self, command: ast.Workdir) -> None:
        path = self._expand(command.path, command)
        if not self.workdir_set and not path.startswith("/"):
            self.scope.checker.report(
                "WorkdirRelativePath",
                f"Relative workdir {go_quote(path)} can have unexpected results "
                "if the base image changes",
                command.span,
            )
        self.workdir_set = True
        # BuildKit's NormalizeWorkdir: an empty path is the directory so far, an absolute one stays
        # as it is written
        if not path.startswith("/"):
            current = join("/", self.run.working_dir)
            path = clean(join(current, path)) if path else current
        self.run = replace(self.run, working_dir=path)
        if path == "/":
            self.add_history(f"WORKDIR {path}")
            return
        op = FileOp((MkdirAction(clean(path), owner=self.run.user or None),))
        self._layer(op, (self.edge,), command, self._shown(command))
        self.add_history(f"WORKDIR {path}", layer=True)

    def _layer(
        self, op: Op, inputs: Iterable[Edge | None], command: ast.Instruction, shown: str
    ) -> None:
        self.layers += 1
        if self.layers > MAX_LAYERS:
            raise error_at(
                command,
                f"a stage of more than {MAX_LAYERS} layers, with those of its base image: "
                "Linux can stack no more",
                kind=Kind.EXHAUSTED,
                hint="join instructions, or copy what the stage made into a new one",
            )
        meta = VertexMeta(
            name=self.title(shown),
            stage=self.name,
            span=command.span,
            exported=self.exported,
            arguments=tuple(name for name in self.args if name not in self.config_env),
            ignore_cache=self.ignore_cache,
        )
        self.edge = self.scope.vertices.add(op, inputs, meta)

    # -- steps that change the config only

    def _env(self, command: ast.Env) -> None:
        self.scope.checker.legacy_pairs(command)
        words = []
        pairs = self._expand_pairs(command)
        for name, value in pairs:
            self.scope.checker.secret_name("ENV", name, command.span)
            if not name or "=" in name:
                raise error_at(command, f"invalid ENV name {go_quote(name)}")
            self.env[name] = value
            self.config_env[name] = value
            words.append(f"{name}={value}")
        self.add_history(f"ENV {' '.join(words)}")

    def _arg(self, command: ast.Arg) -> None:
        words = []
        for name, default in command.args:
            self.scope.checker.secret_name("ARG", name, command.span)
            value = self.scope.build_args.get(name)
            if value is None and default is not None:
                value = self._expand(default, command)
            elif value is None:
                value = self.scope.global_env.get(name)
            if value is not None and name not in _NOT_IN_ENV:
                self.env[name] = value
            self.args[name] = value
            words.append(name if value is None else f"{name}={value}")
        self.add_history(f"ARG {' '.join(words)}")

    def _label(self, command: ast.Label) -> None:
        self.scope.checker.legacy_pairs(command)
        pairs = self._expand_pairs(command)
        self.labels.update(pairs)
        self.add_history(f"LABEL {' '.join(f'{name}={value}' for name, value in pairs)}")

    def _expose(self, command: ast.Expose) -> None:
        words: list[str] = []
        for port in command.ports:
            words += self._expansion(port, command).words
        self.scope.checker.ports(words, command.span)
        ports: list[str] = []
        for word in words:
            try:
                ports += parse_port(word)
            except InvalidValue as error:
                raise error_at(command, error.what) from error
            if len(ports) > MAX_PORTS:
                raise error_at(command, "EXPOSE names too many ports", kind=Kind.EXHAUSTED)
        exposed = tuple(sorted({*self.run.exposed_ports, *ports}))
        self.run = replace(self.run, exposed_ports=exposed)
        self.add_history(f"EXPOSE {go_list(ports)}")

    def _cmd(self, command: ast.Cmd) -> None:
        self._used_once("CMD", command)
        words = self._command(command, command.command)
        # Docker sets ArgsEscaped for CMD on every platform; the field is part of its config bytes
        self.run = replace(self.run, cmd=words, args_escaped=True)
        self.add_history(f"CMD {go_quote_list(words)}")

    def _entrypoint(self, command: ast.Entrypoint) -> None:
        self._used_once("ENTRYPOINT", command)
        words = self._command(command, command.command)
        self.run = replace(self.run, entrypoint=words or None)
        if "CMD" not in self._once:
            self.run = replace(self.run, cmd=None)  # an inherited CMD was for another program
        self.add_history(f"ENTRYPOINT {go_quote_list(words)}")

    def _command(self, command: ast.Cmd | ast.Entrypoint, line: ast.CommandLine) -> tuple[str, ...]:
        if not line.shell:
            return line.words
        if not self.run.shell:
            self.scope.checker.report(
                "JSONArgsRecommended",
                f"JSON arguments recommended for {command.keyword} to prevent unintended "
                "behavior related to OS signals",
                command.span,
            )
        return (*self._shell(), " ".join(line.words))

    def _user(self, command: ast.User) -> None:
        user = self._expand(command.user, command)
        self.run = replace(self.run, user=user)
        self.add_history(f"USER {user}")

    def _volume(self, command: ast.Volume) -> None:
        paths = [self._expand(path, command) for path in command.paths]
        if not all(paths):
            raise error_at(command, "VOLUME specified can not be an empty string")
        self.run = replace(self.run, volumes=tuple(sorted({*self.run.volumes, *paths})))
        self.add_history(f"VOLUME {go_list(paths)}")

    def _stop_signal(self, command: ast.StopSignal) -> None:
        signal = self._expand(command.signal, command)
        if not is_signal(signal):
            raise error_at(command, f"invalid signal: {signal}")
        self.run = replace(self.run, stop_signal=signal)
        self.add_history(f"STOPSIGNAL {signal}")

    def _healthcheck(self, command: ast.HealthCheck) -> None:
        self._used_once("HEALTHCHECK", command)
        line = command.command
        if line is None:
            check = Healthcheck(("NONE",))
        else:
            check = Healthcheck(
                ("CMD-SHELL" if line.shell else "CMD", *line.words),
                interval=duration_flag(command, "interval"),
                timeout=duration_flag(command, "timeout"),
                start_period=duration_flag(command, "start-period"),
                start_interval=duration_flag(command, "start-interval"),
                retries=retries_flag(command),
            )
        self.run = replace(self.run, healthcheck=check)
        self.add_history(f"HEALTHCHECK {go_healthcheck(check)}")

    # -- shared

    def add_history(self, created_by: str, *, layer: bool = False) -> None:
        """One more entry of the history, secrets of URLs masked; `layer` if there is a layer."""
        text = _masked(created_by)
        self.history.append(History(created_by=text, comment=COMMENT, empty_layer=not layer))

    def _shell(self) -> tuple[str, ...]:
        return self.run.shell or DEFAULT_SHELL

    def _used_once(self, name: str, command: ast.Instruction) -> None:
        earlier = self._once.get(name)
        if earlier is not None:
            self.scope.checker.report(
                "MultipleInstructionsDisallowed",
                f"Multiple {command.keyword} instructions should not be used in the same stage "
                "because only the last one will be used",
                earlier.span,
            )
        self._once[name] = command

    def _expansion(
        self, text: str, command: ast.Instruction, *, plain_quotes: bool = False
    ) -> Expansion:
        escape = "\\" if plain_quotes else self.scope.escape
        try:
            found = expand(text, self.env, escape=escape, plain_quotes=plain_quotes)
        except BadExpansion as error:
            raise error_at(
                command, f"failed to process {go_quote(text)}: {error.what}", kind=error.kind
            ) from error
        missing = [
            name for name in found.missing if name not in self.args and name not in _NOT_IN_ENV
        ]
        self.scope.checker.undefined_variables(missing, self.env, command.span)
        return found

    def _expand(self, text: str, command: ast.Instruction, *, plain_quotes: bool = False) -> str:
        """The text with its variables replaced; `plain_quotes` for that of a heredoc."""
        return self._expansion(text, command, plain_quotes=plain_quotes).text

    def _expand_pairs(self, command: ast.Env | ast.Label) -> list[tuple[str, str]]:
        """All pairs with the environment from before the instruction."""
        return [
            (self._expand(pair.name, command), self._expand(pair.value, command))
            for pair in command.pairs
        ]

    def _shown(
        self, command: ast.Instruction, *, raw_quotes: bool = False, keep_unset: bool = False
    ) -> str:
        """The instruction as its step is called, variables replaced where that is possible."""
        keyword, _, rest = command.text.partition(" ")
        text = f"{keyword.upper()} {rest}" if rest else keyword.upper()
        env = self.env
        if any(flag.name == "mount" for flag in command.flags):
            from lamina.dockerfile.runmounts import mount_flags, secret_variables

            assert isinstance(command, ast.Run)
            env = env | dict.fromkeys(secret_variables(mount_flags(command)), "****")
        try:
            return expand(
                text,
                env,
                escape=self.scope.escape,
                raw_quotes=raw_quotes,
                keep_unset=keep_unset,
            ).text
        except BadExpansion:
            return text


def _masked(text: str) -> str:
    """What is shown or kept of an instruction, without the secrets of its URLs."""
    if "://" not in text:
        return text
    from lamina.redaction import redacted

    return redacted(text)


def _proxies(build_args: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The proxy arguments, in small and in capital letters, as BuildKit's executor sets them."""
    given = {name: value for name, value in build_args.items() if name.lower() in PROXY_ARGS}
    for name, value in tuple(given.items()):
        given.setdefault(name.upper(), value)
        given.setdefault(name.lower(), value)
    return tuple(given.items())


def _is_numeric(owner: str) -> bool:
    """Whether no name must be looked up for this --chown."""
    return all(part.isascii() and (not part or part.isdigit()) for part in owner.split(":"))
