# SPDX-License-Identifier: Apache-2.0
"""Where a build's Dockerfile and context come from: a directory, or a stream."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

from lamina.errors import Kind, LaminaError
from lamina.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, BinaryIO

    from lamina.remote.sources import RemoteSources
    from lamina.spec.gitref import GitRef
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

_MAX_DOCKERFILE = 16 * 1024 * 1024  # bytes; BuildKit refuses earlier, nobody writes more by hand
_MAX_IGNORE = 4 * 1024 * 1024
_COMPRESSED = (
    b"\x1f\x8b",  # gzip
    b"BZh",  # bzip2
    b"\xfd7zXZ\x00",  # xz
    b"\x28\xb5\x2f\xfd",  # zstd
)
_USTAR = slice(257, 262)  # the magic of a tar header, in its first block
_REMOTE = ("http://", "https://", "git://", "git@", "ssh://", "github.com/")


@record
class BuildContext:
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
        text = _read_beneath(directory, name, _MAX_DOCKERFILE)
        return BuildContext(directory, text, name, _ignore(directory, f"{directory}/{name}"))
    dockerfile = os.path.join(cwd, file)
    if not os.path.lexists(dockerfile) and os.path.lexists(f"{directory}/{file}"):
        # with `-f` Docker looks from the working directory; many mean the context
        raise LaminaError(
            f"Dockerfile {file} does not exist in the working directory",
            kind=Kind.NOT_FOUND,
            hint=f"it is in the context: -f {os.path.join(path, file)}",
        )
    text = _read(dockerfile, file, _MAX_DOCKERFILE)
    return BuildContext(directory, text, file, _ignore(directory, dockerfile))


def _with_piped_dockerfile(directory: str, stdin: BinaryIO) -> BuildContext:
    text = stdin.read(_MAX_DOCKERFILE + 1)
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


@contextmanager
def remote_context(
    path: str,
    file: str = "",
    *,
    remote: RemoteSources,
    store: Store,
    cancel: CancelToken,
    stdin: BinaryIO | None = None,
    keep_git_dir: bool = False,
) -> Iterator[BuildContext]:
    """The context behind a URL, there until the block ends: a git repository, a tar archive (plain
    or compressed) or a Dockerfile alone. `file` is looked up in it, `-` is `stdin`.

    Raises:
        LaminaError: as `piped_context`, and what `remote` raises.
    """
    from lamina.spec.gitref import parse_git_ref, shown

    with remote, store.lease("build context"):
        git = parse_git_ref(path)
        if git is not None:
            directory = checkout(git, remote, keep_git_dir=keep_git_dir, cancel=cancel)
            yield _in_directory(directory, file, stdin)
            return
        directory = remote.directory("context-")
        found = remote.url(path, cancel=cancel)
        with store.content.open(found.digest) as stream:
            is_archive = _is_archive(stream.read(_USTAR.stop))
            stream.seek(0)
            if not is_archive:
                yield _dockerfile_alone(stream, file, directory, shown(path))
                return
            _unpack(stream, directory)
        yield _in_directory(directory, file, stdin)


def checkout(
    git: GitRef, remote: RemoteSources, *, keep_git_dir: bool = False, cancel: CancelToken
) -> str:
    """The directory of a repository's tree as it is now; `remote` removes it.

    Raises:
        LaminaError: INTEGRITY if the commit is not the one that the reference asks for.
    """
    from lamina.plan.ops import GitSource
    from lamina.spec.gitref import is_commit

    commit, ref = git.ref, ""
    if not is_commit(commit):
        found = remote.git(git.remote, git.ref, cancel=cancel)
        commit, ref = found.commit, found.ref
    if not commit.startswith(git.checksum):
        raise LaminaError(
            f"expected checksum to match {git.checksum}, got {commit}", kind=Kind.INTEGRITY
        )
    op = GitSource(
        git.remote,
        commit,
        ref=ref,
        subdir=git.subdir,
        keep_git_dir=keep_git_dir or bool(git.keep_git_dir),
        submodules=git.submodules is not False,
    )
    return remote.checkout(op, cancel=cancel)


def _in_directory(directory: str, file: str, stdin: BinaryIO | None) -> BuildContext:
    """The context in a directory that does not last; all of it is untrusted."""
    if file == "-" and stdin is not None:
        return replace(_with_piped_dockerfile(directory, stdin), is_lasting=False)
    name = file or _default_dockerfile(directory)
    text = _read_beneath(directory, name, _MAX_DOCKERFILE)
    ignore = _ignore(directory, f"{directory}/{name}")
    return BuildContext(directory, text, name, ignore, is_lasting=False)


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
def piped_context(stream: BinaryIO, file: str = "", *, scratch: str) -> Iterator[BuildContext]:
    """The context of `build -`: a tar archive (plain or compressed) with the whole context, or a
    Dockerfile alone. It is unpacked below the directory `scratch` and removed after the block;
    what a killed build left there is removed by the next one.

    Raises:
        LaminaError: as `read_context`, USAGE (`file` beside a Dockerfile), and what `extract`
            raises for a broken archive.
    """
    import io

    from lamina.system.temporary import make_temporary

    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]  # a raw stream is enough
    made = make_temporary(scratch, "context-")
    try:
        if _is_archive(buffered.peek(_USTAR.stop)):
            _unpack(buffered, made.path)
            yield _in_directory(made.path, file, None)
        else:
            yield _dockerfile_alone(buffered, file, made.path, "standard input")
    finally:
        made.remove()


def _is_archive(head: bytes) -> bool:
    return head.startswith(_COMPRESSED) or head[_USTAR] == b"ustar"


def _unpack(stream: IO[bytes], directory: str) -> None:
    from lamina.layer.apply import extract
    from lamina.layer.compress import decompressed

    extract(decompressed(stream), directory, setid=True)


def _dockerfile_alone(stream: IO[bytes], file: str, directory: str, where: str) -> BuildContext:
    if file:
        raise LaminaError(f"{where} holds a Dockerfile, so -f cannot name another", kind=Kind.USAGE)
    text = stream.read(_MAX_DOCKERFILE + 1)
    if not text:
        raise LaminaError(f"{where} is empty: no Dockerfile", kind=Kind.INVALID)
    return BuildContext(directory, text, "Dockerfile", (), is_lasting=False)


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
