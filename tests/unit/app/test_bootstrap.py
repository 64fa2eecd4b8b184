# SPDX-License-Identifier: Apache-2.0
"""Mirrors found in apt's sources, command lines, failures explained, trees made a container's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamina.bootstrap.aptsources import AptSource, parse_deb822, parse_one_line, sources_for
from lamina.bootstrap.busybox import busybox_items
from lamina.bootstrap.contained import contained
from lamina.bootstrap.debian import (
    DebianRequest,
    explain_failure,
    mmdebstrap_argv,
    read_host_sources,
)
from lamina.bootstrap.images import bootstrap
from lamina.bootstrap.options import BootstrapOptions
from lamina.errors import Kind, LaminaError
from lamina.events import silent
from lamina.layer.entry import Entry, EntryType, sort_key
from lamina.spec.platform import Platform
from lamina.store import open_store
from lamina.tasks import CancelToken

if TYPE_CHECKING:
    from pathlib import Path

DEB822 = """# a comment
Types: deb deb-src
# another
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/d.gpg

Types: deb
URIs: http://mirror.example/debian-security/
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 x

Types: deb
URIs: http://other.example/debian
Suites: sid
Components: main
Enabled: no
"""
OPTIONS = BootstrapOptions("debian:bookworm", ("d",), Platform("linux", "amd64"), 1.0)


def test_deb822_sources() -> None:
    assert parse_deb822(DEB822) == [
        AptSource(
            "http://mirror.example/debian", "bookworm", ("main", "contrib"),
            "/usr/share/keyrings/d.gpg",
        ),
        AptSource(
            "http://mirror.example/debian", "bookworm-updates", ("main", "contrib"),
            "/usr/share/keyrings/d.gpg",
        ),
        AptSource("http://mirror.example/debian-security/", "bookworm-security", ("main",)),
    ]  # fmt: skip


def test_one_line_sources() -> None:
    text = """
