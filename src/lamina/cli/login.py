# SPDX-License-Identifier: Apache-2.0
"""Log in to a registry."""

from __future__ import annotations

import getpass

from lamina.app.login import login, server_of
from lamina.app.registries import credential_store
from lamina.errors import Kind, LaminaError
from lamina.registry.auth import Credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] [SERVER]"


def configure(parser: Parser) -> None:
    parser.add_argument("-u", "--username", default="", help="the user's name")
    parser.add_argument("-p", "--password", default="", help="the password or an access token")
    parser.switch("--password-stdin", help="read the password from standard input")
    parser.add_argument("server", nargs="?", default="", help="HOST[:PORT] (default: Docker Hub)")


def run(args: argparse.Namespace, context: Context) -> int:
    store = credential_store(context.env, uid=context.uid)
    host = server_of(args.server)
    if args.password:
        context.warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if not args.username and not args.password and not args.password_stdin:
        kept = store.find(host)
        if kept:
            with context.registries() as registries:
                login(registries, store, host, kept)
            context.print("Login Succeeded")
            return 0
    credentials = _ask(args, context, host)
    with context.registries() as registries:
        done = login(registries, store, host, credentials)
    if not done.helper:
        context.warn(
            f"WARNING! Your credentials are stored unencrypted in '{done.place}'. "
            "Configure a credential helper to remove this warning."
        )
    context.print("Login Succeeded")
    return 0


def _ask(args: argparse.Namespace, context: Context, host: str) -> Credentials:
    if args.password_stdin:
        if args.password:
            raise LaminaError(
                "--password and --password-stdin are mutually exclusive", kind=Kind.USAGE
            )
        if not args.username:
            raise LaminaError("must provide --username with --password-stdin", kind=Kind.USAGE)
        text = context.stdin.read()
        return Credentials(args.username, text.rstrip("\r\n"))
    username, password = args.username, args.password
    if not (username and password) and not context.stdin.isatty():
        raise LaminaError(
            "cannot ask for a user name and password: standard input is not a terminal",
            kind=Kind.USAGE,
            hint=f"lamina login -u USER --password-stdin {host}",
        )
    if not username:
        context.stderr.write("Username: ")
        context.stderr.flush()
        username = context.stdin.readline().strip()
    if not password:
        password = getpass.getpass("Password: ", stream=context.stderr)
    if not username or not password:
        raise LaminaError("user name and password must not be empty", kind=Kind.USAGE)
    return Credentials(username, password)
