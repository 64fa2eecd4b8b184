# SPDX-License-Identifier: Apache-2.0
"""A busybox root file system, and an executor on each OCI runtime of this host."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lamina.container.executor import RuntimeExecutor
from lamina.container.host import Runtime
from lamina.container.ports import ProcessSpec
from lamina.container.runtime import find_runtime
from lamina.tasks import CancelToken

APPLETS = (
    "sh cat chmod cp date echo env false grep hostname id kill ls mkdir mknod mount mv "
    "readlink rm rmdir sleep sync tail test touch true umount wc wget head find dd unshare"
)


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A rootfs with busybox, the directories every image has, and three accounts."""
    top = tmp_path / "rootfs"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "run", "work"):
        (top / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", top / "bin/busybox")
    for name in APPLETS.split():
        (top / "bin" / name).symlink_to("busybox")
    (top / "tmp").chmod(0o1777)
    (top / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\napp:x:1001:2001:App:/home/app:/bin/sh\n"
    )
    (top / "etc/group").write_text("root:x:0:\nstaff:x:50:app,other\napp:x:2001:\naudio:x:29:app\n")
    (top / "etc/hosts").write_text("192.0.2.1 from-the-image\n")
    (top / "etc/hostname").write_text("from-the-image\n")
    (top / "etc/resolv.conf").write_text("nameserver 192.0.2.53\n")
    return top


@pytest.fixture(
    params=[
        pytest.param("crun", marks=pytest.mark.tool("crun")),
        pytest.param("runc", marks=pytest.mark.tool("runc")),
    ]
)
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """Each runtime, probed once a worker."""
    root = tmp_path_factory.getbasetemp() / f"store-{request.param}"
    root.mkdir(exist_ok=True)
    return find_runtime(str(root), override=request.param)


@pytest.fixture
def executor(runtime: Runtime, tmp_path: Path) -> Iterator[RuntimeExecutor]:
    with RuntimeExecutor(runtime, state_dir=str(tmp_path / "state")) as made:
        yield made
    state = tmp_path / "state"
    assert not state.exists() or list(state.iterdir()) == []


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(executor: RuntimeExecutor, rootfs: Path) -> Run:
    """run(*argv, **fields of ProcessSpec) -> (status, stdout, stderr)."""

    def run_process(*argv: str, **fields: object) -> tuple[int, str, str]:
        return run_with(executor, rootfs, *argv, **fields)

    return run_process


def run_with(
    executor: RuntimeExecutor, rootfs: Path, *argv: str, **fields: object
) -> tuple[int, str, str]:
    output: dict[int, bytes] = {1: b"", 2: b""}

    def collect(stream: int, data: bytes) -> None:
        output[stream] += data

    process = ProcessSpec(argv=argv, **{"env": (), **fields})  # type: ignore[arg-type]
    status = executor.run(process, str(rootfs), on_output=collect, cancel=CancelToken())
    return status, output[1].decode(), output[2].decode()
