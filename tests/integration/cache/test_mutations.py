# SPDX-License-Identifier: Apache-2.0
"""Every kind of change: exactly the right steps rerun, the image is that of a clean build, and the
one true cause is named. Each from a directory and from a piped archive.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from lamina.testing.project import STEPS, Project

pytestmark = [pytest.mark.root, pytest.mark.tool("crun")]

SOURCES = ("copy-src", "run-cat", "copy-from", "copy-assets", "run-mount", "run-done")
FINAL = ("copy-from", "copy-assets", "run-mount", "run-done")
NOTHING: tuple[str, ...] = ()


class Mutation(NamedTuple):
    """A change, what must rerun, and of each step (all by default) its (cause, subject).

    `flags` are for the build.
    """

    change: Callable[[Project], object]
    reruns: tuple[str, ...]
    cause: str = ""
    subject: str = ""
    own: dict[str, tuple[str, str]] = {}  # noqa: RUF012  # never changed
    flags: tuple[str, ...] = ()


def same_size_same_mtime(project: Project) -> None:
    path = project.context / "src/main.c"
    before = path.stat()
    path.write_text(path.read_text().replace("main", "mean"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def rename_over(project: Project) -> None:
    new = project.context / "src/new"
    shutil.copy2(project.context / "src/main.c", new)
    new.rename(project.context / "src/main.c")


def hard_link_edit(project: Project) -> None:
    outside = project.place / "outside.c"
    os.link(project.context / "src/main.c", outside)
    outside.write_text("int mean;\n")


def recreate_in_other_order(project: Project) -> None:
    folder = project.context / "src"
    moved = project.place / "moved"
    folder.rename(moved)
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    for path in sorted(moved.iterdir(), reverse=True):
        path.rename(folder / path.name)


def to_symlink(project: Project) -> None:
    (project.context / "src/notes.txt").unlink()
    (project.context / "src/notes.txt").symlink_to("main.c")


def relink(project: Project) -> None:
    (project.context / "src/link").unlink()
    (project.context / "src/link").symlink_to("util.c")


def edits(*pairs: tuple[str, str]) -> Callable[[Project], object]:
    def change(project: Project) -> None:
        for old, new in pairs:
            project.edit(old, new)

    return change


def another_name(project: Project) -> None:
    project.lamina("tag", "busybox", "bb")
    project.edit("FROM busybox\n", "FROM bb\n")


def append(path: str, text: str = "more\n") -> Callable[[Project], object]:
    def change(project: Project) -> None:
        with (project.context / path).open("a") as file:
            file.write(text)

    return change


def write(path: str, text: str = "new\n") -> Callable[[Project], object]:
    def change(project: Project) -> None:
        place = project.context / path
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
        place.chmod(0o644)
        place.parent.chmod(0o755)

    return change


def edit(old: str, new: str) -> Callable[[Project], object]:
    return lambda project: project.edit(old, new)


def on(path: str, work: Callable[[Any], object]) -> Callable[[Project], object]:
    return lambda project: work(project.context / path)


MOUNT = "--mount=type=bind,source=scripts,target=/s"
MUTATIONS: dict[str, Mutation] = {
    # files that a COPY selects
    "bytes": Mutation(append("src/main.c"), SOURCES, "file-content", "src/main.c"),
    "same size and mtime": Mutation(same_size_same_mtime, SOURCES, "file-content", "src/main.c"),
    "edit through a hard link": Mutation(hard_link_edit, SOURCES, "file-content", "src/main.c"),
    "file added": Mutation(write("src/extra.c"), SOURCES, "file-added", "src/extra.c"),
    "file removed": Mutation(
        on("src/util.c", lambda p: p.unlink()), SOURCES, "file-removed", "src/util.c"
    ),
    "file renamed": Mutation(
        on("src/util.c", lambda p: p.rename(p.with_name("abc.c"))),
        SOURCES, "file-renamed", "src/abc.c",
    ),
    "file made empty": Mutation(
        on("src/util.c", lambda p: p.write_text("")), SOURCES, "file-content", "src/util.c"
    ),
    "mode": Mutation(
        on("src/main.c", lambda p: p.chmod(0o755)),
        ("copy-src", "run-cat"), "file-mode", "src/main.c",
    ),
    "mode of a directory": Mutation(
        on("src/sub", lambda p: p.chmod(0o700)), ("copy-src", "run-cat"), "file-mode", "src/sub"
    ),
    "file becomes a link": Mutation(
        to_symlink, ("copy-src", "run-cat"), "file-type", "src/notes.txt"
    ),
    "link leads elsewhere": Mutation(relink, ("copy-src", "run-cat"), "file-link", "src/link"),
    "directory added": Mutation(
        on("src/empty", lambda p: (p.mkdir(), p.chmod(0o755))),
        ("copy-src", "run-cat"), "file-added", "src/empty",
    ),
    "bytes deep down": Mutation(
        append("src/sub/deep.h"), ("copy-src", "run-cat"), "file-content", "src/sub/deep.h"
    ),
    "bytes that the result does not have": Mutation(
        append("src/notes.txt"), ("copy-src", "run-cat"), "file-content", "src/notes.txt"
    ),
    "another COPY's file": Mutation(
        append("assets/logo.svg"),
        ("copy-assets", "run-mount", "run-done"), "file-content", "assets/logo.svg",
    ),
    "file of a bind mount": Mutation(
        append("scripts/go.sh"), ("run-mount", "run-done"), "file-content", "scripts/go.sh"
    ),
    "file added to a bind mount": Mutation(
        write("scripts/b.sh"), ("run-mount", "run-done"), "file-added", "scripts/b.sh"
    ),
    "ignored by a new pattern": Mutation(
        append(".dockerignore", "src/util.c\n"), SOURCES, "file-removed", "src/util.c"
    ),
    "no longer ignored": Mutation(
        lambda p: (write("src/x.log")(p), (p.context / ".dockerignore").write_text("README.md\n")),
        ("copy-src", "run-cat"), "file-added", "src/x.log",
    ),
    # files that change nothing
    "mtime": Mutation(on("src/main.c", lambda p: os.utime(p, (1, 1))), NOTHING),
    "owner": Mutation(on("src/main.c", lambda p: os.chown(p, 1234, 1234)), NOTHING),
    "rename over with the same bytes": Mutation(rename_over, NOTHING),
    "directory order": Mutation(recreate_in_other_order, NOTHING),
    "hard link beside it": Mutation(
        lambda p: os.link(p.context / "src/main.c", p.place / "beside"), NOTHING
    ),
    "file that nothing selects": Mutation(write("unused.txt"), NOTHING),
    "ignored file": Mutation(append("README.md"), NOTHING),
    "new ignored file": Mutation(write("src/deep.log", "x\n"), ("copy-src", "run-cat"),
                                 "file-added", "src/deep.log"),
    "comment in .dockerignore": Mutation(append(".dockerignore", "# why\n"), NOTHING),
    # the Dockerfile
    "comment": Mutation(edit("FROM busybox AS", "# a comment\nFROM busybox AS"), NOTHING),
    "empty lines": Mutation(edit("WORKDIR", "\n\nWORKDIR"), NOTHING),
    "LABEL": Mutation(edit("a=1", "a=2"), NOTHING),
    "LABEL reordered": Mutation(edit("a=1 b=2", "b=2 a=1"), NOTHING),
    "CMD": Mutation(edit('"cat", "/app/out.txt"', '"true"'), NOTHING),
    "EXPOSE": Mutation(edit("WORKDIR /app", "EXPOSE 80\nWORKDIR /app"), NOTHING),
    "stage renamed": Mutation(
        edits(("AS builder", "AS maker"), ("--from=builder", "--from=maker")),
        NOTHING,
    ),
    "unused stage": Mutation(edit("FROM busybox AS", "FROM scratch AS x\nFROM busybox AS"), NOTHING),
    "RUN text": Mutation(
        edit("echo done >", "echo over >"),
        ("RUN echo over",), "instruction", "RUN echo over > /tmp/done",
    ),
    "RUN text of the first stage": Mutation(
        edit("cat /src/*.c >", "cat /src/*.c /src/sub/* >"), ("run-cat", *FINAL), "instruction"
    ),
    "RUN added in the middle": Mutation(
        edit("COPY assets", "RUN echo between > /between\nCOPY assets"),
        ("RUN echo between", "copy-assets", "run-mount", "run-done"),
        "instruction-added", "RUN echo between > /between",
        own={"RUN echo between": ("new", "")},
    ),
    "RUN added at the end": Mutation(
        edit("CMD", "RUN echo last > /last\nCMD"), ("RUN echo last",), "new"
    ),
    "RUN removed": Mutation(
        edit(f"RUN {MOUNT} ls /s > /app/list && cat /s/* >> /app/list\n", ""),
        ("run-done",), "instruction-removed",
    ),
    "COPY moved": Mutation(
        edits(
            ("COPY assets /app/assets\n", ""),
            ("COPY --from", "COPY assets /app/assets\nCOPY --from"),
        ),
        FINAL, "instruction-moved", "COPY assets /app/assets",
    ),
    "destination": Mutation(
        edit("assets /app/assets", "assets /app/static"),
        ("copy-assets", "run-mount", "run-done"), "instruction", "COPY assets /app/static",
    ),
    "source": Mutation(
        edit("COPY assets /", "COPY assets/logo.svg /"),
        ("COPY assets/logo", "run-mount", "run-done"), "instruction",
    ),
    "--chown": Mutation(
        edit("COPY assets", "COPY --chown=7:7 assets"),
        ("--chown=7:7", "run-mount", "run-done"), "setting", "--chown",
    ),
    "--chmod": Mutation(
        edit("COPY assets", "COPY --chmod=600 assets"),
        ("--chmod=600", "run-mount", "run-done"), "setting", "--chmod",
    ),
    "WORKDIR": Mutation(
        edit("WORKDIR /app", "WORKDIR /app2"), ("WORKDIR /app2", *FINAL), "instruction",
        "WORKDIR /app2",
    ),
    "ENV value": Mutation(edit("MODE=fast", "MODE=slow"), ("run-cat", *FINAL), "env", "MODE"),
    "ENV added": Mutation(
        edit("WORKDIR /app", "ENV NEW=1\nWORKDIR /app"), ("run-mount", "run-done"), "env", "NEW"
    ),
    "ENV removed": Mutation(edit("ENV MODE=fast\n", ""), ("run-cat", *FINAL), "env", "MODE"),
    "ARG default": Mutation(
        edit("VERSION=1", "VERSION=2"), ("run-cat", *FINAL), "arg", "VERSION"
    ),
    "build argument": Mutation(
        lambda p: None, ("run-cat", *FINAL), "arg", "VERSION", flags=("--build-arg", "VERSION=9")
    ),
    "build argument that is not declared": Mutation(
        lambda p: None, NOTHING, flags=("--build-arg", "OTHER=9")
    ),
    "build argument with the default's value": Mutation(
        lambda p: None, NOTHING, flags=("--build-arg", "VERSION=1")
    ),
    "proxy": Mutation(lambda p: None, NOTHING, flags=("--build-arg", "HTTP_PROXY=http://p:1")),
    "label of the command line": Mutation(lambda p: None, NOTHING, flags=("--label", "x=1")),
    "ARG after its users": Mutation(edit("CMD", "ARG LATE=1\nCMD"), NOTHING),
    "USER": Mutation(
        edit("RUN echo done", "USER 7\nRUN echo done"), ("run-done",), "setting", "USER"
    ),
    "SHELL": Mutation(
        edit("RUN echo done", 'SHELL ["/bin/sh", "-ec"]\nRUN echo done'),
        ("run-done",), "setting", "SHELL",
    ),
    "--network": Mutation(
        edit("RUN echo done", "RUN --network=none echo done"),
        ("--network=none",), "setting", "--network",
    ),
    "--shm-size": Mutation(
        lambda p: None, ("run-cat", "run-mount", "run-done"), "setting", "--shm-size",
        flags=("--shm-size", "32m"),
    ),
    "mount elsewhere": Mutation(
        edit(f"RUN {MOUNT} ls /s > /app/list && cat /s/*",
             "RUN --mount=type=bind,source=scripts,target=/t ls /t > /app/list && cat /t/*"),
        ("run-mount",), "instruction",  # it makes the same files: what follows stays cached
    ),
    "mount added": Mutation(
        edit("RUN echo done", "RUN --mount=type=tmpfs,target=/scratch echo done"),
        ("type=tmpfs",), "mount", "/scratch",
    ),
    "mount writable": Mutation(
        edit("target=/s ", "target=/s,rw "), ("run-mount",), "mount", "/s"
    ),
    "heredoc added": Mutation(
        edit("RUN echo done", "COPY <<EOF /here\nx\nEOF\nRUN echo done"),
        ("EOF /here", "run-done"), "instruction-added",
        own={"EOF /here": ("new", "")},
    ),
    # the base and the cache
    "base with other content": Mutation(
        lambda p: p.lamina("tag", "other", "busybox"), tuple(STEPS), "base",
        "docker.io/library/busybox:latest",
    ),
    "another base": Mutation(
        edit("FROM busybox\n", "FROM other\n"), ("workdir", *FINAL), "base",
        "docker.io/library/other:latest",
    ),
    "no base": Mutation(
        lambda p: p.dockerfile.write_text("FROM scratch\nCOPY assets /app/assets\n"),
        ("COPY assets",), "base",
    ),
    "base under another name": Mutation(
        another_name, NOTHING
    ),
    "base named again": Mutation(lambda p: p.lamina("tag", "busybox", "busybox"), NOTHING),
    "--no-cache": Mutation(lambda p: None, tuple(STEPS), "no-cache", "--no-cache",
                           flags=("--no-cache",)),
    "--no-cache-filter": Mutation(
        lambda p: None, ("copy-src", "run-cat"), "no-cache", "--no-cache-filter builder",
        flags=("--no-cache-filter", "builder"),
    ),
    "pruned": Mutation(
        lambda p: p.lamina("builder", "prune", "-af"), tuple(STEPS), "pruned", "to free space"
    ),
}  # fmt: skip


def test_there_are_enough_kinds() -> None:
    assert len(MUTATIONS) >= 40


@pytest.mark.parametrize("kind", MUTATIONS)
def test_change(kind: str, project: Project, usual_umask: None) -> None:
    mutation = MUTATIONS[kind]
    mutation.change(project)
    built = project.build(*mutation.flags)
    expected = {STEPS.get(step, step) for step in mutation.reruns}
    matched = {part for part in expected for name in built.ran if part in name}
    assert matched == expected, built.ran.keys()
    assert len(built.ran) == len(expected), built.ran.keys()
    for step in mutation.reruns:
        why = built.why(STEPS.get(step, step))
        cause, subject = mutation.own.get(step, (mutation.cause, mutation.subject))
        assert why["cause"] == cause, (step, why["text"])
        if subject:
            assert why["subject"] == subject, (step, why["text"])
        assert why["more"] == 0, (step, why["text"])
    flags = () if mutation.cause == "no-cache" else mutation.flags
    clean = project.build("--no-cache", *flags)
    assert built.content() == clean.content()
    again = project.build(*flags)
    assert not again.ran
