# SPDX-License-Identifier: Apache-2.0
"""What names a git repository, and what it must not be able to say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.spec.gitref import GitRef, InvalidGitRef, parse_git_ref, split_credentials

H = "https://example.com/a/b.git"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (H, GitRef(H)),
        (f"{H}#main", GitRef(H, "main")),
        (f"{H}#main:docs/x/", GitRef(H, "main", "docs/x")),
        (f"{H}#:docs", GitRef(H, "", "docs")),
        (f"{H}?ref=v1&subdir=d", GitRef(H, "v1", "d")),
        (f"{H}?tag=v1", GitRef(H, "refs/tags/v1")),
        (f"{H}?branch=b/c&commit=abcdef0", GitRef(H, "refs/heads/b/c", checksum="abcdef0")),
        (f"{H}?commit=abcdef0", GitRef(H, "abcdef0", checksum="abcdef0")),
        (f"{H}?keep-git-dir", GitRef(H, keep_git_dir=True)),
        (f"{H}?keep-git-dir=0&submodules=false", GitRef(H, keep_git_dir=False, submodules=False)),
        (f"{H}##ref=v1,subdir=d,commit=abcdef0", GitRef(H, "v1", "d", "abcdef0")),
        ("HTTPS://example.com/b.git", GitRef("https://example.com/b.git")),
        ("http://u:p@[::1]:80/b.git", GitRef("http://u:p@[::1]:80/b.git")),
        ("ssh://git@example.com:22/b", GitRef("ssh://git@example.com:22/b")),
        ("git://example.com/b#v1", GitRef("git://example.com/b", "v1")),
        ("git@example.com:a/b#v1:d", GitRef("git@example.com:a/b", "v1", "d")),
        ("git@example.com:a/b?ref=v1", GitRef("git@example.com:a/b", "v1")),
        ("github.com/a/b#v1", GitRef("https://github.com/a/b", "v1")),
    ],
)
def test_forms(text: str, expected: GitRef) -> None:
    assert parse_git_ref(text) == expected


@pytest.mark.parametrize(
    "text",
    ["a", "./a.git", "../b.git", "/a.git", "a:b", "https://example.com/x.tar", "file:///a.git",
     "https://example.com/x?y=.git", "-oProxyCommand=x@example.com:a", "ext::sh -c x", "a b@c:d"],
)  # fmt: skip
def test_what_is_no_repository(text: str) -> None:
    assert parse_git_ref(text) is None


@pytest.mark.parametrize(
    "text",
    [
        f"{H}#-x", f"{H}#--upload-pack=x", f"{H}#a..b", f"{H}#a b", f"{H}#a:../b",
        f"{H}#a:b/../../c", f"{H}#a^b", f"{H}#@{{u}}", f"{H}#a\x00", f"{H}#.a", f"{H}#a.lock",
        f"{H}?ref=-x", f"{H}?ref=a&ref=b", f"{H}?ref=a&tag=b", f"{H}?what=1", f"{H}?ref=",
        f"{H}?checksum=zz", f"{H}?checksum=abc", f"{H}?submodules=maybe", f"{H}##x", f"{H}##x=1",
        "ssh://-oProxyCommand=x/a", "ssh://u@-x/a", "https://-x/a.git", "git://a b/c",
        "ssh://example.com/a b", "git@example.com:a\nb", f"{H}#a:.git", f"{H}#a:.GIT/x",
    ],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(InvalidGitRef):
        parse_git_ref(text)


@given(
    st.sampled_from([f"{H}#", f"{H}?ref=", f"{H}?subdir=", "ssh://", "git@h:", f"{H}##ref="]),
    st.text(max_size=30),
)
@settings(max_examples=300, deadline=None)
def test_nothing_that_git_is_given_is_an_option_or_an_escape(prefix: str, rest: str) -> None:
    try:
        git = parse_git_ref(prefix + rest)
    except InvalidGitRef:
        return
    if git is None:
        return
    assert not git.ref.startswith(("-", ":"))
    assert ":" not in git.ref
    assert not git.remote.startswith("-")
    assert ".." not in git.subdir.split("/")
    assert (git.remote + git.ref + git.subdir).isprintable()


@pytest.mark.parametrize(
    ("remote", "plain", "userinfo"),
    [
        ("https://u:p@h/x.git", "https://h/x.git", "u:p"),
        ("http://t@h:81/x.git", "http://h:81/x.git", "t"),
        ("http://a@b:c@h/x.git", "http://h/x.git", "a@b:c"),
        ("https://h/x@y.git", "https://h/x@y.git", ""),
        ("ssh://git@h/x", "ssh://git@h/x", ""),
        ("git@h:x", "git@h:x", ""),
    ],
)
def test_credentials_of_a_remote_are_apart(remote: str, plain: str, userinfo: str) -> None:
    assert split_credentials(remote) == (plain, userinfo)
