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

# command -> (module in lamina.cli, summary, section of `lamina --help`); a verb of a group has none
COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": ("run", "create and run a container from an image", "Common"),
    "exec": ("exec", "run a command in a running container", "Common"),
    "ps": ("ps", "list containers", "Common"),
    "build": ("build", "build an image from a Dockerfile", "Common"),
    "pull": ("pull", "pull an image from a registry", "Common"),
    "push": ("push", "push an image to a registry", "Common"),
    "images": ("images", "list images", "Common"),
    "login": ("login", "log in to a registry", "Common"),
    "logout": ("logout", "log out from a registry", "Common"),
    "version": ("version", "print the version", "Common"),
    "info": ("info", "print what was found on this host, and why it was chosen", "Common"),
    "completion": ("completion", "print the completion script of a shell", "Common"),
    "doctor": ("doctor", "check this host, and say how to mend what it lacks", "Common"),
    "bake": ("bake", "build several targets from a bake or compose file", "Build"),
    "builds": ("builds", "list and inspect recorded builds, print their logs", "Build"),
    "enter": ("enter", "enter a step of a recorded build", "Build"),
    "why": ("why", "say why the steps of a build were not cached", "Build"),
    "create": ("create", "create a container from an image", "Container"),
    "attach": ("attach_container", "join this terminal to a running container", "Container"),
    "rename": ("rename", "rename a container", "Container"),
    "cp": ("cp", "copy files between a container and this host", "Container"),
    "diff": ("diff", "list what differs from the container's image", "Container"),
    "export": ("export", "write the files of a container as a tar archive", "Container"),
    "commit": ("commit", "make an image of a container", "Container"),
    "pause": ("pause", "stop all processes of containers", "Container"),
    "unpause": ("unpause", "let paused containers go on", "Container"),
    "update": ("update", "change the limits of containers", "Container"),
    "stats": ("stats", "show what containers use of CPU, memory, network and disks", "Container"),
    "top": ("top", "list the processes of a container", "Container"),
    "logs": ("logs", "print the output of a container", "Container"),
    "stop": ("stop", "stop running containers", "Container"),
    "start": ("start", "start stopped containers", "Container"),
    "restart": ("restart", "restart containers", "Container"),
    "kill": ("kill", "send a signal to running containers", "Container"),
    "wait": ("wait", "wait for containers to stop, print their exit statuses", "Container"),
    "rm": ("rm", "remove containers", "Container"),
    "port": ("port", "list the published ports of a container", "Container"),
    "events": ("events", "print what happens to containers and images", "Common"),
    "inspect": (
        "inspect",
        "print details of images, containers, volumes and networks as JSON",
        "Image",
    ),
    "image inspect": ("image_inspect", "print details of images as JSON", ""),
    "container inspect": ("container_inspect", "print details of containers as JSON", ""),
    "history": ("history", "print the history of an image", "Image"),
    "tag": ("tag", "give an image another name", "Image"),
    "rmi": ("rmi", "remove images", "Image"),
    "save": ("save", "write images to an archive", "Image"),
    "load": ("load", "read images from an archive", "Image"),
    "import": ("import_", "make an image from a root filesystem", "Image"),
    "bootstrap": ("bootstrap", "make a base image from the distribution's packages", "Build"),
    "cache ls": ("cache_ls", "list cache mounts", ""),
    "cache inspect": ("cache_inspect", "print details of cache mounts as JSON", ""),
    "cache rm": ("cache_rm", "remove cache mounts", ""),
    "cache prune": ("cache_prune", "remove cache mounts that no build uses", ""),
    "cache export": ("cache_export", "write cache mounts to a directory, archive or registry", ""),
    "cache import": ("cache_import", "read cache mounts from a directory, archive or registry", ""),
    "network create": ("network_create", "create a network", ""),
    "network ls": ("network_ls", "list networks", ""),
    "network inspect": ("network_inspect", "print details of networks as JSON", ""),
    "network connect": ("network_connect", "connect a container to a network", ""),
    "network disconnect": ("network_disconnect", "disconnect a container from a network", ""),
    "network rm": ("network_rm", "remove networks", ""),
    "network prune": ("network_prune", "remove networks that no container is in", ""),
    "system df": ("df", "show what uses the store's disk space", ""),
    "system fsck": ("fsck", "find what is damaged in the store, and repair it", ""),
    "system prune": ("system_prune", "remove unused data", ""),
    "builder prune": ("builder_prune", "remove build cache", ""),
    "image prune": ("image_prune", "remove unused images", ""),
    "volume create": ("volume_create", "create a volume", ""),
    "volume inspect": ("volume_inspect", "print details of volumes as JSON", ""),
    "volume ls": ("volume_ls", "list volumes", ""),
    "volume prune": ("volume_prune", "remove unused volumes", ""),
    "volume rm": ("volume_rm", "remove volumes", ""),
    "container prune": ("container_prune", "remove all stopped containers", ""),
    "generate systemd": ("generate_systemd", "print a unit that starts a container at boot", ""),
    "copy": ("copy", "copy an image between registries, archives and the store", "Registry"),
    "tags": ("tags", "list the tags of a repository", "Registry"),
    "digest": ("digest", "print the digest of a name in its registry", "Registry"),
    "delete": ("delete", "delete a manifest or tag from a registry", "Registry"),
    "manifest": ("manifest", "inspect manifests, make and push lists of them", "Management"),
    "attach-artifact": ("attach_artifact", "attach files to an image in its registry", "Registry"),
    "referrers": ("referrers", "list what refers to an image in its registry", "Registry"),
    "serve": ("serve", "serve a registry", "Registry"),
    "scrub": ("scrub", "find damaged blobs of a registry", "Registry"),
    "registry retention": ("registry_retention", "remove what a registry's rules let go", ""),
    "registry history": ("registry_history", "print the moves of a registry's tags", ""),
    "registry undelete": ("registry_undelete", "bring back a removed tag or manifest", ""),
    "registry usage": ("registry_usage", "print what a repository holds, and its quota", ""),
}

