# SPDX-License-Identifier: Apache-2.0
"""The `lamina` command: find the command's module, run it, turn errors into an exit status."""

from __future__ import annotations

import os
import sys

from lamina.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_STATUS, Cancelled, Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from lamina.cli.context import Context

# command -> (module in lamina.cli, summary); the order of `lamina --help`
COMMANDS: dict[str, tuple[str, str]] = {
    "build": ("build", "build an image from a Dockerfile"),
    "bake": ("bake", "build several targets from a bake or compose file"),
    "builds": ("builds", "list and inspect recorded builds, print their logs"),
    "enter": ("enter", "enter a step of a recorded build"),
    "why": ("why", "say why the steps of a build were not cached"),
    "run": ("run", "create and run a container from an image"),
    "exec": ("exec", "run a command in a running container"),
    "ps": ("ps", "list containers"),
    "logs": ("logs", "print the output of a container"),
    "stop": ("stop", "stop running containers"),
    "start": ("start", "start stopped containers"),
    "restart": ("restart", "restart containers"),
    "kill": ("kill", "send a signal to running containers"),
    "wait": ("wait", "wait for containers to stop, print their exit statuses"),
    "rm": ("rm", "remove containers"),
    "port": ("port", "list the published ports of a container"),
    "images": ("images", "list images"),
    "inspect": ("inspect", "print details of images and containers as JSON"),
    "history": ("history", "print the history of an image"),
    "tag": ("tag", "give an image another name"),
    "rmi": ("rmi", "remove images"),
    "save": ("save", "write images to an archive"),
    "load": ("load", "read images from an archive"),
    "import": ("import_", "make an image from a root filesystem"),
    "bootstrap": ("bootstrap", "make a base image from the distribution's packages"),
    "cache ls": ("cache_ls", "list cache mounts"),
    "cache inspect": ("cache_inspect", "print details of cache mounts as JSON"),
    "cache rm": ("cache_rm", "remove cache mounts"),
    "cache prune": ("cache_prune", "remove cache mounts that no build uses"),
    "cache export": ("cache_export", "write cache mounts to a directory, archive or registry"),
    "cache import": ("cache_import", "read cache mounts from a directory, archive or registry"),
    "system df": ("df", "show what uses the store's disk space"),
    "system fsck": ("fsck", "find what is damaged in the store, and repair it"),
    "system prune": ("system_prune", "remove unused data"),
    "builder prune": ("builder_prune", "remove build cache"),
    "image prune": ("image_prune", "remove unused images"),
    "container prune": ("container_prune", "remove all stopped containers"),
    "pull": ("pull", "pull an image from a registry"),
    "push": ("push", "push an image to a registry"),
    "copy": ("copy", "copy an image between registries, layouts, archives and the store"),
    "tags": ("tags", "list the tags of a repository"),
    "digest": ("digest", "print the digest of a name in its registry"),
    "delete": ("delete", "delete a manifest or tag from a registry"),
    "manifest": ("manifest", "inspect manifests; create, annotate and push manifest lists"),
    "attach-artifact": ("attach_artifact", "attach files to an image in its registry"),
    "referrers": ("referrers", "list what refers to an image in its registry"),
    "login": ("login", "log in to a registry"),
    "logout": ("logout", "log out from a registry"),
    "serve": ("serve", "serve a registry"),
    "scrub": ("scrub", "find damaged blobs of a registry"),
    "registry retention": ("registry_retention", "remove what a registry's rules let go"),
    "registry history": ("registry_history", "print the moves of a registry's tags"),
    "registry undelete": ("registry_undelete", "bring back a removed tag or manifest"),
    "registry usage": ("registry_usage", "print what a repository holds, and its quota"),
    "version": ("version", "print the version"),
    "info": ("info", "print what lamina found on this host, and why it chose what it uses"),
}

