# SPDX-License-Identifier: Apache-2.0
"""Cache keys: digests of everything that a vertex's result depends on. Pure.

An input enters a key by an *identity*, of which there are three kinds:

| identity | says | known |
|---|---|---|
| definition | the input's own primary key | before anything runs |
| chain | the chainID of the input's result (no name, no history) | when the input has a result |
| content | the digest of exactly what a COPY selects from the input | when it could be read |

The *primary* key of a vertex uses definitions, so a target can be looked up without loading its
inputs. Its *secondary* keys use chains and contents, so a step stays cached when an input was made
in another way but came out the same. An image is its chain in both, whatever its name; a file of
the build context is its content in both. Records are stored under every key that is known.
"""

from __future__ import annotations

from lamina.errors import never
from lamina.plan.codec import encode_op
from lamina.plan.ops import (
    CopyAction,
    Exec,
    FileOp,
    GitSource,
    GivenSource,
    HttpSource,
    ImageSource,
    InlineSource,
    Merge,
    MkdirAction,
    proxy_excluded,
)
from lamina.spec.digest import Digest
from lamina.spec.document import dump
from lamina.spec.identity import chain_id
from lamina.start.record import Record, defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.plan.mounts import BindMount, CacheMount, RunMount
    from lamina.plan.ops import FileAction, LayerOp, Op, PinnedSource
    from lamina.spec.digest import DiffID

    # What takes files from one of the vertex's inputs.
    Use = CopyAction | BindMount | CacheMount

KEY_VERSION = 1
"""Part of every key. Raise it when the same op would now make another layer."""


# In every key of version 1, whatever their value. A field that an op gets later is in a key only if it
# differs from its default, so that what was built before stays cached. Empty with a new version.
_FIRST_FIELDS = {
    "Exec": "argv env cwd user network security extra_hosts shm_size platform proxy_args mounts hostname",
    "FileOp": "actions owners",
    "CopyAction": "source patterns dest owner mode unpack exclude parents",
    "MkdirAction": "path owner",
    "InlineSource": "files",
    "HttpSource": "url digest name mtime",
    "GitSource": "remote commit ref subdir keep_git_dir submodules",
    "BindMount": "target source path read_only",
    "CacheMount": "target id source path read_only sharing uid gid mode",
    "TmpfsMount": "target size read_only",
    "SecretMount": "id target env required uid gid mode",
    "SshMount": "id target required uid gid mode",
    "ScriptMount": "target name content",
}


class Identity(Record):
    """How an input enters a key: `kind` is `definition`, `chain` or `content`."""

    kind: str
    value: str


class Key(Record):
    """A cache key and the tree it was made from (JSON text, for explanations)."""

    digest: Digest
    tree: str


def by_definition(key: Digest) -> Identity:
    """The input by its own primary key."""
    return Identity("definition", str(key))


def by_chain(diff_ids: Sequence[DiffID]) -> Identity:
    """The input by its result; the empty tree has an identity too."""
    chain = chain_id(diff_ids)
    return Identity("chain", str(chain) if chain is not None else "")


def by_content(selection: Digest) -> Identity:
    """What a copy selects from an input, by content."""
    return Identity("content", str(selection))


def op_key(op: LayerOp, base: Identity, sources: Sequence[Identity]) -> Key:
    """The key of what adds a layer to `base`; `sources` has one identity for each use, in order."""
    if isinstance(op, Exec):
        return exec_key(op, base, sources)
    if isinstance(op, FileOp):
        return file_key(op, base, sources)
    return never(op)


def exec_key(op: Exec, base: Identity, sources: Sequence[Identity] = ()) -> Key:
    """The key of a RUN on `base`; `sources` has one identity for each mount with an input.

    Not part of it, as in BuildKit: proxy values, addresses of extra hosts, the index of a mount's
    input, and which directory a cache mount names and how it is shared.
    """
    document = _encoded(proxy_excluded(op))
    mounts = []
    for mount in op.mounts:
        encoded = _encoded(mount)
        encoded.pop("source", None)
        if encoded["type"] == "CacheMount":
            del encoded["id"], encoded["sharing"]
        mounts.append(encoded)
    document["mounts"] = mounts
    return _key(document, base, sources)


def file_key(op: FileOp, base: Identity, sources: Sequence[Identity]) -> Key:
    """The key of file actions on `base`; `sources` has one identity for each CopyAction, in order.

    The index of the source is not part of the key: what was selected stands for it.
    """
    document = _encoded(op)
    actions = []
    for action in op.actions:
        encoded = _encoded(action)
        if isinstance(action, CopyAction):
            del encoded["source"]
        elif not isinstance(action, MkdirAction):
            never(action)
        actions.append(encoded)
    document["actions"] = actions
    return _key(document, base, sources)


def merge_key(inputs: Sequence[Identity]) -> Key:
    """What users of a merge know it by; nothing is stored under it."""
    return _key({"type": "Merge"}, by_chain(()), inputs)


def given_content(op: PinnedSource) -> Digest:
    """What stands for all that can be copied from such a source, without having it here.

    A commit is its content; where it came from matters only to `.git`, which says so (who asked for
    it is not in there).
    """
    document = _encoded(op)
    if isinstance(op, GitSource):
        del document["ref"]
        if op.keep_git_dir:
            from lamina.spec.gitref import split_credentials

            document["remote"] = split_credentials(op.remote)[0]
        else:
            del document["remote"]
    elif isinstance(op, HttpSource):
        del document["url"]
        del document["mtime"]
    elif not isinstance(op, InlineSource):
        never(op)
    return Digest.of(dump(_plain(document)))


def uses(op: Op) -> tuple[Use, ...]:
    """What takes files from an input other than the base, in order: copies, or mounts."""
    if isinstance(op, FileOp):
        return copies(op)
    if isinstance(op, Exec):
        return _mounted(op) if op.mounts else ()
    if isinstance(op, ImageSource | GivenSource | Merge):
        return ()
    return never(op)


def _mounted(op: Exec) -> tuple[BindMount | CacheMount, ...]:
    from lamina.plan.mounts import (
        BindMount,
        CacheMount,
        ScriptMount,
        SecretMount,
        SshMount,
        TmpfsMount,
    )

    found: list[BindMount | CacheMount] = []
    for mount in op.mounts:
        if isinstance(mount, BindMount | CacheMount):
            if mount.source is not None:
                found.append(mount)
        elif not isinstance(mount, TmpfsMount | SecretMount | SshMount | ScriptMount):
            never(mount)
    return tuple(found)


def copies(op: FileOp) -> tuple[CopyAction, ...]:
    """The copy actions of an op, in order."""
    return tuple(action for action in op.actions if isinstance(action, CopyAction))


def _encoded(op: LayerOp | PinnedSource | FileAction | RunMount) -> dict[str, object]:
    """The op as `encode_op` gives it, without later fields that have their default."""
    document = encode_op(op)
    first = _FIRST_FIELDS.get(type(op).__name__, "").split()
    for field, default in defaults(type(op)).items():
        if field not in first and getattr(op, field) == default:
            del document[field]
    return document


def _key(op: dict[str, object], base: Identity, sources: Sequence[Identity]) -> Key:
    document = {
        "version": KEY_VERSION,
        "op": op,
        "base": {base.kind: base.value},
        "sources": [{source.kind: source.value} for source in sources],
    }
    raw = dump(_plain(document))
    return Key(Digest.of(raw), raw.decode())


def _plain(value: object) -> object:
    """The document with text that is no valid Unicode (bytes of a Dockerfile) made escapes."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return {"bytes": value.encode("utf-8", "surrogateescape").hex()}
        return value
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
