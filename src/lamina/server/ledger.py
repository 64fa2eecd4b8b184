# SPDX-License-Identifier: Apache-2.0
"""What a driver can tell of a registry's past, and do about it: optional abilities of a driver.

A driver that keeps a *ledger* knows the moves of each tag, can have removed manifests back within
the window, when something was pulled, and how much a repository holds. One that keeps *cached
tags* can hold what a pull-through cache fetched. `storage` says which driver does.
"""

from __future__ import annotations

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from lamina.server.ports import NewManifest
    from lamina.server.quotas import Usage
    from lamina.server.retention import Rules, Verdict
    from lamina.spec.digest import Digest
else:
    Protocol = object

DEFAULT_WINDOW = 7 * 86400.0  # seconds; a week covers a weekend and the days to notice


class Move(Record):
    """A tag's move from `previous` (empty: it was not there) to `digest` (empty: it was removed).

    `moved` in POSIX seconds; `why` is push, delete, retention, undelete or upstream.
    """

    tag: str
    digest: str
    previous: str
    moved: float
    user: str
    why: str


class Removed(Record):
    """A removed manifest that can be had back until `until`; times in POSIX seconds."""

    digest: str
    media_type: str
    size: int
    removed: float
    until: float
    user: str
    why: str


class Restored(Record):
    """What an undelete brought back: the manifests, and the tags that point to the first of them."""

    digest: str
    manifests: tuple[str, ...]
    tags: tuple[str, ...]


class CachedTag(Record):
    """A tag of a repository behind which there is an upstream.

    `checked` is when the upstream last said that the tag is this digest, in POSIX seconds; None for
    a tag that was pushed here.
    """

    digest: str
    checked: float | None


class Ledger(Protocol):
    """The past of tags and manifests. Methods may be called from several threads and may block."""

    def pulled(self, repository: str, digest: str) -> None:
        """Remember that the manifest is pulled now. Cheap; on the disk after `flush`."""

    def flush(self) -> None:
        """Write what `pulled` remembered."""

    def moves(self, repository: str, *, tag: str = "", n: int, before: int = 0) -> Sequence[Move]:
        """At most `n` moves of the tag (empty: of all), the last first, `before` of them skipped."""

    def removed(self, repository: str) -> Sequence[Removed]:
        """The manifests that `undelete` can bring back, the last removed first."""

    def undelete(
        self, repository: str, *, tag: str = "", digest: str = "", user: str = ""
    ) -> Restored:
        """Bring back a tag (to `digest`, or to where it was when it was removed) or a manifest with
        the tags that it had, if those names are free now; with it what it needs and what refers
        to it. One transaction.

        Raises:
            LaminaError: NOT_FOUND if it never was, or the window is over; INVALID if the tag exists
                and no digest is given.
        """

    def retain(
        self, rules: Rules, *, dry_run: bool, stop: Callable[[], bool] = ...
    ) -> Sequence[Verdict]:
        """Judge everything; remove what must go, unless `dry_run`. The verdicts on what there is,
        or, after a removal, on what went. A tag that moved since it was judged stays.
        """

    def usage(self, repository: str) -> Usage | None:
        """How much the repository holds; None if there is no such repository."""

    def check_room(self, repository: str, size: int, *, digest: Digest | None = None) -> None:
        """Nothing, or DENIED if a blob of `size` bytes would not fit the quota. A hint before a
        body is received: what counts is the check when it is stored.
        """


class CachedTags(Protocol):
    """What came from upstreams. Methods may be called from several threads and may block."""

    def tag(self, repository: str, tag: str) -> CachedTag | None:
        """The tag, if the repository has it."""

    def put(self, repository: str, manifest: NewManifest, *, tag: str = "") -> None:
        """Store a manifest whose parts may not be here (yet), and set the tag to it unless it was
        pushed here. One transaction. Raises Refusal as `Manifests.put` for a quota.
        """

    def confirm(self, repository: str, tag: str, digest: str) -> None:
        """The upstream says that the tag is still this digest."""

    def forget(self, repository: str, tag: str) -> None:
        """The upstream has the tag no longer: remove it, unless it was pushed here."""
