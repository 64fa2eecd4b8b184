# SPDX-License-Identifier: Apache-2.0
"""ADD of git repositories, over smart and dumb HTTP and git's own protocol."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamina.testing.bench import Bench, is_cached
from lamina.testing.waiting import wait_for_server
from lamina.testing.webserver import Reply, git

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.tool("git")

COMMITTED = 1_700_000_000


class Repository:
    """A repository below the server's root, with a main branch, a tag and a feature branch."""

    def __init__(self, bench: Bench, root: Path, name: str = "project") -> None:
        self.path = root / f"{name}.git"
        self.work = root / f"{name}-work"
        self.work.mkdir(parents=True)
        git(str(self.work), "init", "--quiet")
        self.put("README", "first\n")
        self.put("docs/a.txt", "a\n")
        self.first = self.commit("one")
        git(str(self.work), "tag", "-a", "-m", "x", "v1")
        git(str(self.work), "checkout", "--quiet", "-b", "feature/x")
        self.put("README", "feature\n")
        self.feature = self.commit("two")
        git(str(self.work), "checkout", "--quiet", "main")
        git(str(root), "clone", "--quiet", "--bare", str(self.work), str(self.path))
        bench.web.git_root = str(root)
        self.url = f"{bench.web.url}/{name}.git"

    def put(self, name: str, text: str) -> None:
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self, message: str) -> str:
        git(str(self.work), "add", "--all")
        git(str(self.work), "commit", "--quiet", "-m", message)
        return git(str(self.work), "rev-parse", "HEAD")

    def push(self) -> None:
        git(str(self.work), "push", "--quiet", str(self.path), "main")


@pytest.fixture
def repository(bench: Bench, tmp_path: Path) -> Repository:
    return Repository(bench, tmp_path / "repositories")


def test_default_branch_without_git_directory(bench: Bench, repository: Repository) -> None:
    tree = bench.tree(f"FROM scratch\nADD {repository.url} /src\n")
    assert tree["src/README"].content == b"first\n"
    assert tree["src/README"].mtime == COMMITTED
    assert (tree["src/README"].mode, tree["src/README"].owner) == (0o644, (0, 0))
    assert not [name for name in tree if ".git" in name]


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("#v1", "first\n"),
        ("#refs/tags/v1", "first\n"),
        ("#feature/x", "feature\n"),
        ("?branch=feature/x", "feature\n"),
        ("?tag=v1", "first\n"),
        ("?ref=main&submodules=false", "first\n"),
        ("##ref=v1", "first\n"),
    ],
)
def test_refs(bench: Bench, repository: Repository, suffix: str, text: str) -> None:
    tree = bench.tree(f'FROM scratch\nADD "{repository.url}{suffix}" /src/\n')
    assert tree["src/README"].content.decode() == text


def test_commit_subdirectory_owner_and_exclude(bench: Bench, repository: Repository) -> None:
    url = f"{repository.url}#{repository.feature}"
    assert bench.tree(f"FROM scratch\nADD {url} /s\n")["s/README"].content == b"feature\n"
    tree = bench.tree(f"FROM scratch\nADD --chown=3:4 {repository.url}#v1:docs /s\n")
    assert set(tree) == {"s", "s/a.txt"}
    assert tree["s/a.txt"].owner == (3, 4)
    assert set(bench.tree(f"FROM scratch\nADD --exclude=docs {repository.url} /s\n")) == {
        "s",
        "s/README",
    }


def test_commit_is_pinned_and_cached(bench: Bench, repository: Repository) -> None:
    by_name = f"FROM scratch\nADD {repository.url}#main /s\n"
    bench.build(by_name)
    before = len(bench.web.requests)
    assert is_cached(bench.build(by_name))
    assert len(bench.web.requests) > before  # the branch was asked for
    by_commit = f"FROM scratch\nADD {repository.url}#{repository.first} /s\n"
    before = len(bench.web.requests)
    assert is_cached(bench.build(by_commit))
    assert len(bench.web.requests) == before
    repository.put("README", "moved\n")
    repository.commit("three")
    repository.push()
    assert bench.tree(by_name)["s/README"].content == b"moved\n"


