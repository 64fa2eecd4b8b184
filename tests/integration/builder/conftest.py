# SPDX-License-Identifier: Apache-2.0
"""A store with a busybox image, and plans that are solved on it by a real runtime."""

from __future__ import annotations

import os
import shutil
import threading
import time
from typing import TYPE_CHECKING

import pytest

from lamina.builder.build import Providers, Solve, Solved
from lamina.builder.context import Context
from lamina.builder.options import SolveOptions
from lamina.container.executor import RuntimeExecutor
from lamina.container.runtime import find_runtime
from lamina.events import Event, Outcome, VertexDone, VertexLog
from lamina.image.unpack import ensure_snapshot
from lamina.layer.create import create_layer
from lamina.layer.tarread import read_tar
from lamina.layer.walk import tree_items
from lamina.plan.graph import Edge, Plan, Vertex, VertexMeta, needed, vertex
from lamina.plan.ops import (
    CopyAction,
    Exec,
    FileAction,
    FileOp,
    ImageSource,
    LocalSource,
    MkdirAction,
    Op,
)
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import DiffID, Digest, Stack
from lamina.spec.mediatype import OCI_LAYER_OF
from lamina.store import open_store
from lamina.system.mounts import overlay_fd
from lamina.tasks import CancelToken, Work

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamina.container.ports import Executor
    from lamina.layer.entry import Entry
    from lamina.spec.span import Span
    from lamina.store import LocalStore

APPLETS = ("sh", "cat", "ls", "sleep", "touch", "rm", "ln", "mkdir", "id", "chmod", "stat", "test")


def busybox_tree(root: Path) -> None:
    """A minimal root filesystem with directories and links that COPY must respect."""
    for name in ("bin", "etc", "tmp", "root", "srv/real", "home/app"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "bin" / "busybox")
    (root / "bin" / "busybox").chmod(0o755)
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\nweb:x:33:app\n")
    (root / "srv" / "link").symlink_to("/srv/real")
    (root / "srv" / "dangling").symlink_to("made/here")
    (root / "srv" / "file").write_text("old\n")
    (root / "tmp").chmod(0o1777)
    (root / "home" / "app").chmod(0o700)
    os.chown(root / "home" / "app", 1000, 1001)


