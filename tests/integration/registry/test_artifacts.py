# SPDX-License-Identifier: Apache-2.0
"""Copies between places, manifest lists, artifacts, and what registries list and delete."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lamina.registry.client import Registries
from lamina.spec.platform import Platform
from lamina.store import LocalStore
from lamina.testing.command import Lamina
from lamina.testing.fakeregistry import FakeRegistry
from lamina.testing.images import ImageMaker
from lamina.testing.registries import Distribution, image_in, push


@pytest.mark.tool("docker-registry", "skopeo")
def test_copies_go_everywhere(
    store: LocalStore,
    registries: Registries,
    docker_registry: Distribution,
    command: Lamina,
    tmp_path: Path,
) -> None:
    name = f"{docker_registry.host}/app:1"
    digest = str(ImageMaker(store)("content", name).target.digest)
    push(store, registries, name)

    def copy(source: str, target: str) -> str:
        return command("copy", "-q", source, target).stdout.strip()

    assert copy(name, f"{docker_registry.host}/copied:1") == digest
    assert copy(name, "oci:layout:x") == digest
    assert copy("oci:layout", f"docker://{docker_registry.host}/layout:1") == digest
    assert copy("oci:layout:x", "oci-archive:o.tar") == digest
    assert copy("oci-archive:o.tar", "store:fromtar") == digest
    assert copy("store:fromtar", "docker-archive:d.tar:me/x:1") == digest
    copy("docker-archive:d.tar:me/x:1", f"{docker_registry.host}/d:1")
    for place in ("oci:layout:x", "docker-archive:d.tar", f"docker://{name}"):
        subprocess.run(
            ["skopeo", "inspect", "--tls-verify=false", place],
            check=True,
            capture_output=True,
            cwd=tmp_path,
        )
    assert command("digest", f"{docker_registry.host}/copied:1").stdout.strip() == digest
    command("delete", f"{docker_registry.host}/copied:1")
    gone = command("digest", f"{docker_registry.host}/copied:1", check=False)
    assert gone.returncode == 3
    assert command("copy", "dir:x", "y", check=False).returncode == 8
    assert command("copy", "oci:none", "oci:other", check=False).returncode == 3


def test_tags_of_several_pages(fake: FakeRegistry, store: LocalStore, command: Lamina) -> None:
    image_in(fake, store, "many")
    for tag in ("2", "3"):
        fake.manifests["many", tag] = fake.manifests["many", "1"]
    assert command("tags", f"{fake.host}/many").stdout.split() == ["1", "2", "3"]


@pytest.mark.tool("docker-registry", "skopeo")
def test_a_manifest_list_is_made_annotated_and_pushed(
    store: LocalStore, registries: Registries, docker_registry: Distribution, command: Lamina
) -> None:
    host = docker_registry.host
    make = ImageMaker(store)
    make("amd", f"{host}/amd:1")
    make("arm", f"{host}/arm:1", platform=Platform("linux", "arm64"))
    for name in ("amd", "arm"):
        push(store, registries, f"{host}/{name}:1")
    command("manifest", "create", f"{host}/multi:1", f"{host}/amd:1", f"{host}/arm:1")
    again = command("manifest", "create", f"{host}/multi:1", f"{host}/amd:1", check=False)
    assert again.returncode == 4
    command("manifest", "annotate", f"{host}/multi:1", f"{host}/arm", "--variant", "v9")
    command("manifest", "push", "--purge", f"{host}/multi:1")
    done = command("manifest", "inspect", f"{host}/multi:1")
    platforms = [entry["platform"] for entry in json.loads(done.stdout)["manifests"]]
    assert platforms == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux", "variant": "v9"},
    ]
    assert command("manifest", "rm", f"{host}/multi:1", check=False).returncode == 3


@pytest.mark.parametrize("api", [True, False])
def test_an_artifact_is_attached_and_found(
    fake: FakeRegistry, store: LocalStore, command: Lamina, tmp_path: Path, api: bool
) -> None:
    image_in(fake, store, "app")
    fake.referrers_api = api
    (tmp_path / "sbom.json").write_text("{}")
    words = ("--artifact-type", "application/x.sbom", f"{fake.host}/app:1", "sbom.json:text/json")
    digest = command("attach-artifact", *words).stdout.strip()
    found = command("referrers", f"{fake.host}/app:1").stdout
    assert digest in found
    assert "application/x.sbom" in found
    other = command("referrers", "--artifact-type", "x/y", f"{fake.host}/app:1")
    assert other.stdout == ""
    raw = json.loads(command("manifest", "inspect", f"{fake.host}/app@{digest}").stdout)
    assert raw["layers"][0]["annotations"] == {"org.opencontainers.image.title": "sbom.json"}