# (group, verb) -> command, beside the commands that are named so
ALIASES: dict[tuple[str, str], str] = {
    ("image", "build"): "build",
    ("image", "ls"): "images",
    ("image", "list"): "images",
    ("image", "rm"): "rmi",
    ("image", "remove"): "rmi",
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
    ("container", "create"): "create",
    ("container", "attach"): "attach",
    ("container", "rename"): "rename",
    ("container", "pause"): "pause",
    ("container", "unpause"): "unpause",
    ("container", "top"): "top",
    ("container", "update"): "update",
    ("container", "stats"): "stats",
    ("container", "commit"): "commit",
    ("container", "cp"): "cp",
    ("container", "diff"): "diff",
    ("container", "export"): "export",
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
    ("container", "remove"): "rm",
    ("container", "port"): "port",
    ("network", "list"): "network ls",
    ("network", "remove"): "network rm",
    ("system", "info"): "info",
    ("system", "events"): "events",
    ("volume", "list"): "volume ls",
    ("volume", "remove"): "volume rm",
    ("cache", "list"): "cache ls",
    ("cache", "remove"): "cache rm",
    ("buildx", "prune"): "builder prune",
    ("registry", "serve"): "serve",
    ("registry", "scrub"): "scrub",
}

# Docker's global options that mean nothing without a daemon
_REFUSED_GLOBALS = (
    *("-H", "--host", "-c", "--context", "--config"),
    *("--tls", "--tlscacert", "--tlscert", "--tlskey", "--tlsverify"),
)


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
        from lamina.cli.report import report

        report(error, context)
        status = EXIT_STATUS[error.kind]
    except FileNotFoundError:  # os.getcwd
        sys.stderr.write("lamina: the working directory does not exist\n")
        status = EXIT_STATUS[Kind.NOT_FOUND]
    finally:
        if context is not None:
            _tell_of_namespace(context)
            context.close()
    return _flush(status)


def _tell_of_namespace(context: Context) -> None:
    """Say what cannot work in the user namespace that the command entered, if anything."""
    userns = sys.modules.get("lamina.system.userns")
    notice = userns.notice() if userns is not None else ""
    if notice:
        context.warn(f"lamina: {notice}")


