# SPDX-License-Identifier: Apache-2.0
"""How much a repository may hold. Pure; the driver asks inside the transaction that would add.

The bytes of a repository are those of its blobs, each once, and of its manifests, removed ones
included for as long as they can be had back: what it takes from the disk if nobody shares it.
"""

from __future__ import annotations

from lamina.server.rights import compile_pattern
from lamina.server.wire import Refusal
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class OverQuota(Refusal):
    """DENIED because of a quota, with the numbers."""

    def __init__(self, what: str, *, quota: int, held: int, added: int) -> None:
        super().__init__(
            "DENIED",
            f"the repository's quota of {quota} {what} would be exceeded: it holds {held},"
            f" and {added} would be added",
            detail={"quota": quota, "held": held, "added": added},
        )


class Quota(Record):
    """Each repository that matches the pattern may hold so many bytes and tags (0: no limit)."""

    repositories: str
    bytes: int = 0
    tags: int = 0


class Usage(Record):
    """What a repository holds, and its limits (0: none)."""

    bytes: int
    tags: int
    removed_manifests: int
    bytes_limit: int = 0
    tags_limit: int = 0


class Quotas:
    """The quotas of a configuration: the first whose pattern matches holds."""

    def __init__(self, quotas: Sequence[Quota] = ()) -> None:
        self._quotas = [(compile_pattern(quota.repositories), quota) for quota in quotas]

    def of(self, repository: str) -> Quota | None:
        """The repository's quota."""
        for pattern, quota in self._quotas:
            if pattern.fullmatch(repository):
                return quota
        return None


def check_bytes(quota: Quota, *, held: int, more: int) -> None:
    """Nothing, if a repository that holds `held` bytes may take `more`. Raises OverQuota."""
    if quota.bytes and held + more > quota.bytes:
        raise OverQuota("bytes", quota=quota.bytes, held=held, added=more)


def check_tags(quota: Quota, *, held: int, more: int) -> None:
    """As `check_bytes`, for tags."""
    if quota.tags and more and held + more > quota.tags:
        raise OverQuota("tags", quota=quota.tags, held=held, added=more)
