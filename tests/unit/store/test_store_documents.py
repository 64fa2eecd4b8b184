# SPDX-License-Identifier: Apache-2.0
"""Documents of rooms above the store."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lamina.errors import Kind, LaminaError
from lamina.store import LocalStore
from lamina.store.ports import Document


def a_document(id: str, name: str, *, kind: str = "container", created: float = 1.0) -> Document:
    return Document(kind, id, name, "{}", created)


def test_document_is_found_by_id_and_listed_oldest_first(store: LocalStore) -> None:
    late, early = a_document("b", "late", created=2.0), a_document("a", "early")
    for document in (late, early, a_document("c", "x", kind="address")):
        store.documents.insert(document)
    assert store.documents.get("container", "b") == late
    assert store.documents.get("container", "c") is None
    assert store.documents.list("container") == [early, late]


@pytest.mark.parametrize("taken", [a_document("a", "other"), a_document("other", "web")])
def test_id_or_name_that_exists_is_a_conflict_that_says_which(
    store: LocalStore, taken: Document
) -> None:
    store.documents.insert(a_document("a", "web"))
    with pytest.raises(LaminaError) as caught:
        store.documents.insert(taken)
    assert caught.value.kind is Kind.CONFLICT
    assert ("'a'" in str(caught.value)) == (taken.id == "a")
    assert ("'web'" in str(caught.value)) == (taken.name == "web")


def test_same_id_and_name_of_another_kind_is_no_conflict(store: LocalStore) -> None:
    store.documents.insert(a_document("a", "web"))
    store.documents.insert(a_document("a", "web", kind="address"))


def test_body_is_replaced(store: LocalStore) -> None:
    store.documents.insert(a_document("a", "web"))
    store.documents.update("container", "a", '{"state":"running"}')
    found = store.documents.get("container", "a")
    assert found is not None
    assert found.body == '{"state":"running"}'


def test_name_is_replaced_unless_taken(store: LocalStore) -> None:
    store.documents.insert(a_document("a", "web"))
    store.documents.insert(a_document("b", "db"))
    store.documents.rename("container", "a", "web")
    store.documents.rename("container", "a", "front")
    assert [found.id for found in store.documents.find("container", "front")] == ["a"]
    with pytest.raises(LaminaError) as caught:
        store.documents.rename("container", "a", "db")
    assert caught.value.kind is Kind.CONFLICT


def test_changing_what_is_not_there_is_not_found(store: LocalStore) -> None:
    changes: tuple[Callable[[], None], ...] = (
        lambda: store.documents.update("container", "a", "{}"),
        lambda: store.documents.rename("container", "a", "web"),
    )
    for change in changes:
        with pytest.raises(LaminaError) as caught:
            change()
        assert caught.value.kind is Kind.NOT_FOUND


def test_find_prefers_name_then_id_then_prefix(store: LocalStore) -> None:
    for document in (
        a_document("abc1", "first"),
        a_document("abc2", "abc1"),
        a_document("abc", "third"),
        a_document("x%y", "fourth"),
    ):
        store.documents.insert(document)

    def ids(text: str) -> list[str]:
        return [found.id for found in store.documents.find("container", text)]

    assert ids("abc1") == ["abc2"]
    assert ids("abc") == ["abc"]
    assert ids("ab") == ["abc", "abc1", "abc2"]
    assert ids("x%") == ["x%y"]
    assert ids("_") == []


def test_deleted_document_is_gone_and_deleting_again_is_no_error(store: LocalStore) -> None:
    store.documents.insert(a_document("a", "web"))
    store.documents.delete("container", "a")
    store.documents.delete("container", "a")
    assert store.documents.list("container") == []
    store.documents.insert(a_document("a", "web"))
