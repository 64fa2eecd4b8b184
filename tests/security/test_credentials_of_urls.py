# SPDX-License-Identifier: Apache-2.0
"""Credentials of a URL go to its own scheme, host and port, and are written down nowhere."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sqlite3
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from lamina.testing.bench import Bench, is_cached
from lamina.testing.command import Lamina
from lamina.testing.webserver import Reply, WebServer, git

pytestmark = pytest.mark.tool("git")

PASSWORD = f"hunter2-{uuid.uuid4().hex}"  # others run this test at the same time
SIGNATURE = uuid.uuid4().hex
BASIC = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
CHALLENGE = Reply(401, b"", (("WWW-Authenticate", 'Basic realm="x"'),))
SECRETS = (PASSWORD, SIGNATURE, BASIC.removeprefix("Basic "))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A store, a working directory, and a web server with the repository `project.git`."""
    (tmp_path / "work").mkdir()
    with WebServer() as web:
        made = Bench(Lamina(tmp_path / "store", tmp_path / "work"), web)
        web.git_root = str(make_repository(tmp_path / "repositories", "project"))
        yield made
    shutil.rmtree(tmp_path, ignore_errors=True)


def make_repository(root: Path, name: str, submodule: str = "") -> Path:
    work = root / f"{name}-work"
    work.mkdir(parents=True)
    git(str(work), "init", "--quiet")
    (work / "README").write_text(f"{name}\n")
    (work / "Dockerfile").write_text("FROM scratch\nCOPY README /\n")
    if submodule:
        (work / ".gitmodules").write_text(f'[submodule "s"]\n\tpath = s\n\turl = {submodule}\n')
        commit = git(str(root / "project-work"), "rev-parse", "HEAD")
        git(str(work), "update-index", "--add", "--cacheinfo", f"160000,{commit},s")
        git(str(work), "add", ".gitmodules")
    git(str(work), "add", "README", "Dockerfile")
    git(str(work), "commit", "--quiet", "-m", "one")
    git(str(root), "clone", "--quiet", "--bare", str(work), str(root / f"{name}.git"))
    return root


def with_user(url: str) -> str:
    return url.replace("http://", f"http://me:{PASSWORD}@")


def authorizations(web: WebServer) -> set[str | None]:
    return {headers.get("authorization") for _, _, headers in web.requests}


def redirect(web: WebServer, name: str, target: str, *, challenges: bool) -> None:
    """Have the repository `name` of the server lead to another address."""
    to = Reply(302, b"", (("Location", f"{target}/info/refs?service=git-upload-pack"),))

    def answer(headers: dict[str, str]) -> Reply:
        return CHALLENGE if challenges and headers.get("authorization") != BASIC else to

    web.files[f"/{name}.git/info/refs"] = answer


@pytest.mark.parametrize("challenges", [False, True])
@pytest.mark.parametrize("where", ["port", "host"])
def test_redirected_repository_takes_no_credentials_along(
    bench: Bench, where: str, *, challenges: bool
) -> None:
    with WebServer() as other:
        if where == "port":
            other.git_root = bench.web.git_root
            target, elsewhere = f"{other.url}/project.git", other
        else:
            target, elsewhere = f"http://localhost:{bench.web.port}/project.git", bench.web
        redirect(bench.web, "moved", target, challenges=challenges)
        tree = bench.tree(f"FROM scratch\nADD {with_user(bench.web.url)}/moved.git /s\n")
        assert tree["s/README"].content == b"project\n"
        asked = [(path, headers) for _, path, headers in elsewhere.requests if "project" in path]
    assert {path.partition("?")[0].rpartition("/")[2] for path, _ in asked} == {
        "refs",
        "git-upload-pack",
    }
    assert not [headers for _, headers in asked if "authorization" in headers]
    first = [h for _, path, h in bench.web.requests if path.startswith("/moved.git/")]
    assert BASIC in {headers.get("authorization") for headers in first}


def test_host_behind_a_redirect_that_asks_for_credentials_gets_none(bench: Bench) -> None:
    with WebServer() as other:
        other.files["/project.git/info/refs"] = CHALLENGE
        redirect(bench.web, "moved", f"{other.url}/project.git", challenges=True)
        status, text = bench.fails(f"FROM scratch\nADD {with_user(bench.web.url)}/moved.git /s\n")
        assert authorizations(other) == {None}
    assert status == 7
    assert PASSWORD not in text


def test_request_after_the_first_is_not_redirected_with_credentials(bench: Bench) -> None:
    """A server that changes its mind when git asks for what it was told."""
    with WebServer() as other:
        asked = 0

        def answer(_headers: dict[str, str]) -> Reply:
            nonlocal asked
            asked += 1
            if asked == 1:
                return CHALLENGE
            location = f"{other.url}/project.git/info/refs?service=git-upload-pack"
            return Reply(302, b"", (("Location", location),))

        bench.web.files["/moved.git/info/refs"] = answer
        bench.fails(f"FROM scratch\nADD {with_user(bench.web.url)}/moved.git /s\n")
        assert authorizations(other) <= {None}


