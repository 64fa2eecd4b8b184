# SPDX-License-Identifier: Apache-2.0
"""COPY and ADD after expansion: what each source is, and the copy action it becomes.

After BuildKit's `dispatchCopy`. Neighbouring paths make one action; every URL, repository and
heredoc one of its own, in the order of the instruction, heredocs last.
"""

from __future__ import annotations

from lamina.dockerfile.operands import absolute, copy_keyword, error_at, relative
from lamina.dockerfile.remotes import GitAnswer, GitRequest, UrlAnswer, UrlRequest
from lamina.errors import LaminaError, never
from lamina.plan.ops import CopyAction, GitSource, HttpSource, InlineSource
from lamina.spec.digest import Digest
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.dockerfile import ast
    from lamina.dockerfile.remotes import Remotes
    from lamina.plan.ops import PinnedSource
    from lamina.spec.gitref import GitRef

_UNNAMED = "__unnamed__"  # BuildKit's name for a URL without a path
_CHECKSUM_ALGORITHM = "sha256"


class CopyRequest(Record):
    """The instruction with its variables replaced; None where a flag was not given."""

    sources: tuple[str, ...]
    dest: str
    documents: tuple[tuple[str, str], ...]
    owner: str | None
    mode: str | None
    exclude: tuple[str, ...]
    checksum: str | None
    parents: bool
    link: bool
    keep_git_dir: bool | None
    unpack: bool | None


class Part(Record):
    """A copy action (its `source` is not set) and its tree: None is that of COPY --from or the
    build context; `needed` says that an answer is missing.
    """

    action: CopyAction
    source: HttpSource | GitSource | InlineSource | None = None
    needed: bool = False


def expand_copy(
    command: ast.Copy, expand: Callable[[str], str], expand_document: Callable[[str], str]
) -> CopyRequest:
    """The request of an instruction. Raises SourceError."""
    return CopyRequest(
        sources=tuple(map(expand, command.sources)),
        dest=expand(command.dest),
        documents=tuple(
            (_document_name(doc, command), _document_text(doc, expand_document))
            for doc in command.documents
        ),
        owner=_text_flag(command, "chown", expand),
        mode=_text_flag(command, "chmod", expand),
        exclude=tuple(expand(flag.value or "") for flag in command.flags if flag.name == "exclude"),
        checksum=_text_flag(command, "checksum", expand),
        parents=_bool_flag(command, "parents") or False,
        link=_bool_flag(command, "link") or False,
        keep_git_dir=_bool_flag(command, "keep-git-dir"),
        unpack=_bool_flag(command, "unpack"),
    )


def _text_flag(command: ast.Copy, name: str, expand: Callable[[str], str]) -> str | None:
    value = command.flag(name)
    return (expand(value) or None) if value is not None else None


def _bool_flag(command: ast.Copy, name: str) -> bool | None:
    value = command.flag(name)
    return value == "true" if value is not None else None


def _document_name(document: ast.Heredoc, command: ast.Copy) -> str:
    if "/" in document.name or document.name in {".", ".."}:
        raise error_at(command, f"a heredoc cannot be the file {document.name!r}")
    return document.name


def _document_text(document: ast.Heredoc, expand: Callable[[str], str]) -> str:
    text = document.chomped()
    return expand(text) if document.expand else text


def copy_parts(
    request: CopyRequest, command: ast.Copy, *, directory: str, remotes: Remotes
) -> list[Part]:
    """The actions of an instruction; `directory` is the working directory of the stage.

    Raises:
        SourceError: kind INVALID for a mode, checksum, URL or repository that is not allowed here.
    """
    _check_mode(request.mode, command)
    _check_checksum(request, command)
    blank = CopyAction(
        source=0,
        patterns=(),
        dest=absolute(directory, request.dest),
        owner=request.owner,
        mode=request.mode,
    )
    parts: list[Part] = []
    for source in request.sources:
        git = _git_ref(source, command)
        if git is not None:
            parts.append(_git_part(git, request, command, blank, remotes))
        elif source.startswith(("http://", "https://")):
            parts.append(_url_part(source, request, command, blank, remotes))
        else:
            _add_path(parts, source, request, command, blank)
    for name, text in request.documents:
        action = replace(blank, patterns=(escape_pattern(name),))
        parts.append(Part(action, InlineSource(((name, text),))))
    return parts


def _add_path(
    parts: list[Part], source: str, request: CopyRequest, command: ast.Copy, blank: CopyAction
) -> None:
    pattern = _parents_pattern(source) if request.parents else relative(source)
    if parts and parts[-1].source is None and not parts[-1].needed:
        last = parts[-1].action
        parts[-1] = Part(replace(last, patterns=(*last.patterns, pattern)))
        return
    unpack = command.add if request.unpack is None else request.unpack
    parts.append(
        Part(
            replace(
                blank,
                patterns=(pattern,),
                unpack=unpack and not request.parents,
                exclude=request.exclude,
                parents=request.parents,
            )
        )
    )


def _parents_pattern(source: str) -> str:
    """The pattern with its pivot kept as `/./`, both sides clean (the left one empty: the root)."""
    left, pivot, right = source.partition("/./")
    if not pivot:
        left, right = "", source
    return f"{relative(left) if left else '.'}/./{relative(right)}"


