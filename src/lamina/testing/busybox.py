# SPDX-License-Identifier: Apache-2.0
"""A tiny image made from the host's busybox, and the command line run against a store."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lamina.app.container_json import inspect
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import DiffID, Digest
from lamina.store import open_store
from lamina.testing import command
from lamina.testing.command import installed
from lamina.testing.waiting import wait_until

IMAGE = "docker.io/library/bb:latest"
BUSYBOX = "/bin/busybox"
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/home/guest:/bin/sh\n"
GROUP = b"root:x:0:\nguest:x:1000:\nextra:x:2000:guest\n"
OCI = "application/vnd.oci.image"


def busybox_layer() -> bytes:
    """An uncompressed layer: busybox and its applets, accounts, and a file in /data."""
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, check=True, text=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, data: bytes = b"", *, mode: int = 0o755, **fields: Any) -> None:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = mode, len(data)
            for field, value in fields.items():
                setattr(entry, field, value)
            tar.addfile(entry, io.BytesIO(data))

        for directory in ("bin", "etc", "root", "proc", "sys", "dev", "home", "data"):
            add(directory, type=tarfile.DIRTYPE)
        add("tmp", mode=0o1777, type=tarfile.DIRTYPE)
        add("home/guest", type=tarfile.DIRTYPE, uid=1000, gid=1000)
        add("etc/passwd", PASSWD, mode=0o644)
        add("etc/group", GROUP, mode=0o644)
        add("etc/notexec", b"just text\n", mode=0o644)
        add("data/seed", b"from the image\n", mode=0o640, uid=1000, gid=1000)
        add("bin/busybox", Path(BUSYBOX).read_bytes())
        for applet in applets.stdout.split():
            if applet != "busybox":
                add(f"bin/{applet}", type=tarfile.SYMTYPE, linkname="busybox")
    return buffer.getvalue()


def make_image(root: str, name: str = IMAGE, **config: Any) -> str:
    """Store the busybox image under `name`, with fields of the `config` object; its image id."""
    store = open_store(root)
    try:
        layer = busybox_layer()
        layer_digest = store.content.add(layer)
        blob = Descriptor(f"{OCI}.layer.v1.tar", layer_digest, len(layer))
        store.metadata.put_layer(DiffID(layer_digest), len(layer), blob)
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], **config},
            "rootfs": {"type": "layers", "diff_ids": [str(layer_digest)]},
        }
        raw = json.dumps(document).encode()
        config_digest = store.content.add(raw)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{OCI}.manifest.v1+json",
                "config": _descriptor(f"{OCI}.config.v1+json", config_digest, raw),
                "layers": [_descriptor(f"{OCI}.layer.v1.tar", layer_digest, layer)],
            }
        ).encode()
        digest = store.content.add(manifest)
        target = Descriptor(f"{OCI}.manifest.v1+json", digest, len(manifest))
        store.metadata.set_names([name], target)
        return str(config_digest)
    finally:
        store.close()


def _descriptor(media_type: str, digest: Digest, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(digest), "size": len(data)}


class Lamina:
    """The command line on one store."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.env = {
            "LAMINA_ROOT": root,
            "PATH": os.environ["PATH"],
            "HOME": "/root",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }

    def argv(self, *arguments: str) -> list[str]:
        return command.actor.command(installed(*arguments), cwd="/", own=(self.root,))

    def __call__(
        self, *arguments: str, input: str | None = None, status: int = 0, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.argv(*arguments),
            input=input if input is not None else None,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            env=self.env,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
        return done

    def out(self, *arguments: str, status: int = 0) -> str:
        """What it printed on standard output, without the last newline."""
        return self(*arguments, status=status).stdout.rstrip("\n")

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        defaults: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        return subprocess.Popen(
            self.argv(*arguments), env=self.env, stderr=subprocess.PIPE, **{**defaults, **options}
        )

    def inspect(self, name: str) -> dict[str, Any]:
        """The container as JSON."""
        store = open_store(self.root)
        try:
            return inspect(store, name)
        finally:
            store.close()

    def directories(self) -> list[str]:
        """The containers' directories that exist."""
        return sorted(os.listdir(f"{self.root}/containers"))


def processes_of(root: str) -> list[str]:
    """Command lines of processes that name the store at `root`."""
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit() and int(pid) != os.getpid():
            try:
                text = Path(f"/proc/{pid}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if root.encode() in text:
                found.append(text.replace(b"\0", b" ").decode())
    return found


@contextmanager
def using(root: str) -> Iterator[Lamina]:
    """The command line on the store at `root`; in the end its containers are removed, and fails if
    anything is left of them.
    """
    command = Lamina(root)
    try:
        yield command
    finally:
        names = command.out("ps", "-aq").split()
        if names:
            command("rm", "-f", *names)
    assert command.directories() == []
    assert root not in Path("/proc/mounts").read_text()
    # a monitor lets go of its container, then ends
    wait_until(lambda: processes_of(root) == [], "no process of the store is left")
    store = open_store(root)
    try:
        assert store.documents.list("address") == []
        assert [s.name for s in store.snapshots.walk() if not s.committed] == []
    finally:
        store.close()
