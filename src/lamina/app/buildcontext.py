# SPDX-License-Identifier: Apache-2.0
"""A build's Dockerfile and context in a directory. `streamedcontext` has those that come otherwise."""

from __future__ import annotations

import os
import stat

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

MAX_DOCKERFILE = 16 * 1024 * 1024  # bytes; BuildKit refuses earlier, nobody writes more by hand
_MAX_IGNORE = 4 * 1024 * 1024
_REMOTE = ("http://", "https://", "git://", "git@", "ssh://", "github.com/")


class BuildContext(Record):
    """The context directory (absolute), the Dockerfile's bytes and name, the ignore patterns."""

    directory: str
    dockerfile: bytes
    dockerfile_name: str
    ignore: tuple[str, ...]
    is_lasting: bool = True  # False: a temporary directory


def read_context(
    path: str, file: str = "", *, cwd: str, stdin: BinaryIO | None = None
) -> BuildContext:
    """The context in directory `path` (relative ones from `cwd`) with its Dockerfile.

    `file` is what `--file` says: empty, a path from `cwd`, or `-` for a Dockerfile from `stdin`.

    Raises:
        LaminaError: NOT_FOUND, DENIED, INVALID (not a directory, not a file), EXHAUSTED (too
            large), UNSUPPORTED (an URL).
    """
    if is_remote(path):
        raise LaminaError(f"build context {path} is remote", kind=Kind.UNSUPPORTED)
    directory = os.path.normpath(os.path.join(cwd, path))
    if not os.path.isdir(directory):
        missing = not os.path.lexists(directory)
        raise LaminaError(
            f"build context {path} does not exist"
            if missing
            else f"build context {path} is not a directory",
            kind=Kind.NOT_FOUND if missing else Kind.INVALID,
        )
    if file == "-" and stdin is not None:
        return _with_piped_dockerfile(directory, stdin)
    if not file:
        name = _default_dockerfile(directory)
        text = _read_beneath(directory, name, MAX_DOCKERFILE)
        return BuildContext(directory, text, name, _ignore(directory, f"{directory}/{name}"))
    dockerfile = os.path.join(cwd, file)
    if not os.path.lexists(dockerfile) and os.path.lexists(f"{directory}/{file}"):
        # with `-f` Docker looks from the working directory; many mean the context
        raise LaminaError(
            f"Dockerfile {file} does not exist in the working directory",
            kind=Kind.NOT_FOUND,
            hint=f"it is in the context: -f {os.path.join(path, file)}",
        )
    text = _read(dockerfile, file, MAX_DOCKERFILE)
    return BuildContext(directory, text, file, _ignore(directory, dockerfile))


def _with_piped_dockerfile(directory: str, stdin: BinaryIO) -> BuildContext:
    text = stdin.read(MAX_DOCKERFILE + 1)
    return BuildContext(directory, text, "Dockerfile", _ignore(directory, ""))


def is_remote(path: str) -> bool:
    """Whether `build PATH` means a URL or a git repository, and no directory.

    Raises:
        InvalidGitRef: it is a git repository, but not a valid one.
    """
    if not path.startswith(_REMOTE) and ":" not in path:
        return False
    if path.startswith(("http://", "https://")):
        return True
    from lamina.spec.gitref import parse_git_ref

    return parse_git_ref(path) is not None


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


def in_temporary(directory: str, file: str, stdin: BinaryIO | None) -> BuildContext:
    """The context in a directory that does not last; all of it is untrusted.

    Raises:
        LaminaError: as `read_context`.
    """
    if file == "-" and stdin is not None:
        return replace(_with_piped_dockerfile(directory, stdin), is_lasting=False)
    name = file or _default_dockerfile(directory)
    text = _read_beneath(directory, name, MAX_DOCKERFILE)
    ignore = _ignore(directory, f"{directory}/{name}")
    return BuildContext(directory, text, name, ignore, is_lasting=False)


def ignore_patterns(directory: str) -> tuple[str, ...]:
    """The patterns of the directory's `.dockerignore`."""
    return _ignore(directory, "")


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
