# SPDX-License-Identifier: Apache-2.0
"""COPY and ADD with --link, --parents, --exclude, --chmod and heredocs, by BuildKit's rules.

Expectations marked (BuildKit) are those of its own Dockerfile tests.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from lamina.testing.bench import Bench, is_cached

if TYPE_CHECKING:
    from collections.abc import Iterable

needs_root = pytest.mark.root


def files(tree: Iterable[str], below: str) -> set[str]:
    return {name.removeprefix(below + "/") for name in tree if name.startswith(below + "/")}


# Heredocs ------------------------------------------------------------------------------------


def test_heredoc_escapes_and_quotes(bench: Bench) -> None:
    """(BuildKit) testCopyHeredocSpecialSymbols."""
    tree = bench.tree(
        "FROM scratch\n"
        'COPY <<EOF quotefile\n"quotes in file"\nEOF\n'
        "COPY <<EOF slashfile1\n\\\nEOF\nCOPY <<EOF slashfile2\n\\\\\nEOF\n"
        "COPY <<EOF slashfile3\n\\$\nEOF\n"
        'COPY <<"EOF" rawslashfile1\n\\\nEOF\nCOPY <<"EOF" rawslashfile2\n\\\\\nEOF\n'
        'COPY <<"EOF" rawslashfile3\n\\$\nEOF\n'
    )
    assert {name: member.content.decode() for name, member in tree.items()} == {
        "quotefile": '"quotes in file"\n',
        "slashfile1": "\n",
        "slashfile2": "\\\n",
        "slashfile3": "$\n",
        "rawslashfile1": "\\\n",
        "rawslashfile2": "\\\\\n",
        "rawslashfile3": "\\$\n",
    }


def test_heredocs_are_files_beside_others(bench: Bench) -> None:
    bench.write("local", "L")
    tree = bench.tree(
        "FROM scratch\nARG A=1\nCOPY <<one <<-'two' local /d/\na=$A\none\n\ta=$A\ntwo\n"
        "ADD --chmod=0755 --chown=5:6 <<run /bin/sub\n#!/bin/sh\nrun\n"
    )
    assert {name: tree[f"d/{name}"].content for name in ("one", "two", "local")} == {
        "one": b"a=1\n",
        "two": b"a=$A\n",
        "local": b"L",
    }
    assert (tree["d/one"].mode, tree["d/one"].owner, tree["d/one"].mtime) == (0o644, (0, 0), 0)
    assert (tree["bin/sub"].mode, tree["bin/sub"].owner) == (0o755, (5, 6))


def test_heredoc_is_cached_by_its_text(bench: Bench) -> None:
    text = "FROM scratch\nARG A=1\nCOPY <<x /x\n$A\nx\n"
    bench.build(text)
    assert is_cached(bench.build(text))
    assert not is_cached(bench.build(text, "--build-arg", "A=2"))


# Modes ---------------------------------------------------------------------------------------


def test_symbolic_modes(bench: Bench) -> None:
    bench.write("d/tool", "x", 0o700)
    bench.write("d/text", "x", 0o600)
    os.chmod(bench.cwd / "d", 0o700)
    tree = bench.tree(
        "FROM scratch\nARG M=u=rwX,go=rX\nCOPY --chmod=$M d /a/d2\nCOPY --chmod=$M d/tool /t\n"
        "COPY --chmod=+x d/text /x\nCOPY --chmod=a=,u+w d/text /w\n"
    )
    modes = {name: oct(tree[name].mode) for name in ("a/d2/tool", "a/d2/text", "t", "x", "w")}
    assert modes == {
        "a/d2/tool": "0o755",
        "a/d2/text": "0o644",
        "t": "0o755",
        "x": "0o711",
        "w": "0o200",
    }


# --exclude -----------------------------------------------------------------------------------


@pytest.fixture
def pictures(bench: Bench) -> Bench:
    for name in (
        "dir1/file-101.png", "dir1/file-102.txt", "dir1/file-103.jpeg", "dir2/file-201.pdf",
        "dir2/file-202.jpeg", "dir2/file-203.png", "dir3/file-301.mp3", "dir3/file-302.mpeg",
    ):  # fmt: skip
        bench.write(name, name)
    return bench


@pytest.mark.parametrize(
    ("instruction", "left"),
    [
        (
            "COPY --exclude=*/*.png --exclude=*/*.jpeg --exclude=Dockerfile . /t",
            {"dir1/file-102.txt", "dir2/file-201.pdf", "dir3/file-301.mp3", "dir3/file-302.mpeg"},
        ),
        ("ADD --exclude=*.mp3 dir3/ /t/", {"file-302.mpeg"}),
        (
            "COPY --exclude=*.mp3 --exclude=*.jp* --exclude=*.png --exclude=*.[pt][dx][ft] dir* /t/",
            {"file-302.mpeg"},
        ),
        (
            "ADD --exclude=*.mp* --exclude=*.jpeg --exclude=*.png --exclude=*.pdf dir* /t",
            {"file-102.txt"},
        ),
        ("ADD --exclude=* dir* /t", set()),
        ("COPY --exclude=**/*.png --exclude=!dir2 dir1 dir2 /t/",
         {"file-102.txt", "file-103.jpeg", "file-201.pdf", "file-202.jpeg"}),
        ("COPY --exclude=dir1 --exclude=dir2 --exclude=dir3 --exclude=Dockerfile . /t/", set()),
        # the reference's own example, which BuildKit does not follow for files (its issue 5489)
        ("COPY --exclude=*.txt dir1/file-10* /t/", {"file-101.png", "file-103.jpeg"}),
    ],
)  # fmt: skip
def test_excluded_files(pictures: Bench, instruction: str, left: set[str]) -> None:
    """(BuildKit) testExcludedFilesOnCopy, and more."""
    tree = pictures.tree(f"FROM scratch\n{instruction}\n")
    found = {name for name in files(tree, "t") if tree[f"t/{name}"].content}
    assert found == left


def test_excluded_file_is_in_no_key(pictures: Bench) -> None:
    text = "FROM scratch\nCOPY --exclude=*.png dir1 /t/\n"
    pictures.build(text)
    pictures.write("dir1/file-101.png", "changed")
    assert is_cached(pictures.build(text))
    pictures.write("dir1/file-102.txt", "changed")
    assert not is_cached(pictures.build(text))


# --parents -----------------------------------------------------------------------------------


@pytest.fixture
def nested(bench: Bench) -> Bench:
    for name in ("a/b/c/d/foo", "a/b/c/d/e/bay", "a/b2/c/d/e/bar", "a/b/c2/d/e/baz",
                 "a/b/c2/d/e2/baz"):  # fmt: skip
        bench.write(f"test/{name}", name)
    return bench


@pytest.mark.parametrize(
    ("sources", "left"),
    [
        ("/test/a/b/./c/d", {"c/d/foo", "c/d/e/bay"}),
        ("/test/a/b/c/d/.", {"test/a/b/c/d/foo", "test/a/b/c/d/e/bay"}),
        ("./test/a/b/c/d", {"test/a/b/c/d/foo", "test/a/b/c/d/e/bay"}),
        ("/test/a/./b/./c", {"b/c/d/foo", "b/c/d/e/bay"}),
        ("/test/a/./*/c", {"b/c/d/foo", "b/c/d/e/bay", "b2/c/d/e/bar"}),
        ("/test/a/b*/./c/**/e", {"c/d/e/bay", "c/d/e/bar"}),
        (
            "/test/a/b/c*/./d/**/baz /test/a/b*/./c/**/bar",
            {"d/e/baz", "d/e2/baz", "c/d/e/bar"},
        ),
        ("/test/a/b2*/d", set()),
        ("/test/a/b/./c3*", set()),
        ("/test/a/b/c/./", {"d/foo", "d/e/bay"}),
    ],
)
def test_parents(nested: Bench, sources: str, left: set[str]) -> None:
    """(BuildKit) testCopyRelativeParents and testCopyParentsMissingDirectory."""
    tree = nested.tree(f"FROM scratch\nCOPY --parents {sources} /out/\n")
    assert "out" in tree
    assert {name for name in files(tree, "out") if tree[f"out/{name}"].content} == left


def test_missing_source_of_parents(nested: Bench) -> None:
    status, text = nested.fails("FROM scratch\nCOPY --parents test/none /out/\n")
    assert (status, '"/test/none": not found' in text) == (3, True)


def test_parents_keep_modes_of_their_directories(bench: Bench) -> None:
    bench.write("foo1/foo2/bar", "testing")
    bench.write("foo1/foo2/baz", "testing2")
    os.chmod(bench.cwd / "foo1", 0o700)
    os.chmod(bench.cwd / "foo1/foo2", 0o710)
    tree = bench.tree(
        "FROM scratch\nCOPY --parents foo1/foo2/bar /\nWORKDIR /test\n"
        "COPY --parents --chown=3:4 foo1/foo2/ba* .\n"
        "COPY --parents --exclude=**/baz foo1 /x/\n"
    )
    assert oct(tree["foo1"].mode) == "0o700"
    assert oct(tree["foo1/foo2"].mode) == "0o710"
    assert tree["test/foo1/foo2/baz"].content == b"testing2"
    assert tree["test/foo1/foo2"].owner == (3, 4)
    assert "x/foo1/foo2/bar" in tree
    assert "x/foo1/foo2/baz" not in tree


def test_parents_from_a_stage(nested: Bench) -> None:
    tree = nested.tree(
        "FROM scratch AS s\nCOPY test /test\nFROM scratch\n"
        "COPY --from=s --parents /test/a/b*/./c/**/e /out/\n"
    )
    assert tree["out/c/d/e/bar"].content == b"a/b2/c/d/e/bar"


# --link --------------------------------------------------------------------------------------


def diff_ids(bench: Bench, name: str) -> list[str]:
    shown = bench.lamina("inspect", "--format", "{{json .RootFS.Layers}}", name).stdout
    found: list[str] = json.loads(shown)
    return found


@needs_root
def test_linked_layer_is_independent_of_what_is_below(bench: Bench) -> None:
    bench.write("base", "1")
    bench.write("f", "F")
    text = "FROM scratch\nCOPY base /etc/base\nCOPY --link f /etc/f\nCOPY --link f /g\n"
    bench.build(text, "-t", "one")
    bench.write("base", "2")
    log = bench.build(text, "-t", "two")
    one, two = diff_ids(bench, "one"), diff_ids(bench, "two")
    assert one[0] != two[0]
    assert one[1:] == two[1:]
    steps = [line for line in log.splitlines() if "COPY --link" in line and "link COPY" not in line]
    assert len(steps) == 2
    for step in steps:
        assert f"{step.split()[0]} CACHED" in log.splitlines()


@needs_root
def test_linked_layers_merge_and_hide_links_below(bench: Bench) -> None:
    bench.write("f", "F")
    (bench.cwd / "tree" / "real").mkdir(parents=True)
    (bench.cwd / "tree" / "link").symlink_to("real")
    bench.write("tree/real/old", "old")
    tree = bench.tree(
        "FROM scratch\nCOPY tree /\nCOPY --link f /real/new\nCOPY --link f /link/x\n"
        "COPY f /after\nWORKDIR /w\nCOPY --link f ./\n"
    )
    assert {"real/old", "real/new", "link/x", "after", "w/f"} <= set(tree)
    assert (
        tree["link"].type == b"5"
    )  # a directory now: a linked layer cannot look at what was there


@needs_root
def test_names_of_owners_are_those_of_the_base(bench: Bench) -> None:
    bench.write("passwd", "root:x:0:0::/:\napp:x:7:8::/:\n")
    bench.write("group", "web:x:9:\n")
    bench.write("f", "F")
    text = (
        "FROM scratch\nCOPY passwd group /etc/\n"
        "COPY --link --chown=app f /a\nCOPY --link --chown=app:web f /b\n"
        "COPY --link --chown=11:12 f /c\n"
    )
    tree = bench.tree(text)
    assert [tree[name].owner for name in "abc"] == [(7, 8), (7, 9), (11, 12)]
    bench.write("passwd", "root:x:0:0::/:\napp:x:70:80::/:\n")
    assert [bench.tree(text)[name].owner for name in "abc"] == [(70, 80), (70, 9), (11, 12)]
    status, text = bench.fails("FROM scratch\nCOPY f /f\nCOPY --link --chown=nobody f /a\n")
    assert (status, "unable to find user nobody" in text) == (2, True)


@needs_root
def test_linked_archive_and_download(bench: Bench) -> None:
    bench.write("f", "F")
    url = bench.web.put("/x", b"X")
    tree = bench.tree(f"FROM scratch\nCOPY f /f\nADD --link {url} /d/\nCOPY --link <<h /d/\nH\nh\n")
    assert (tree["d/x"].content, tree["d/h"].content) == (b"X", b"H\n")


@needs_root
def test_stage_on_linked_layers(bench: Bench) -> None:
    bench.write("f", "F")
    tree = bench.tree(
        "FROM scratch AS one\nCOPY f /a\nCOPY --link f /b\nFROM one AS two\nCOPY --link f /c\n"
        "FROM two\nCOPY --from=one / /copy/\nCOPY --from=1 /c /d\n"
    )
    assert {"a", "b", "c", "copy/a", "copy/b", "d"} <= set(tree)
    assert "copy/c" not in tree