def test_repository_that_moved_on_its_own_host_gets_the_credentials(bench: Bench) -> None:
    root = Path(bench.web.git_root)
    redirect(bench.web, "old", f"{bench.web.url}/project.git", challenges=True)
    bench.tree(f"FROM scratch\nADD {with_user(bench.web.url)}/old.git /s\n")
    assert authorizations(bench.web) == {BASIC}
    assert root.joinpath("project.git").is_dir()


@pytest.mark.parametrize("own", [False, True])
def test_submodule_gets_credentials_if_its_host_is_the_same_and_asks(
    bench: Bench, *, own: bool
) -> None:
    root = Path(bench.web.git_root)
    with WebServer() as other:
        other.git_root = str(root)
        server = bench.web if own else other
        make_repository(root, "outer", submodule=f"{server.url}/project.git")

        def private(headers: dict[str, str]) -> Reply | None:
            return CHALLENGE if own and headers.get("authorization") != BASIC else None

        server.gate = private
        tree = bench.tree(f"FROM scratch\nADD {with_user(bench.web.url)}/outer.git /s\n")
        assert tree["s/s/README"].content == b"project\n"
        assert authorizations(other) <= {None}


def test_downloads_keep_credentials_on_their_own_scheme_host_and_port(bench: Bench) -> None:
    with WebServer() as other:
        other.put("/end", b"there")
        bench.web.put("/end", b"here")
        places = {"/a": f"{other.url}/end", "/b": f"{bench.web.url}/end", "/c": "/end"}
        for path, target in places.items():
            bench.web.files[path] = Reply(302, b"", (("Location", target),))
        user = with_user(bench.web.url)
        bench.tree(f"FROM scratch\nADD {user}/a /a\nADD {user}/b /b\nADD {user}/c /c\n")
        assert authorizations(other) == {None}
    assert authorizations(bench.web) == {BASIC}


def test_changed_password_reruns_nothing(bench: Bench) -> None:
    bench.web.put("/f", b"x")
    user = with_user(bench.web.url)
    text = f"FROM scratch\nADD {user}/f /f\nADD --keep-git-dir {user}/project.git /s\n"
    bench.build(text)
    assert is_cached(bench.build(text.replace(PASSWORD, "another")))


# Nowhere written --------------------------------------------------------------------------------


def holders(root: Path) -> list[str]:
    """Files that hold a secret: as bytes, decompressed, and as rows of the database."""
    found = []
    for top, _, names in os.walk(root):
        for name in names:
            path = Path(top) / name
            try:
                data = b"" if path.is_symlink() or not path.is_file() else path.read_bytes()
            except FileNotFoundError:
                continue
            if data[:2] == b"\x1f\x8b":
                data += subprocess.run(
                    ["gzip", "-dc", str(path)], capture_output=True, check=False
                ).stdout
            if any(secret.encode() in data for secret in SECRETS):
                found.append(str(path))
    database = root / "meta.sqlite"
    if database.exists():  # what the bytes hold only in pieces
        with sqlite3.connect(database) as connection:
            rows = "\n".join(connection.iterdump())
        found += [f"a row: {secret}" for secret in SECRETS if secret in rows]
        connection.close()
    return found


class Watch:
    """Looks at the arguments of every process, and at the store, until the block ends."""

    def __init__(self, root: Path) -> None:
        self.seen: set[str] = set()
        self.looks = 0
        self._root = root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self.looks += 1
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    raw = path.read_bytes()
                    if any(secret.encode() in raw for secret in SECRETS):
                        self.seen.add(raw.decode(errors="replace"))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()


SOURCES = {
    "file": "FROM scratch\nADD {user}/f?sig={signature} /f\n",
    "repository": "FROM scratch\nADD {user}/project.git#main /s\n",
    "kept git directory": "FROM scratch\nADD --keep-git-dir {user}/project.git /s\n",
    "linked": "FROM scratch\nADD --link {user}/f?X-Amz-Signature={signature} /f\n",
    "json form": 'FROM scratch\nADD ["{user}/f?token={signature}", "/f"]\n',
    "argument": "FROM scratch\nARG WHERE={user}\nADD $WHERE/f /f\n",
    "warning": "FROM scratch\nadd {user}/f?sig={signature} /f\n",
    "in a RUN step": "FROM scratch\nRUN curl {user}/f?sig={signature}\nNONSENSE\n",
    "named context": "FROM scratch\nCOPY --from=named README /r\n",
    "missing": "FROM scratch\nADD {user}/missing?sig={signature} /f\n",
    "missing repository": "FROM scratch\nADD {user}/missing.git /s\n",
    "wrong line": "FROM scratch\nADD {user}/f?sig={signature} /f\nNONSENSE\n",
    "bad checksum": "FROM scratch\nADD --checksum=sha256:{zeros} {user}/f?sig={signature} /f\n",
    "bad ref": "FROM scratch\nADD {user}/project.git#a..b /s\n",
    "not for COPY": "FROM scratch\nCOPY {user}/f?sig={signature} /f\n",
    "bare slash": "FROM scratch\nADD http://me:x/{password}@127.0.0.1/f /f\n",
}


