# SPDX-License-Identifier: Apache-2.0
"""`system df`, the prune commands and the collection after builds, on a filesystem of their own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.store import open_store
from lamina.testing.command import Lamina

pytestmark = [
    pytest.mark.root,
    pytest.mark.tool("crun"),
    pytest.mark.host_root("the store is on a file system that the test mounts"),
]


@pytest.fixture
def lamina(tmp_path: Path, busybox_store: Path) -> Iterator[Lamina]:
    """A store on a tmpfs of 400 MB of its own; two builds were made, one of an older context."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "lamina", str(disk)], check=True)
    try:
        subprocess.run(["cp", "-a", str(busybox_store), str(disk / "store")], check=True)
        context = tmp_path / "app"
        context.mkdir()
        (context / "Dockerfile").write_text(
            "FROM busybox\nCOPY data /data\nRUN --mount=type=cache,target=/c,id=big"
            " head -c 3000000 /dev/zero > /c/f && cp /data /copy\n"
        )
        lamina = Lamina(disk / "store", tmp_path)
        lamina.env["LAMINA_GC"] = "off"
        for letter in "ab":
            (context / "data").write_bytes(letter.encode() + os.urandom(1_000_000))
            lamina("build", "-t", "app", "app")
        yield lamina
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def used(lamina: Lamina) -> int:
    found = os.statvfs(lamina.root)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def rows_of(lamina: Lamina) -> dict[str, tuple[int, int]]:
    """(bytes, reclaimable) by type, from the use case itself: the command rounds."""
    from lamina.app.disk import disk_usage

    store = open_store(str(lamina.root))
    try:
        usage = disk_usage(store)
        assert sum(row.size for row in usage.rows) == usage.total
        return {row.type: (row.size, row.reclaimable) for row in usage.rows}
    finally:
        store.close()


def test_df_is_what_the_filesystem_counts(lamina: Lamina) -> None:
    from lamina.app.disk import disk_usage

    lamina("run", "--name", "one", "app", "sh", "-c", "head -c 500000 /dev/zero > /file")
    for words in ((), ("image", "prune", "-f"), ("system", "prune", "-af", "--volumes")):
        if words:
            lamina(*words)
        store = open_store(str(lamina.root))
        try:
            usage = disk_usage(store)
            total, counted = sum(row.size for row in usage.rows), used(lamina)
        finally:
            store.close()
        assert abs(total - counted) <= os.sysconf("SC_PAGE_SIZE"), words
        if not words:
            assert usage.rows[1].size >= 500_000


def test_df_as_docker_prints_it(lamina: Lamina) -> None:
    lines = lamina("system", "df").stdout.splitlines()
    assert lines[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "Images", "Containers", "Local Volumes", "Build Cache", "Records",
    ]  # fmt: skip
    assert lamina("system", "df", "--format", "{{.Type}}").stdout.splitlines()[0] == "Images"
    assert json.loads(lamina("system", "df", "--format", "json").stdout.splitlines()[0])
    verbose = lamina("system", "df", "-v").stdout
    for heading in ("Images space usage:", "Containers space usage:", "Build cache usage:"):
        assert heading in verbose
    assert "exec.cachemount" in verbose


def test_prune_frees_what_it_says(lamina: Lamina) -> None:
    before = used(lamina)
    text = lamina("image", "prune", "-f").stdout
    assert "deleted: sha256:" in text
    text = lamina("builder", "prune", "-f").stdout
    assert text.startswith("Deleted build cache objects:\n")
    assert "Total reclaimed space: " in text
    assert before - used(lamina) >= 3_000_000 + 1_000_000  # the cache mount and the old build
    assert rows_of(lamina)["Build Cache"][0] == 0
    lamina("run", "--rm", "app", "true")
    assert "CACHED" in lamina("build", "app", check=True).stderr


