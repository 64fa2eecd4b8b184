# SPDX-License-Identifier: Apache-2.0
"""What a vertex does. A closed union: whoever decides on it ends with `errors.never`.

Inputs are edges of the vertex; ops refer to them by index. Every op that changes a filesystem
(`Exec`, `FileOp`) takes its base from input 0 (None there means an empty tree, `FROM scratch`) and
adds exactly one layer to it, even if that layer is empty, as BuildKit does. `Merge` stacks results.
"""

from __future__ import annotations

from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.plan.mounts import RunMount
    from lamina.spec.digest import Digest, Stack


class ImageSource(Record):
    """A resolved image. No inputs. Its content is its stack of layers, whatever its name.

    `reference` is the normalised name and `manifest` the digest it resolved to.
    """

    reference: str
    manifest: Digest
    diff_ids: Stack
    platform: str


class LocalSource(Record):
    """A directory tree on this host, by the name of the build context (`context`, `NAME`).

    No inputs. `ignore` are `.dockerignore` patterns in order. Content is hashed per use: only what
    a `CopyAction` selects counts, so the op itself is never a cache key.
    """

    name: str
    ignore: tuple[str, ...] = ()


class InlineSource(Record):
    """Files whose text stands in the Dockerfile (heredocs): (name, text) each, mode 0644, root's.

    No inputs.
    """

    files: tuple[tuple[str, str], ...]


class HttpSource(Record):
    """A file behind a URL: `name` in its tree, mode 0600, root's, with the bytes of `digest`.

    No inputs. `mtime` in POSIX seconds is the server's Last-Modified (0: none); `None` if it is not
    known yet, because `--checksum` made asking needless. Only name and digest enter a cache key.
    """

    url: str
    digest: Digest
    name: str
    mtime: int | None = None


class GitSource(Record):
    """The tree of a commit, or its directory `subdir` (empty: the whole tree).

    No inputs. `remote` is a URL without fragment; `commit` a full commit hash, pinned; `ref` what it
    was resolved from (empty: the commit itself), which a server may need to be asked for. `.git` is
    only there with `keep_git_dir`. The commit and these choices are the content in cache keys.
    """

    remote: str
    commit: str
    ref: str = ""
    subdir: str = ""
    keep_git_dir: bool = False
    submodules: bool = True


class Exec(Record):
    """A RUN: one process on input 0's tree.

    `argv` is final (the shell is included); `env` is everything the process sees, in order, names
    unique, including visible ARGs; `cwd` is absolute; `user` is as written (`app`, `1000:1000`,
    empty for root). `network` is `default`, `none` or `host`; `security` is `sandbox` or
    `insecure`. `platform` (`linux/arm64`) is what the program is for: the same files can do something
    else under another architecture. Predefined proxy variables and the CA bundle come from the host when the step runs
    and are not part of the op (Dockerfile reference §Predefined ARGs).
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    user: str = ""
    network: str = "default"
    security: str = "sandbox"
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int = 0  # bytes; 0 is the default of 64 MiB
    platform: str = ""
    proxy_args: tuple[tuple[str, str], ...] = ()  # given as --build-arg; never in the key
    mounts: tuple[RunMount, ...] = ()
    hostname: str = ""  # empty: BuildKit's
    ulimits: tuple[tuple[str, int, int], ...] = ()  # (name, soft, hard), -1 for unlimited


class CopyAction(Record):
    """COPY or ADD from the tree of input `source` to `dest` in the base.

    `patterns` are slash-separated paths or wildcards relative to the source's root. `dest` is
    absolute and clean; a trailing slash says that it is a directory. `owner` is the text of
    `--chown` (None: root, or for `unpack` what the archive says), `mode` that of `--chmod`, octal or
    symbolic. `unpack` extracts tar archives (ADD). `exclude` are ignore patterns, relative to the
    directory that is copied. With `parents` a pattern keeps its path below the destination, or the
    part of it after a `/./` (Dockerfile reference §COPY --parents).
    """

    source: int
    patterns: tuple[str, ...]
    dest: str
    owner: str | None = None
    mode: str | None = None
    unpack: bool = False
    exclude: tuple[str, ...] = ()
    parents: bool = False


class MkdirAction(Record):
    """WORKDIR: make `path` and its parents, mode 0755, owned by `owner` (None: root)."""

    path: str
    owner: str | None = None


FileAction = CopyAction | MkdirAction


class FileOp(Record):
    """File actions, in order, on the tree of input 0; one layer for all of them.

    `owners` is the input in whose /etc/passwd and /etc/group names are looked up (None: in input
    0's): a linked layer has the empty tree as base, and names are those of the real one.
    """

    actions: tuple[FileAction, ...]
    owners: int | None = None


class Merge(Record):
    """The layers of all inputs on each other, input 0 lowest (COPY --link). Adds no layer itself."""


PinnedSource = InlineSource | HttpSource | GitSource
"""Sources that name their content: their own fields say what can be copied from them."""

GivenSource = LocalSource | PinnedSource
"""Sources that are no stack of layers: copies from them are known before anything runs."""

LayerOp = Exec | FileOp
"""What adds a layer to its base: these are run, and their results are recorded under keys."""

Op = ImageSource | GivenSource | LayerOp | Merge


def proxy_excluded(op: Exec) -> Exec:
    """The op as its cache key sees it: without the proxy values (they may hold passwords) and the
    addresses of extra hosts.
    """
    hosts = tuple((name, "") for name, _ in op.extra_hosts)
    return replace(op, proxy_args=(), extra_hosts=hosts)
