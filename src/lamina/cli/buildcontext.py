# SPDX-License-Identifier: Apache-2.0
"""Where a build's Dockerfile and context come from: a directory, or standard input."""

from __future__ import annotations

import os
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
    dockerfile = context.path(file) if file else _default_dockerfile(directory)
    if file and not os.path.lexists(dockerfile) and os.path.lexists(f"{directory}/{file}"):
        # with `-f` Docker looks from the working directory; many mean the context
        raise LaminaError(
            f"Dockerfile {file} does not exist in the working directory",
            kind=Kind.NOT_FOUND,
            hint=f"it is in the context: -f {os.path.join(path, file)}",
        )
    text = _read(dockerfile, file or "Dockerfile", _MAX_DOCKERFILE)
    return BuildContext(
        directory, text, file or os.path.basename(dockerfile), _ignore(directory, dockerfile)
    )


def _default_dockerfile(directory: str) -> str:
    for name in ("Dockerfile", "dockerfile"):
        if os.path.lexists(f"{directory}/{name}"):
            return f"{directory}/{name}"
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
            dockerfile = f"{directory}/{file}" if file else _default_dockerfile(directory)
            text = _read(dockerfile, file or "Dockerfile", _MAX_DOCKERFILE)
            yield BuildContext(directory, text, file or "Dockerfile", _ignore(directory, dockerfile))
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

    candidates = [f"{directory}/.dockerignore"]
    if dockerfile:
        candidates.insert(0, f"{dockerfile}.dockerignore")
    for path in candidates:
        if os.path.lexists(path):
            raw = _read(path, os.path.basename(path), _MAX_IGNORE)
            return parse_ignore(raw.decode("utf-8", "surrogateescape"))
    return ()


def _read(path: str, name: str, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
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