def test_image_that_was_packed_twice_is_there_after_a_prune(lamina: Lamina) -> None:
    """Its name is all that counts: neither another compression nor an archive makes a second one."""
    lamina.env["SOURCE_DATE_EPOCH"] = "1700000000"
    lamina("build", "-t", "once", "app")
    lamina("save", "-o", "saved.tar", "once")
    id = lamina.id_of("once")
    forced = "type=image,name=once,compression=zstd,force-compression=true"
    lamina("build", "-o", forced, "app")
    lamina("load", "-i", "saved.tar")
    assert lamina.id_of("once") == id
    dangling = lamina("images", "-qf", "dangling=true").stdout
    assert id[7:19] not in dangling
    for words in (("image", "prune", "-f"), ("system", "prune", "-f")):
        lamina(*words)
        assert lamina("run", "--rm", "once", "head", "-c1", "/data").stdout == "b"
    assert lamina("images", "-qf", "dangling=true").stdout == ""


def test_the_least_recently_used_goes_first(lamina: Lamina) -> None:
    lamina("rmi", "app")
    lamina("image", "prune", "-f")
    size = rows_of(lamina)["Build Cache"][0]
    lamina("builder", "prune", "-af", "--keep-storage", str(size - 1))
    after = rows_of(lamina)["Build Cache"][0]
    assert 0 < after < size
    assert "CACHED" in lamina("build", "app").stderr  # the newer build is still there
    kept = lamina("builder", "prune", "-af", "--keep-storage", str(1 << 30))
    assert "Deleted" not in kept.stdout


def test_until_spares_what_was_used_lately(lamina: Lamina) -> None:
    before = rows_of(lamina)["Build Cache"][0]
    lamina("builder", "prune", "-af", "--filter", "until=24h")
    assert rows_of(lamina)["Build Cache"][0] == before
    for filters in ("until=1x", "shared=1"):
        refused = lamina("builder", "prune", "-af", "--filter", filters, check=False)
        assert "invalid filter" in refused.stderr


def test_prune_asks_first(lamina: Lamina) -> None:
    for words in (["builder"], ["image"], ["container"], ["system"]):
        asked = lamina(*words, "prune", stdin=b"n\n", check=False)
        assert asked.returncode == 1
        assert "Are you sure you want to continue? [y/N] " in asked.stdout
        assert f"{words[0]} prune has been cancelled" in asked.stderr
    assert "WARNING! This will remove:\n  - all stopped containers\n" in asked.stdout
    agreed = lamina("builder", "prune", stdin=b"y\n")
    assert "Total reclaimed space" in agreed.stdout


def test_containers_and_used_images(lamina: Lamina) -> None:
    lamina("run", "--name", "old", "--label", "keep=1", "app", "true")
    lamina("run", "-d", "--name", "on", "app", "sleep", "1000")
    try:
        kept = lamina("container", "prune", "-f", "--filter", "label!=keep").stdout
        assert "Deleted" not in kept
        gone = lamina("container", "prune", "-f").stdout
        assert gone.startswith("Deleted Containers:\n")
        lamina("image", "prune", "-af")
        assert "app" in lamina("images").stdout  # a container uses it
        assert "busybox" not in lamina("images").stdout
    finally:
        lamina("rm", "-f", "on")


def test_collection_after_a_build_keeps_the_limits(lamina: Lamina) -> None:
    (lamina.cwd / "config.toml").write_text(
        'gc-reserved-space = "0"\ngc-max-used-space = "2MB"\ngc-min-free-space = "0"\n'
    )
    del lamina.env["LAMINA_GC"]
    lamina.env["LAMINA_CONFIG"] = str(lamina.cwd / "config.toml")
    (lamina.root / "locks/gc-checked").unlink(missing_ok=True)
    (lamina.cwd / "app/data").write_bytes(b"c" + os.urandom(1_000_000))
    done = lamina("build", "-t", "app", "app")
    assert "build cache: " in done.stderr
    assert rows_of(lamina)["Build Cache"][0] <= 2_000_000
    assert "CACHED" in lamina("build", "app").stderr


def test_collection_never_fails_a_build(lamina: Lamina) -> None:
    (lamina.cwd / "config.toml").write_text('gc-max-used-space = "a lot"\n')
    del lamina.env["LAMINA_GC"]
    lamina.env["LAMINA_CONFIG"] = str(lamina.cwd / "config.toml")
    (lamina.root / "locks/gc-checked").unlink(missing_ok=True)
    (lamina.cwd / "app/data").write_text("d")
    done = lamina("build", "-t", "app", "app")
    assert "gc-max-used-space: 'a lot' is not a size" in done.stderr