def test_kept_git_directory_works_and_holds_no_credentials(
    bench: Bench, repository: Repository
) -> None:
    url = repository.url.replace("http://", "http://me:geheim@")
    bench.tree(f"FROM scratch\nADD --keep-git-dir=true {url}#v1 /s\n")
    out = bench.cwd / "out"
    out.mkdir()
    subprocess.run(["tar", "-xf", str(bench.cwd / "out.tar"), "-C", str(out)], check=True)
    assert git(str(out / "s"), "-c", "safe.directory=*", "rev-parse", "HEAD") == repository.first
    assert git(str(out / "s"), "-c", "safe.directory=*", "status", "--porcelain") == ""
    for path in (out / "s" / ".git").rglob("*"):
        assert not path.is_file() or b"geheim" not in path.read_bytes()
    sent = [headers.get("authorization", "") for _, _, headers in bench.web.requests]
    assert all(text.startswith("Basic ") for text in sent)


def test_checksum(bench: Bench, repository: Repository) -> None:
    right, wrong = repository.first, repository.feature
    bench.build(f"FROM scratch\nADD --checksum={right} {repository.url}#v1 /s\n")
    bench.build(f"FROM scratch\nADD --checksum={right[:12]} {repository.url}#v1 /s\n")
    bench.build(f"FROM scratch\nADD {repository.url}?commit={right}&branch=main /s\n")
    _, text = bench.fails(f"FROM scratch\nADD --checksum={wrong} {repository.url}#v1 /s\n")
    assert f"expected checksum to match {wrong}, got {right}" in text


@pytest.mark.parametrize(
    ("suffix", "status", "words"),
    [
        ("#nowhere", 3, "does not contain ref nowhere"),
        ("#v1:nowhere", 3, "no directory 'nowhere'"),
        ("#v1:README", 2, "not a directory"),
        ("#v1:../x", 2, "invalid subdirectory"),
        ("#--upload-pack=x", 2, "invalid git ref"),
        ("#a:b:c", 3, "does not contain ref a"),
        ("?what=x", 2, 'unexpected query "what"'),
        (f"#{'0' * 40}", 3, "is not in"),
    ],
)
def test_bad_refs(
    bench: Bench, repository: Repository, suffix: str, status: int, words: str
) -> None:
    found, text = bench.fails(f"FROM scratch\nADD {repository.url}{suffix} /s\n")
    assert words in text
    assert found == status
    assert "Dockerfile:2" in text


def test_link_in_the_subdirectory_is_not_followed(bench: Bench, repository: Repository) -> None:
    (repository.work / "link").symlink_to("/etc")
    repository.commit("link")
    repository.push()
    status, text = bench.fails(f"FROM scratch\nADD {repository.url}#main:link /s\n")
    assert (status, "not a directory" in text) == (2, True)
    tree = bench.tree(f"FROM scratch\nADD {repository.url}#main /s\n")
    assert tree["s/link"].link == "/etc"


def test_submodules(bench: Bench, tmp_path: Path) -> None:
    root = tmp_path / "repositories"
    inner = Repository(bench, root, "inner")
    outer = Repository(bench, root, "outer")
    git(str(outer.work), "submodule", "--quiet", "add", inner.url, "lib/inner")
    outer.commit("submodule")
    outer.push()
    tree = bench.tree(f"FROM scratch\nADD {outer.url} /s\n")
    assert tree["s/lib/inner/README"].content == b"first\n"
    assert "s/lib/inner/.git" not in tree
    tree = bench.tree(f"FROM scratch\nADD {outer.url}?submodules=false /s\n")
    assert "s/lib/inner/README" not in tree


