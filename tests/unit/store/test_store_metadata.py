# SPDX-License-Identifier: Apache-2.0
"""Names, layers, cache records, stat caches."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import DiffID, Digest
from lamina.spec.document import MAX_DOCUMENT
from lamina.start.record import replace
from lamina.store import LocalStore
from lamina.store.layoutindex import FULL_NAME, REF_NAME, read_index
from lamina.store.ports import CacheRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.unit.store.conftest import Notices

APP = "docker.io/library/app:latest"
OTHER = "registry.example.com/team/other:1.0"
KEY = Digest.of(b"key")
DIFF = DiffID(Digest.of(b"diff"))


def a_manifest(store: LocalStore, text: bytes = b"{}") -> Descriptor:
    return Descriptor(mediatype.OCI_MANIFEST, store.content.add(text), len(text))


def a_record(*, key: Digest = KEY, name: str = "RUN make", created: float = 5.0) -> CacheRecord:
    return CacheRecord(key, (DIFF,), '{"op":"Exec"}', name, created)


def index_of(store: LocalStore) -> list[dict[str, object]]:
    document = json.loads(Path(store.root, "index.json").read_text())
    entries: list[dict[str, object]] = document["manifests"]
    return entries


def edit(store: LocalStore, statement: str) -> None:
    """Change the database behind the store's back."""
    store.close()
    connection = sqlite3.connect(store.database.path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_names_point_to_their_target(store: LocalStore) -> None:
    target = a_manifest(store)
    store.metadata.set_names([APP, OTHER], target)
    assert [(named.name, named.target) for named in store.metadata.list_names()] == [
        (APP, target),
        (OTHER, target),
    ]
    found = store.metadata.get_name(APP)
    assert found is not None
    assert found.target == target
    assert store.metadata.get_name("docker.io/library/none:latest") is None


def test_name_moves_to_a_new_target(store: LocalStore) -> None:
    store.metadata.set_names([APP], a_manifest(store))
    later = a_manifest(store, b'{"a":1}')
    store.metadata.set_names([APP], later)
    assert [named.target for named in store.metadata.list_names()] == [later]


def test_name_for_a_blob_that_is_not_there_is_refused(store: LocalStore) -> None:
    absent = Descriptor(mediatype.OCI_MANIFEST, Digest.of(b"absent"), 6)
    with pytest.raises(LaminaError) as caught:
        store.metadata.set_names([APP], absent)
    assert caught.value.kind is Kind.NOT_FOUND
    assert store.metadata.list_names() == []


def test_index_json_follows_the_names(store: LocalStore) -> None:
    target = a_manifest(store)
    store.metadata.set_names([OTHER, APP], target)
    assert [entry["annotations"] for entry in index_of(store)] == [
        {REF_NAME: "app:latest", FULL_NAME: APP},
        {REF_NAME: OTHER, FULL_NAME: OTHER},
    ]
    store.metadata.delete_names([OTHER, "docker.io/library/none:latest"])
    assert [entry["digest"] for entry in index_of(store)] == [str(target.digest)]


def test_setting_names_to_what_they_are_writes_nothing(store: LocalStore) -> None:
    target = a_manifest(store)
    store.metadata.set_names([APP], target)
    index = os.path.join(store.root, "index.json")
    before = os.stat(index).st_ino, store.metadata.list_names()
    store.metadata.set_names([APP], target)
    assert (os.stat(index).st_ino, store.metadata.list_names()) == before


def test_index_that_did_not_follow_is_written_at_the_next_chance(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(root: str, temporary: str) -> None:
        raise KeyboardInterrupt

    target = a_manifest(store)
    with monkeypatch.context() as patched:
        patched.setattr("lamina.store.layoutindex.publish_index", killed)
        with pytest.raises(KeyboardInterrupt):
            store.metadata.set_names([APP], target)
    assert index_of(store) == []
    store.metadata.set_names([APP], target)
    assert len(index_of(store)) == 1


def test_full_disk_at_the_index_changes_no_name(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(root: str, content: bytes) -> str:
        raise OSError(28, "No space left on device")

    target = a_manifest(store)
    monkeypatch.setattr("lamina.store.layoutindex.stage_index", full)
    with pytest.raises(LaminaError) as caught:
        store.metadata.set_names([APP], target)
    assert caught.value.kind is Kind.EXHAUSTED
    assert store.metadata.list_names() == []


def test_damaged_name_is_reported_and_the_others_are_still_listed(
    store: LocalStore, notices: Notices
) -> None:
    store.metadata.set_names([APP, OTHER], a_manifest(store))
    edit(store, f"UPDATE names SET target = '{{' WHERE name = '{APP}'")
    assert [named.name for named in store.metadata.list_names()] == [OTHER]
    assert any(APP in message for message in notices.messages)
    store.metadata.delete_names([APP])
    assert [entry["annotations"] for entry in index_of(store)] == [
        {REF_NAME: OTHER, FULL_NAME: OTHER}
    ]


def test_layer_remembers_all_its_blobs(store: LocalStore) -> None:
    plain = Descriptor(mediatype.OCI_LAYER, Digest.of(b"tar"), 3)
    packed = Descriptor(mediatype.OCI_LAYER_GZIP, Digest.of(b"gz"), 2)
    assert store.metadata.get_layer(DIFF) is None
    store.metadata.put_layer(DIFF, 3, plain)
    store.metadata.put_layer(DIFF, 0, packed)
    store.metadata.put_layer(DIFF, 0, packed)
    found = store.metadata.get_layer(DIFF)
    assert found is not None
    assert (found.size, set(found.blobs)) == (3, {plain, packed})


def test_layer_without_a_blob_is_known(store: LocalStore) -> None:
    store.metadata.put_layer(DIFF, 7)
    found = store.metadata.get_layer(DIFF)
    assert found is not None
    assert (found.size, found.blobs) == (7, ())


def test_first_key_with_a_record_wins(store: LocalStore) -> None:
    other = a_record(key=Digest.of(b"other"), name="other")
    store.metadata.put_cache([other, a_record()])
    absent = Digest.of(b"absent")
    assert store.metadata.get_cache([absent]) is None
    assert store.metadata.get_cache([]) is None
    assert store.metadata.get_cache([absent, KEY, other.key]) == a_record()


def test_many_keys_are_looked_up_at_once(store: LocalStore) -> None:
    store.metadata.put_cache([a_record()])
    keys = [Digest.of(b"%d" % number) for number in range(1200)]
    assert store.metadata.get_cache([*keys, KEY]) == a_record()


def test_newer_record_replaces_an_older_of_the_same_key(store: LocalStore) -> None:
    store.metadata.put_cache([a_record(name="old", created=5.0)])
    store.metadata.put_cache([a_record(name="new", created=6.0)])
    store.metadata.put_cache([a_record(name="late", created=4.0)])
    assert store.metadata.get_cache([KEY]) == a_record(name="new", created=6.0)


@pytest.mark.parametrize(
    "damage",
    [
        "result = '[\"sha256:' || hex(zeroblob(32)) || '\"]'",
        "result = '['",
        "result = x'ff'",
        "tree = tree || ' '",
        "name = x'c328'",
        "checksum = ''",
        "created = 'yesterday'",
    ],
)
def test_damaged_cache_record_is_a_reported_miss(
    store: LocalStore, notices: Notices, damage: str
) -> None:
    store.metadata.put_cache([a_record()])
    edit(store, f"UPDATE cache SET {damage}")
    assert store.metadata.get_cache([KEY]) is None
    assert len(notices.messages) == 1
    assert store.metadata.get_cache([KEY]) is None
    assert len(notices.messages) == 1
    store.metadata.put_cache([a_record()])
    assert store.metadata.get_cache([KEY]) == a_record()


def test_damaged_record_does_not_hide_the_next_key(store: LocalStore) -> None:
    sound = replace(a_record(), key=Digest.of(b"sound"))
    store.metadata.put_cache([a_record(), sound])
    edit(store, f"UPDATE cache SET result = '' WHERE key = '{KEY}'")
    assert store.metadata.get_cache([KEY, sound.key]) == sound


def test_stat_cache_is_kept_by_context(store: LocalStore) -> None:
    store.metadata.put_stat("/a", b"\x00one")
    store.metadata.put_stat("/a", b"\x00two")
    assert store.metadata.get_stat("/a") == b"\x00two"
    assert store.metadata.get_stat("/b") is None


def test_context_path_need_not_be_utf8(store: LocalStore) -> None:
    context = os.fsdecode(b"/caf\xe9")
    store.metadata.put_stat(context, b"x")
    assert store.metadata.get_stat(context) == b"x"


def test_another_process_sees_what_was_set(
    store: LocalStore, open_again: Callable[[], LocalStore]
) -> None:
    store.metadata.set_names([APP], a_manifest(store))
    assert [named.name for named in open_again().metadata.list_names()] == [APP]


def test_index_of_more_names_than_an_image_has_entries_is_read_again(store: LocalStore) -> None:
    target = a_manifest(store)
    names = [f"docker.io/library/app:{'x' * 100}{number:05}" for number in range(11_000)]
    store.metadata.set_names(names, target)
    assert len(Path(store.root, "index.json").read_bytes()) > MAX_DOCUMENT
    assert [name for name, _ in read_index(store.root)] == names


def test_names_are_bounded_by_what_is_read_again(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = a_manifest(store)
    store.metadata.set_names([APP], target)
    monkeypatch.setattr("lamina.store.layoutindex.MAX_INDEX", 400)
    with pytest.raises(LaminaError) as caught:
        store.metadata.set_names([OTHER], target)
    assert caught.value.kind is Kind.EXHAUSTED
    assert "400" in str(caught.value)
    assert [named.name for named in store.metadata.list_names()] == [APP]
    store.metadata.delete_names([APP])  # making it smaller always works


def test_name_that_moved_is_not_deleted_for_what_it_was(store: LocalStore) -> None:
    first, second = a_manifest(store), a_manifest(store, b"[]")
    store.metadata.set_names([APP, OTHER], first)
    seen = store.metadata.list_names()
    store.metadata.set_names([APP], second)
    assert store.metadata.delete_names([*seen, "none"]) == [OTHER, "none"]
    assert [(named.name, named.target) for named in store.metadata.list_names()] == [(APP, second)]
    assert [entry["digest"] for entry in index_of(store)] == [str(second.digest)]
