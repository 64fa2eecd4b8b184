# SPDX-License-Identifier: Apache-2.0
"""Build an image from a Dockerfile."""

from __future__ import annotations

from lamina.cli.build_flags import (
    add_build_flags,
    add_shared_flags,
    build_contexts,
    cache_places,
    check_flags,
    file_args,
    is_index,
    make_host,
    platforms_of,
    progress_of,
    with_flags,
)
from lamina.cli.build_steps import (
    add_step_flags,
    entitlements,
    secrets,
    ssh_agents,
    step_limits,
)
from lamina.cli.values import host_entries, parse_size
from lamina.cli.view import make_view
from lamina.errors import EXIT_STATUS, Kind, LaminaError
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from lamina.app.buildcontext import BuildContext
    from lamina.app.buildrequest import BuildOutcome, BuildRequest
    from lamina.builder.ports import StepFailed
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context
    from lamina.cli.view import View
    from lamina.events import Event
    from lamina.exporter.ports import Output


USAGE = "[OPTIONS] PATH | URL | -"

_NOT_YET = "it is not done yet (docs/roadmap.md)"
_REFUSED = {
    ("--attest",): _NOT_YET,
    ("--builder",): "lamina has no builders to choose from",
    ("--compress",): "there is no daemon to send the context to",
    ("-D", "--debug"): "it comes before the command: lamina --debug build",
    ("--disable-content-trust",): "there is no content trust to disable",
    ("--isolation",): "it is a Windows setting",
    ("--security-opt",): _NOT_YET,
}


def configure(parser: Parser) -> None:
    from lamina.exporter.table import TABLE

    add = parser.add_argument
    add(
        "path",
        metavar="PATH",
        help="the build context: a directory, the URL of a git repository or an archive, or '-'",
    )
    add("-t", "--tag", action="append", default=[], help="name of the image (may be repeated)")
    add("-f", "--file", default="", help="the Dockerfile ('-': standard input)")
    add("--target", default="", help="the stage to build")
    add("--build-arg", action="append", default=[], help="value of an ARG: NAME=VALUE or NAME")
    add(
        "--build-context",
        action="append",
        default=[],
        help="NAME=DIRECTORY, NAME=docker-image://IMAGE, NAME=oci-layout://DIRECTORY or NAME=URL",
    )
    add("--label", action="append", default=[], help="label of the image: NAME=VALUE")
    parser.switch("--no-cache", help="run every step again")
    add("-o", "--output", action="append", default=[], help=f"type={'|'.join(TABLE)},...")
    parser.switch("--explain", help="say of each step that runs why it was not cached")
    parser.switch("-q", "--quiet", help="print the image id only")
    add("--iidfile", default="", help="write the image id to this file")
    add("--platform", action="append", default=[], help="platforms to build for (comma list)")
    add("--network", default="default", choices=["default", "bridge", "none", "host"])
    add("--add-host", action="append", default=[], help="NAME:ADDRESS for RUN steps' /etc/hosts")
    add("--shm-size", default="", help="size of /dev/shm in RUN steps")
    add("--jobs", type=int, default=0, help="steps that run at one time (default: all that can)")
    add_build_flags(parser)
    add_shared_flags(parser)
    # true of every build here: there are no intermediate containers, and no attestations yet
    parser.switch("--rm", default=True, help="remove intermediate containers (there are none)")
    parser.switch("--force-rm", help="as --rm")
    add("--provenance", default="false", help="only 'false'")
    add("--sbom", default="false", help="only 'false'")
    add_step_flags(parser)
    for names, why in _REFUSED.items():
        parser.refuse(*names, why=why)


def run(args: argparse.Namespace, context: Context) -> int:
    _refuse_values(args)
    check_flags(args)
    progress = progress_of(args, context)
    if args.check or args.call != "build":
        from lamina.cli.call import call, parse_call

        wanted = parse_call("check" if args.check else args.call)
        if wanted.method != "build":
            with _sources(args, context) as sources:
                request = make_request(args, sources, context)
                return call({"": request}, wanted, context)
    if args.on_fail:
        from lamina.cli.step_shell import check_can_enter

        check_can_enter(context, reads_stdin=args.path == "-" or args.file == "-")
    try:
        outcome = _shown_build(args, context, progress)
    except LaminaError as error:
        from lamina.builder.ports import StepFailed

        if not args.on_fail or not isinstance(error, StepFailed) or error.kept is None:
            raise
        return EXIT_STATUS[error.kind]  # it was reported before the shell
    _write_id(outcome, args, context)
    if args.metadata_file:
        from lamina.cli.metadata_file import metadata, write_metadata

        write_metadata(context.path(args.metadata_file), metadata(outcome, context.store()))
    return 0


def _shown_build(args: argparse.Namespace, context: Context, progress: str) -> BuildOutcome:
    view = make_view(progress, context, quiet=args.quiet, explain=args.explain)
    try:
        with _sources(args, context) as sources:
            request = make_request(args, sources, context)
            if args.on_fail:
                request = replace(request, on_failed=_shell_in(args, context, view))
            return _build(request, args, context, view)
    finally:
        view.close()


def _shell_in(
    args: argparse.Namespace, context: Context, view: View
) -> Callable[[StepFailed], None]:
    """What shows a failure and opens a shell in what the step left."""

    def enter(error: StepFailed) -> None:
        from lamina.cli.step_shell import enter_failed

        view.close()
        enter_failed(error, context, runtime=args.runtime)

    return enter