# Docker's management commands: (group, verb) -> command
ALIASES: dict[tuple[str, str], str] = {
    ("image", "build"): "build",
    ("image", "ls"): "images",
    ("image", "list"): "images",
    ("image", "rm"): "rmi",
    ("image", "remove"): "rmi",
    ("image", "inspect"): "inspect",
    ("image", "history"): "history",
    ("image", "tag"): "tag",
    ("image", "save"): "save",
    ("image", "load"): "load",
    ("image", "import"): "import",
    ("image", "pull"): "pull",
    ("image", "push"): "push",
    ("builder", "build"): "build",
    ("buildx", "build"): "build",
    ("buildx", "b"): "build",
    ("buildx", "bake"): "bake",
    ("buildx", "f"): "bake",
    ("buildx", "history"): "builds",
    ("container", "run"): "run",
    ("container", "exec"): "exec",
    ("container", "ls"): "ps",
    ("container", "list"): "ps",
    ("container", "ps"): "ps",
    ("container", "logs"): "logs",
    ("container", "stop"): "stop",
    ("container", "start"): "start",
    ("container", "restart"): "restart",
    ("container", "kill"): "kill",
    ("container", "wait"): "wait",
    ("container", "rm"): "rm",
    ("container", "port"): "port",
    ("container", "inspect"): "inspect",
    ("system", "info"): "info",
    ("cache", "ls"): "cache ls",
    ("cache", "list"): "cache ls",
    ("cache", "inspect"): "cache inspect",
    ("cache", "rm"): "cache rm",
    ("cache", "remove"): "cache rm",
    ("cache", "prune"): "cache prune",
    ("cache", "export"): "cache export",
    ("cache", "import"): "cache import",
    ("system", "df"): "system df",
    ("system", "fsck"): "system fsck",
    ("system", "prune"): "system prune",
    ("builder", "prune"): "builder prune",
    ("buildx", "prune"): "builder prune",
    ("image", "prune"): "image prune",
    ("container", "prune"): "container prune",
    ("registry", "serve"): "serve",
    ("registry", "scrub"): "scrub",
    ("registry", "retention"): "registry retention",
    ("registry", "history"): "registry history",
    ("registry", "undelete"): "registry undelete",
    ("registry", "usage"): "registry usage",
}

# Docker's global options that mean nothing without a daemon
_REFUSED_GLOBALS = ("-H", "--host", "-c", "--context", "--config", "--tls", "--tlsverify")


def script() -> NoReturn:
    """What the `lamina` command and `python -m lamina.cli.main` run; ends the process."""
    from lamina.start import lifetime

    lifetime.run(console)


def console() -> int:
    """The console script: the real world in, an exit status out."""
    import time

    from lamina.cli.context import Context

    argv = sys.argv[1:]
    status = EXIT_BUG
    context: Context | None = None
    try:
        root, debug, argv = _global_options(argv)
        context = Context(
            env=os.environ,
            cwd=os.getcwd(),
            uid=os.geteuid(),
            stdin=sys.stdin,
            stdout=sys.stdout,
            stderr=sys.stderr,
            clock=time.time,
            root=root,
        )
        if debug:
            import logging

            logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
        status = main(argv, context)
    except LaminaError as error:
        report(error, context)
        status = EXIT_STATUS[error.kind]
    except FileNotFoundError:  # os.getcwd
        sys.stderr.write("lamina: the working directory does not exist\n")
        status = EXIT_STATUS[Kind.NOT_FOUND]
    finally:
        if context is not None:
            context.close()
    return _flush(status)


