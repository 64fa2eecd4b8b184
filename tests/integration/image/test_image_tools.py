# SPDX-License-Identifier: Apache-2.0
"""Archives beside skopeo, umoci, podman and buildah; rootfs outputs on the real kernel."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamina.app.images import load_images, save_images
from lamina.bootstrap.images import bootstrap
from lamina.bootstrap.options import PATH, BootstrapOptions
from lamina.events import Notice, silent
from lamina.exporter.ports import BuildResult, Output
from lamina.exporter.table import make_exporter
from lamina.image.resolve import find_image
from lamina.image.view import Image
from lamina.spec.platform import host
from lamina.store import open_store
from lamina.tasks import CancelToken, Work
from lamina.testing.command import Lamina

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.events import Event
    from lamina.store.ports import Store

pytestmark = [pytest.mark.root, pytest.mark.tool("busybox")]
HOST = host(os.uname().machine)
APP = "docker.io/library/app:latest"
CONTAINERS_CONF = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'


def busybox_options(**changes: object) -> BootstrapOptions:
    values: dict[str, object] = {
        "what": "busybox",
        "names": (APP,),
        "platform": HOST,
        "created": 1_700_000_000.0,
        "search_path": PATH,
    }
    return BootstrapOptions(**(values | changes))  # type: ignore[arg-type]  # by field name


@pytest.fixture
def app(store: Store) -> Image:
    bootstrap(store, busybox_options(), key="t", emit=silent, cancel=CancelToken())
    return find_image(store, "app")


def save(store: Store, path: Path, *, format: str = "docker-archive") -> str:
    with open(path, "wb") as file:
        save_images(store, ["app"], file.write, format=format, platform=HOST, cancel=CancelToken())
    return str(path)


def tool(*argv: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env=os.environ | (env or {})
    )
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout.strip()


def load_file(store: Store, path: str) -> list[str]:
    with open(path, "rb") as file:
        loaded = load_images(store, file, platform=HOST, cancel=CancelToken())
    return [name for image in loaded for name in image.names]


def tree_of(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything a layer keeps of each file, by path."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = Path(folder) / name
            status = path.lstat()
            link = os.readlink(path) if path.is_symlink() else ""
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            owner = (status.st_mode, status.st_uid, status.st_gid)
            found[str(path.relative_to(root))] = (*owner, int(status.st_mtime), link, data)
    return found


def result_of(image: Image, *, epoch: int | None = None) -> BuildResult:
    config = image.config()
    return BuildResult(config.diff_ids, config, len(config.diff_ids), (APP,), 0.0, epoch)


@pytest.mark.tool("skopeo")
@pytest.mark.parametrize("format", ["docker-archive", "oci-archive"])
def test_skopeo_reads_what_is_saved_and_its_copies_load(
    store: Store, app: Image, tmp_path: Path, format: str
) -> None:
    saved = save(store, tmp_path / "saved.tar", format=format)
    shown = json.loads(tool("skopeo", "inspect", f"{format}:{saved}"))
    assert shown["Os"] == "linux"
    for kind in ("docker-archive", "oci-archive"):
        copy = tmp_path / f"{kind}.tar"
        tool("skopeo", "--insecure-policy", "copy", f"{format}:{saved}", f"{kind}:{copy}:copied:1")
        other = open_store(str(tmp_path / f"other-{kind}"))
        try:
            assert load_file(other, str(copy)) == ["docker.io/library/copied:1"]
            assert find_image(other, "copied:1").config().diff_ids == app.config().diff_ids
        finally:
            other.close()


@pytest.mark.tool("umoci")
def test_umoci_unpacks_the_layout_as_we_extract_it(
    store: Store, app: Image, tmp_path: Path
) -> None:
    layout, ours = tmp_path / "layout", tmp_path / "ours"
    for output in (Output("oci", str(layout), tar=False), Output("local", str(ours))):
        exporter = make_exporter(output, privileged=True)
        with store.lease("test"):
            exporter.export(
                result_of(app), store, work=Work(emit=silent, cancel=CancelToken(), clock=time.time)
            ).finalize()
    tool("umoci", "unpack", "--image", f"{layout}:latest", str(tmp_path / "bundle"))
    theirs = tree_of(tmp_path / "bundle" / "rootfs")
    assert tree_of(ours) == theirs
    assert theirs["bin/sh"][4] == "/bin/busybox"


@pytest.fixture
def short_dir() -> Iterator[str]:
    """podman refuses a run root of more than 50 characters."""
    with tempfile.TemporaryDirectory(prefix="lp") as path:
        yield path


@pytest.mark.tool("podman")
def test_podman_loads_ours_and_we_load_podmans(
    store: Store, app: Image, tmp_path: Path, short_dir: str
) -> None:
    conf = tmp_path / "containers.conf"
    conf.write_text(CONTAINERS_CONF)
    env = {"CONTAINERS_CONF": str(conf)}
    podman = (
        "podman", "--root", f"{short_dir}/p", "--runroot", f"{short_dir}/r",
        "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
    )  # fmt: skip
    for format in ("docker-archive", "oci-archive"):
        saved = save(store, tmp_path / f"{format}.tar", format=format)
        assert "app:latest" in tool(*podman, "load", "-i", saved, env=env)
        ids = tool(*podman, "images", "-q", "--no-trunc", "app", env=env)
        assert ids == str(app.id)
        back = str(tmp_path / f"back-{format}.tar")
        tool(*podman, "save", "--format", format, "-o", back, "app", env=env)
        tool(*podman, "rmi", "-f", "app", env=env)
        other = open_store(str(tmp_path / f"other-{format}"))
        try:
            (name,) = load_file(other, back)
            assert name == APP
            assert find_image(other, name).config().diff_ids == app.config().diff_ids
        finally:
            other.close()


@pytest.mark.tool("buildah")
def test_images_built_by_buildah_load(store: Store, app: Image, tmp_path: Path) -> None:
    saved = save(store, tmp_path / "base.tar")
    buildah = (
        "buildah", "--root", str(tmp_path / "b"), "--runroot", str(tmp_path / "r"),
        "--storage-driver", "vfs",
    )  # fmt: skip
    tool(*buildah, "pull", f"docker-archive:{saved}")
    container = tool(*buildah, "from", "--pull-never", "app")
    (tmp_path / "file").write_text("from buildah\n")
    tool(*buildah, "copy", container, str(tmp_path / "file"), "/file")
    tool(*buildah, "config", "--cmd", '["cat", "/file"]', container)
    for kind in ("docker-archive", "oci-archive"):
        archive = str(tmp_path / f"built-{kind}.tar")
        tool(*buildah, "commit", container, f"{kind}:{archive}:localhost/built:1")
        assert load_file(store, archive) == ["localhost/built:1"]
        built = find_image(store, "localhost/built:1")
        assert built.config().config.cmd == ("cat", "/file")
        assert built.config().diff_ids[0] == app.config().diff_ids[0]
        with built.layers()[-1].uncompressed() as tar:
            assert b"from buildah" in tar.read()


def test_rootfs_tar_is_the_tree_with_clamped_times(
    store: Store, app: Image, tmp_path: Path
) -> None:
    archives = []
    for number in (1, 2):
        dest = tmp_path / f"{number}.tar"
        exporter = make_exporter(Output("tar", str(dest)))
        with store.lease("test"):
            exporter.export(
                result_of(app, epoch=1_000_000_000),
                store,
                work=Work(emit=silent, cancel=CancelToken(), clock=time.time),
            ).finalize()
        archives.append(dest.read_bytes())
    assert archives[0] == archives[1]
    with tarfile.open(fileobj=io.BytesIO(archives[0])) as tar:
        assert tar.getmember("bin/busybox").mode == 0o755
        assert {member.mtime for member in tar} == {1_000_000_000}


def test_rootfs_tar_to_a_stream(store: Store, app: Image) -> None:
    stream = io.BytesIO()
    exporter = make_exporter(Output("tar", "-"), stdout=stream)
    with store.lease("test"):
        exporter.export(
            result_of(app), store, work=Work(emit=silent, cancel=CancelToken(), clock=time.time)
        ).finalize()
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as tar:
        assert "etc/passwd" in tar.getnames()


def test_local_output_without_privileges_belongs_to_the_caller(
    store: Store, app: Image, tmp_path: Path
) -> None:
    exporter = make_exporter(Output("local", str(tmp_path / "out")))
    with store.lease("test"):
        exporter.export(
            result_of(app), store, work=Work(emit=silent, cancel=CancelToken(), clock=time.time)
        ).finalize()
    assert (tmp_path / "out/bin/sh").is_symlink()
    assert (tmp_path / "out/etc/shadow").stat().st_mode & 0o7777 == 0o640


def test_busybox_image_is_the_same_every_time(store: Store, app: Image, tmp_path: Path) -> None:
    other = open_store(str(tmp_path / "other"))
    try:
        packed = bootstrap(other, busybox_options(), key="u", emit=silent, cancel=CancelToken())
        assert packed.config == app.id
    finally:
        other.close()


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.tool("mmdebstrap")
def test_debian_image_is_the_same_with_an_epoch(
    store: Store, debian_store: Path, tmp_path: Path
) -> None:
    told: list[Event] = []
    options = busybox_options(
        what="debian:bookworm", epoch=1_700_000_000, tool_env=tuple(os.environ.items())
    )
    packed = bootstrap(store, options, key="d", emit=told.append, cancel=CancelToken())
    assert str(packed.config) == Lamina(debian_store, tmp_path).id_of("debian:bookworm")
    assert any(isinstance(event, Notice) for event in told)
    config = find_image(store, "app").config()
    assert config.config.cmd == ("bash",)
    assert dict(config.config.env)["PATH"]


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.tool("mmdebstrap")
def test_unknown_suite_is_one_error(store: Store) -> None:
    from lamina.errors import Kind, LaminaError

    options = busybox_options(what="debian:nosuchsuite", tool_env=tuple(os.environ.items()))
    with pytest.raises(LaminaError) as caught:
        bootstrap(store, options, key="x", emit=silent, cancel=CancelToken())
    assert caught.value.kind is Kind.UNSUPPORTED
    assert "'nosuchsuite'" in str(caught.value)
    assert store.metadata.list_names() == []
