# SPDX-License-Identifier: Apache-2.0
"""What would be too large to be read again is not written; what was, stops nobody."""

from __future__ import annotations

import io
import json
import tarfile
import time
from pathlib import Path

import pytest

from lamina.errors import EXIT_STATUS, Kind
from lamina.image.names import set_names
from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.manifest import Manifest
from lamina.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.unit.cli.conftest import World

APP = "docker.io/library/app:latest"
BIG = "docker.io/library/big:latest"


@pytest.fixture(autouse=True)
def real_clock(world: World) -> None:
    world.clock = time.time  # what the collector removes must be older than its start


def test_build_of_a_config_that_nothing_reads_is_an_error(world: World) -> None:
    (world.cwd / "Dockerfile").write_text("FROM scratch\nEXPOSE 1-65535 1-65535/udp 1-65535/sctp\n")
    status, _, err = world.run("build", "--progress=quiet", "-t", "big", ".")
    assert status == EXIT_STATUS[Kind.INVALID]
    assert "the image's config would have" in err
    assert str(MAX_DOCUMENT) in err
    assert "hint: ports" in err
    assert world.ok("images", "-q") == ""


@pytest.fixture
def big(world: World) -> str:
    """The digest of the config, of more bytes than are read, of an image that is in the store."""
    store = open_store(world.root)
    document = ImageConfig("amd64", "linux").to_json() | {"author": "x" * MAX_DOCUMENT}
    raw = json.dumps(document).encode()
    with store.lease("test"):
        config = Descriptor(mediatype.OCI_CONFIG, store.content.add(raw), len(raw))
        manifest = Manifest.make(config, [])
        store.content.add(manifest.raw)
        set_names(store, [BIG], manifest.descriptor())
    store.close()
    return str(config.digest)


def blobs(world: World) -> int:
    return len(list(Path(world.root, "blobs", "sha256").iterdir()))


def test_image_that_cannot_be_read_does_not_stop_the_collection(world: World, big: str) -> None:
    world.make("x", APP)
    assert blobs(world) == 2 + 3
    status, _, err = world.run("rmi", "app")
    assert status == 0
    assert big in err
    assert blobs(world) == 2
    assert world.ok("image", "prune", "-f").splitlines() == ["Total reclaimed space: 0B"]
    assert blobs(world) == 2
    found = world.ok("image", "prune", "-af")
    assert f"untagged: big:latest\ndeleted: {big}\n" in found
    assert blobs(world) == 0


def test_fsck_tells_of_an_image_that_cannot_be_read(world: World, big: str) -> None:
    for words in ((), ("--repair", "--offline")):
        status, out, _ = world.run("system", "fsck", "--format", "json", *words)
        assert status == EXIT_STATUS[Kind.INTEGRITY]
        (row,) = map(json.loads, out.splitlines())
        assert (row["Part"], row["Subject"], row["Images"]) == ("image", big, BIG)
        assert str(MAX_DOCUMENT) in row["Problem"]
    assert row["State"] == "lost"
    assert "remove the image" in row["Done"]
    world.ok("rmi", "big")
    assert world.ok("system", "fsck", "--format", "json") == ""


@pytest.fixture
def context(world: World) -> Path:
    """A context of one file and a Dockerfile that copies it."""
    (world.cwd / "app").mkdir()
    (world.cwd / "app" / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    return world.cwd / "app"


def test_record_of_a_build_whose_lines_are_too_long_is_not_kept(
    world: World, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamina.app.history.MAX_LINE", 100)
    status, _, err = world.run("build", "-t", "app", str(context))
    assert status == 0
    assert "the record of this build is not kept: a line of it would have" in err
    assert "may have 100" in err


def test_inline_cache_that_does_not_fit_is_left_out(
    world: World, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamina.buildcache.codec.MAX_RECORDS", 0)
    status, _, err = world.run("build", "-t", "app", "--cache-to", "type=inline", str(context))
    assert status == 0
    assert "inline cache is left out: with it the cache would have 1 records" in err
    assert world.ok("images", "-q", "app")


def test_archive_with_a_config_that_is_too_large_is_refused(world: World) -> None:
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "author": "x" * MAX_DOCUMENT}
    ).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["big"], "Layers": []}]).encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in (("c.json", config), ("manifest.json", manifest)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    err = world.fails(Kind.INVALID, "load", stdin=archive.getvalue())
    assert f"has {len(config)} bytes, and may have {MAX_DOCUMENT}" in err
