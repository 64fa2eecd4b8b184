# SPDX-License-Identifier: Apache-2.0
"""Build contexts: directories of this host, opened once and with their files' digests remembered."""

from __future__ import annotations

import os

from lamina.builder.statcache import StatCache
from lamina.builder.tree import Tree
from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lamina.plan.ops import LocalSource
    from lamina.store.ports import Metadata


class Context(Record):
    """A build context: an absolute path on this host.

    `is_lasting` is False for a temporary directory (a context that came as an archive): digests
    of its files are not remembered.
    """

    root: str
    is_lasting: bool = True


class Contexts:
    """The contexts of one solve, by name. `close` it. Unless it `remembers`, every file is read."""

    def __init__(
        self,
        contexts: Mapping[str, Context],
        metadata: Metadata,
        *,
        clock: Callable[[], float],
        git_modes: bool,
        remembers: bool = True,
    ) -> None:
        self._remembers = remembers
        self._git_modes = git_modes
        self._contexts = contexts
        self._metadata = metadata
        self._clock = clock
        self._trees: dict[LocalSource, Tree] = {}
        self._caches: dict[str, StatCache] = {}

    def tree(self, op: LocalSource) -> Tree:
        """The context as the op's ignore patterns show it.

        Raises:
            LaminaError: kind NOT_FOUND or DENIED.
        """
        known = self._trees.get(op)
        if known is not None:
            return known
        context = self._context(op)
        ignore = None
        if op.ignore:
            from lamina.dockerfile.ignore import IgnoreMatcher

            ignore = IgnoreMatcher(op.ignore)
        try:
            fd = os.open(context.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            kind = Kind.DENIED if isinstance(error, PermissionError) else Kind.NOT_FOUND
            text = f"cannot open the build context {context.root!r}: {error.strerror}"
            raise LaminaError(text, kind=kind) from error
        tree = Tree(
            fd,
            what="the build context",
            ignore=ignore,
            keeps_owner=False,
            git_modes=self._git_modes,
        )
        self._trees[op] = tree
        return tree

    def cache(self, op: LocalSource) -> StatCache | None:
        """The remembered digests of the context's files; None if it does not last."""
        context = self._context(op)
        if not context.is_lasting:
            return None
        known = self._caches.get(context.root)
        if known is None:
            metadata, root = self._metadata, context.root
            now_ns = int(self._clock() * 1_000_000_000)
            load = (lambda: metadata.get_stat(root)) if self._remembers else (lambda: None)
            variant = b"g" if self._git_modes else b"-"
            known = StatCache(load, now_ns=now_ns, variant=variant)
            self._caches[root] = known
        return known

    def site(self) -> str:
        """Where the build context lies, empty if it does not last: builds are told apart by it."""
        context = self._contexts.get("context")
        return context.root if context is not None and context.is_lasting else ""

    def close(self) -> None:
        """Store what was learned and close the directories."""
        try:
            for root, cache in self._caches.items():
                blob = cache.blob()
                if blob is not None:
                    self._metadata.put_stat(root, blob)
        finally:
            for tree in self._trees.values():
                tree.close()

    def _context(self, op: LocalSource) -> Context:
        context = self._contexts.get(op.name)
        if context is None:
            raise LaminaError(f"no build context {op.name!r} was given", kind=Kind.NOT_FOUND)
        return context
