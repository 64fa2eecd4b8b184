# SPDX-License-Identifier: Apache-2.0
"""Where a build's Dockerfile and context come from: a directory, or standard input."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

from lamina.errors import Kind, LaminaError
from lamina.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.cli.context import Context

_MAX_DOCKERFILE = 16 * 1024 * 1024  # bytes; BuildKit refuses earlier, nobody writes more by hand
_MAX_IGNORE = 4 * 1024 * 1024
_REMOTE = ("http://", "https://", "git://", "git@", "ssh://", "github.com/")


@record
class BuildContext:
    """The context directory (absolute), the Dockerfile's bytes and name, the ignore patterns."""

    directory: str
    dockerfile: bytes
    dockerfile_name: str
    ignore: tuple[str, ...]


@contextmanager
def open_context(path: str, file: str, context: Context) -> Iterator[BuildContext]:
    """The build context for the `PATH` and `--file` of a command line.

    A context from standard input is unpacked beside the store and removed after the block.

    Raises:
        LaminaError: NOT_FOUND, DENIED, USAGE (both from standard input), UNSUPPORTED (an URL).
    """
    if path.startswith(_REMOTE):
        raise LaminaError(
            f"build context {path} is not supported yet: remote contexts (docs/roadmap.md)",
            kind=Kind.UNSUPPORTED,
        )
    if path == "-":
        if file == "-":
            raise LaminaError(
                "context and Dockerfile cannot both come from standard input", kind=Kind.USAGE
            )
        with _from_stdin(file, context) as found:
            yield found
        return
    yield _from_directory(path, file, context)


def _from_directory(path: str, file: str, context: Context) -> BuildContext:
    directory = context.path(path)
    if not os.path.isdir(directory):
        missing = not os.path.lexists(directory)
        raise LaminaError(
            f"build context {path} does not exist"
            if missing
            else f"build context {path} is not a directory",
            kind=Kind.NOT_FOUND if missing else Kind.INVALID,
        )
    if file == "-":
        text = context.stdin.buffer.read(_MAX_DOCKERFILE + 1)
        return BuildContext(directory, text, "Dockerfile", _ignore(directory, ""))
    if not file:
        name = _default_dockerfile(directory)
        text = _read_beneath(directory, name, _MAX_DOCKERFILE)
        return BuildContext(directory, text, name, _ignore(directory, f"{directory}/{name}"))
    dockerfile = context.path(file)
    if not os.path.lexists(dockerfile) and os.path.lexists(f"{directory}/{file}"):
        # with `-f` Docker looks from the working directory; many mean the context
        raise LaminaError(
            f"Dockerfile {file} does not exist in the working directory",
            kind=Kind.NOT_FOUND,
            hint=f"it is in the context: -f {os.path.join(path, file)}",
        )
    text = _read(dockerfile, file, _MAX_DOCKERFILE)
    return BuildContext(directory, text, file, _ignore(directory, dockerfile))


def _default_dockerfile(directory: str) -> str:
    """The name of the context's Dockerfile. Raises NOT_FOUND."""
    for name in ("Dockerfile", "dockerfile"):
        if os.path.lexists(f"{directory}/{name}"):
            return name
    raise LaminaError(
        f"no Dockerfile in {directory}",
        kind=Kind.NOT_FOUND,
        hint="name one with -f FILE",
    )


@contextmanager
def _from_stdin(file: str, context: Context) -> Iterator[BuildContext]:
    """A tar archive (plain or compressed) with the whole context, or a Dockerfile alone."""
    import shutil
    import tempfile

    from lamina.cli.stdin import looks_like_archive, peekable

    context.store()  # makes the root
    stream = peekable(context.stdin.buffer)
    scratch = os.path.join(context.root, "tmp")
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    directory = tempfile.mkdtemp(prefix="context-", dir=scratch)
    try:
        if looks_like_archive(stream.peek(1024)):
            from lamina.layer.apply import extract
            from lamina.layer.compress import decompressed

            extract(decompressed(stream), directory)
            name = file or _default_dockerfile(directory)
            text = _read_beneath(directory, name, _MAX_DOCKERFILE)
            yield BuildContext(directory, text, name, _ignore(directory, f"{directory}/{name}"))
            return
        if file:
            raise LaminaError(
                "standard input holds a Dockerfile, so -f cannot name another", kind=Kind.USAGE
            )
        text = stream.read(_MAX_DOCKERFILE + 1)
        if not text:
            raise LaminaError("standard input is empty: no Dockerfile", kind=Kind.INVALID)
        yield BuildContext(directory, text, "Dockerfile", ())
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _ignore(directory: str, dockerfile: str) -> tuple[str, ...]:
    """`<Dockerfile>.dockerignore` beside it, else `.dockerignore` of the context."""
    from lamina.dockerfile.ignore import parse_ignore

    name = f"{dockerfile}.dockerignore"
    if dockerfile and os.path.lexists(name):
        inside = name.removeprefix(f"{directory}/")
        if inside != name and ".." not in inside.split("/"):
            raw = _read_beneath(directory, inside, _MAX_IGNORE)
        else:
            raw = _read(name, os.path.basename(name), _MAX_IGNORE)
    elif os.path.lexists(f"{directory}/.dockerignore"):
        raw = _read_beneath(directory, ".dockerignore", _MAX_IGNORE)
    else:
        return ()
    return parse_ignore(raw.decode("utf-8", "surrogateescape"))


def _read_beneath(directory: str, name: str, limit: int) -> bytes:
    """A file of the context. Links in it are followed as if the context were `/`: a hostile
    context must not show a host's file in an error message.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    if "/" not in name and not os.path.islink(f"{directory}/{name}"):
        return _read(f"{directory}/{name}", name, limit, flags=flags | os.O_NOFOLLOW)
    from lamina.system.paths import open_in_root

    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fd = open_in_root(root, os.fsencode(name), flags)
        except (OSError, LaminaError) as error:
            raise LaminaError(
                f"{name} does not exist in the build context", kind=Kind.NOT_FOUND
            ) from error
        try:
            return _read(f"/proc/self/fd/{fd}", name, limit, flags=flags)
        finally:
            os.close(fd)
    finally:
        os.close(root)


def _read(path: str, name: str, limit: int, *, flags: int = os.O_RDONLY | os.O_CLOEXEC) -> bytes:
    """The bytes of a regular file (or, for a path the user named, a pipe) of at most `limit`."""
    try:
        with open(os.open(path, flags), "rb") as file:
            if flags & os.O_NONBLOCK and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise LaminaError(f"{name} is not a regular file", kind=Kind.INVALID)
            raw = file.read(limit + 1)
    except FileNotFoundError as error:
        raise LaminaError(f"{name} does not exist ({path})", kind=Kind.NOT_FOUND) from error
    except PermissionError as error:
        raise LaminaError(f"cannot read {path}: permission denied", kind=Kind.DENIED) from error
    except IsADirectoryError as error:
        raise LaminaError(f"{path} is a directory", kind=Kind.INVALID) from error
    if len(raw) > limit:
        raise LaminaError(f"{path} is larger than {limit} bytes", kind=Kind.EXHAUSTED)
    return raw
