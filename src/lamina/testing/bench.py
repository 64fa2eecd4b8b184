# SPDX-License-Identifier: Apache-2.0
"""Builds in a working directory of their own, for tests, and what they made, read from a tar."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

from lamina.testing.command import Lamina
from lamina.testing.webserver import WebServer


class Bench:
    """A command in a working directory with Dockerfiles, and a server."""

    def __init__(self, lamina: Lamina, web: WebServer) -> None:
        self.lamina = lamina
        self.web = web
        self.cwd = lamina.cwd
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            lamina.env.pop(name, None)
            lamina.env.pop(name.upper(), None)

    def write(self, name: str, text: str | bytes, mode: int = 0o644) -> Path:
        path = self.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    def build(self, dockerfile: str, *words: str, context: str = ".") -> str:
        """Build; the log as --progress=plain prints it."""
        self.write("Dockerfile", dockerfile)
        done = self.lamina("build", "--progress=plain", *words, context)
        return done.stderr

    def tree(self, dockerfile: str, *words: str, context: str = ".") -> dict[str, Member]:
        """What the build's filesystem holds."""
        self.build(dockerfile, "-o", "type=tar,dest=out.tar", *words, context=context)
        return read_tree(self.cwd / "out.tar")

    def fails(self, dockerfile: str, *words: str, context: str = ".") -> tuple[int, str]:
        """The exit status and the error of a build that fails."""
        self.write("Dockerfile", dockerfile)
        done = self.lamina("build", "--progress=plain", *words, context, check=False)
        assert done.returncode != 0
        return done.returncode, done.stderr


def is_cached(log: str) -> bool:
    """Whether every COPY and ADD of a build (its log) was cached."""
    lines = log.splitlines()
    steps = [
        line.split(" ", 1)[0] for line in lines if re.search(r"/\d+\] (COPY|ADD|FROM c)", line)
    ]
    assert steps
    return all(f"{step} CACHED" in lines for step in steps)


class Member:
    """A file of a tree."""

    def __init__(self, info: tarfile.TarInfo, content: bytes) -> None:
        self.type = info.type
        self.mode = info.mode
        self.owner = (info.uid, info.gid)
        self.mtime = int(info.mtime)
        self.link = info.linkname
        self.content = content


def read_tree(path: Path) -> dict[str, Member]:
    found = {}
    with tarfile.open(path) as archive:
        for info in archive:
            file = archive.extractfile(info) if info.isfile() else None
            name = info.name.removeprefix("./").rstrip("/")
            found[name] = Member(info, file.read() if file is not None else b"")
    found.pop("", None)
    found.pop(".", None)
    return found
