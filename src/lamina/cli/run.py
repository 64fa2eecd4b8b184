# SPDX-License-Identifier: Apache-2.0
"""Create a container from an image and run a command in it."""

from __future__ import annotations

import os

from lamina.cli.arguments import REMAINDER
from lamina.cli.run_flags import add_run_flags, run_options
from lamina.errors import Kind, LaminaError
from lamina.start.lowlevel import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Self

    from lamina.app.containers import Container, Host
    from lamina.app.run_options import RunOptions
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context
    from lamina.spec.platform import Platform

USAGE = "[OPTIONS] IMAGE [COMMAND] [ARG...]"
STATUS_OF_FAILURE = 125  # docker run(1), exit status


def configure(parser: Parser) -> None:
    parser.stops_at_positional = True
    parser.switch("-d", "--detach", help="run in the background and print the container's id")
    parser.switch("--sig-proxy", default=True, help="pass signals to the container")
    parser.add_argument("--detach-keys", default="", help="keys that detach: ctrl-p,ctrl-q")
    parser.switch("-q", "--quiet", help="no progress of a pull")
    add_run_flags(parser)
    parser.add_argument("rest", nargs=REMAINDER, metavar="IMAGE [COMMAND] [ARG...]")


def run(args: argparse.Namespace, context: Context) -> int:
    from lamina.app import containers
    from lamina.cli.attach import check_terminal, detach_keys
    from lamina.cli.images import notices

    if not args.rest:
        raise LaminaError("'lamina run' requires at least 1 argument", kind=Kind.USAGE)
    options = run_options(args, context)
    check_terminal(
        context, terminal=options.terminal, stdin=options.interactive and not args.detach
    )
    keys = detach_keys(args.detach_keys)
    host = _host(args, context)
    _warn(options, context)
    path = context.path(args.cidfile) if args.cidfile else ""
    with _CidFile(path) as cidfile, _Handlers():
        _ensure_image(args, context)
        container = containers.create(
            context.store(),
            args.rest[0],
            options,
            platform=_platform(args),
            host=host,
            clock=context.clock,
            emit=notices(context),
            cancel=context.token(),
        )
        cidfile.write(container.id)
    if args.detach:
        return _run_detached(container, context)
    from lamina.cli.attach import run_attached

    return run_attached(container, context, keys=keys, sig_proxy=args.sig_proxy)


def _run_detached(container: Container, context: Context) -> int:
    from lamina.container.console import StartFailed

    try:
        container.start().close()
    except StartFailed as failure:
        from lamina.cli.attach import report

        report(failure, context)
        return failure.status
    context.print(container.id)
    return 0


def _host(args: argparse.Namespace, context: Context) -> Host:
    from lamina.app.containers import Host

    settings = context.settings()
    return Host(runtime=args.runtime or settings.runtime, subnet=settings.subnet, forks=True)


def _platform(args: argparse.Namespace) -> Platform | None:
    if not args.platform:
        return None
    from lamina.spec.platform import Platform

    return Platform.parse(args.platform)


def _ensure_image(args: argparse.Namespace, context: Context) -> None:
    """Pull the image if `--pull` says so: `missing` looks into the store only, if it is there."""
    if args.pull == "never":
        return
    from lamina.image.resolve import why_missing

    name = args.rest[0]
    missing = why_missing(context.store(), name, platform=_platform(args))
    if missing is None and args.pull == "missing":
        return
    from lamina.app.pulling import PullOptions, pull_missing
    from lamina.cli.build import make_view
    from lamina.cli.images import host_platform
    from lamina.cli.registries import connect

    if missing is not None and not args.quiet:
        context.warn(f"Unable to find image '{name}' locally")
    view = make_view("auto", context, quiet=args.quiet, builds=False)
    try:
        with connect(context) as found:
            pull_missing(
                context.store(),
                found,
                name,
                PullOptions(
                    host=host_platform(), platform=_platform(args), unpack=context.uid == 0
                ),
                missing=missing,
                emit=view,
                cancel=context.token(),
                clock=context.clock,
            )
    finally:
        view.close()


def _warn(options: RunOptions, context: Context) -> None:
    if options.network == "host" and (options.ports or options.publish_all):
        context.warn("WARNING: Published ports are discarded when using host network mode")


class _Handlers:
    """Puts SIGINT and SIGTERM back to what they were: the cancel token is for the creation only."""

    def __enter__(self) -> None:
        self._saved = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._saved.items():
            signal.signal(number, handler)


class _CidFile:
    """A file that must not exist yet; removed again if nothing was written to it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> Self:
        if self._path:
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o644)
            except FileExistsError as error:
                raise LaminaError(
                    f"container ID file found, make sure the other container isn't running "
                    f"or delete {self._path}",
                    kind=Kind.CONFLICT,
                ) from error
        return self

    def write(self, id: str) -> None:
        if self._descriptor >= 0:
            os.write(self._descriptor, id.encode())

    def __exit__(self, kind: object, *rest: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            if kind is not None:
                os.unlink(self._path)
