# SPDX-License-Identifier: Apache-2.0
"""What a vertex does. A closed union: `match` on it and end with `assert_never`.

Inputs are edges of the vertex; ops refer to them by index. Every op that changes a filesystem
(`Exec`, `FileOp`) takes its base from input 0 (None there means an empty tree, `FROM scratch`) and
adds exactly one layer to it, even if that layer is empty, as BuildKit does.
"""

from __future__ import annotations

from lamina.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.plan.mounts import RunMount
    from lamina.spec.digest import DiffID, Digest


@record
class ImageSource:
    """A resolved image. No inputs. Its content is its stack of layers, whatever its name.

    `reference` is the normalised name and `manifest` the digest it resolved to.
    """

    reference: str
    manifest: Digest
    diff_ids: tuple[DiffID, ...]
    platform: str


@record
class LocalSource:
    """A directory tree on this host, by the name of the build context (`context`, `NAME`).

    No inputs. `ignore` are `.dockerignore` patterns in order. Content is hashed per use: only what
    a `CopyAction` selects counts, so the op itself is never a cache key.
    """

    name: str
    ignore: tuple[str, ...] = ()


@record
class Exec:
    """A RUN: one process on input 0's tree.

    `argv` is final (the shell is included); `env` is everything the process sees, in order, names
    unique, including visible ARGs; `cwd` is absolute; `user` is as written (`app`, `1000:1000`,
    empty for root). `network` is `default`, `none` or `host`; `security` is `sandbox` or
    `insecure`. Predefined proxy variables and the CA bundle come from the host when the step runs
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
    proxy_args: tuple[tuple[str, str], ...] = ()  # given as --build-arg; never in the key
    mounts: tuple[RunMount, ...] = ()
    hostname: str = ""  # empty: BuildKit's


@record
class CopyAction:
    """COPY or ADD from the tree of input `source` to `dest` in the base.

    `patterns` are slash-separated paths or wildcards relative to the source's root. `dest` is
    absolute and clean; a trailing slash says that it is a directory. `owner` is the text of
    `--chown` (None: root, or for `unpack` what the archive says), `mode` that of `--chmod`.
    `unpack` extracts local tar archives (ADD). Several matches need a directory as destination.
    """

    source: int
    patterns: tuple[str, ...]
    dest: str
    owner: str | None = None
    mode: str | None = None
    unpack: bool = False
    exclude: tuple[str, ...] = ()
    parents: bool = False


@record
class MkdirAction:
    """WORKDIR: make `path` and its parents, mode 0755, owned by `owner` (None: root)."""

    path: str
    owner: str | None = None


FileAction = CopyAction | MkdirAction


@record
class FileOp:
    """File actions, in order, on the tree of input 0; one layer for all of them."""

    actions: tuple[FileAction, ...]


Op = ImageSource | LocalSource | Exec | FileOp


def proxy_excluded(op: Exec) -> Exec:
    """The op as its cache key sees it: without the proxy values (they may hold passwords) and the
    addresses of extra hosts.
    """
    hosts = tuple((name, "") for name, _ in op.extra_hosts)
    return replace(op, proxy_args=(), extra_hosts=hosts)
