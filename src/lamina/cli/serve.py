# SPDX-License-Identifier: Apache-2.0
"""Serve a registry: OCI distribution-spec 1.1, from a directory or a bucket."""

from __future__ import annotations

import contextlib
import logging
import sys

from lamina.app.registries import network
from lamina.server.config import Config, load_config, with_flags
from lamina.server.serve import check_tls, make_gate, serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import TextIO

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS]"


def configure(parser: Parser) -> None:
    parser.add_argument(
        "--listen", default="", metavar="HOST:PORT", help="where to listen (127.0.0.1:5000)"
    )
    parser.add_argument(
        "--root", default="", metavar="DIR", help="where blobs and manifests are kept"
    )
    parser.add_argument(
        "--config", default="", metavar="FILE", help="configuration (docs/registry-server.md)"
    )
    parser.add_argument(
        "--access-log", default="", metavar="FILE|-", help="write a JSON line for each request"
    )
    parser.switch("--share-store", help="serve the images of lamina's store too, without a copy")
    parser.switch("--read-only", help="refuse pushes and deletes")
    parser.switch("--check", help="check the configuration and exit")


def run(args: argparse.Namespace, context: Context) -> int:
    root = context.path(args.root) if args.root else ""
    if args.config:
        config = load_config(context.path(args.config), root=root)
    else:
        config = Config(root=root or f"{context.root}/registry")
    config = with_flags(
        config,
        listen=args.listen,
        read_only=args.read_only,
        access_log=args.access_log,
        share_store=context.root if args.share_store else "",
    )
    host, _ = config.address()
    if args.check:
        check_tls(config)
        make_gate(config, clock=context.clock)
        context.print("the configuration is valid")
        return 0
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(message)s"
    )
    if (
        not config.authenticates
        and not host.startswith("127.")
        and host not in {"::1", "localhost"}
    ):
        context.warn("warning: everybody who reaches this address may push and delete; see [auth]")

    def ready(address: str) -> None:
        context.print(f"serving {config.place} at {address}")
        context.stdout.flush()

    with _access_log(config.access_log, context) as stream:
        serve(
            config,
            ready=ready,
            clock=context.clock,
            access_log=stream,
            network=network(context.env, settings=context.settings()) if config.proxies else None,
        )
    return 0


@contextlib.contextmanager
def _access_log(path: str, context: Context) -> Iterator[TextIO | None]:
    if not path:
        yield None
    elif path == "-":
        yield context.stdout
    else:
        with open(context.path(path), "a", encoding="utf-8") as stream:
            yield stream