def _sources(args: argparse.Namespace, context: Context) -> AbstractContextManager[BuildContext]:
    """The build's context; what is temporary of it is removed at the end of the block."""
    from lamina.app.buildcontext import is_remote, read_context

    if args.path == "-" or is_remote(args.path):
        from lamina.cli.buildstreams import streamed_sources

        return streamed_sources(args, context, dict(_pairs(args.build_arg, context)))
    stdin = context.stdin.buffer if args.file == "-" else None
    return _Lasting(read_context(args.path, args.file, cwd=context.cwd, stdin=stdin))


class _Lasting:
    """A context that stays when the block ends."""

    def __init__(self, context: BuildContext) -> None:
        self._context = context

    def __enter__(self) -> BuildContext:
        return self._context

    def __exit__(self, *exception: object) -> None: ...


def make_request(args: argparse.Namespace, sources: BuildContext, context: Context) -> BuildRequest:
    """The request that the command line makes."""
    from lamina.app.buildrequest import BuildRequest

    native = context.platform()
    build_args = _pairs([*file_args(args.build_arg_file, context), *args.build_arg], context)
    platforms = platforms_of(args.platform, host=native)
    request = BuildRequest(
        context=sources.directory,
        is_lasting=sources.is_lasting,
        dockerfile=sources.dockerfile,
        dockerfile_name=sources.dockerfile_name,
        ignore=sources.ignore,
        platform=platforms[0],
        platforms=platforms if is_index(platforms, dict(build_args)) else (),
        build_platform=native,
        tags=tuple(args.tag),
        target=args.target,
        build_args=build_args,
        labels=tuple(_label(text) for text in args.label),
        no_cache=args.no_cache,
        pull=args.pull,
        outputs=_outputs(args, context),
        jobs=args.jobs or None,
        network="default" if args.network == "bridge" else args.network,
        extra_hosts=host_entries(args.add_host),
        shm_size=parse_size(args.shm_size, "--shm-size") if args.shm_size else 0,
        privileged=context.uid == 0,
        build_contexts=build_contexts(args.build_context, cwd=context.cwd),
        allow=entitlements(args),
        limits=step_limits(args),
        secrets=secrets(args, context),
        agents=ssh_agents(args, context),
        **cache_places(args.cache_from, args.cache_to, dict(build_args), context.path),
    )
    return with_flags(request, args, context)


def _build(
    request: BuildRequest, args: argparse.Namespace, context: Context, view: Callable[[Event], None]
) -> BuildOutcome:
    from lamina.app.build import build

    return build(
        request,
        store=context.store(),
        host=make_host(args, context, view),
        work=context.work(view),
        stdout=getattr(context.stdout, "buffer", None),
    )


def _write_id(outcome: BuildOutcome, args: argparse.Namespace, context: Context) -> None:
    id = outcome.config or outcome.manifest  # an index has no config
    if id is None:
        return
    if args.iidfile:
        with open(context.path(args.iidfile), "w", encoding="ascii") as file:
            file.write(str(id))
    if args.quiet:
        context.print(str(id))


def _refuse_values(args: argparse.Namespace) -> None:
    for name in ("provenance", "sbom"):
        if getattr(args, name).lower() not in {"false", "0"}:
            raise LaminaError(f"--{name} is not supported: {_NOT_YET}", kind=Kind.UNSUPPORTED)
    if not args.rm:
        raise LaminaError(
            "--rm=false is not supported: there are no intermediate containers to keep",
            kind=Kind.UNSUPPORTED,
        )
    if args.jobs < 0:
        raise LaminaError(f"--jobs must not be negative, got {args.jobs}", kind=Kind.USAGE)


def _outputs(args: argparse.Namespace, context: Context) -> tuple[Output, ...]:
    if not (args.output or args.load or args.push):
        return ()
    from lamina.exporter.options import parse_output
    from lamina.exporter.ports import Output
    from lamina.exporter.table import row_of

    outputs = [parse_output(text) for text in args.output]
    writes_files = outputs and not any(row_of(output.type).is_image for output in outputs)
    if args.iidfile and writes_files and not args.load:
        raise LaminaError(
            "--iidfile needs an image, but --output only writes files", kind=Kind.USAGE
        )
    if args.load:
        outputs.append(Output())
    if args.push:  # as buildx: type=registry, or the image that is made anyway
        images = [n for n, output in enumerate(outputs) if row_of(output.type).is_pushed]
        if images:
            outputs[images[0]] = replace(outputs[images[0]], push=True)
        else:
            outputs.append(Output(push=True))
    return tuple(
        replace(output, dest=context.path(output.dest)) if output.dest not in {"", "-"} else output
        for output in outputs
    )


def _pairs(texts: list[str], context: Context) -> tuple[tuple[str, str], ...]:
    """`NAME=VALUE`, or `NAME` with the value of the environment (left out if it has none)."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise LaminaError(f"invalid --build-arg {text!r}: the name is missing", kind=Kind.USAGE)
        if equals:
            pairs[name] = value
        elif name in context.env:
            pairs[name] = context.env[name]
    return tuple(pairs.items())


def _label(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name:
        raise LaminaError(f"invalid --label {text!r}: the name is missing", kind=Kind.USAGE)
    return name, value