def main(argv: Sequence[str], context: Context) -> int:
    """Run the command in `argv` and return its exit status; prints errors, raises none."""
    from lamina.cli.arguments import HelpWanted, Parser  # not before the code cache is there

    status_of_failure: int | None = None
    try:
        words = list(argv)
        if words[:1] == ["help"] and len(words) > 1:
            words = [*words[1:], "--help"]
        if words[:1] in (["--version"], ["-v"]):
            words[0] = "version"
        if _shows_help(words, context):
            return 0
        name, rest = _find_command(words)
        module = _load(name)
        status_of_failure = getattr(module, "STATUS_OF_FAILURE", None)
        context.tables = (COMMANDS, ALIASES)
        parser = Parser(name, summary=module.__doc__.split("\n")[0], usage=module.USAGE)
        module.configure(parser)
        status: int = module.run(parser.parse(rest), context)
    except LaminaError as error:
        from lamina.cli.report import report

        report(error, context)
        if status_of_failure is None or error.kind is Kind.USAGE:
            return EXIT_STATUS[error.kind]
        return status_of_failure
    except BaseExceptionGroup as group:
        from lamina.cli.report import report_group

        return report_group(group, context)
    except (Cancelled, KeyboardInterrupt):
        context.warn("lamina: interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # the reader of our output has gone (`lamina images | head -1`); not worth a message
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except HelpWanted as wanted:
        from lamina.cli.helptext import command_help

        context.print(command_help(wanted.parser))
        return 0
    except OSError as error:
        from lamina.cli.report import from_os_error, report

        wrapped = from_os_error(error)
        report(wrapped, context)
        return EXIT_STATUS[wrapped.kind] if status_of_failure is None else status_of_failure
    except Exception:  # noqa: BLE001  # the command-line edge: whatever arrives here is a bug
        from lamina.cli.report import report_bug

        return report_bug(context)
    return status


def _load(name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202  # a command module
    module = f"lamina.cli.{COMMANDS[name][0]}"
    __import__(module)  # importlib itself is an import
    return sys.modules[module]


def _find_command(words: list[str]) -> tuple[str, list[str]]:
    """(command, its arguments). Raises LaminaError if there is no such command."""
    name = words[0]
    if name in COMMANDS:
        return name, words[1:]
    verb = words[1] if len(words) > 1 else ""
    if f"{name} {verb}" in COMMANDS:
        return f"{name} {verb}", words[2:]
    if (name, verb) in ALIASES:
        return ALIASES[name, verb], words[2:]
    raise _unknown(name, verb)


def _unknown(name: str, verb: str) -> LaminaError:
    from lamina.cli.absent import refusal
    from lamina.cli.helptext import GROUPS, verbs

    is_group = name in GROUPS
    refused = refusal(name, verb) if is_group else refusal("", name)
    if refused is not None:
        return refused
    if is_group:
        return LaminaError(
            f"unknown command: lamina {name} {verb}",
            kind=Kind.USAGE,
            hint=f"'lamina {name}' has: {', '.join(verbs(name, COMMANDS, ALIASES))}",
        )
    import difflib

    names = [*(name for name in COMMANDS if " " not in name), *GROUPS]
    close = difflib.get_close_matches(name, names, n=1)
    return LaminaError(
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


def _shows_help(words: list[str], context: Context) -> bool:
    """Whether the words ask for the help of lamina or of a group, which is then printed."""
    if not words or words[0] in {"--help", "-h", "help"}:
        from lamina.cli.helptext import overview

        context.print(overview(COMMANDS))
        return True
    if len(words) > 1 and words[1] not in {"--help", "-h"}:
        return False
    if words[0] in COMMANDS:
        return False
    from lamina.cli.helptext import GROUPS, group_help

    if words[0] not in GROUPS:
        return False
    context.print(group_help(words[0], COMMANDS, ALIASES))
    return True


def _flush(status: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return status or 1
    return status


if __name__ == "__main__":
    script()