def test_submodule_of_a_local_path_is_refused(bench: Bench, tmp_path: Path) -> None:
    root = tmp_path / "repositories"
    inner = Repository(bench, root, "inner")
    outer = Repository(bench, root, "outer")
    git(str(outer.work), "submodule", "--quiet", "add", str(inner.path), "lib/inner")
    outer.commit("submodule")
    outer.push()
    status, text = bench.fails(f"FROM scratch\nADD {outer.url} /s\n")
    assert status == 7
    assert "submodules" in text


def test_hooks_filters_and_configuration_are_not_used(
    bench: Bench, repository: Repository, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    home = tmp_path / "home"
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (hooks / name).chmod(0o755)
    home.mkdir()
    (home / ".gitconfig").write_text(
        f"[core]\nhooksPath={hooks}\nsshCommand=touch {marker}\n"
        f'[filter "evil"]\nsmudge=touch {marker}\n[credential]\nhelper=!touch {marker}\n'
    )
    repository.put(".gitattributes", "* filter=evil\n")
    repository.commit("attributes")
    repository.push()
    bench.lamina.env |= {
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_ASKPASS": f"touch {marker}",
        "GIT_SSH_COMMAND": f"touch {marker}",
        "GIT_DIR": str(tmp_path),
    }
    bench.build(f"FROM scratch\nADD --keep-git-dir {repository.url} /s\n")
    bench.web.files["/secret.git/info/refs"] = Reply(401, headers=(("WWW-Authenticate", "Basic"),))
    status, _ = bench.fails(f"FROM scratch\nADD {bench.web.url}/secret.git /s\n")
    assert status == 7
    assert not marker.exists()


def test_dumb_http_gets_everything(bench: Bench, repository: Repository) -> None:
    git(str(repository.path), "update-server-info")
    for path in repository.path.rglob("*"):
        if path.is_file():
            name = f"/dumb.git/{path.relative_to(repository.path)}"
            bench.web.put(name, path.read_bytes())
    bench.web.git_root = ""
    tree = bench.tree(f"FROM scratch\nADD {bench.web.url}/dumb.git#feature/x /s\n")
    assert tree["s/README"].content == b"feature\n"


@pytest.fixture
def daemon(repository: Repository) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = repository.path.parent
    process = subprocess.Popen(
        ["git", "daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", f"--port={port}",
         f"--base-path={root}", str(root)],
        env={**os.environ, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory",
             "GIT_CONFIG_VALUE_0": "*"},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    wait_for_server(port, process)
    yield f"git://127.0.0.1:{port}"
    os.killpg(process.pid, 9)
    process.wait()


def test_gits_own_protocol(bench: Bench, repository: Repository, daemon: str) -> None:
    tree = bench.tree(f"FROM scratch\nADD {daemon}/{repository.path.name}#v1:docs /s\n")
    assert tree["s/a.txt"].content == b"a\n"


def test_no_password_in_any_argument_list(bench: Bench, tmp_path: Path) -> None:
    Repository(bench, tmp_path / "repositories")
    real = shutil.which("git")
    spy = tmp_path / "bin"
    spy.mkdir()
    seen = tmp_path / "seen"
    (spy / "git").write_text(f'#!/bin/sh\necho "$@" >> {seen}\nexec {real} "$@"\n')
    (spy / "git").chmod(0o755)
    bench.lamina.env["PATH"] = f"{spy}:{bench.lamina.env['PATH']}"
    url = bench.web.url.replace("http://", "http://me:geheim@") + "/project.git"
    bench.build(f"FROM scratch\nADD {url} /s\n")
    text = seen.read_text()
    assert "fetch" in text
    assert "geheim" not in text


def test_missing_git_is_named(bench: Bench, repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    bench.lamina.env["PATH"] = str(tmp_path / "empty")
    status, text = bench.fails(f"FROM scratch\nADD {repository.url} /s\n")
    assert status == 10
    assert "git is not installed" in text
