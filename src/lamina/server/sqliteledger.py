# SPDX-License-Identifier: Apache-2.0
"""The `Ledger` port on the tables of the filesystem driver.

Needs the tables only, no file: so it also works in a second process beside the one that serves the
registry, which is what the commands `registry history`, `undelete`, `usage` and `retention` do.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.server.database import Database, repository_id
from lamina.server.history import (
    UNNEEDED,
    Act,
    drop_tag,
    remove_unneeded,
    revive,
    set_tag,
    tagged,
)
from lamina.server.ledger import Move, Removed, Restored
from lamina.server.manifeststore import held, within_quota
from lamina.server.quotas import Quotas, Usage, check_bytes
from lamina.server.retention import TagFact, UntaggedFact, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from lamina.server.retention import Rules
    from lamina.spec.digest import Digest

_BATCH = 100  # verdicts a transaction, as the collector's rows


class SqliteLedger:
    """The ledger of a database; removed manifests are kept for `window` seconds (0: not at all)."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float],
        window: float,
        grace: float,
        quotas: Quotas,
    ) -> None:
        self._database = database
        self._clock = clock
        self._window = window
        self._grace = grace
        self._quotas = quotas
        self._pulled: dict[tuple[str, str], float] = {}

    def pulled(self, repository: str, digest: str) -> None:
        self._pulled[repository, digest] = self._clock()

    def flush(self) -> None:
        pulled, self._pulled = self._pulled, {}
        waiting = list(pulled.items())
        for start in range(0, len(waiting), _BATCH):
            with self._database.writing() as connection:
                connection.executemany(
                    "INSERT INTO pulls (repository, digest, pulled)"
                    " SELECT m.repository, m.digest, ? FROM repositories r"
                    " JOIN manifests m ON m.repository = r.id AND m.digest = ? WHERE r.name = ?"
                    " ON CONFLICT DO UPDATE SET pulled = max(pulled, excluded.pulled)",
                    [
                        (when, digest, repository)
                        for (repository, digest), when in waiting[start : start + _BATCH]
                    ],
                )

    def moves(self, repository: str, *, tag: str = "", n: int, before: int = 0) -> Sequence[Move]:
        reader = self._database.reader
        rows = reader.execute(
            "SELECT tag, digest, previous, moved, user, why FROM moves WHERE repository = ?"
            " AND (? = '' OR tag = ?) ORDER BY id DESC LIMIT ? OFFSET ?",
            (repository_id(reader, repository), tag, tag, n, before),
        )
        return [Move(*row) for row in rows]

    def removed(self, repository: str) -> Sequence[Removed]:
        reader = self._database.reader
        rows = reader.execute(
            "SELECT digest, media_type, size, removed, removed + ?, user, why FROM graves"
            " WHERE repository = ? ORDER BY removed DESC, digest",
            (self._window, repository_id(reader, repository)),
        )
        return [Removed(*row) for row in rows]

    def undelete(
        self, repository: str, *, tag: str = "", digest: str = "", user: str = ""
    ) -> Restored:
        act = Act(self._clock(), user, "undelete", self._window > 0)
        with self._database.writing() as connection:
            number = repository_id(connection, repository)
            if not number:
                raise LaminaError(f"{repository} is not here", kind=Kind.NOT_FOUND)
            if tag:
                digest = _place_of(connection, number, tag, digest)
                names = [tag]
            else:
                names = _names_of(connection, number, digest)
            with within_quota(connection, number, repository, self._quotas):
                revived = revive(connection, number, digest, at=act.at)
                for name in names:
                    set_tag(connection, number, name, digest, act=act)
        return Restored(digest, tuple(revived), tuple(names))

    def retain(
        self, rules: Rules, *, dry_run: bool, stop: Callable[[], bool] = lambda: False
    ) -> Sequence[Verdict]:
        if not dry_run:
            self.flush()
        found: list[Verdict] = []
        names = self._database.reader.execute("SELECT id, name FROM repositories ORDER BY name")
        for number, name in names.fetchall():
            if stop():
                break
            if not rules.concern(name):
                continue
            tags, untagged = self._facts(number, name)
            now = self._clock()
            verdicts = rules.judge(name, tags, untagged, now=now)
            if dry_run:
                found += verdicts
                continue
            set_at = {fact.tag: fact.pushed for fact in tags}
            set_at |= {fact.digest: fact.since for fact in untagged}
            going = [verdict for verdict in verdicts if not verdict.keep]
            for start in range(0, len(going), _BATCH):
                found += self._remove(number, going[start : start + _BATCH], set_at)
        return found

    def usage(self, repository: str) -> Usage | None:
        reader = self._database.reader
        number = repository_id(reader, repository)
        if not number:
            return None
        size, tags = held(reader, number)
        (removed,) = reader.execute(
            "SELECT count(*) FROM graves WHERE repository = ?", (number,)
        ).fetchone()
        quota = self._quotas.of(repository)
        if quota is None:
            return Usage(size, tags, removed)
        return Usage(size, tags, removed, quota.bytes, quota.tags)

    def check_room(self, repository: str, size: int, *, digest: Digest | None = None) -> None:
        quota = self._quotas.of(repository)
        if quota is None:
            return
        reader = self._database.reader
        number = repository_id(reader, repository)
        if digest is not None:
            linked = reader.execute(
                "SELECT 1 FROM links WHERE repository = ? AND digest = ?", (number, str(digest))
            ).fetchone()
            if linked is not None:
                return
        check_bytes(quota, held=held(reader, number)[0], more=size)

    def _facts(self, number: int, name: str) -> tuple[list[TagFact], list[UntaggedFact]]:
        """What the rules look at. Pulls that were not flushed yet count too."""
        reader = self._database.reader
        rows = reader.execute(
            "SELECT t.tag, t.digest, t.updated, coalesce(p.pulled, 0) FROM tags t LEFT JOIN pulls p"
            " ON p.repository = t.repository AND p.digest = t.digest WHERE t.repository = ?",
            (number,),
        )
        tags = [
            TagFact(tag, digest, pushed, max(pulled, self._pulled.get((name, digest), 0.0)))
            for tag, digest, pushed, pulled in rows
        ]
        rows = reader.execute(
            "SELECT m.digest, max(m.pushed, coalesce((SELECT max(v.moved) FROM moves v"  # noqa: S608  # constant
            " WHERE v.repository = m.repository AND v.previous = m.digest), 0)),"
            " coalesce(p.pulled, 0) FROM manifests m LEFT JOIN pulls p"
            " ON p.repository = m.repository AND p.digest = m.digest"
            f" WHERE m.repository = ? AND {UNNEEDED}",
            (number,),
        )
        untagged = [
            UntaggedFact(digest, since, max(pulled, self._pulled.get((name, digest), 0.0)))
            for digest, since, pulled in rows
        ]
        return tags, untagged

    def _remove(
        self, number: int, going: Sequence[Verdict], set_at: dict[str, float]
    ) -> list[Verdict]:
        """Do what the verdicts say, in one transaction; those that still held."""
        act = Act(self._clock(), "", "retention", self._window > 0)
        done = []
        with self._database.writing() as connection:
            for verdict in going:
                if _is_as_judged(connection, number, verdict, set_at):
                    if verdict.tag:
                        drop_tag(connection, number, verdict.tag, act=act)
                    remove_unneeded(
                        connection, number, verdict.digest, act=act, settled=act.at - self._grace
                    )
                    done.append(verdict)
        return done