# deb http://no.example/debian x main
deb [ arch=amd64 signed-by=/k.gpg ] http://a.example/ubuntu noble main universe # why
deb-src http://a.example/ubuntu noble main
deb junk
"""
    assert parse_one_line(text) == [
        AptSource("http://a.example/ubuntu", "noble", ("main", "universe"), "/k.gpg")
    ]


def test_other_suite_of_the_same_mirror_brings_updates_and_security() -> None:
    host = parse_deb822(DEB822)
    lines = [s.line() for s in sources_for(host, distribution="debian", suite="trixie")]
    assert lines == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/debian-security/ trixie-security main",
    ]
    assert len(sources_for(host, distribution="debian", suite="sid")) == 1
    assert sources_for(host, distribution="ubuntu", suite="noble") == []


def test_repositories_of_others_are_no_mirror() -> None:
    host = [AptSource("https://packages.example/apt", "bookworm", ("main",))]
    assert sources_for(host, distribution="debian", suite="bookworm") == []


def test_host_sources_are_read_in_both_forms(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.example/debian bookworm main\n")
    (tmp_path / "sources.list.d" / "x.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "x.save").write_text("deb http://no/debian x main\n")
    assert len(read_host_sources(str(tmp_path))) == 4
    assert read_host_sources(str(tmp_path / "nowhere")) == []


def test_command_line_of_mmdebstrap() -> None:
    source = AptSource("http://m/debian", "bookworm", ("main",), "/k.gpg")
    argv = mmdebstrap_argv(DebianRequest("bookworm", (source,), OPTIONS, 1))
    assert argv[-3:] == ["bookworm", "-", "deb http://m/debian bookworm main"]
    assert {"--mode=root", "--variant=minbase", "--keyring=/k.gpg"} < set(argv)


@pytest.mark.parametrize(
    ("line", "kind", "named"),
    [
        ("E: Unable to locate package nosuch", Kind.NOT_FOUND, '"nosuch"'),
        ("  Could not resolve 'mirror.example'", Kind.UNAVAILABLE, "mirror"),
        ("  Temporary failure resolving 'mirror.example'", Kind.UNAVAILABLE, "mirror"),
        (
            "E: The repository 'http://m bookwormx Release' does not have a Release file.",
            Kind.UNSUPPORTED,
            "'bookwormx'",
        ),
        ("W: GPG error: NO_PUBKEY 123", Kind.INTEGRITY, "signature"),
        ("E: something else", Kind.SYSTEM, "something else"),
    ],
)
def test_failures_are_explained(line: str, kind: Kind, named: str) -> None:
    error = explain_failure("mmdebstrap", ["I: begin", line, "I: removing tempdir"], "bookwormx")
    assert error.kind is kind
    assert named in str(error)
    assert any(line in note for note in error.__notes__)


@pytest.mark.parametrize(
    ("what", "changes", "kind"),
    [
        ("fedora:40", {}, Kind.UNSUPPORTED),
        ("debian:../x", {}, Kind.USAGE),
        ("debian:--help", {}, Kind.USAGE),
        ("debian:bookworm", {"variant": "--x"}, Kind.USAGE),
        ("debian:bookworm", {"include": ("--x",)}, Kind.USAGE),
        ("debian:bookworm", {"include": ("a b",)}, Kind.USAGE),
        ("debian:bookworm", {"mirror": "x"}, Kind.USAGE),
        ("debian:bookworm", {"search_path": "/nowhere"}, Kind.SYSTEM),
        ("busybox:1.36", {}, Kind.USAGE),
        ("busybox", {"include": ("x",)}, Kind.USAGE),
        ("busybox", {"search_path": "/nowhere"}, Kind.SYSTEM),
        ("busybox", {"changes": ("RUN x",)}, Kind.INVALID),
    ],
)
def test_bad_requests_are_one_error_and_no_name(
    tmp_path: Path, what: str, changes: dict[str, object], kind: Kind
) -> None:
    from lamina.start.record import replace

    store = open_store(str(tmp_path / "store"))
    options = replace(OPTIONS, what=what, **changes)  # type: ignore[arg-type]  # by field name
    with pytest.raises(LaminaError) as caught:
        bootstrap(store, options, key="t", emit=silent, cancel=CancelToken())
    assert caught.value.kind is kind, caught.value
    assert store.metadata.list_names() == []
    store.close()


def test_what_is_this_hosts_is_left_out_and_order_is_kept() -> None:
    paths = [
        b"dev", b"dev/null", b"etc", b"etc/hostname", b"etc/machine-id", b"etc/passwd",
        b"etc/resolv.conf", b"tmp", b"tmp/x", b"usr", b"usr/sbin", b"var", b"var/cache",
        b"var/cache/apt", b"var/cache/apt/archives", b"var/cache/apt/archives/a.deb",
        b"var/cache/ldconfig", b"var/cache/ldconfig/aux-cache", b"var/lib", b"var/lib/apt",
        b"var/lib/apt/lists", b"var/lib/apt/lists/m_dists_x_InRelease", b"var/lib/apt/lists/lock",
        b"var/log", b"var/log/apt", b"var/log/apt/term.log", b"var/log/dpkg.log",
        b"var/log/wtmp",
    ]  # fmt: skip
    directories = {p for p in paths if any(other.startswith(p + b"/") for other in paths)}
    directories |= {b"tmp", b"dev", b"usr/sbin", b"var/log/apt"}
    items = [
        (Entry(p, EntryType.DIR if p in directories else EntryType.FILE, 0o644), None)
        for p in sorted(paths, key=sort_key)
    ]
    source = AptSource("http://m/debian", "x", ("main",), "/k.gpg")
    found = list(contained(iter(items), [source], mtime=5))
    names = [entry.path for entry, _ in found]
    assert names == sorted(names, key=sort_key)
    kept = set(names) & set(paths)
    assert kept == directories | {b"etc/passwd", b"etc/machine-id", b"var/log/wtmp"}
    content = {entry.path: data for entry, data in found}
    assert content[b"etc/apt/sources.list"] == b"deb http://m/debian x main\n"
    assert b"usr/sbin/policy-rc.d" in names


@pytest.mark.tool("busybox")
def test_busybox_tree_is_complete_and_sorted() -> None:
    found = {entry.path: entry for entry, _ in busybox_items("/usr/bin:/bin:/usr/sbin:/sbin")}
    assert list(found) == sorted(found, key=sort_key)
    assert found[b"bin/sh"].linkname == b"/bin/busybox"
    assert found[b"tmp"].mode == 0o1777
    assert found[b"bin/busybox"].size > 100_000
