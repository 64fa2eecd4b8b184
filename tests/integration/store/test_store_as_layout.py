# SPDX-License-Identifier: Apache-2.0
"""Other tools read the store's root as an OCI image layout."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import DiffID, Digest
from lamina.spec.manifest import Manifest
from lamina.store import open_store

APP = "docker.io/library/app:latest"
TEAM = "registry.example.com:5000/team/app:1.0"


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A store with one image of one layer under two names."""
    store = open_store(str(tmp_path / "store"))
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        member = tarfile.TarInfo("hello")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"world"))
    layer = tar.getvalue()
    blob = Descriptor(mediatype.OCI_LAYER, store.content.add(layer), len(layer))
    config = ImageConfig("amd64", "linux", (DiffID(Digest.of(layer)),)).serialise()
    store.content.add(config)
    manifest = Manifest.make(Descriptor.of(mediatype.OCI_CONFIG, config), [blob])
    store.content.add(manifest.raw)
    store.metadata.set_names([APP, TEAM], manifest.descriptor())
    store.close()
    return store.root


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=50).stdout


@pytest.mark.tool("skopeo")
@pytest.mark.parametrize("name", ["app:latest", TEAM])
def test_skopeo_inspects_an_image_by_its_familiar_name(root: str, name: str) -> None:
    found = json.loads(run("skopeo", "inspect", f"oci:{root}:{name}"))
    assert found["Architecture"] == "amd64"
    assert len(found["Layers"]) == 1


@pytest.mark.tool("skopeo")
def test_skopeo_copies_an_image_out(root: str, tmp_path: Path) -> None:
    run("skopeo", "copy", f"oci:{root}:app:latest", f"oci:{tmp_path}/copy:x")
    assert len(os.listdir(tmp_path / "copy" / "blobs" / "sha256")) == 3


@pytest.mark.root
@pytest.mark.tool("umoci")
def test_umoci_lists_and_unpacks(root: str, tmp_path: Path) -> None:
    assert run("umoci", "ls", "--layout", root).split() == ["app:latest", TEAM]
    run("umoci", "unpack", "--image", f"{root}:app:latest", str(tmp_path / "bundle"))
    assert (tmp_path / "bundle" / "rootfs" / "hello").read_text() == "world"
