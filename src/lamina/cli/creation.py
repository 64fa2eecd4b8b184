# SPDX-License-Identifier: Apache-2.0
"""The container that `run` or `create` asks for, in the store; its image is pulled if it must be."""

from __future__ import annotations

import os

from lamina.cli.arguments import REMAINDER
from lamina.cli.run_flags import add_run_flags
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


def add_creation_flags(parser: Parser) -> None:
    """Everything that `docker create` takes."""
    parser.stops_at_positional = True
    parser.switch("-q", "--quiet", help="no progress of a pull")
    add_run_flags(parser)
    parser.add_argument("rest", nargs=REMAINDER, metavar="IMAGE [COMMAND] [ARG...]")


def create_container(args: argparse.Namespace, options: RunOptions, context: Context) -> Container:
    """The container, created and not started; its id is in `--cidfile`."""
    from lamina.app import containers

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
            work=context.work(context.notices),
        )
        cidfile.write(container.id)
    return container


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
    from lamina.cli.view import make_view
    from lamina.image.view import PlatformNotFound
    from lamina.system.userns import is_possible

    if missing is not None and not args.quiet:
        wanted = f" for {args.platform}" if isinstance(missing, PlatformNotFound) else ""
        context.warn(f"Unable to find image '{name}'{wanted} locally")
    view = make_view("auto", context, quiet=args.quiet, builds=False)
    try:
        with context.registries() as registries:
            pull_missing(
                context.store(),
                registries,
                name,
                PullOptions(
                    host=context.platform(), platform=_platform(args), unpack=is_possible()
                ),
                missing=missing,
                work=context.work(view),
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
