# SPDX-License-Identifier: Apache-2.0
"""Whatever is done to a context: what the stat cache remembers gives the digest of reading it all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lamina.builder.selection import select, select_path
from lamina.builder.statcache import RACY_NS, StatCache
from lamina.builder.tree import Tree
from lamina.dockerfile.ignore import IgnoreMatcher

Round = tuple[list[tuple[str, str]], "tuple[str, ...] | None", tuple[str, ...], bool, bool]
PLACES = ("a", "b", "d/a", "d/b", "d/e/a", "f/\udcffx", "f/é")
STEPS = st.tuples(
    st.sampled_from(("write", "link", "remove", "mode", "touch", "swap")), st.sampled_from(PLACES)
)
IGNORES = (None, ("**/b",), ("d", "!d/e"))
ROUNDS = st.tuples(
    st.lists(STEPS, max_size=4),
    st.sampled_from(IGNORES),
    st.sampled_from(((".",), ("d*", "a"), ("d", "f"))),
    st.booleans(),  # git's modes
    st.booleans(),  # --exclude
)


def edit(root: Path, step: tuple[str, str], number: int) -> None:
    what, place = step
    path = root / place
    is_there = os.path.lexists(path)
    if what == "write":
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number % 3}")
    elif what == "link" and place != "a":  # the patterns name it: it must lead somewhere
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(f"{number % 3}")
    elif is_there and what == "remove":
        path.unlink()
        if path.parent != root and not list(path.parent.iterdir()):
            path.parent.rmdir()
    elif is_there and what == "mode" and not path.is_symlink():
        path.chmod(0o600 + number % 3)
    elif is_there and what == "touch":
        os.utime(path, (number, number), follow_symlinks=False)
    elif is_there and what == "swap" and (root / "a").is_file() and not path.is_symlink():
        before = path.stat()
        path.write_bytes(path.read_bytes()[::-1] + b"x")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def wait_for_a_later_time(than: int) -> None:
    """Return when a change of a file would get a later time, however coarse the clock is."""
    with tempfile.NamedTemporaryFile() as probe:
        while os.stat(probe.name).st_ctime_ns <= than:
            os.chmod(probe.name, 0o600)


def digests(
    root: Path,
    cache: StatCache | None,
    ignore: tuple[str, ...] | None,
    patterns: tuple[str, ...],
    *,
    git_modes: bool,
    exclude: bool,
) -> list[object]:
    tree = Tree(
        os.open(root, os.O_RDONLY | os.O_DIRECTORY),
        what="the build context",
        ignore=IgnoreMatcher(ignore) if ignore else None,
        keeps_owner=False,
        git_modes=git_modes,
    )
    try:
        found = select(tree, patterns, cache=cache, exclude=("**/a",) if exclude else ())
        mounted = select_path(tree, ".", cache=cache)
        files = [[picked.path for picked in match.picked] for match in found.matches]
        return [found.digest, mounted.digest, files]
    finally:
        tree.close()


@given(st.lists(ROUNDS, min_size=1, max_size=5))
def test_remembered_selection_is_that_of_reading_everything(rounds: list[Round]) -> None:
    blob: bytes | None = None
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for directory in ("d", "f", "d/e"):
            (root / directory).mkdir()
        (root / "a").write_text("0")
        number = 0
        for steps, ignore, patterns, git_modes, exclude in rounds:
            for step in steps:
                number += 1
                edit(root, step, number)
            for name in ("a", "d/e/x", "f/x"):  # what the patterns name is there
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                if not os.path.lexists(root / name):
                    (root / name).write_text("0")
            newest = max(os.lstat(p).st_ctime_ns for p in root.rglob("*"))
            wait_for_a_later_time(newest)  # the rule for racy files is not what is tried here
            cache = StatCache(
                lambda blob=blob: blob,  # type: ignore[misc]
                now_ns=newest + 2 * RACY_NS,
                variant=b"g" if git_modes else b"-",
            )
            found, plain = (
                digests(root, each, ignore, patterns, git_modes=git_modes, exclude=exclude)
                for each in (cache, None)
            )
            assert found == plain
            blob = cache.blob() or blob
