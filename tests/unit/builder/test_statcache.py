# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamina.builder.statcache import RACY_NS, StatCache, stamps

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = bytes(range(32))


def written(path: Path, *, age_ns: int = 0) -> tuple[os.stat_result, int]:
    """A file's status, and a clock that says the file is `age_ns` old."""
    path.write_bytes(b"x")
    status = path.stat()
    return status, max(status.st_mtime_ns, status.st_ctime_ns) + age_ns


def test_unchanged_old_file_is_remembered(tmp_path: Path) -> None:
    status, now = written(tmp_path / "f", age_ns=RACY_NS + 1)
    cache = StatCache(lambda: None, now_ns=now)
    cache.put(b"f", status, DIGEST)
    blob = cache.blob()
    again = StatCache(lambda: blob, now_ns=now)
    assert again.get(b"f", status) == DIGEST
    assert again.blob() is None


def test_file_changed_a_moment_ago_is_not_remembered(tmp_path: Path) -> None:
    status, now = written(tmp_path / "f", age_ns=RACY_NS)
    cache = StatCache(lambda: None, now_ns=now)
    cache.put(b"f", status, DIGEST)
    assert cache.blob() is None


def test_each_part_of_the_status_counts(tmp_path: Path) -> None:
    path = tmp_path / "f"
    status, now = written(path, age_ns=RACY_NS + 1)
    cache = StatCache(lambda: None, now_ns=now)
    cache.put(b"f", status, DIGEST)
    fields = list(status)
    for index in (0, 1, 2, 6):  # mode, inode, device, size
        other = list(fields)
        other[index] += 1
        extra = {"st_mtime_ns": status.st_mtime_ns, "st_ctime_ns": status.st_ctime_ns}
        assert cache.get(b"f", os.stat_result(other, extra)) is None
    for name in ("st_mtime_ns", "st_ctime_ns"):
        extra = {"st_mtime_ns": status.st_mtime_ns, "st_ctime_ns": status.st_ctime_ns}
        extra[name] += 1
        assert cache.get(b"f", os.stat_result(fields, extra)) is None


def test_damaged_blob_is_an_empty_cache(tmp_path: Path) -> None:
    status, now = written(tmp_path / "f", age_ns=RACY_NS + 1)
    cache = StatCache(lambda: None, now_ns=now)
    cache.put(b"f", status, DIGEST)
    blob = cache.blob()
    assert blob is not None
    for position in range(len(blob)):
        broken = bytearray(blob)
        broken[position] ^= 1
        reread = StatCache(lambda broken=broken: bytes(broken), now_ns=now)  # type: ignore[misc]
        assert reread.get(b"f", status) is None
    assert StatCache(lambda: blob[:-1], now_ns=now).get(b"f", status) is None
    assert StatCache(lambda: b"", now_ns=now).get(b"f", status) is None


def test_directories_of_other_selections_stay_until_they_are_too_many(tmp_path: Path) -> None:
    status, now = written(tmp_path / "f", age_ns=RACY_NS + 1)
    first = StatCache(lambda: None, now_ns=now)
    for number in range(1500):
        first.put(b"old%d/f" % number, status, DIGEST)
    blob = first.blob()
    second = StatCache(lambda: blob, now_ns=now)
    assert second.get(b"old1/f", status) == DIGEST
    second.put(b"new/f", status, DIGEST)
    pruned = second.blob()
    third = StatCache(lambda: pruned, now_ns=now)
    assert third.get(b"new/f", status) == DIGEST
    assert third.get(b"old1/f", status) == DIGEST
    assert third.get(b"old2/f", status) is None


def test_one_file_more_keeps_the_others_of_its_directory_but_not_the_sum(tmp_path: Path) -> None:
    status, now = written(tmp_path / "f", age_ns=RACY_NS + 1)
    cache = StatCache(lambda: None, now_ns=now)
    cache.put_directory(b"d", b"a\0b", [(status, DIGEST), (status, b"")], DIGEST)
    blob = cache.blob()
    again = StatCache(lambda: blob, now_ns=now)
    listed = again.directory(b"d")
    assert listed is not None
    assert (listed.names, listed.sum) == (b"a\0b", DIGEST)
    assert again.get(b"d/b", status) is None
    again.put(b"d/c", status, DIGEST)
    more = again.blob()
    third = StatCache(lambda: more, now_ns=now)
    assert third.get(b"d/a", status) == third.get(b"d/c", status) == DIGEST
    found = third.directory(b"d")
    assert found is not None
    assert not found.sum


def test_sum_of_a_directory_with_a_file_changed_a_moment_ago_is_not_remembered(
    tmp_path: Path,
) -> None:
    status, now = written(tmp_path / "f", age_ns=RACY_NS)
    old = os.stat_result(list(status), {"st_mtime_ns": 1, "st_ctime_ns": 1})
    cache = StatCache(lambda: None, now_ns=now)
    cache.put_directory(b"", b"new\0old", [(status, DIGEST), (old, DIGEST)], DIGEST)
    blob = cache.blob()
    again = StatCache(lambda: blob, now_ns=now)
    listed = again.directory(b"")
    assert listed is not None
    assert not listed.sum
    assert listed.stamps != stamps([status, old])
    assert again.get(b"new", status) is None
    assert again.get(b"old", old) == DIGEST


def test_sums_are_of_one_variant(tmp_path: Path) -> None:
    status, now = written(tmp_path / "f", age_ns=RACY_NS + 1)
    cache = StatCache(lambda: None, now_ns=now, variant=b"g")
    cache.put_directory(b"", b"f", [(status, DIGEST)], DIGEST)
    blob = cache.blob()
    other = StatCache(lambda: blob, now_ns=now)
    listed = other.directory(b"")
    assert listed is not None
    assert not listed.sum
    assert other.get(b"f", status) == DIGEST
