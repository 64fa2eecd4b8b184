# SPDX-License-Identifier: Apache-2.0
"""`lamina system fsck`: one bit is flipped in each kind of file, found, and repaired or told as lost."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lamina.testing.command import Lamina
from lamina.testing.registry import RegistryServer

pytestmark = [pytest.mark.root, pytest.mark.tool("crun")]

DOCKERFILE = """\
FROM busybox
COPY file /file
RUN --mount=type=cache,id=c,target=/c echo cached > /c/f && mkdir -m 750 /made && echo made > /made/f
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path_factory.mktemp("fsck-registry") / "registry") as server:
        yield server


@pytest.fixture(scope="module")
def pristine(
    busybox_store: Path, tmp_path_factory: pytest.TempPathFactory, registry: RegistryServer
) -> Iterator[Path]:
    """A store with an image that is in the registry too, unpacked, and a build cache."""
    place = tmp_path_factory.mktemp("fsck")
    subprocess.run(["cp", "-a", str(busybox_store), str(place / "store")], check=True)
    lamina = Lamina(place / "store", place)
    (place / "file").write_text("content\n")
    (place / "Dockerfile").write_text(DOCKERFILE)
    lamina("build", "-t", f"{registry.host}/app:1", "--push", ".")
    yield place / "store"
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def lamina(tmp_path: Path, pristine: Path) -> Iterator[Lamina]:
    subprocess.run(["cp", "-a", str(pristine), str(tmp_path / "store")], check=True)
    yield Lamina(tmp_path / "store", tmp_path)
    shutil.rmtree(tmp_path, ignore_errors=True)