def _is_as_judged(
    connection: sqlite3.Connection, number: int, verdict: Verdict, set_at: dict[str, float]
) -> bool:
    """Whether the tag was not set anew, the untagged manifest not pushed again or tagged."""
    tag, digest = verdict.tag, verdict.digest
    if tag:
        row = connection.execute(
            "SELECT 1 FROM tags WHERE repository = ? AND folded = ? AND tag = ? AND digest = ?"
            " AND updated = ?",
            (number, tag.lower(), tag, digest, set_at[tag]),
        ).fetchone()
    else:
        row = connection.execute(
            f"SELECT 1 FROM manifests m WHERE m.repository = ? AND m.digest = ? AND {UNNEEDED}"  # noqa: S608  # constant
            " AND m.pushed <= ?",
            (number, digest, set_at[digest]),
        ).fetchone()
    return row is not None


def _place_of(connection: sqlite3.Connection, number: int, tag: str, digest: str) -> str:
    """Where an undelete sets the tag."""
    if digest:
        known = connection.execute(
            "SELECT 1 FROM moves WHERE repository = ? AND tag = ? AND (digest = ? OR previous = ?)",
            (number, tag, digest, digest),
        ).fetchone()
        if known is None:
            raise LaminaError(
                f"the tag {tag} was never {digest} within the time that is kept",
                kind=Kind.NOT_FOUND,
            )
        return digest
    if tagged(connection, number, tag):
        raise LaminaError(
            f"the tag {tag} exists",
            kind=Kind.INVALID,
            hint="say to which digest of its history it is to be moved back",
        )
    row = connection.execute(
        "SELECT previous FROM moves WHERE repository = ? AND tag = ? AND digest = ''"
        " ORDER BY id DESC LIMIT 1",
        (number, tag),
    ).fetchone()
    if row is None:
        raise LaminaError(
            f"the tag {tag} was not removed within the time that is kept", kind=Kind.NOT_FOUND
        )
    return str(row[0])


def _names_of(connection: sqlite3.Connection, number: int, digest: str) -> list[str]:
    """The tags that went with the removed manifest and are free now."""
    rows = connection.execute(
        "SELECT DISTINCT v.tag FROM graves g JOIN moves v ON v.repository = g.repository"
        " AND v.previous = g.digest AND v.digest = '' AND v.moved = g.removed"
        " WHERE g.repository = ? AND g.digest = ? ORDER BY v.tag",
        (number, digest),
    ).fetchall()
    return [tag for (tag,) in rows if not tagged(connection, number, tag)]
