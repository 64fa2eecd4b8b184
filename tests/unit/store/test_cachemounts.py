# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.errors import Cancelled
from lamina.store.cachemounts import (
    CacheDirectory,
    CacheInUse,
    hold_cache,
    is_in_use,
    open_cache,
    put_cache,
    remove_idle,
    walk,
)
from lamina.tasks import CancelToken


def hold(
    root: Path,
    id: str = "id",
    *,
    sharing: str = "shared",
    variant: str = "",
    fill: Callable[[str], None] = lambda _path: None,
    waiting: Callable[[], None] = lambda: None,
    cancel: CancelToken | None = None,
) -> CacheDirectory:
    return open_cache(
        str(root),
        id,
        variant=variant,
        sharing=sharing,
        fill=fill,
        waiting=waiting,
        cancel=cancel or CancelToken(),
    )


@pytest.mark.parametrize("sharing", ["shared", "private", "locked"])
def test_content_lasts(tmp_path: Path, sharing: str) -> None:
    with hold(tmp_path, sharing=sharing) as cache:
        Path(cache.path, "file").write_text("x")
    with hold(tmp_path, sharing=sharing) as cache:
        assert os.listdir(cache.path) == ["file"]


def test_shared_users_have_one_directory(tmp_path: Path) -> None:
    with hold(tmp_path) as one, hold(tmp_path) as two:
        assert one.path == two.path


def test_private_users_at_one_time_have_their_own(tmp_path: Path) -> None:
    with hold(tmp_path, sharing="private") as one, hold(tmp_path, sharing="private") as two:
        assert one.path != two.path
    with hold(tmp_path, sharing="private") as three:
        assert three.path == one.path


def test_shared_user_does_not_join_a_private_one(tmp_path: Path) -> None:
    with hold(tmp_path, sharing="private") as one, hold(tmp_path) as two:
        assert one.path != two.path


def test_locked_user_waits_for_the_one_before(tmp_path: Path) -> None:
    waits = threading.Event()
    order: list[str] = []

    def second() -> None:
        with hold(tmp_path, sharing="locked", waiting=waits.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with hold(tmp_path, sharing="locked"):
        thread.start()
        assert waits.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_waiting_ends_with_the_build(tmp_path: Path) -> None:
    token = CancelToken()
    with hold(tmp_path, sharing="locked"), pytest.raises(Cancelled):
        hold(tmp_path, sharing="locked", waiting=token.cancel, cancel=token)


def test_ids_and_variants_are_kept_apart(tmp_path: Path) -> None:
    paths = set()
    for id, variant in (("a", ""), ("b", ""), ("a", "b"), ("../../x", ""), ("a/b" * 200, "")):
        with hold(tmp_path, id, variant=variant) as cache:
            paths.add(cache.path)
            assert Path(cache.path).is_relative_to(tmp_path / "cachemounts")
    assert len(paths) == 5


def test_new_directory_is_filled_once(tmp_path: Path) -> None:
    calls: list[str] = []

    def fill(path: str) -> None:
        calls.append(path)
        Path(path, "seed").write_text("x")

    for _ in range(2):
        with hold(tmp_path, fill=fill) as cache:
            assert os.listdir(cache.path) == ["seed"]
    assert len(calls) == 1


def test_directory_that_could_not_be_filled_is_not_used(tmp_path: Path) -> None:
    def fail(path: str) -> None:
        Path(path, "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        hold(tmp_path, fill=fail)
    with hold(tmp_path) as cache:
        assert os.listdir(cache.path) == []


def test_garbage_collection_leaves_what_is_in_use(tmp_path: Path) -> None:
    with hold(tmp_path, "idle") as idle:
        Path(idle.path, "big").write_bytes(bytes(1 << 16))
    with hold(tmp_path, "used") as used:
        Path(used.path, "file").write_text("x")
        assert remove_idle(str(tmp_path)) >= 1 << 16
        assert os.listdir(used.path) == ["file"]
        assert not os.path.exists(idle.path)
    remove_idle(str(tmp_path))
    assert os.listdir(tmp_path / "cachemounts") == []
    assert remove_idle(str(tmp_path / "nothing")) == 0


def test_walk_tells_what_there_is(tmp_path: Path) -> None:
    with hold(tmp_path, "ns/apt") as cache:
        assert is_in_use(str(tmp_path), next(walk(str(tmp_path))))
    (found,) = walk(str(tmp_path))
    assert (found.namespace, found.name, found.path) == ("ns", "apt", cache.path)
    assert found.last_used > 0
    assert not is_in_use(str(tmp_path), found)


def put(root: Path, text: str, *, wait: bool = False, cancel: CancelToken | None = None) -> None:
    """Replace the content of cache `/id` with a directory that holds `file` with the text."""
    content = root / f"content-{text}"
    content.mkdir()
    (content / "file").write_text(text)
    put_cache(str(root), "/id", str(content), variant="", wait=wait, cancel=cancel or CancelToken())


def test_a_cache_is_put_where_the_next_step_finds_it(tmp_path: Path) -> None:
    put(tmp_path, "one")
    with hold(tmp_path, "/id", sharing="locked") as cache:
        assert Path(cache.path, "file").read_text() == "one"
    put(tmp_path, "two")
    with hold(tmp_path, "/id") as cache:
        assert Path(cache.path, "file").read_text() == "two"
    assert [each.number for each in walk(str(tmp_path))] == [0]


def test_a_cache_in_use_is_neither_replaced_nor_held(tmp_path: Path) -> None:
    with hold(tmp_path, "/id") as cache:
        (found,) = walk(str(tmp_path))
        with pytest.raises(CacheInUse, match="the cache id"):
            hold_cache(str(tmp_path), found, cancel=CancelToken())
        with pytest.raises(CacheInUse, match="the cache id"):
            put(tmp_path, "new")
        assert os.listdir(cache.path) == []
        with hold(tmp_path, "/id") as shared:  # looking took nothing away
            assert shared.path == cache.path


def test_waiting_ends_with_the_user_or_the_token(tmp_path: Path) -> None:
    cancel = CancelToken()
    with hold(tmp_path, "/id"):
        threading.Timer(0.05, cancel.cancel).start()
        with pytest.raises(Cancelled):
            put(tmp_path, "never", wait=True, cancel=cancel)
        waiting = threading.Thread(target=lambda: put(tmp_path, "late", wait=True))
        waiting.start()
    waiting.join(60)
    with hold(tmp_path, "/id") as cache:
        assert Path(cache.path, "file").read_text() == "late"


def test_a_damaged_note_of_the_user_is_none(tmp_path: Path) -> None:
    with hold(tmp_path, "/id") as cache:
        Path(cache.path, "../used.json").write_text("[1")
    (found,) = walk(str(tmp_path))
    assert found.build == ""