@pytest.mark.parametrize("progress", ["plain", "json"])
@pytest.mark.parametrize("name", SOURCES)
def test_secret_is_in_no_file_no_output_and_no_argument(
    bench: Bench, name: str, progress: str
) -> None:
    bench.web.put("/f", b"x")
    user = with_user(bench.web.url)
    text = SOURCES[name].format(user=user, signature=SIGNATURE, zeros="0" * 64, password=PASSWORD)
    words = ["-t", "app", "-o", "type=oci,dest=../out.tar", "--load", "--metadata-file=../meta"]
    words += ["--cache-to=type=local,dest=../cache", "--explain", f"--progress={progress}"]
    if name == "named context":
        (bench.cwd / "bake.json").write_text(
            json.dumps({"target": {"app": {"contexts": {"named": f"{user}/project.git"}}}})
        )
    (bench.cwd / "Dockerfile").write_text(text)
    outputs = []
    with Watch(bench.lamina.root) as watch:
        for attempt in range(2):
            if name == "named context":
                done = bench.lamina(
                    "bake", "-f", "bake.json", "app", f"--progress={progress}", check=False
                )
            else:
                done = bench.lamina("build", *words, ".", check=False)
            outputs.append(done.stdout + done.stderr)
            (bench.cwd / "Dockerfile").write_text(text.replace("/f\n", f"/g{attempt}\n"))
    assert watch.looks
    built = done.returncode == 0
    assert built == (name not in {"missing", "missing repository", "wrong line", "bad checksum", "in a RUN step",
                                  "bad ref", "not for COPY", "bare slash"})  # fmt: skip
    commands = (
        ["builds"],
        ["builds", "inspect"],
        ["builds", "logs"],
        ["why"],
        ["build", "--check"],
    )
    for command in commands:
        done = bench.lamina(*command, check=False)
        outputs.append(done.stdout + done.stderr)
    if built and name != "named context":
        outputs.append(bench.lamina("history", "--no-trunc", "app").stdout)
        outputs.append(bench.lamina("inspect", "app").stdout)
        bench.lamina("save", "-o", "../saved.tar", "app")
        bench.lamina("cache", "export", "--to", "../exported", check=False)
    assert not [text for text in outputs if any(secret in text for secret in SECRETS)]
    assert not watch.seen
    shutil.rmtree(bench.cwd)  # the Dockerfile itself
    bench.cwd.mkdir()
    shutil.rmtree(bench.web.git_root)
    assert holders(bench.lamina.root.parent) == []


@pytest.mark.parametrize("context", ["project.git", "context.tar"])
def test_secret_of_a_remote_context_is_written_nowhere(bench: Bench, context: str) -> None:
    subprocess.run(
        ["tar", "-cf", "../context.tar", "-C", f"{bench.web.git_root}/project-work", "."],
        cwd=bench.cwd,
        check=True,
    )
    bench.web.put("/context.tar", (bench.cwd.parent / "context.tar").read_bytes())
    where = f"{with_user(bench.web.url)}/{context}?sig={SIGNATURE}"
    if context.endswith(".git"):
        where = where.partition("?")[0]
    done = bench.lamina(
        "build", "-t", "app", "--build-context", f"n={where}", "--build-arg", f"A={where}", "--explain",
        "--cache-to=type=local,dest=../cache", where,
    )  # fmt: skip
    outputs = [done.stdout + done.stderr]
    commands = (["builds"], ["builds", "inspect"], ["history", "--no-trunc", "app"])
    outputs += [bench.lamina(*command).stdout for command in commands]
    failed = bench.lamina("build", where.replace("project", "missing").replace("context", "no"),
                          check=False)  # fmt: skip
    outputs.append(failed.stdout + failed.stderr)
    assert failed.returncode == 7 or failed.returncode == 3
    assert not [text for text in outputs if any(secret in text for secret in SECRETS)]
    shutil.rmtree(bench.web.git_root)
    assert holders(bench.lamina.root.parent) == []


def test_mask_is_what_the_history_and_the_progress_say(bench: Bench) -> None:
    bench.web.put("/f", b"x")
    url = f"{with_user(bench.web.url)}/f?v=1&sig={SIGNATURE}"
    shown = f"{bench.web.url.replace('http://', 'http://me:xxxxx@')}/f?v=1&sig=xxxxx"
    log = bench.build(f"FROM scratch\nADD {url} /f\n", "-t", "app")
    assert f"ADD {shown} /f" in log
    assert f"load {shown}" in log
    history = bench.lamina("history", "--no-trunc", "--format", "{{.CreatedBy}}", "app").stdout
    assert f"ADD {shown} /f # buildkit" in history
