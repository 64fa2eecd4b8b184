# SPDX-License-Identifier: Apache-2.0
"""Named build contexts: what may stand behind a name, and how it gets here.

| WHERE | is |
|---|---|
| a path | a directory of this host, with its `.dockerignore` |
| `docker-image://REF` | an image of the store; `docker-image://scratch` is nothing |
| `oci-layout://DIR[:TAG or @DIGEST]` | an image of an OCI image layout on this host |
| a git URL | the tree of a repository |
| an http or https URL | the file there, called `context` |

Git and http trees are fetched by each build that uses them; files are known by their content.
"""

from __future__ import annotations

import os
import shutil

from lamina.app.buildcontext import ignore_patterns
from lamina.app.streamedcontext import checkout
from lamina.builder.context import Context
from lamina.dockerfile.bases import context_name
from lamina.dockerfile.remotes import LAYOUT, NamedContext
from lamina.errors import Kind, LaminaError
from lamina.plan.ops import LocalSource
from lamina.spec.gitref import parse_git_ref
from lamina.spec.reference import Reference
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lamina.builder.context import Context
    from lamina.dockerfile.lowered import Lowered
    from lamina.dockerfile.remotes import NamedContext
    from lamina.plan.graph import Plan
    from lamina.remote.sources import RemoteSources
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

    Results = Mapping[str, tuple[tuple[Platform, Lowered], ...]]  # by target, one a platform

_NO_RESULTS: Results = {}
_IMAGE = "docker-image://"
_TREES = frozenset({"directory", "git", "http"})
_DOWNLOAD = "context"  # BuildKit's name for the file of a URL


class BuildContextSource(Record):
    """A named context: `kind` is `directory` (`where` is absolute), `image`, `layout`, `git`,
    `http` or `target` (of the same bake; `where` is its name).
    """

    name: str
    kind: str
    where: str

    @property
    def tree(self) -> str:
        """Its name in a plan: targets of one bake may mean different things by one name."""
        return f"{self.name}={self.where}"


def context_source(name: str, where: str, *, cwd: str) -> BuildContextSource:
    """What stands behind `name`; paths are relative to `cwd`.

    Raises:
        LaminaError: USAGE for a name or WHERE that is none, NOT_FOUND or INVALID for a path that is
            no directory, UNSUPPORTED for `target:`.
    """
    try:
        name = context_name(name)
    except LaminaError as error:
        raise LaminaError(f"invalid context name {name}: {error.what}", kind=Kind.USAGE) from error
    if not where:
        raise LaminaError(f"build context {name}: nothing stands behind it", kind=Kind.USAGE)
    if where.startswith(_IMAGE):
        return BuildContextSource(name, "image", _image(where.removeprefix(_IMAGE), name))
    if where.startswith(LAYOUT):
        path = os.path.normpath(os.path.join(cwd, where.removeprefix(LAYOUT)))
        return BuildContextSource(name, "layout", path)
    if where.startswith(("target:", "input:")):
        raise LaminaError(
            f"build context {name}: {where} is not supported: it names another target of a bake",
            kind=Kind.UNSUPPORTED,
        )
    return _tree(name, where, cwd)


def _tree(name: str, where: str, cwd: str) -> BuildContextSource:
    if ":" in where or where.startswith("github.com/"):
        if parse_git_ref(where) is not None:
            return BuildContextSource(name, "git", where)
        if where.startswith(("http://", "https://")):
            return BuildContextSource(name, "http", where)
    path = os.path.normpath(os.path.join(cwd, where))
    if not os.path.isdir(path):
        is_missing = not os.path.lexists(path)
        what = "does not exist" if is_missing else "is not a directory"
        kind = Kind.NOT_FOUND if is_missing else Kind.INVALID
        raise LaminaError(f"build context {name}: {where} {what}", kind=kind)
    return BuildContextSource(name, "directory", path)


def _image(reference: str, name: str) -> str:
    if reference == "scratch":
        return reference
    try:
        return str(Reference.parse(reference).with_default_tag())
    except LaminaError as error:
        raise LaminaError(f"build context {name}: {error.what}", kind=Kind.USAGE) from error


def named_contexts(
    sources: Iterable[BuildContextSource], results: Results = _NO_RESULTS
) -> tuple[NamedContext, ...]:
    """The contexts as lowering sees them, `results` those of the targets lowered before. A target
    without a result is an image that nobody has.

    Raises:
        LaminaError: a `.dockerignore` cannot be read.
    """
    contexts = []
    for source in sources:
        if source.kind == "image":
            contexts.append(NamedContext(source.name, image=source.where))
        elif source.kind == "layout":
            contexts.append(NamedContext(source.name, image=LAYOUT + source.where))
        elif source.kind == "target" and source.where in results:
            contexts.append(NamedContext(source.name, results=results[source.where]))
        elif source.kind == "target":
            contexts.append(NamedContext(source.name, image=f"target:{source.where}"))
        elif source.kind == "directory":
            ignore = ignore_patterns(source.where)
            contexts.append(NamedContext(source.name, ignore=ignore, tree=source.tree))
        else:
            contexts.append(NamedContext(source.name, tree=source.tree))
    return tuple(contexts)


def context_trees(
    sources: Iterable[BuildContextSource],
    plan: Plan,
    *,
    remote: RemoteSources | None,
    store: Store,
    cancel: CancelToken,
) -> dict[str, Context]:
    """The directories of the named contexts that the plan uses; what is remote is fetched now, and
    gone when `remote` is closed (None only if there is nothing remote).
    """
    used = {vertex.op.name for vertex in plan.vertices if isinstance(vertex.op, LocalSource)}
    trees: dict[str, Context] = {}
    for source in sources:
        if source.tree not in used or source.tree in trees or source.kind not in _TREES:
            continue
        if source.kind == "directory":
            trees[source.tree] = Context(source.where)
            continue
        assert remote is not None
        try:
            path = _fetch(source, remote, store, cancel)
        except LaminaError as error:
            raise error.about(f"build context {source.name}") from error
        trees[source.tree] = Context(path, is_lasting=False)
    return trees


def _fetch(
    source: BuildContextSource, remote: RemoteSources, store: Store, cancel: CancelToken
) -> str:
    if source.kind == "git":
        git = parse_git_ref(source.where)
        assert git is not None
        return checkout(git, remote, cancel=cancel)
    file = remote.url(source.where, cancel=cancel)
    directory = os.path.join(remote.directory("context-"), "tree")
    os.mkdir(directory, 0o755)
    path = os.path.join(directory, _DOWNLOAD)
    with store.content.open(file.digest) as stream, open(path, "xb") as target:
        shutil.copyfileobj(stream, target, 1 << 20)
    os.chmod(path, 0o600)
    os.utime(path, (file.mtime, file.mtime))
    return directory


def is_fetched(sources: Iterable[BuildContextSource]) -> bool:
    """Whether any of them is behind a network."""
    return any(source.kind in {"git", "http"} for source in sources)
