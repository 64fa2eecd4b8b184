# SPDX-License-Identifier: Apache-2.0
"""What a RUN has mounted while it runs. A closed union: deciding on it ends with `errors.never`.

`target` is an absolute, clean path in the step. `source` is the index of the vertex's input that
holds the files, None for none. `uid`, `gid` and `mode` are None where the Dockerfile says nothing.
"""

from __future__ import annotations

from lamina.start.record import Record


class BindMount(Record):
    """`path` (relative to the input's root, empty for all of it) at `target`.

    What is written through a mount that is not `read_only` is thrown away after the step.
    """

    target: str
    source: int | None
    path: str = ""
    read_only: bool = True


class CacheMount(Record):
    """A directory that outlives the build, by `id`. `sharing` is `shared`, `private` or `locked`.

    A new one starts with the input's files (None: empty). `path` is the part of it to mount.
    """

    target: str
    id: str
    source: int | None = None
    path: str = ""
    read_only: bool = False
    sharing: str = "shared"
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None


class TmpfsMount(Record):
    """An empty filesystem in memory; `size` in bytes, 0 for the kernel's default."""

    target: str
    size: int = 0
    read_only: bool = False


class SecretMount(Record):
    """The secret `id` as a file at `target` (empty: no file) and as variable `env` (empty: none)."""

    id: str
    target: str = ""
    env: str = ""
    required: bool = False
    uid: int = 0
    gid: int = 0
    mode: int = 0o400


class SshMount(Record):
    """A socket of the SSH agent `id` at `target`."""

    id: str
    target: str
    required: bool = False
    uid: int = 0
    gid: int = 0
    mode: int = 0o600


class ScriptMount(Record):
    """A read-only directory at `target` with one program, `name`: a heredoc that starts with `#!`."""

    target: str
    name: str
    content: str


RunMount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount | ScriptMount
