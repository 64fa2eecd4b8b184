# SPDX-License-Identifier: Apache-2.0
"""`lamina cache`: cache mounts that are listed, removed, and taken from one machine to another."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lamina.app.cachecopies import Entry, encode
from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import Digest
from lamina.store.cachemounts import open_cache
from lamina.tasks import CancelToken
from lamina.testing.command import Lamina
from lamina.testing.registry import RegistryServer

pytestmark = [pytest.mark.root, pytest.mark.tool("crun")]

DOCKERFILE = """\
FROM busybox
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=cache,id=apt,target=/a,sharing=locked \
 if test -e /root/.cache/pip/wheel; then echo warm > /state; else echo cold > /state; fi && \
 mkdir -p /root/.cache/pip/http/a /a/partial && echo $RANDOM$RANDOM > /root/.cache/pip/wheel && \
 ln -sf ../wheel /root/.cache/pip/http/link && ln -f /root/.cache/pip/wheel /root/.cache/pip/hard && \
 head -c 100000 /dev/zero > /root/.cache/pip/http/a/body && chown 100:101 /a/partial && \
 chmod 700 /a/partial && touch -d '2020-01-02 03:04:05' /a/partial
"""


@pytest.fixture
def machines(tmp_path: Path, busybox_store: Path) -> Iterator[Callable[[str], Lamina]]:
    """A machine by name: a command on a store of its own, in a directory with the Dockerfile."""

    def machine(name: str) -> Lamina:
        place = tmp_path / name
        place.mkdir()
        subprocess.run(["cp", "-a", str(busybox_store), str(place / "store")], check=True)
        (place / "Dockerfile").write_text(DOCKERFILE)
        return Lamina(place / "store", place)

    yield machine
    shutil.rmtree(tmp_path, ignore_errors=True)


def build(lamina: Lamina) -> str:
    """Build without the build cache; `warm` if the cache mount was there before."""
    target = lamina.cwd / "out"
    shutil.rmtree(target, ignore_errors=True)
    lamina("build", "--no-cache", "-o", f"type=local,dest={target}", ".")
    return (target / "state").read_text().strip()


def names(lamina: Lamina) -> list[str]:
    return sorted(lamina("cache", "ls", "--format", "{{.Name}}").stdout.split())


def tree(lamina: Lamina, id: str) -> list[tuple[object, ...]]:
    """What a cache holds, with all that must survive a journey."""
    path = Path(lamina("cache", "inspect", "-f", "{{.Path}}", id).stdout.strip())
    found: list[tuple[object, ...]] = []
    for each in [path, *sorted(path.rglob("*"))]:
        s = each.lstat()
        content: object = os.readlink(each) if each.is_symlink() else None
        if each.is_file() and not each.is_symlink():
            content = each.read_bytes()
        nlink = 0 if each.is_dir() else s.st_nlink
        found.append(
            (
                str(each.relative_to(path)),
                s.st_mode,
                s.st_uid,
                s.st_gid,
                int(s.st_mtime),
                nlink,
                content,
            )
        )
    return found


@pytest.mark.parametrize("kind", ["directory", "archive", "registry"])
def test_caches_survive_on_another_machine(
    machines: Callable[[str], Lamina], tmp_path: Path, kind: str, registry: RegistryServer
) -> None:
    target = {
        "directory": f"type=local,dest={tmp_path}/dir",
        "archive": f"oci-archive:{tmp_path}/caches.tar",
        "registry": f"{registry.host}/ci/caches:main",
    }[kind]
    one, two = machines("one"), machines("two")
    assert build(one) == "cold"
    assert build(one) == "warm"
    digest = one("cache", "export", "--all", "--to", target).stdout
    assert one("cache", "export", "--all", "--to", target).stdout == digest  # the same bytes
    done = two("cache", "import", target)
    assert sorted(line.split()[1] for line in done.stdout.splitlines()) == [
        "/root/.cache/pip",
        "apt",
    ]
    for id in ("/root/.cache/pip", "apt"):
        assert tree(two, id) == tree(one, id)
    assert build(two) == "warm"
    assert not os.listdir(two.root / "tmp" / "caches")


def test_an_export_replaces_and_an_import_chooses(
    machines: Callable[[str], Lamina], tmp_path: Path
) -> None:
    one, two = machines("one"), machines("two")
    build(one)
    place = tmp_path / "dir"
    for _ in range(3):
        build(one)
        one("cache", "export", "apt", "/root/.cache/pip", "--to", str(place))
    assert len(os.listdir(place / "blobs/sha256")) == 4  # nothing of earlier exports
    inspected = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{place}"], check=True, capture_output=True
    )
    assert len(json.loads(inspected.stdout)["layers"]) == 2
    two("cache", "import", str(place), "apt")
    assert names(two) == ["apt"]
    missing = two("cache", "import", str(place), "nothing", check=False)
    assert missing.returncode == 3
    assert "it has: /root/.cache/pip, apt" in missing.stderr


def test_list_inspect_remove_and_prune(machines: Callable[[str], Lamina]) -> None:
    lamina = machines("one")
    build(lamina)
    rows = [
        json.loads(line) for line in lamina("cache", "ls", "--format", "json").stdout.splitlines()
    ]
    assert {row["Name"] for row in rows} == {"apt", "/root/.cache/pip"}
    assert all(row["InUse"] == "false" and "RUN" in row["Step"] for row in rows)
    build_id = lamina("builds", "--format", "{{.Ref}}").stdout.split()[0]
    assert {row["Build"] for row in rows} == {build_id}
    (document,) = json.loads(lamina("cache", "inspect", "apt").stdout)
    assert document["Size"] > 0
    df = lamina("system", "df", "-v").stdout
    assert document["Id"] in df
    assert "cache mount apt" in df
    assert lamina("cache", "ls", "-q", "--filter", "id=*pip").stdout.split() != []
    assert lamina("cache", "ls", "-q", "--filter", "until=1h").stdout == ""
    assert (
        "Total reclaimed space: 0B" in lamina("cache", "prune", "-f", "--filter", "until=1h").stdout
    )
    assert lamina("cache", "rm", document["Id"][:6]).stdout == document["Id"] + "\n"
    assert lamina("cache", "rm", "apt", check=False).returncode == 3
    pruned = lamina("cache", "prune", "--force").stdout
    assert "/root/.cache/pip" in pruned
    assert names(lamina) == []


def test_what_a_step_holds_is_refused_by_name(
    machines: Callable[[str], Lamina], tmp_path: Path
) -> None:
    one = machines("one")
    build(one)
    place = str(tmp_path / "dir")
    one("cache", "export", "apt", "--to", place)
    held = open_cache(
        str(one.root), "/apt", variant="", sharing="shared", fill=lambda _: None,
        waiting=lambda: None, cancel=CancelToken(),
    )  # fmt: skip
    with held:
        assert one("cache", "ls", "-q", "--filter", "in-use=true").stdout != ""
        for words in (("export", "apt", "--to", place), ("import", place), ("rm", "apt")):
            refused = one("cache", *words, check=False)
            assert refused.returncode == 4
            assert "the cache apt" in refused.stderr
        one("cache", "prune", "-f")
        assert names(one) == ["apt"]
    one("cache", "import", place)


def test_old_cache_mounts_go_after_a_build(machines: Callable[[str], Lamina]) -> None:
    lamina = machines("one")
    build(lamina)
    config = lamina.cwd / "config.toml"
    config.write_text('gc-cache-mount-max-age = "7d"\n')
    lamina.env["LAMINA_CONFIG"] = str(config)
    (path,) = lamina("cache", "inspect", "-f", "{{.Path}}", "apt").stdout.split()
    os.utime(Path(path).parent / "lock", (0, 0))
    (lamina.root / "locks" / "gc-checked").unlink(missing_ok=True)
    (lamina.cwd / "Dockerfile").write_text("FROM busybox\nRUN echo other > /o\n")
    lamina("build", ".")
    assert names(lamina) == ["/root/.cache/pip"]


def artifact(place: Path, layer: bytes, *, id: str = "/c", damage: bool = False) -> str:
    """A layout with one cache whose layer these bytes are."""
    blobs = place / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    descriptor = Descriptor(mediatype.OCI_LAYER, Digest.of(layer), len(layer))
    manifest, config = encode([Entry(id, "", descriptor)])
    for raw in (layer, config, manifest.raw):
        (blobs / Digest.of(raw).hex).write_bytes(raw)
    if damage:
        (blobs / descriptor.digest.hex).write_bytes(bytes([layer[0] ^ 1]) + layer[1:])
    index = {
        "schemaVersion": 2,
        "manifests": [
            manifest.descriptor().to_json()
            | {"annotations": {"org.opencontainers.image.ref.name": "latest"}}
        ],
    }
    (place / "index.json").write_text(json.dumps(index))
    (place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return str(place)


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def test_hostile_artifacts_change_nothing(
    machines: Callable[[str], Lamina], tmp_path: Path
) -> None:
    lamina = machines("one")
    build(lamina)
    before = names(lamina)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    layers = {
        "hard": tar_of(link("x", f"../../../../../..{outside}/secret", tarfile.LNKTYPE)),
        "whiteout": tar_of((tarfile.TarInfo(".wh.x"), b"")),
        "cut": tar_of((tarfile.TarInfo("a"), b"x" * 2000))[:1000],
    }
    for name, layer in layers.items():
        done = lamina("cache", "import", artifact(tmp_path / name, layer), check=False)
        assert done.returncode == 2, (name, done.stderr)
    confined = tar_of(
        link("out", str(outside)),
        (tarfile.TarInfo("out/file"), b"x"),
        (tarfile.TarInfo(f"../../../../../../../..{outside}/file"), b"x"),
    )
    lamina("cache", "import", artifact(tmp_path / "confined", confined))
    damaged = artifact(tmp_path / "damaged", tar_of(), damage=True)
    assert lamina("cache", "import", damaged, check=False).returncode == 6
    assert sorted(os.listdir(outside)) == ["secret"]
    assert names(lamina) == sorted([*before, "c"])  # the confined one, as a layer would be
    archive = tmp_path / "links.tar"
    archive.write_bytes(tar_of(link("index.json", str(outside / "secret"))))
    done = lamina("cache", "import", f"oci-archive:{archive}", check=False)
    assert done.returncode == 2
    assert "neither a file nor a directory" in done.stderr


def test_what_is_no_cache_is_refused(machines: Callable[[str], Lamina], tmp_path: Path) -> None:
    lamina = machines("one")
    lamina("build", "-o", f"type=oci,dest={tmp_path}/image.tar", "--no-cache", ".")
    done = lamina("cache", "import", f"oci-archive:{tmp_path}/image.tar", check=False)
    assert done.returncode in {2, 3}
    for words, status in (
        (("export", "--to", "x"), 125),
        (("export", "--all", "--to", "docker-archive:x"), 8),
        (("export", "--all", "--to", "type=s3,dest=x"), 8),
        (("export", "--all", "--to", "type=local,dest=x,mode=max"), 125),
        (("export", "nothing", "--to", "/x"), 3),
        (("ls", "--filter", "color=red"), 125),
    ):
        assert lamina("cache", *words, check=False).returncode == status, words