def _url_part(
    url: str, request: CopyRequest, command: ast.Copy, blank: CopyAction, remotes: Remotes
) -> Part:
    if not command.add:
        raise error_at(command, "source can't be a URL for COPY")
    name = _url_name(url, command)
    action = replace(blank, patterns=(escape_pattern(name),), unpack=request.unpack or False)
    if request.checksum is not None:
        digest = _digest(request.checksum, command)
        return Part(action, HttpSource(url, digest, name))
    answer = remotes.ask(UrlRequest(url, command.span))
    if not isinstance(answer, UrlAnswer):
        return Part(action, needed=True)
    return Part(action, HttpSource(url, answer.digest, name, answer.mtime))


def _url_name(url: str, command: ast.Copy) -> str:
    """The name a downloaded file gets: the last part of the URL's path."""
    from urllib.parse import unquote

    rest = url.partition("://")[2].partition("#")[0].partition("?")[0]
    authority, _, path = rest.partition("/")
    if not authority or any(char.isspace() or not char.isprintable() for char in url):
        raise error_at(command, f"invalid URL {url!r}")
    name = unquote(path, errors="surrogateescape").rstrip("/").rpartition("/")[2]
    if name in {"", ".", ".."}:
        return _UNNAMED
    if any(char < " " or "\ud800" <= char <= "\udfff" for char in name):
        raise error_at(command, f"invalid URL {url!r}: no file can have its name")
    return name


def _git_ref(source: str, command: ast.Copy) -> GitRef | None:
    if ":" not in source or source.startswith("github.com/"):
        return None  # most sources are paths, and need no more than this look
    from lamina.spec.gitref import parse_git_ref

    try:
        git = parse_git_ref(source)
    except LaminaError as error:
        raise error_at(command, error.what) from error
    if git is None:
        return None
    if not command.add:
        raise error_at(command, "source can't be a git repository for COPY")
    return git


def _git_part(
    git: GitRef, request: CopyRequest, command: ast.Copy, blank: CopyAction, remotes: Remotes
) -> Part:
    from lamina.spec.gitref import check_checksum, is_commit

    given, keep = request.checksum, request.keep_git_dir
    if given and git.checksum and given != git.checksum:
        raise error_at(command, f'checksum mismatch "{given}" != "{git.checksum}"')
    if keep is not None and git.keep_git_dir is not None and keep != git.keep_git_dir:
        raise error_at(command, "inconsistent keep-git-dir configuration")
    checksum = git.checksum or given or ""
    if checksum:
        try:
            check_checksum(checksum)
        except LaminaError as error:
            raise error_at(command, error.what) from error
    keep = git.keep_git_dir if git.keep_git_dir is not None else keep
    action = replace(blank, patterns=(".",), exclude=request.exclude)
    commit, ref = git.ref, ""
    if not is_commit(git.ref):
        answer = remotes.ask(GitRequest(git.remote, git.ref, command.span))
        if not isinstance(answer, GitAnswer):
            return Part(action, needed=True)
        commit, ref = answer.commit, answer.ref
    if not commit.startswith(checksum):
        raise error_at(
            command,
            f"expected checksum to match {checksum}, got {commit}",
            hint=f"{git.ref or 'the default branch'} is another commit now",
        )
    source = GitSource(
        git.remote,
        commit,
        ref=ref,
        subdir=git.subdir,
        keep_git_dir=bool(keep),
        submodules=git.submodules is not False,
    )
    return Part(action, source)


def _check_mode(mode: str | None, command: ast.Copy) -> None:
    if mode is None:
        return
    from lamina.dockerfile.filemode import FileMode

    try:
        FileMode.parse(mode)
    except LaminaError as error:
        raise error_at(command, error.what, hint=error.hint) from error


def _check_checksum(request: CopyRequest, command: ast.Copy) -> None:
    if request.checksum is None:
        return
    if len(request.sources) != 1 or request.documents:
        raise error_at(command, "checksum can't be specified for multiple sources")
    source = request.sources[0]
    if not source.startswith(("http://", "https://")) and _git_ref(source, command) is None:
        raise error_at(command, "checksum requires HTTP(S) or Git sources")


def _digest(text: str, command: ast.Copy) -> Digest:
    try:
        digest = Digest.parse(text)
    except LaminaError as error:
        raise error_at(command, f"--checksum: {error.what}") from error
    if digest.algorithm != _CHECKSUM_ALGORITHM:
        raise error_at(command, f"--checksum={text}: only {_CHECKSUM_ALGORITHM} is supported")
    return digest


def escape_pattern(name: str) -> str:
    """A pattern that matches exactly this name."""
    return "".join(f"\\{char}" if char in "*?[\\" else char for char in name)


def history_words(request: CopyRequest, command: ast.Copy) -> str:
    """The instruction as BuildKit words it in the history."""
    words = [copy_keyword(command)]
    if request.parents:
        words.append("--parents")
    if request.owner:
        words.append(f"--chown={request.owner}")
    if request.mode:
        words.append(f"--chmod={request.mode}")
    words += [*request.sources, *(f"<<{name}" for name, _ in request.documents), request.dest]
    return " ".join([*words, "# buildkit"])


def source_title(source: PinnedSource) -> str:
    """What people are told of a source; a password in its URL is not shown."""
    if isinstance(source, InlineSource):
        return "preparing inline document"
    from lamina.redaction import redacted

    if isinstance(source, HttpSource):
        return f"load {redacted(source.url)}"
    if isinstance(source, GitSource):
        return f"load git source {redacted(source.remote)}#{source.ref or source.commit}"
    return never(source)
