# SPDX-License-Identifier: Apache-2.0
"""Build contexts that come as a stream: from standard input, from a URL, from a git repository."""

from __future__ import annotations

import io
from contextlib import contextmanager

from lamina.app.buildcontext import MAX_DOCKERFILE, BuildContext, in_temporary
from lamina.errors import Kind, LaminaError
from lamina.layer.apply import extract
from lamina.layer.compress import decompressed
from lamina.layer.tarread import begins_tar
from lamina.plan.ops import GitSource
from lamina.spec.gitref import is_commit, parse_git_ref
from lamina.system.temporary import make_temporary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, BinaryIO

    from lamina.remote.sources import RemoteSources
    from lamina.spec.gitref import GitRef
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

_COMPRESSED = (
    b"\x1f\x8b",  # gzip
    b"BZh",  # bzip2
    b"\xfd7zXZ\x00",  # xz
    b"\x28\xb5\x2f\xfd",  # zstd
)
_BLOCK = 512  # bytes of a tar header
_USTAR = slice(257, 262)  # its magic, which archives before POSIX lack


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
    with remote, store.lease("build context"):
        git = parse_git_ref(path)
        if git is not None:
            directory = checkout(git, remote, keep_git_dir=keep_git_dir, cancel=cancel)
            yield in_temporary(directory, file, stdin)
            return
        directory = remote.directory("context-")
        found = remote.url(path, cancel=cancel)
        with store.content.open(found.digest) as stream:
            is_archive = _is_archive(stream.read(_BLOCK))
            stream.seek(0)
            if not is_archive:
                yield _dockerfile_alone(stream, file, directory, path)
                return
            _unpack(stream, directory)
        yield in_temporary(directory, file, stdin)


def checkout(
    git: GitRef, remote: RemoteSources, *, keep_git_dir: bool = False, cancel: CancelToken
) -> str:
    """The directory of a repository's tree as it is now; `remote` removes it.

    Raises:
        LaminaError: INTEGRITY if the commit is not the one that the reference asks for.
    """
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


@contextmanager
def piped_context(stream: BinaryIO, file: str = "", *, scratch: str) -> Iterator[BuildContext]:
    """The context of `build -`: a tar archive (plain or compressed) with the whole context, or a
    Dockerfile alone. It is unpacked below the directory `scratch` and removed after the block;
    what a killed build left there is removed by the next one.

    Raises:
        LaminaError: as `read_context`, USAGE (`file` beside a Dockerfile), and what `extract`
            raises for a broken archive.
    """
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]  # a raw stream is enough
    made = make_temporary(scratch, "context-")
    try:
        if _is_archive(buffered.peek(_BLOCK)):
            _unpack(buffered, made.path)
            yield in_temporary(made.path, file, None)
        else:
            yield _dockerfile_alone(buffered, file, made.path, "standard input")
    finally:
        made.remove()


def _is_archive(head: bytes) -> bool:
    return head.startswith(_COMPRESSED) or head[_USTAR] == b"ustar" or begins_tar(head[:_BLOCK])


def _unpack(stream: IO[bytes], directory: str) -> None:
    extract(decompressed(stream), directory, setid=True)


def _dockerfile_alone(stream: IO[bytes], file: str, directory: str, where: str) -> BuildContext:
    if file:
        raise LaminaError(f"{where} holds a Dockerfile, so -f cannot name another", kind=Kind.USAGE)
    text = stream.read(MAX_DOCKERFILE + 1)
    if not text:
        raise LaminaError(f"{where} is empty: no Dockerfile", kind=Kind.INVALID)
    return BuildContext(directory, text, "Dockerfile", (), is_lasting=False)
