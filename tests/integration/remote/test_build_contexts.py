# SPDX-License-Identifier: Apache-2.0
"""Named contexts (--build-context), and build contexts behind a URL."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from lamina.testing.bench import Bench, is_cached
from lamina.testing.webserver import git


def archive(files: dict[str, str], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]  # modes are literals
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def repository(bench: Bench, root: Path, files: dict[str, str]) -> str:
    work = root / "work"
    work.mkdir(parents=True)
    git(str(work), "init", "--quiet")
    for name, text in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    git(str(work), "add", "--all")
    git(str(work), "commit", "--quiet", "-m", "x")
    git(str(root), "clone", "--quiet", "--bare", str(work), str(root / "p.git"))
    bench.web.git_root = str(root)
    return f"{bench.web.url}/p.git"


# Named contexts ------------------------------------------------------------------------------


def test_directory_as_source_and_as_base(bench: Bench) -> None:
    bench.write("other/a", "A", 0o640)
    bench.write("other/skip.log", "no")
    bench.write("other/.dockerignore", "*.log\n")
    tree = bench.tree(
        "FROM other AS x\nCOPY --from=other a /copied\n", "--build-context", "other=other"
    )
    assert (tree["a"].content, tree["a"].mode, tree["copied"].content) == (b"A", 0o640, b"A")
    assert "skip.log" not in tree


def test_directory_is_cached_by_content(bench: Bench) -> None:
    bench.write("one/a", "A")
    bench.write("two/a", "A")
    dockerfile = "FROM scratch\nCOPY --from=c . /\n"
    bench.build(dockerfile, "--build-context", "c=one")
    assert is_cached(bench.build(dockerfile, "--build-context", "c=two"))
    bench.write("two/a", "B")
    assert not is_cached(bench.build(dockerfile, "--build-context", "c=two"))


def test_context_replaces_a_stage_and_an_image(bench: Bench) -> None:
    bench.write("f", "from the stage")
    bench.write("given/f", "given")
    dockerfile = (
        "FROM scratch AS base\nCOPY f /f\nFROM base\nCOPY --from=nowhere.example/x:1 f /g\n"
    )
    tree = bench.tree(
        dockerfile,
        "--build-context",
        "base=given",
        "--build-context",
        "nowhere.example/x:1=given",
    )
    assert (tree["f"].content, tree["g"].content) == (b"given", b"given")


def test_image_as_context(bench: Bench) -> None:
    bench.write("f", "image")
    bench.build("FROM scratch\nCOPY f /f\nENV A=1\n", "-t", "made:1")
    words = ("--build-context", "docker.io/library/base:latest=docker-image://made:1")
    assert bench.tree("FROM base\n", *words)["f"].content == b"image"
    bench.build("FROM base\n", "-t", "out", *words)
    shown = bench.lamina("inspect", "--format", "{{json .Config.Env}}", "out").stdout
    assert '"A=1"' in shown
    tree = bench.tree("FROM base\nCOPY f /g\n", "--build-context", "base=docker-image://scratch")
    assert set(tree) == {"g"}


@pytest.mark.parametrize("suffix", ["", ":one", "@"])
def test_image_layout_as_context(bench: Bench, tmp_path: Path, suffix: str) -> None:
    bench.write("f", "layout")
    bench.build(
        "FROM scratch\nCOPY f /f\nENV A=1\n", "-o", "type=oci,dest=made.tar", "-t", "made:one"
    )
    layout = tmp_path / "layout"
    with tarfile.open(bench.cwd / "made.tar") as tar:
        tar.extractall(layout, filter="data")
    if suffix == "@":
        index = json.loads((layout / "index.json").read_text())
        suffix = "@" + index["manifests"][0]["digest"]
    bench.lamina.env["LAMINA_ROOT"] = str(tmp_path / "second")
    bench.lamina.root = tmp_path / "second"
    words = ("--build-context", f"base=oci-layout://{layout}{suffix}")
    assert bench.tree("FROM base\nCOPY --from=base f /g\n", *words)["g"].content == b"layout"
    assert "base" not in bench.lamina("images").stdout


def test_damaged_and_missing_layouts(bench: Bench, tmp_path: Path) -> None:
    bench.write("f", "layout")
    bench.build("FROM scratch\nCOPY f /f\n", "-o", "type=oci,dest=made.tar", "-t", "made:one")
    layout = tmp_path / "layout"
    with tarfile.open(bench.cwd / "made.tar") as tar:
        tar.extractall(layout, filter="data")
    bench.lamina.env["LAMINA_ROOT"] = str(tmp_path / "second")

    def fails(where: str) -> tuple[int, str]:
        found: tuple[int, str] = bench.fails(
            "FROM base\n", "--build-context", f"base=oci-layout://{where}"
        )
        return found

    status, text = fails(f"{layout}:other")
    assert (status, "has no image other" in text, "Dockerfile:1" in text) == (3, True, True)
    assert fails(f"{tmp_path}/nowhere")[0] == 3
    largest = max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    for path in (layout / "blobs/sha256").iterdir():
        if path == largest or path.read_bytes()[:2] == b"\x1f\x8b":
            path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert fails(f"{layout}:one")[0] == 6


def test_git_and_http_as_contexts(bench: Bench, tmp_path: Path) -> None:
    url = repository(bench, tmp_path / "r", {"a": "git", "sub/b": "below"})
    file = bench.web.put("/x.txt", b"http", mtime=1e9)
    tree = bench.tree(
        "FROM g\nCOPY --from=s b /b\nCOPY --from=h context /c\n",
        "--build-context",
        f"g={url}",
        "--build-context",
        f"s={url}#main:sub",
        "--build-context",
        f"h={file}",
        "--build-context",
        f"unused={bench.web.url}/nowhere.git",
    )
    assert tree["a"].content == b"git"
    assert tree["b"].content == b"below"
    assert tree["c"].content == b"http"


@pytest.mark.parametrize(
    ("value", "status", "words"),
    [
        ("x", 125, "expected NAME="),
        ("x=", 125, "expected NAME="),
        ("X=.", 125, "invalid context name"),
        ("x=nowhere", 3, "does not exist"),
        ("x=Dockerfile", 2, "not a directory"),
        ("x=target:y", 8, "is not supported"),
        ("x=docker-image://A", 125, "lowercase"),
    ],
)
def test_bad_values(bench: Bench, value: str, status: int, words: str) -> None:
    found, text = bench.fails("FROM scratch\nLABEL a=b\n", "--build-context", value)
    assert words in text
    assert found == status


# Remote build contexts -----------------------------------------------------------------------


def test_git_context(bench: Bench, tmp_path: Path) -> None:
    files = {
        "Dockerfile": "FROM scratch\nCOPY . /all\n",
        "a": "A",
        "no.log": "",
        ".dockerignore": "*.log\n",
        "sub/other": "FROM scratch\nCOPY c /c\n",
        "sub/c": "C",
    }
    url = repository(bench, tmp_path / "r", files)
    tree = bench.tree("", context=url)
    assert tree["all/a"].content == b"A"
    assert not [name for name in tree if ".git/" in name or name.endswith("no.log")]
    assert bench.tree("", "-f", "other", context=f"{url}#main:sub")["c"].content == b"C"
    kept = bench.tree("", "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", context=url)
    assert "all/.git/HEAD" in kept


def test_moved_commit_reruns_what_uses_changed_files(bench: Bench, tmp_path: Path) -> None:
    files = {"Dockerfile": "FROM scratch\nCOPY a /a\nCOPY b /b\n", "a": "1", "b": "1"}
    url = repository(bench, tmp_path / "r", files)
    bench.build("", context=url)
    work = tmp_path / "r" / "work"
    (work / "b").write_text("2")
    git(str(work), "commit", "--quiet", "-a", "-m", "two")
    git(str(work), "push", "--quiet", str(tmp_path / "r" / "p.git"), "main")
    log = bench.build("", "--explain", context=url)
    step = next(line.split(" ")[0] for line in log.splitlines() if "COPY a /a" in line)
    assert f"{step} CACHED" in log.splitlines()
    assert "bytes of b changed: 6b86b273ff34fce1 -> d4735e3a265e16ee" in log
    assert bench.tree("", context=url)["b"].content == b"2"


def test_archive_context(bench: Bench) -> None:
    files = {
        "Dockerfile": "FROM scratch\nCOPY a /a\n",
        "a": "A",
        "d/two": "FROM scratch\nCOPY a /b\n",
    }
    for mode in ("w:gz", "w:xz", "w:bz2", "w"):
        url = bench.web.put(f"/{mode[2:]}", archive(files, mode))
        assert bench.tree("", context=url)["a"].content == b"A"
    assert bench.tree("", "-f", "d/two", context=url)["b"].content == b"A"
    done = bench.lamina(
        "build", "-f", "-", "-o", "type=tar,dest=out.tar", url, stdin=b"FROM scratch\nCOPY a /c\n"
    )
    assert done.returncode == 0


def test_dockerfile_behind_a_url(bench: Bench) -> None:
    url = bench.web.put("/Dockerfile", b"FROM scratch\nCOPY <<x /x\nhi\nx\n")
    assert bench.tree("", context=url)["x"].content == b"hi\n"
    assert bench.fails("", "-f", "y", context=url)[0] == 125


def test_missing_remote_contexts(bench: Bench) -> None:
    status, text = bench.fails("", context=f"{bench.web.url}/none.tar")
    assert (status, "404" in text) == (3, True)
    status, text = bench.fails("", context=f"{bench.web.url}/none.git")
    assert status == 7
    status, text = bench.fails("", context=f"{bench.web.url}/none.git#--x")
    assert (status, "invalid git ref" in text) == (2, True)


def test_hostile_archive_context_stays_inside(bench: Bench, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("Dockerfile")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        up = tarfile.TarInfo("../../up")
        up.size = 1
        tar.addfile(up, io.BytesIO(b"x"))
    url = bench.web.put("/t", buffer.getvalue())
    _, text = bench.fails("", context=url)
    assert "root:" not in text
    assert not list(tmp_path.rglob("up"))


def test_python_api_takes_urls_and_named_contexts(bench: Bench, tmp_path: Path) -> None:
    import lamina

    bench.write("other/a", "A")
    text = b"FROM scratch\nCOPY --from=other a /a\n"
    url = bench.web.put("/Dockerfile", text)
    image = lamina.build(
        url, build_contexts={"other": str(bench.cwd / "other")}, root=str(tmp_path / "store")
    )
    assert len(image.layers()) == 1


def test_killed_build_leaves_no_checkout_for_long(bench: Bench, tmp_path: Path) -> None:
    bench.build("FROM scratch\nLABEL a=b\n")
    left = tmp_path / "store" / "tmp" / "git-left"
    left.mkdir(parents=True)
    os.utime(left, (1, 1))
    url = repository(bench, tmp_path / "r", {"Dockerfile": "FROM scratch\nLABEL a=b\n"})
    bench.build("", context=url)
    assert not left.exists()
