# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import pytest

from lamina.dockerfile.ignore import (
    IgnoreMatcher,
    InvalidPattern,
    has_wildcards,
    match_path,
    parse_ignore,
)
from lamina.dockerfile.operands import clean

# The facts of moby/patternmatcher's own table: does the pattern match the path itself ("exact"),
# the path or a parent of it ("inexact"), or neither ("fail")?
MOBY = [
    ("**", "file", "exact"),
    ("**/", "file", "exact"),
    ("**", "dir/file", "exact"),
    ("**/", "dir/file", "exact"),
    ("**/**", "dir/file", "exact"),
    ("dir/**", "dir/file", "exact"),
    ("dir/**", "dir/dir2/file", "exact"),
    ("**/dir", "dir", "exact"),
    ("**/dir", "dir/file", "inexact"),
    ("**/dir2/*", "dir/dir2/file", "exact"),
    ("**/dir2/*", "dir/dir2/file/x", "inexact"),
    ("**/dir2/**", "dir/dir2/dir3/file", "exact"),
    ("**file", "file", "exact"),
    ("**file", "dir/file", "exact"),
    ("**file", "dir/afile", "exact"),
    ("**/file", "dir/file", "exact"),
    ("**file", "dir/dir/file", "exact"),
    ("**/file", "dir/dir/file", "exact"),
    ("**/file", "dir/dir/afile", "fail"),
    ("**/file*", "dir/dir/file", "exact"),
    ("**/file*", "dir/dir/file.txt", "exact"),
    ("**/file*txt", "dir/dir/file.txt", "exact"),
    ("**/file*.txt", "dir/dir/file.txt", "exact"),
    ("**/file*.txt*", "dir/dir/file.txt", "exact"),
    ("**/**/*.txt", "dir/dir/file.txt", "exact"),
    ("**/**/*.txt2", "dir/dir/file.txt", "fail"),
    ("**/*.txt", "file.txt", "exact"),
    ("**/**/*.txt", "file.txt", "exact"),
    ("a**/*.txt", "a/file.txt", "exact"),
    ("a**/*.txt", "a/dir/file.txt", "exact"),
    ("a**/*.txt", "a/dir/dir/file.txt", "exact"),
    ("a/*.txt", "a/dir/file.txt", "fail"),
    ("a/*.txt", "a/file.txt", "exact"),
    ("a/*.txt**", "a/file.txt", "exact"),
    ("a[b-d]e", "ae", "fail"),
    ("a[b-d]e", "ace", "exact"),
    ("a[b-d]e", "aae", "fail"),
    ("a[^b-d]e", "aze", "exact"),
    (".*", ".foo", "exact"),
    (".*", "foo", "fail"),
    ("abc.def", "abcdef", "fail"),
    ("abc.def", "abc.def", "exact"),
    ("abc.def", "abcZdef", "fail"),
    ("abc?def", "abcZdef", "exact"),
    ("abc?def", "abcdef", "fail"),
    ("a\\\\", "a\\", "exact"),
    ("a\\*b", "a*b", "exact"),
    ("**/foo/bar", "foo/bar", "exact"),
    ("**/foo/bar", "dir/foo/bar", "exact"),
    ("**/foo/bar", "dir/dir2/foo/bar", "exact"),
    ("abc/**", "abc", "fail"),
    ("abc/**", "abc/def", "exact"),
    ("abc/**", "abc/def/ghi", "exact"),
    ("**/.foo", ".foo", "exact"),
    ("**/.foo", "bar.foo", "fail"),
    ("a(b)c/def", "a(b)c/def", "exact"),
    ("a(b)c/def", "a(b)c/xyz", "fail"),
    ("a.|)$(}+{bc", "a.|)$(}+{bc", "exact"),
    ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", "exact"),
    # Go's filepath.Match table, as far as it is about paths
    ("*c", "abc", "exact"),
    ("a*", "ab/c", "inexact"),
    ("a*/b", "abc/b", "exact"),
    ("a*/b", "a/c/b", "fail"),
    ("a*b*c*d*e*/f", "axbxcxdxe/f", "exact"),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/f", "exact"),
    ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", "fail"),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", "fail"),
    ("a*b?c*x", "abxbbxdbxebxczzx", "exact"),
    ("a*b?c*x", "abxbbxdbxebxczzy", "fail"),
    ("ab[^c]", "abc", "fail"),
    ("ab[^e-g]", "abc", "exact"),
    ("a?b", "a☺b", "exact"),
    ("a[^a]b", "a☺b", "exact"),
    ("a???b", "a☺b", "fail"),
    ("[a-ζ]*", "α", "exact"),
    ("*[a-ζ]", "A", "fail"),
    ("a?b", "a/b", "fail"),
    ("[\\]a]", "]", "exact"),
    ("[\\-]", "-", "exact"),
    ("[x\\-]", "-", "exact"),
    ("[x\\-]", "z", "fail"),
    ("*x", "xxx", "exact"),
]
MOBY_LISTS = [
    (["**", "!util/docker/web"], "util/docker/web/foo", False),
    (["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", True),
    (["**", "!dist/*.whl"], "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", False),
    (["!fileutils.go", "*.go"], "fileutils.go", True),
    (["*.go", "!fileutils.go"], "fileutils.go", False),
    (["docs", "!docs/README.md"], "docs/README.md", False),
    (["docs/", "!docs/README.md"], "docs/README.md", False),
    (["docs/*", "!docs/README.md"], "docs/README.md", False),
    (["docs", "", "!docs/a", "docs/a/b"], "docs/a/b/c", True),
    (["docs", "!docs/a", "docs/a/b"], "docs/a/x", False),
    ([], "any/path", False),
]
BAD = ["[", "[^", "[^bc", "a[", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "\\", "!", "[z-a]"]


@pytest.mark.parametrize(("pattern", "path", "expected"), MOBY)
def test_pattern_excludes_what_moby_excludes(pattern: str, path: str, expected: str) -> None:
    assert IgnoreMatcher([pattern]).excludes(path) is (expected != "fail")


@pytest.mark.parametrize(("pattern", "path", "expected"), MOBY)
def test_whole_path_matches_as_in_moby(pattern: str, path: str, expected: str) -> None:
    assert match_path(clean(pattern), path) is (expected == "exact")


@pytest.mark.parametrize(("patterns", "path", "expected"), MOBY_LISTS)
def test_last_matching_pattern_decides(patterns: list[str], path: str, expected: bool) -> None:
    assert IgnoreMatcher(patterns).excludes(path) is expected


@pytest.mark.parametrize("pattern", BAD)
def test_malformed_pattern_is_an_error(pattern: str) -> None:
    with pytest.raises(InvalidPattern):
        IgnoreMatcher([pattern])


def test_file_is_read_as_moby_reads_it() -> None:
    text = "\ufefftest1\n/test2\n/a/file/here\n\nlastfile\n# comment\n! /inverted/abs/path\n!\n! \r\nx/../y/\n"
    assert parse_ignore(text) == (
        "test1",
        "test2",
        "a/file/here",
        "lastfile",
        "!inverted/abs/path",
        "!",
        "!",
        "y",
    )


@pytest.mark.parametrize(
    ("patterns", "directory", "expected"),
    [
        (["a"], "a", False),
        (["a", "!a/b/c"], "a", True),
        (["a", "!a/b/c"], "a/b", True),
        (["a", "!a/b/c"], "a/x", False),
        (["**", "!**/*.py"], "deep/down", True),
        (["**", "!src/*.py"], "src", True),
        (["**", "!src/*.py"], "docs", False),
        (["*", "!s?c/x"], "src", True),
        (["*", "!s?c/x"], "sack", False),
    ],
)
def test_directory_is_entered_only_if_a_negation_reaches_below(
    patterns: list[str], directory: str, expected: bool
) -> None:
    assert IgnoreMatcher(patterns).may_include_below(directory) is expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("a", False), ("a*", True), ("a\\*", False), ("[a]", True), ("?", True)],
)
def test_escaped_wildcards_are_none(pattern: str, expected: bool) -> None:
    assert has_wildcards(pattern) is expected


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [("", "."), ("/", "/"), ("a//b/./c/../d/", "a/b/d"), ("../../x", "../../x"), ("/../x", "/x")],
)
def test_clean_is_go_path_clean(path: str, cleaned: str) -> None:
    assert clean(path) == cleaned


def test_hostile_patterns_do_not_take_for_ever() -> None:
    name = "a" * 255
    path = "/".join([name] * 15)
    begin = time.perf_counter()
    for pattern in (
        "*a" * 60 + "b",
        "**/" + "*a" * 40 + "*b",
        "**/a*/**/b*/**/c*",
        "?*" * 50 + "b",
    ):
        assert not IgnoreMatcher([pattern]).excludes(path)
    assert time.perf_counter() - begin < 5  # it would be years with backtracking


def test_twenty_thousand_paths_are_fast() -> None:
    patterns = [f"**/dir{n}/*.tmp" for n in range(10)] + [f"build{n}" for n in range(9)] + ["!keep"]
    matcher = IgnoreMatcher(patterns)
    paths = [f"src/package{n % 50}/module{n}/file{n}.py" for n in range(20_000)]
    begin = time.perf_counter()
    assert not any(map(matcher.excludes, paths))
    assert time.perf_counter() - begin < 5  # about 0.1 s; a generous bound for a busy machine
