# SPDX-License-Identifier: Apache-2.0
"""Git repositories as Dockerfiles and build contexts name them, after BuildKit's `dfgitutil`.

| form | |
|---|---|
| `https://host/repo.git#ref:subdir` | http and https need the `.git` |
| `https://host/repo.git?ref=v1&subdir=d` | also `tag`, `branch`, `checksum` or `commit`, `keep-git-dir`, `submodules` |
| `ssh://git@host/repo`, `git://host/repo` | |
| `git@host:repo` | scp's way |
| `github.com/user/repo` | build contexts only: it could be a path |

What comes out is safe to hand to git as an argument: nothing starts with a dash, and a ref can be
no refspec.
"""

from __future__ import annotations

from urllib.parse import parse_qs, unquote

from lamina.errors import Kind, LaminaError
from lamina.start.pattern import DOTALL, pattern
from lamina.start.record import Record, replace

_IMPLIED = "github.com/"
_PROTOCOL = pattern(r"([a-zA-Z0-9]+)://")
_SCP = pattern(
    r"([a-zA-Z0-9_][a-zA-Z0-9_-]*)@([a-zA-Z0-9.][a-zA-Z0-9.-]*):([^?#]*)(?:\?([^#]*))?(?:#(.*))?",
    DOTALL,
)
_AUTHORITY = pattern(
    r"(?:[^@/?#]*@)?(?:[a-zA-Z0-9][a-zA-Z0-9.-]*|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?"
)
_BAD_REF = pattern(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(?:/|\Z)|\A[-/.]|/\.|[./]\Z")
_QUERY = pattern(r"[?#]")
_COMMIT = pattern(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CHECKSUM = pattern(r"[0-9a-f]{7,64}")
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class InvalidGitRef(LaminaError):
    kind = Kind.INVALID


class GitRef(Record):
    """A repository and what of it is meant.

    `remote` has no query or fragment. `ref` is a branch, a tag or a commit (empty: the default
    branch); `subdir` a clean relative path (empty: all). `checksum` is the commit, or its
    beginning, that must be found. None: not said.
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool | None = None


def is_commit(text: str) -> bool:
    """Whether the text is a full commit hash."""
    return _COMMIT.fullmatch(text) is not None


def split_credentials(remote: str) -> tuple[str, str]:
    """The remote without `user:password@` of an http or https URL, and that part as it is written."""
    scheme, separator, rest = remote.partition("://")
    authority, slash, path = rest.partition("/")
    userinfo, at, host = authority.rpartition("@")
    if not separator or not at or scheme not in {"http", "https"}:
        return remote, ""
    return f"{scheme}://{host}{slash}{path}", userinfo


def parse_git_ref(text: str) -> GitRef | None:
    """What the text means as a repository; None if it is something else (a path, a URL).

    Raises:
        InvalidGitRef: it is a repository, but with a query, host, ref or subdirectory that is not
            allowed.
    """
    if text.startswith(("./", "../", "/")):
        return None
    if text.startswith(_IMPLIED):
        return _from_url("https://" + text)
    protocol = _PROTOCOL.match(text)
    if protocol is None:
        scp = _SCP.fullmatch(text)
        if scp is None:
            return None
        remote = f"{scp[1]}@{scp[2]}:{scp[3]}"
        _check_text(remote)
        return _refined(GitRef(remote), query=scp[4] or "", fragment=scp[5] or "")
    if protocol[1].lower() in {"ssh", "git"}:
        return _from_url(text)
    if protocol[1].lower() not in {"http", "https"}:
        return None
    path = _QUERY.split(text, maxsplit=1)[0]
    return _from_url(text) if path.endswith(".git") else None


def _from_url(text: str) -> GitRef:
    rest, _, fragment = text.partition("#")
    remote, _, query = rest.partition("?")
    scheme, _, after = remote.partition("://")
    authority = after.partition("/")[0]
    if not _AUTHORITY.fullmatch(authority) or authority.startswith("-"):
        raise InvalidGitRef(f"invalid git repository {text!r}: bad host")
    _check_text(remote)
    return _refined(GitRef(f"{scheme.lower()}://{after}"), query=query, fragment=fragment)


def _check_text(remote: str) -> None:
    if not remote.isprintable() or " " in remote:
        raise InvalidGitRef(f"invalid git repository {remote!r}: white space or control characters")


def _refined(git: GitRef, *, query: str, fragment: str) -> GitRef:
    if fragment.startswith("#"):
        git = _from_pairs(git, fragment[1:])
    elif fragment:
        ref, _, subdir = unquote(fragment).partition(":")
        git = replace(git, ref=ref, subdir=subdir)
    git = _from_query(git, query)
    if git.checksum and not git.ref:
        git = replace(git, ref=git.checksum)
    if git.ref:
        check_ref(git.ref)
    if git.checksum:
        check_checksum(git.checksum)
    return replace(git, subdir=_clean_subdir(git.subdir))


def _from_pairs(git: GitRef, text: str) -> GitRef:
    """`##ref=v1,subdir=d`."""
    values: dict[str, str] = {}
    for field in text.split(",") if text else ():
        name, equals, value = field.partition("=")
        if not equals:
            raise InvalidGitRef(f"invalid field {field!r}: must be a key=value pair")
        if name.lower() not in {"ref", "commit", "subdir"}:
            raise InvalidGitRef(
                f"unexpected key {name!r} in {field!r} (supported keys: ref, commit, subdir)"
            )
        values[name.lower()] = value
    return replace(
        git,
        ref=values.get("ref", ""),
        subdir=values.get("subdir", ""),
        checksum=values.get("commit", ""),
    )


def _from_query(git: GitRef, query: str) -> GitRef:
    if not query:
        return git
    wanted: dict[str, str] = {}
    for name, values in parse_qs(query, keep_blank_values=True).items():
        if len(values) > 1:
            raise InvalidGitRef(f'query "{name}" has multiple values')
        if not values[0] and name not in {"submodules", "keep-git-dir"}:
            raise InvalidGitRef(f'query "{name}" has no value')
        match name:
            case "ref":
                wanted = _agreed(wanted, "ref", values[0])
            case "tag":
                wanted = _agreed(wanted, "ref", _prefixed("refs/tags/", values[0]))
            case "branch":
                wanted = _agreed(wanted, "ref", _prefixed("refs/heads/", values[0]))
            case "subdir":
                wanted = _agreed(wanted, "subdir", values[0])
            case "checksum" | "commit":
                git = replace(git, checksum=values[0])
            case "keep-git-dir":
                git = replace(git, keep_git_dir=_boolean(name, values[0]))
            case "submodules":
                git = replace(git, submodules=_boolean(name, values[0]))
            case _:
                raise InvalidGitRef(f'unexpected query "{name}"')
    for field, known in (("ref", git.ref), ("subdir", git.subdir)):
        if known:
            wanted = _agreed(wanted, field, known)
    return replace(git, ref=wanted.get("ref", ""), subdir=wanted.get("subdir", ""))


def _agreed(wanted: dict[str, str], field: str, value: str) -> dict[str, str]:
    if wanted.get(field, value) != value:
        raise InvalidGitRef(f'{field} conflicts: "{wanted[field]}" vs "{value}"')
    return {**wanted, field: value}


def _prefixed(prefix: str, name: str) -> str:
    return name if name.startswith(prefix) else prefix + name


def _boolean(name: str, text: str) -> bool:
    if not text or text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InvalidGitRef(f'invalid {name} value: "{text}"')


def check_ref(ref: str) -> None:
    """Raise InvalidGitRef for what is no name of a branch, tag or commit (git-check-ref-format)."""
    if _BAD_REF.search(ref) or not ref.isprintable() or ref == "@" or len(ref) > 255:
        raise InvalidGitRef(f"invalid git ref {ref!r}")


def check_checksum(checksum: str) -> None:
    """Raise InvalidGitRef for what is not (the beginning of) a commit hash."""
    if not _CHECKSUM.fullmatch(checksum):
        raise InvalidGitRef(
            f"invalid checksum {checksum!r} of a git repository: 7 to 64 hexadecimal digits needed"
        )


def _clean_subdir(subdir: str) -> str:
    parts = [part for part in subdir.split("/") if part not in {"", "."}]
    if ".." in parts or ".git" in map(str.lower, parts[:1]):
        raise InvalidGitRef(f"invalid subdirectory {subdir!r} of a git repository")
    if any(not part.isprintable() for part in parts):
        raise InvalidGitRef(f"invalid subdirectory {subdir!r} of a git repository")
    return "/".join(parts)