def main(argv: Sequence[str], context: Context) -> int:
    """Run the command in `argv` and return its exit status; prints errors, raises none."""
    status_of_failure: int | None = None
    try:
        words = list(argv)
        if not words or words[0] in {"--help", "-h", "help"}:
            return _help(words, context)
        if words[0] in {"--version", "-v"}:
            words[0] = "version"
        name, rest = _find_command(words)
        module = _load(name)
        status_of_failure = getattr(module, "STATUS_OF_FAILURE", None)
        from lamina.cli.arguments import Parser

        parser = Parser(name, summary=module.__doc__.split("\n")[0], usage=module.USAGE)
        module.configure(parser)
        status: int = module.run(parser.parse(rest), context)
    except LaminaError as error:
        report(error, context)
        if status_of_failure is None or error.kind is Kind.USAGE:
            return EXIT_STATUS[error.kind]
        return status_of_failure
    except BaseExceptionGroup as group:
        return _report_group(group, context)
    except (Cancelled, KeyboardInterrupt):
        context.warn("lamina: interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # the reader of our output has gone (`lamina images | head -1`); not worth a message
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except SystemExit as stop:  # argparse's --help
        return stop.code if isinstance(stop.code, int) else 0
    except OSError as error:
        wrapped = from_os_error(error)
        report(wrapped, context)
        return EXIT_STATUS[wrapped.kind] if status_of_failure is None else status_of_failure
    except Exception:  # noqa: BLE001  # the command-line edge: whatever arrives here is a bug
        return _report_bug(context)
    return status


def from_os_error(error: OSError) -> LaminaError:
    """The error as one a person can act on: which file, what the kernel said."""
    import errno

    kinds = {
        errno.ENOENT: Kind.NOT_FOUND,
        errno.EACCES: Kind.DENIED,
        errno.EPERM: Kind.DENIED,
        errno.ENOSPC: Kind.EXHAUSTED,
        errno.EDQUOT: Kind.EXHAUSTED,
        errno.EMFILE: Kind.EXHAUSTED,
        errno.ENFILE: Kind.EXHAUSTED,
    }
    kind = kinds.get(error.errno or 0, Kind.SYSTEM)
    subject = error.filename
    if isinstance(subject, bytes):
        subject = os.fsdecode(subject)
    reason = error.strerror or str(error)
    return LaminaError(f"{subject}: {reason}" if subject else reason, kind=kind)


def report(error: LaminaError, context: Context | None) -> None:
    """Print the error and its hint to standard error."""
    stream = context.stderr if context is not None else sys.stderr
    from lamina.cli.ui.escape import printable

    stream.write(f"lamina: {printable(str(error), keep_newlines=True)}\n")
    for note in getattr(error, "__notes__", ()):
        stream.write(printable(note, keep_newlines=True) + "\n")
    if error.hint:
        stream.write(f"hint: {printable(error.hint)}\n")
    stream.flush()


def _report_group(group: BaseExceptionGroup[BaseException], context: Context) -> int:
    """Independent errors of parallel tasks: each is reported; the first decides the status."""
    known, unknown = group.split(LaminaError)
    if unknown is not None or known is None:
        return _report_bug(context)
    status = EXIT_BUG
    for error in reversed(_leaves(known)):
        report(error, context)
        status = EXIT_STATUS[error.kind]
    return status


def _leaves(group: BaseExceptionGroup[LaminaError]) -> list[LaminaError]:
    found: list[LaminaError] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found += _leaves(error)
        else:
            found.append(error)
    return found


def _report_bug(context: Context) -> int:
    import traceback

    context.stderr.write(traceback.format_exc())
    context.warn(
        "lamina: this is a bug in lamina; please report it with the text above "
        "and the output of 'lamina info'"
    )
    return EXIT_BUG


def _load(name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202  # a command module
    module = f"lamina.cli.{COMMANDS[name][0]}"
    __import__(module)  # importlib itself is an import
    return sys.modules[module]


def _find_command(words: list[str]) -> tuple[str, list[str]]:
    name = words[0]
    if name in COMMANDS:
        return name, words[1:]
    groups = {group for group, _ in ALIASES}
    if name in groups:
        verb = words[1] if len(words) > 1 else ""
        alias = ALIASES.get((name, verb))
        if alias is not None:
            return alias, words[2:]
        verbs = ", ".join(sorted(v for g, v in ALIASES if g == name))
        raise LaminaError(
            f"unknown command: lamina {name} {verb}".rstrip(),
            kind=Kind.USAGE,
            hint=f"'lamina {name}' has: {verbs}",
        )
    import difflib

    close = difflib.get_close_matches(name, COMMANDS, n=1)
    raise LaminaError(
        f"unknown command: lamina {name}",
        kind=Kind.USAGE,
        hint=f"did you mean '{close[0]}'?" if close else "see 'lamina --help'",
    )


def _global_options(argv: list[str]) -> tuple[str, bool, list[str]]:
    """(root, debug, the rest) of the options before the command."""
    root, debug = "", False
    words = list(argv)
    while (
        words and words[0].startswith("-") and words[0] not in {"--help", "-h", "--version", "-v"}
    ):
        name, equals, value = words[0].partition("=")
        if name in {"-D", "--debug"} and not equals:
            debug = True
        elif name == "--root":
            if not equals:
                if len(words) < 2:
                    raise LaminaError("--root needs a directory", kind=Kind.USAGE)
                words.pop(0)
                value = words[0]
            root = os.path.abspath(value)
        elif name in _REFUSED_GLOBALS:
            raise LaminaError(
                f"{name} is not supported: lamina has no daemon to talk to", kind=Kind.UNSUPPORTED
            )
        else:
            raise LaminaError(f"unknown flag: {name}", kind=Kind.USAGE, hint="see 'lamina --help'")
        words.pop(0)
    return root, debug, words


def _help(words: list[str], context: Context) -> int:
    if len(words) > 1 and words[0] == "help":
        return main([*words[1:], "--help"], context)
    context.print("Usage:  lamina [--root DIR] [--debug] COMMAND\n")
    context.print("Container images for Python people, with no daemon\n\nCommands:")
    for name, (_, summary) in COMMANDS.items():
        context.print(f"  {name:<15} {summary}")
    context.print("\nRun 'lamina COMMAND --help' for the flags of a command.")
    return 0 if words else 125


def _flush(status: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return status or 1
    return status


if __name__ == "__main__":
    script()