class Site:
    """A store, a context directory, and the image; makes plans and solves them."""

    def __init__(self, root: Path, store: LocalStore, image: Vertex) -> None:
        self.root = root
        self.store = store
        self.image = image
        self.context = root / "context"
        self.context.mkdir()
        self.source = self.vertex(LocalSource("context"), name="context")
        self.events: list[Event] = []
        self.executors = 0
        self._running: RuntimeExecutor | None = None
        self._lock = threading.Lock()

    # Plans ------------------------------------------------------------------------------

    def vertex(
        self,
        op: Op,
        *inputs: Vertex | None,
        name: str = "",
        exported: bool = True,
        span: Span | None = None,
    ) -> Vertex:
        edges = [Edge(i.digest) if i is not None else None for i in inputs]
        meta = VertexMeta(name or type(op).__name__, exported=exported, span=span)
        return vertex(op, edges, meta=meta)

    def run(
        self,
        script: str,
        base: Vertex | None = None,
        *,
        cwd: str = "/",
        user: str = "",
        network: str = "none",
        exported: bool = True,
        span: Span | None = None,
        proxies: tuple[tuple[str, str], ...] = (),
    ) -> Vertex:
        op = Exec(
            ("/bin/sh", "-c", script),
            (("PATH", "/bin"),),
            cwd,
            user=user,
            network=network,
            proxy_args=proxies,
        )
        return self.vertex(op, base or self.image, name=script, exported=exported, span=span)

    def copy(
        self,
        *patterns: str,
        to: str,
        base: Vertex | None = None,
        source: Vertex | None = None,
        owner: str | None = None,
        mode: str | None = None,
        unpack: bool = False,
        span: Span | None = None,
        ignore: tuple[str, ...] = (),
    ) -> Vertex:
        action = CopyAction(1, patterns, to, owner=owner, mode=mode, unpack=unpack)
        if ignore:
            source = self.vertex(LocalSource("context", ignore))
        return self.files(action, base=base, source=source or self.source, span=span)

    def files(
        self,
        *actions: FileAction,
        base: Vertex | None = None,
        source: Vertex | None = None,
        span: Span | None = None,
    ) -> Vertex:
        inputs = (base or self.image, source or self.source)
        name = " ".join(a.dest if isinstance(a, CopyAction) else a.path for a in actions)
        return self.vertex(FileOp(actions), *inputs, name=name, span=span)

    def workdir(self, path: str, base: Vertex | None = None) -> Vertex:
        return self.vertex(FileOp((MkdirAction(path),)), base or self.image, name=path)

    def plan(self, target: Vertex, *others: Vertex) -> Plan:
        return needed([self.image, self.source, *others, target], [Edge(target.digest)])

    # Solving ----------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)

    def executor(self) -> Executor:
        self.executors += 1
        runtime = find_runtime(self.store.root)
        self._running = RuntimeExecutor(runtime, state_dir=str(self.root / "state"))
        return self._running

    def solve(
        self,
        target: Vertex,
        *others: Vertex,
        no_cache: bool = False,
        jobs: int | None = None,
        cancel: CancelToken | None = None,
    ) -> Solved:
        self.events = []
        self._running = None
        try:
            with self.store.lease("test"):
                return Solve(
                    self.plan(target, *others),
                    store=self.store,
                    contexts={"context": Context(str(self.context))},
                    options=SolveOptions(no_cache=no_cache, jobs=jobs),
                    providers=Providers(self.executor),
                    work=Work(emit=self.emit, cancel=cancel or CancelToken(), clock=time.time),
                ).run()
        finally:
            if self._running is not None:
                self._running.close()

    def outcomes(self) -> list[Outcome]:
        """Final states of the vertices that add a layer, in the order in which they ended."""
        sources = {self.image.digest, self.source.digest}
        return [
            event.outcome
            for event in self.events
            if isinstance(event, VertexDone) and event.vertex not in sources
        ]

    def output(self, of: Vertex) -> bytes:
        logs = [e for e in self.events if isinstance(e, VertexLog) and e.vertex == of.digest]
        return b"".join(event.data for event in logs)

    # Results ----------------------------------------------------------------------------

    def layer(self, diff_id: DiffID) -> dict[bytes, tuple[Entry, bytes]]:
        """The members of a layer's blob."""
        record = self.store.metadata.get_layer(diff_id)
        assert record is not None
        from lamina.layer.compress import decompressed

        with self.store.content.open(record.blobs[0].digest) as blob:
            stream = decompressed(blob)
            return {e.path: (e, r.read()) for e, r in read_tar(stream)}

    def read(self, result: Stack, path: str) -> bytes:
        """A file of the merged tree."""
        chain = ensure_snapshot(
            self.store, result, work=Work(emit=self.emit, cancel=CancelToken(), clock=time.time)
        )
        fd = overlay_fd(self.store.snapshots.view(chain))
        try:
            with open(os.open(path.lstrip("/"), os.O_RDONLY, dir_fd=fd), "rb") as file:
                return file.read()
        finally:
            os.close(fd)

    def leftovers(self) -> list[str]:
        """What a solve must not leave behind."""
        active = [s.name for s in self.store.snapshots.walk() if not s.committed]
        with open("/proc/self/mounts") as table:
            mounts = [line for line in table if str(self.root) in line]
        scratch = self.root / "store" / "build"
        files = [str(path) for path in scratch.rglob("*") if path.name != "locks"]
        return [*active, *mounts, *files]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    store = open_store(str(tmp_path / "store"))
    tree = tmp_path / "rootfs"
    tree.mkdir()
    busybox_tree(tree)
    with store.content.ingest("base") as ingest:
        created = create_layer(tree_items(str(tree)), ingest.write, compression="uncompressed")
        digest = ingest.commit(digest=created.digest)
    blob = Descriptor(OCI_LAYER_OF["uncompressed"], digest, created.compressed_size)
    store.metadata.put_layer(created.diff_id, created.size, blob)
    op = ImageSource("docker.io/library/b:1", Digest.of(b"m"), (created.diff_id,), "linux/amd64")
    image = vertex(op, meta=VertexMeta("FROM b"))
    made = Site(tmp_path, store, image)
    yield made
    leftovers = made.leftovers()
    store.close()
    assert leftovers == []
