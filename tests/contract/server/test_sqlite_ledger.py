# SPDX-License-Identifier: Apache-2.0
"""History, undelete, quotas, retention and cached tags on the tables of the directory driver."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.server.database import VERSION, Database
from lamina.server.filesystem import FilesystemStorage
from lamina.server.ports import NewManifest
from lamina.server.quotas import Quota, Quotas
from lamina.server.retention import RetentionRule, Rules
from lamina.server.wire import Refusal
from lamina.spec import mediatype
from lamina.spec.digest import Digest
from lamina.testing.registry_suite import GRACE, Clock, manifest, push

WINDOW = 10 * GRACE


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(tmp_path: Path, clock: Clock) -> Iterator[FilesystemStorage]:
    storage = FilesystemStorage(
        str(tmp_path / "root"),
        clock=clock,
        grace=GRACE,
        window=WINDOW,
        quotas=Quotas([Quota("small/**", bytes=100, tags=2)]),
    )
    clock.now += GRACE + 1
    yield storage
    storage.close()


def image(
    storage: FilesystemStorage, repository: str, name: str, *tags: str, user: str = ""
) -> NewManifest:
    """An image of one blob of its own, pushed."""
    blob = push(storage, repository, f"blob {name}".encode())
    made = manifest(blob, raw=f'{{"name": "{name}"}}'.encode())
    storage.manifests.put(repository, made, tags=tags, user=user)
    return made


def index_of(storage: FilesystemStorage, *children: NewManifest, tag: str) -> NewManifest:
    raw = "".join(str(child.digest) for child in children).encode()
    made = NewManifest(
        Digest.of(raw), mediatype.OCI_INDEX, raw, manifests=tuple(c.digest for c in children)
    )
    storage.manifests.put("r", made, tags=(tag,))
    return made


def collect(storage: FilesystemStorage, clock: Clock, *, after: float) -> None:
    clock.now += after
    storage.upkeep.collect()


def test_moves_of_a_tag_say_when_who_and_why(storage: FilesystemStorage, clock: Clock) -> None:
    first = image(storage, "r", "1", "t", user="alice")
    clock.now += 1
    second = image(storage, "r", "2", "t", "other", user="bob")
    storage.manifests.put("r", second, tags=("t",), user="bob")  # not a move
    clock.now += 1
    storage.manifests.untag("r", "t", user="carol")
    found = storage.ledger.moves("r", tag="t", n=10)
    assert [(m.previous, m.digest, m.user, m.why) for m in found] == [
        (str(second.digest), "", "carol", "delete"),
        (str(first.digest), str(second.digest), "bob", "push"),
        ("", str(first.digest), "alice", "push"),
    ]
    assert [m.moved for m in found] == [clock.now, clock.now - 1, clock.now - 2]
    assert len(storage.ledger.moves("r", n=2)) == 2
    assert storage.ledger.moves("r", tag="t", n=10, before=2) == found[2:]


def test_removed_manifest_is_unknown_but_whole_until_the_window_ends(
    storage: FilesystemStorage, clock: Clock
) -> None:
    made = image(storage, "r", "1", "a", "b")
    storage.manifests.remove("r", made.digest, user="alice")
    assert storage.manifests.find("r", digest=str(made.digest)) is None
    assert storage.manifests.find("r", tag="a") is None
    collect(storage, clock, after=WINDOW - 1)
    assert [(r.digest, r.user) for r in storage.ledger.removed("r")] == [
        (str(made.digest), "alice")
    ]
    restored = storage.ledger.undelete("r", digest=str(made.digest), user="bob")
    assert (restored.manifests, restored.tags) == ((str(made.digest),), ("a", "b"))
    found = storage.manifests.find("r", tag="b")
    assert found is not None
    assert found.raw == made.raw
    assert storage.blobs.find("r", made.blobs[0]) is not None
    assert storage.ledger.removed("r") == []


def test_nothing_is_left_after_the_window(storage: FilesystemStorage, clock: Clock) -> None:
    made = image(storage, "r", "1", "t")
    storage.manifests.remove("r", made.digest)
    collect(storage, clock, after=WINDOW + 1)
    assert storage.blobs.find("r", made.blobs[0]) is None
    with pytest.raises(LaminaError) as error:
        storage.ledger.undelete("r", tag="t")
    assert error.value.kind is Kind.NOT_FOUND
    assert storage.ledger.moves("r", n=10) == []
    usage = storage.ledger.usage("r")
    assert usage is not None
    assert (usage.bytes, usage.tags, usage.removed_manifests) == (0, 0, 0)
    for table in ("graves", "children", "documents", "moves"):
        assert storage.database.reader.execute(f"SELECT * FROM {table}").fetchall() == []


def test_last_move_of_a_living_tag_outlives_the_window(
    storage: FilesystemStorage, clock: Clock
) -> None:
    image(storage, "r", "1", "t", user="alice")
    image(storage, "r", "2", "t", user="bob")
    collect(storage, clock, after=WINDOW + 1)
    assert [move.user for move in storage.ledger.moves("r", n=10)] == ["bob"]


def test_undelete_of_a_tag_needs_a_digest_when_it_exists(storage: FilesystemStorage) -> None:
    first = image(storage, "r", "1", "t")
    image(storage, "r", "2", "t")
    with pytest.raises(LaminaError, match="exists"):
        storage.ledger.undelete("r", tag="t")
    with pytest.raises(LaminaError, match="never"):
        storage.ledger.undelete("r", tag="t", digest=str(Digest.of(b"foreign")))
    storage.ledger.undelete("r", tag="t", digest=str(first.digest))
    found = storage.manifests.find("r", tag="t")
    assert found is not None
    assert found.digest == str(first.digest)


def test_undelete_brings_an_index_back_with_its_children_and_signatures(
    storage: FilesystemStorage, clock: Clock
) -> None:
    children = [image(storage, "r", name) for name in ("amd64", "arm64")]
    index = index_of(storage, *children, tag="t")
    signature = manifest(raw=b"signature", subject=str(index.digest))
    storage.manifests.put("r", signature)
    rule = Rules([RetentionRule("**", keep_newest=0)])
    assert len(storage.ledger.retain(rule, dry_run=False)) == 1
    everything = {str(each.digest) for each in (index, *children, signature)}
    assert {removed.digest for removed in storage.ledger.removed("r")} == everything
    collect(storage, clock, after=WINDOW - 1)
    restored = storage.ledger.undelete("r", tag="t")
    assert set(restored.manifests) == everything
    assert restored.digest == str(index.digest)


def test_undelete_of_what_lost_a_blob_is_refused_and_changes_nothing(
    storage: FilesystemStorage,
) -> None:
    made = image(storage, "r", "1", "t")
    storage.blobs.remove("r", made.blobs[0])
    storage.manifests.remove("r", made.digest)
    with pytest.raises(LaminaError, match=str(made.blobs[0])):
        storage.ledger.undelete("r", tag="t")
    assert storage.manifests.find("r", tag="t") is None
    assert len(storage.ledger.removed("r")) == 1


def test_pushed_again_is_not_removed_any_more(storage: FilesystemStorage, clock: Clock) -> None:
    made = image(storage, "r", "1", "t")
    storage.manifests.remove("r", made.digest)
    storage.manifests.put("r", made, tags=("t",))
    assert storage.ledger.removed("r") == []
    collect(storage, clock, after=WINDOW + 1)
    assert storage.manifests.find("r", tag="t") is not None
    assert storage.blobs.find("r", made.blobs[0]) is not None


def test_removal_is_final_without_a_window(tmp_path: Path, clock: Clock) -> None:
    storage = FilesystemStorage(str(tmp_path / "r"), clock=clock, grace=GRACE)
    made = image(storage, "r", "1", "t")
    storage.manifests.remove("r", made.digest)
    assert storage.ledger.removed("r") == []
    assert storage.ledger.moves("r", n=10) == []
    collect(storage, clock, after=2 * GRACE)
    assert storage.blobs.find("r", made.blobs[0]) is None
    storage.close()


def test_retention_keeps_what_it_promises(storage: FilesystemStorage, clock: Clock) -> None:
    made = {}
    for name in ("1", "2", "3", "4"):
        made[name] = image(storage, "r", name, f"v{name}")
        clock.now += 10
    image(storage, "elsewhere", "5", "v0")
    storage.ledger.pulled("r", str(made["1"].digest))
    rules = Rules(
        [
            RetentionRule("r", tags=("v3",), protect=True),
            RetentionRule("r", keep_newest=1, keep_pulled=100.0),
        ]
    )
    planned = storage.ledger.retain(rules, dry_run=True)
    assert len(planned) == 4
    assert storage.manifests.tags("r", n=9, last="") == ["v1", "v2", "v3", "v4"]
    gone = storage.ledger.retain(rules, dry_run=False)
    assert [(verdict.tag, verdict.rule) for verdict in gone] == [("v2", 2)]
    assert gone[0] in planned
    assert storage.manifests.tags("r", n=9, last="") == ["v1", "v3", "v4"]
    assert storage.manifests.tags("elsewhere", n=9, last="") == ["v0"]
    assert storage.manifests.find("r", digest=str(made["2"].digest)) is None
    assert storage.ledger.retain(rules, dry_run=False) == []


def test_untagged_counts_from_the_loss_of_the_tag_and_from_the_last_pull(
    storage: FilesystemStorage, clock: Clock
) -> None:
    lost, pulled, bare = (
        image(storage, "r", name, *tags)
        for name, tags in (("lost", ("t",)), ("pulled", ()), ("bare", ()))
    )
    rules = Rules([RetentionRule("**", untagged_after=50.0)])
    clock.now += 100
    storage.manifests.untag("r", "t")
    storage.ledger.pulled("r", str(pulled.digest))
    gone = storage.ledger.retain(rules, dry_run=False)
    assert [verdict.digest for verdict in gone] == [str(bare.digest)]
    clock.now += 51
    gone = storage.ledger.retain(rules, dry_run=False)
    assert {verdict.digest for verdict in gone} == {str(lost.digest), str(pulled.digest)}


def test_rule_spares_what_an_index_or_a_tag_needs(storage: FilesystemStorage, clock: Clock) -> None:
    child, other = image(storage, "r", "child"), image(storage, "r", "other", "kept")
    index_of(storage, child, tag="kept-too")
    index_of(storage, child, other, tag="old")
    rules = Rules(
        [RetentionRule("r", tags=("kept*",), protect=True), RetentionRule("r", keep_newest=0)]
    )
    clock.now += 2 * GRACE
    gone = storage.ledger.retain(rules, dry_run=False)
    assert [verdict.tag for verdict in gone] == ["old"]
    for each in (child, other):
        assert storage.manifests.find("r", digest=str(each.digest)) is not None


def test_part_that_a_rule_took_while_its_index_was_on_the_way_comes_back(
    storage: FilesystemStorage, clock: Clock
) -> None:
    child = image(storage, "r", "child")
    index_of(storage, child, tag="old")
    clock.now += 2 * GRACE
    storage.ledger.retain(Rules([RetentionRule("r", keep_newest=0)]), dry_run=False)
    assert storage.manifests.find("r", digest=str(child.digest)) is None
    index_of(storage, child, image(storage, "r", "more"), tag="new")
    assert storage.manifests.find("r", digest=str(child.digest)) is not None


def test_part_that_somebody_removed_does_not_come_back_by_itself(
    storage: FilesystemStorage,
) -> None:
    child = image(storage, "r", "child")
    storage.manifests.remove("r", child.digest)
    with pytest.raises(Refusal) as error:
        index_of(storage, child, tag="t")
    assert error.value.code == "MANIFEST_BLOB_UNKNOWN"


def test_quota_counts_a_blob_once_and_removed_manifests_too(storage: FilesystemStorage) -> None:
    blob = push(storage, "small/a", b"x" * 60)
    push(storage, "small/a", b"x" * 60)
    push(storage, "small/b", b"x" * 60)
    made = manifest(blob, raw=b"m" * 30)
    storage.manifests.put("small/a", made, tags=("1",))
    storage.manifests.remove("small/a", made.digest)
    usage = storage.ledger.usage("small/a")
    assert usage is not None
    assert (usage.bytes, usage.bytes_limit, usage.removed_manifests) == (90, 100, 1)
    with pytest.raises(Refusal) as error:
        push(storage, "small/a", b"y" * 11)
    assert (error.value.code, error.value.status) == ("DENIED", 403)
    assert list((Path(storage.upkeep._places.uploads)).iterdir()) == []
    push(storage, "small/a", b"y" * 10)
    with pytest.raises(Refusal, match="bytes"):
        storage.manifests.put("small/a", manifest(raw=b"another"))
    storage.manifests.put("small/a", made)  # nothing more than there was
    big = push(storage, "large", b"z" * 101)
    with pytest.raises(Refusal, match="bytes"):
        storage.blobs.mount(big, source="large", target="small/c")
    assert storage.blobs.find("small/c", big) is None


def test_quota_of_tags(storage: FilesystemStorage) -> None:
    made = manifest(raw=b"m")
    storage.manifests.put("small/a", made, tags=("1", "2"))
    storage.manifests.put("small/a", made, tags=("2",))
    with pytest.raises(Refusal, match="tags"):
        storage.manifests.put("small/a", made, tags=("2", "3"))
    assert storage.manifests.tags("small/a", n=9, last="") == ["1", "2"]


def test_quota_holds_against_pushes_at_once(storage: FilesystemStorage) -> None:
    refused: list[str] = []

    def work(number: int) -> None:
        try:
            push(storage, "small/a", b"%02d" % number * 15)
        except Refusal as error:
            refused.append(error.code)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    usage = storage.ledger.usage("small/a")
    assert usage is not None
    assert usage.bytes == 90
    assert refused == ["DENIED"] * 9


def test_cached_tag_gives_way_to_a_pushed_one(storage: FilesystemStorage, clock: Clock) -> None:
    theirs, ours = manifest(raw=b"theirs"), manifest(raw=b"ours")
    cached = storage.cached_tags
    cached.put("r", theirs, tag="t")
    clock.now += 5
    known = cached.tag("r", "t")
    assert known is not None
    assert known.checked == clock.now - 5
    cached.confirm("r", "t", str(theirs.digest))
    known = cached.tag("r", "t")
    assert known is not None
    assert known.checked == clock.now
    storage.manifests.put("r", ours, tags=("t",))
    cached.put("r", theirs, tag="t")
    cached.confirm("r", "t", str(theirs.digest))
    cached.forget("r", "t")
    known = cached.tag("r", "t")
    assert known is not None
    assert (known.digest, known.checked) == (str(ours.digest), None)


def test_older_format_is_brought_to_the_current_one(tmp_path: Path) -> None:
    """The file was made by the version that knew format 1 (its schema, two images)."""
    path = tmp_path / "registry.sqlite"
    connection = sqlite3.connect(path)
    script = Path(__file__).with_name("registry_format_1.sql").read_text()
    connection.executescript(script)
    connection.close()
    with pytest.raises(LaminaError) as error:
        Database(str(path), beside=True)
    assert error.value.kind is Kind.UNSUPPORTED
    database = Database(str(path))
    assert database.reader.execute("PRAGMA user_version").fetchone() == (VERSION,)
    rows = database.reader.execute("SELECT name, bytes FROM repositories ORDER BY name")
    assert rows.fetchall() == [("a", 107), ("b", 100)]
    fresh = Database(str(tmp_path / "fresh.sqlite"))
    schema = "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name"
    assert database.reader.execute(schema).fetchall() == fresh.reader.execute(schema).fetchall()
    with database.writing() as writer:
        writer.execute("DELETE FROM links WHERE repository = 1")
    assert database.reader.execute("SELECT bytes FROM repositories").fetchone() == (7,)
    database.close()
    fresh.close()


def test_format_of_the_future_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "registry.sqlite")
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={VERSION + 1}")
    connection.close()
    with pytest.raises(LaminaError) as error:
        Database(path)
    assert error.value.kind is Kind.UNSUPPORTED