def flip(path: Path, *, at: int = -1) -> None:
    """Flip one bit, keeping mode and times."""
    before = path.stat()
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 if at < 0 else at] ^= 1
    path.chmod(0o644)
    path.write_bytes(raw)
    path.chmod(before.st_mode & 0o7777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def fsck(lamina: Lamina, *words: str, status: int) -> list[dict[str, str]]:
    done = lamina("system", "fsck", "--format", "json", *words, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def manifest_of(lamina: Lamina, name: str) -> tuple[str, dict[str, dict[str, str]]]:
    index = json.loads((lamina.root / "index.json").read_text())
    (digest,) = [
        entry["digest"]
        for entry in index["manifests"]
        if name in entry["annotations"]["org.opencontainers.image.ref.name"]
    ]
    return digest, json.loads(blob(lamina, digest).read_text())


def blob(lamina: Lamina, digest: str) -> Path:
    return lamina.root / "blobs/sha256" / digest.partition(":")[2]


def snapshot_file(lamina: Lamina, name: str) -> Path:
    found = [path for path in (lamina.root / "snapshots").glob(f"*/fs/{name}") if path.is_file()]
    return found[0]


def flip_manifest(lamina: Lamina) -> None:
    flip(blob(lamina, manifest_of(lamina, "app")[0]))


def flip_config(lamina: Lamina) -> None:
    flip(blob(lamina, manifest_of(lamina, "app")[1]["config"]["digest"]))


def flip_copies(lamina: Lamina) -> None:
    change_row("UPDATE state SET value = CAST(value || ' ' AS BLOB) WHERE key LIKE 'copy:%'")(
        lamina
    )


def flip_manifest_and_copy(lamina: Lamina) -> None:
    flip_manifest(lamina)
    flip_copies(lamina)


def flip_config_and_copy(lamina: Lamina) -> None:
    flip_config(lamina)
    flip_copies(lamina)


def lose_manifest(lamina: Lamina) -> None:
    blob(lamina, manifest_of(lamina, "app")[0]).unlink()


def lose_config(lamina: Lamina) -> None:
    blob(lamina, manifest_of(lamina, "app")[1]["config"]["digest"]).unlink()


def flip_layer(lamina: Lamina, position: int = 1) -> None:
    layers: list[dict[str, str]] = manifest_of(lamina, "app")[1]["layers"]  # type: ignore[assignment]
    flip(blob(lamina, layers[position]["digest"]))


def flip_file_of_a_snapshot(lamina: Lamina) -> None:
    flip(snapshot_file(lamina, "made/f"))


def change_mode_in_a_snapshot(lamina: Lamina) -> None:
    snapshot_file(lamina, "made/f").parent.chmod(0o755)


def lose_a_snapshot(lamina: Lamina) -> None:
    shutil.rmtree(snapshot_file(lamina, "made/f").parents[1])


def flip_index(lamina: Lamina) -> None:
    flip(lamina.root / "index.json")


def flip_layout(lamina: Lamina) -> None:
    flip(lamina.root / "oci-layout", at=25)


def change_row(statement: str) -> Callable[[Lamina], None]:
    def change(lamina: Lamina) -> None:
        connection = sqlite3.connect(lamina.root / "meta.sqlite")
        assert connection.execute(statement).rowcount > 0
        connection.commit()
        connection.close()

    return change


def flip_database(lamina: Lamina) -> None:
    """A bit of a page's header of the table `layers`: sqlite's own structure."""
    connection = sqlite3.connect(lamina.root / "meta.sqlite")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (page,) = connection.execute(
        "SELECT rootpage FROM sqlite_schema WHERE name = 'layers'"
    ).fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    path = lamina.root / "meta.sqlite"
    raw = bytearray(path.read_bytes())
    raw[(page - 1) * size] ^= 0x40
    path.write_bytes(raw)


def flip_about(lamina: Lamina) -> None:
    (path,) = (lamina.root / "cachemounts").glob("*/about.json")
    flip(path, at=0)


DAMAGE: dict[str, tuple[Callable[[Lamina], None], str, str]] = {
    "manifest": (flip_manifest, "blob", "put back from the database's copy"),
    "config": (flip_config, "blob", "put back from the database's copy"),
    "manifest without a copy": (flip_manifest_and_copy, "blob", "fetched again"),
    "config without a copy": (flip_config_and_copy, "blob", "fetched again"),
    "lost manifest": (lose_manifest, "missing", "put back from the database's copy"),
    "lost config": (lose_config, "missing", "put back from the database's copy"),
    "copy of a document": (flip_copies, "copy", "forgotten"),
    "layer of a COPY": (flip_layer, "blob", "made again from its snapshot"),
    "layer of a RUN": (
        lambda lamina: flip_layer(lamina, 2),
        "blob",
        "made again from its snapshot",
    ),
    "base layer": (lambda lamina: flip_layer(lamina, 0), "blob", ""),
    "file of a snapshot": (flip_file_of_a_snapshot, "snapshot", "unpacked again"),
    "mode in a snapshot": (change_mode_in_a_snapshot, "snapshot", "unpacked again"),
    "directory of a snapshot": (lose_a_snapshot, "snapshot", "unpacked again"),
    "index.json": (flip_index, "layout", "written again"),
    "oci-layout": (flip_layout, "layout", "written again"),
    "cache record": (change_row("UPDATE cache SET tree = tree || ' '"), "cache", "forgotten"),
    "name": (change_row("UPDATE names SET name = name || 'x'"), "layout", "written again"),
    "layer record": (
        change_row(
            "UPDATE layer_blobs SET diff_id = replace(diff_id, substr(diff_id, -4), '0000')"
        ),
        "layer",
        "forgotten",
    ),
    "database": (flip_database, "database", "rebuilt"),
    "cache mount": (flip_about, "cache mount", "removed"),
}


def test_a_sound_store_is_sound(lamina: Lamina) -> None:
    assert fsck(lamina, status=0) == []
    done = lamina("system", "fsck")
    assert "sound" in done.stderr
    assert fsck(lamina, "--repair", status=0) == []
    assert not (lamina.root / "quarantine").exists()


def test_notes_of_clamped_and_squashed_layers_are_sound_and_may_be_damaged(
    lamina: Lamina, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo 1 > /one\nRUN echo 2 > /two\n")
    words = ("build", "--squash", "--timestamp", "1000", "-t", "derived", ".")
    lamina(*words)
    made = lamina.id_of("derived")
    assert fsck(lamina, status=0) == []
    with sqlite3.connect(lamina.root / "meta.sqlite") as database:
        notes = "kind IN ('clamped-layer', 'squashed-layer')"
        assert database.execute(f"SELECT 1 FROM documents WHERE {notes}").fetchall()
        database.execute(f"UPDATE documents SET body = 'sha256:x' WHERE {notes}")
        database.execute("DELETE FROM documents WHERE kind = 'export'")  # or nothing is made again
    database.close()
    lamina(*words)
    assert lamina.id_of("derived") == made
    assert fsck(lamina, status=0) == []


@pytest.mark.parametrize("kind", DAMAGE)
def test_one_flipped_bit_is_found_and_repaired(lamina: Lamina, kind: str) -> None:
    damage, part, cure = DAMAGE[kind]
    damage(lamina)
    found = fsck(lamina, status=6)
    assert part in {row["Part"] for row in found}
    assert {row["State"] for row in found} <= {"damaged", "stray"}
    repaired = fsck(lamina, "--repair", status=0)
    assert any(row["Part"] == part and cure in row["Done"] for row in repaired), repaired
    assert fsck(lamina, status=0) == []
    if kind == "name":
        return  # it has another name now: nothing tells which of the two is right
    app = next(
        line for line in lamina("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        if "app" in line
    )  # fmt: skip
    out = lamina("run", "--rm", app, "cat", "/file", "/made/f").stdout
    assert out == "content\nmade\n"
    lamina("save", "-o", str(lamina.cwd / "saved.tar"), app)


def test_a_pulled_layer_is_fetched_again(tmp_path: Path, pristine: Path) -> None:
    name = Lamina(pristine, tmp_path)("images", "--format", "{{.Repository}}:{{.Tag}}").stdout
    (app,) = [line for line in name.split() if "app" in line]
    lamina = Lamina(tmp_path / "pulled", tmp_path)
    lamina("pull", "--no-unpack", app)  # else the layer is made again from its snapshot
    flip_layer(lamina, 0)
    assert fsck(lamina, status=6)[0]["Images"] == app
    lost = fsck(lamina, "--repair", "--offline", status=6)
    assert "lost" in {row["State"] for row in lost}
    (row,) = fsck(lamina, "--repair", status=0)
    assert (row["Part"], row["State"]) == ("missing", "repaired")
    assert "fetched again from" in row["Done"]
    assert fsck(lamina, status=0) == []
    assert lamina("run", "--rm", app, "cat", "/file").stdout == "content\n"
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_what_only_a_fetched_manifest_tells_of_is_fetched_too(lamina: Lamina) -> None:
    layers: list[dict[str, str]] = manifest_of(lamina, "app")[1]["layers"]  # type: ignore[assignment]
    blob(lamina, layers[1]["digest"]).unlink()
    for path in (lamina.root / "snapshots").iterdir():
        shutil.rmtree(path)
    change_row("DELETE FROM snapshots")(lamina)
    flip_manifest(lamina)
    change_row("DELETE FROM state WHERE key LIKE 'copy:%'")(lamina)
    rows = fsck(lamina, "--repair", status=0)
    assert {row["Subject"] for row in rows} == {manifest_name(lamina), layers[1]["digest"]}
    assert fsck(lamina, status=0) == []


def test_what_no_registry_has_is_listed_as_lost_and_kept(lamina: Lamina) -> None:
    flip_manifest(lamina)
    change_row("DELETE FROM state WHERE key LIKE 'copy:%'")(lamina)
    digest = manifest_name(lamina)
    (row,) = [
        row for row in fsck(lamina, "--repair", "--offline", status=6) if row["State"] == "lost"
    ]
    assert row["Subject"] == digest
    assert "app:1" in row["Images"]
    assert blob(lamina, digest).exists()  # GC goes on keeping what it points to
    assert [row["Subject"] for row in fsck(lamina, status=6)] == [digest]


def manifest_name(lamina: Lamina) -> str:
    index = json.loads((lamina.root / "index.json").read_text())
    (digest,) = [
        str(entry["digest"])
        for entry in index["manifests"]
        if "app" in entry["annotations"]["org.opencontainers.image.ref.name"]
    ]
    return digest


def test_strays_take_space_and_are_no_damage(lamina: Lamina) -> None:
    (lamina.root / "snapshots" / "99999" / "fs").mkdir(parents=True)
    (lamina.root / "blobs" / "sha256" / "odd").write_text("x")
    found = fsck(lamina, status=0)
    assert {row["State"] for row in found} == {"stray"}
    assert {row["Subject"] for row in found} == {"snapshots/99999", "blobs/sha256/odd"}
    fsck(lamina, "--repair", status=0)
    assert fsck(lamina, status=0) == []
    assert os.listdir(lamina.root / "quarantine") == ["blobs-sha256-odd"]


def test_a_damaged_layer_of_the_cache_only_runs_again(lamina: Lamina) -> None:
    (lamina.cwd / "Dockerfile").write_text("FROM busybox\nRUN echo only > /only\n")
    lamina("build", "-o", "type=cacheonly", ".")
    flip(snapshot_file(lamina, "only"))
    (row,) = fsck(lamina, "--repair", status=0)
    assert (row["Part"], row["State"]) == ("snapshot", "repaired")
    assert fsck(lamina, status=0) == []
    lamina("build", "-t", "again", ".")
    assert lamina("run", "--rm", "again", "cat", "/only").stdout == "only\n"
