# SPDX-License-Identifier: Apache-2.0
"""Images to Debian's docker-registry and back; skopeo reads what was pushed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.image.names import set_names
from lamina.image.view import Image
from lamina.registry.client import Registries
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import Digest
from lamina.spec.manifest import Index, Manifest
from lamina.spec.platform import Platform
from lamina.start.record import replace
from lamina.store import LocalStore
from lamina.testing.command import Lamina
from lamina.testing.fakeregistry import FakeRegistry
from lamina.testing.images import AMD64, ImageMaker
from lamina.testing.registries import Distribution, image_in, pull, push, put

ARM64 = Platform("linux", "arm64")


@pytest.mark.tool("docker-registry", "skopeo")
def test_an_image_goes_out_and_comes_back(
    store: LocalStore,
    other_store: LocalStore,
    registries: Registries,
    docker_registry: Distribution,
    tmp_path: Path,
) -> None:
    name = f"{docker_registry.host}/team/app:1"
    packed = ImageMaker(store)("content", name)
    first = push(store, registries, name)
    assert (first.moved, first.present) == (2, 0)
    second = push(store, registries, name)
    assert (second.moved, second.present) == (0, 2)

    pulled = pull(other_store, registries, name)
    assert pulled.is_new
    assert pulled.target.digest == packed.target.digest
    image = Image.open(other_store, pulled.target, platform=AMD64)
    record = other_store.metadata.get_layer(image.config().diff_ids[0])
    assert record is not None
    assert record.size > 0
    assert not pull(other_store, registries, name).is_new

    by_digest = pull(
        other_store, registries, f"{docker_registry.host}/team/app@{first.target.digest}"
    )
    assert by_digest.target.digest == packed.target.digest

    subprocess.run(
        [
            "skopeo",
            "copy",
            "--src-tls-verify=false",
            f"docker://{name}",
            f"oci:{tmp_path}/layout:x",
        ],
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "layout/blobs/sha256" / packed.target.digest.hex).exists()


@pytest.mark.tool("docker-registry")
def test_layers_of_another_repository_are_mounted(
    store: LocalStore, registries: Registries, docker_registry: Distribution
) -> None:
    base = f"{docker_registry.host}/base:1"
    app = f"{docker_registry.host}/other/app:1"
    packed = ImageMaker(store)("content", base)
    push(store, registries, base)
    set_names(store, [app], packed.target)
    done = push(store, registries, app)
    assert done.mounted == 1
    assert done.moved == 1  # the config


@pytest.mark.tool("docker-registry")
def test_of_an_index_one_platform_is_pulled(
    store: LocalStore,
    other_store: LocalStore,
    registries: Registries,
    docker_registry: Distribution,
) -> None:
    name = f"{docker_registry.host}/multi:1"
    make = ImageMaker(store)
    here, there = make("amd"), make("arm", platform=ARM64)
    entries = [
        replace(here.target, platform=AMD64),
        replace(there.target, platform=ARM64),
    ]
    index = Index.make(entries)
    with store.lease("test"):
        store.content.add(index.raw)
        set_names(store, [name], index.descriptor())
    assert push(store, registries, name).moved == 4

    pulled = pull(other_store, registries, name)
    assert pulled.target.digest == index.descriptor().digest
    assert other_store.content.exists(here.target.digest)
    assert not other_store.content.exists(there.target.digest)
    assert not pull(other_store, registries, name).is_new

    pull(other_store, registries, name, ARM64)
    assert other_store.content.exists(there.target.digest)
    with pytest.raises(LaminaError, match="no image for linux/s390x") as caught:
        pull(other_store, registries, name, Platform("linux", "s390x"))
    assert caught.value.kind is Kind.NOT_FOUND
    assert "linux/arm64" in caught.value.hint


@pytest.mark.tool("docker-registry")
def test_of_an_incomplete_index_what_is_here_is_pushed(
    store: LocalStore, registries: Registries, docker_registry: Distribution
) -> None:
    name = f"{docker_registry.host}/partial:1"
    here = ImageMaker(store)("amd")
    absent = Descriptor(here.target.media_type, Digest.of(b"absent"), 6, platform=ARM64)
    index = Index.make([replace(here.target, platform=AMD64), absent])
    with store.lease("test"):
        store.content.add(index.raw)
        set_names(store, [name], index.descriptor())
    assert push(store, registries, name).target.digest == here.target.digest


@pytest.mark.tool("docker-registry")
def test_errors_say_what_is_missing(
    store: LocalStore, registries: Registries, docker_registry: Distribution
) -> None:
    with pytest.raises(LaminaError, match="MANIFEST_UNKNOWN") as caught:
        pull(store, registries, f"{docker_registry.host}/none:1")
    assert caught.value.kind is Kind.NOT_FOUND
    with pytest.raises(LaminaError, match="does not exist locally"):
        push(store, registries, f"{docker_registry.host}/none:1")
    with pytest.raises(LaminaError, match="nothing listens") as caught:
        pull(store, registries, "127.0.0.1:1/none:1")
    assert caught.value.kind is Kind.UNAVAILABLE


def test_a_layer_with_other_bytes_is_refused(
    fake: FakeRegistry, store: LocalStore, other_store: LocalStore, registries: Registries
) -> None:
    manifest = image_in(fake, store, "bad")
    layer = manifest.layers[0]
    data = fake.blobs[str(layer.digest)]
    fake.blobs[str(layer.digest)] = data[:-1] + b"x"
    with pytest.raises(LaminaError, match=layer.digest.short()) as caught:
        pull(other_store, registries, f"{fake.host}/bad:1")
    assert caught.value.kind is Kind.INTEGRITY
    assert other_store.metadata.list_names() == []
    assert not other_store.content.exists(layer.digest)
    fake.blobs[str(layer.digest)] = data + b"more"
    with pytest.raises(LaminaError, match="more than") as caught:
        pull(other_store, registries, f"{fake.host}/bad:1")
    fake.blobs[str(layer.digest)] = data
    assert pull(other_store, registries, f"{fake.host}/bad:1").is_new


def test_a_config_that_lies_about_its_layers_is_refused(
    fake: FakeRegistry, store: LocalStore, other_store: LocalStore, registries: Registries
) -> None:
    """Else the blob would be taken for the layer wherever that diffID is used."""
    manifest = image_in(fake, store, "liar")
    victim = image_in(fake, store, "victim")
    lying = Manifest.make(victim.config, manifest.layers)
    put(fake, "liar", lying)
    with pytest.raises(LaminaError, match="is not the sha256") as caught:
        pull(other_store, registries, f"{fake.host}/liar:1")
    assert caught.value.kind is Kind.INTEGRITY
    assert other_store.metadata.list_names() == []


def test_schema_1_is_refused_with_a_reason(
    fake: FakeRegistry, store: LocalStore, registries: Registries
) -> None:
    raw = json.dumps({"schemaVersion": 1, "name": "old", "fsLayers": []}).encode()
    media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    fake.manifests["old", "1"] = (media_type, raw)
    with pytest.raises(LaminaError, match="schema 1") as caught:
        pull(store, registries, f"{fake.host}/old:1")
    assert caught.value.kind is Kind.UNSUPPORTED


def test_foreign_layers_are_not_followed(
    fake: FakeRegistry, store: LocalStore, other_store: LocalStore, registries: Registries
) -> None:
    manifest = image_in(fake, store, "foreign")
    foreign = replace(
        manifest.layers[0],
        media_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    )
    put(fake, "foreign", Manifest.make(manifest.config, [foreign]))
    with pytest.raises(LaminaError, match="not distributed") as caught:
        pull(other_store, registries, f"{fake.host}/foreign:1")
    assert caught.value.kind is Kind.UNSUPPORTED
    assert not fake.requests("GET", str(foreign.digest))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_transfer_that_breaks_goes_on(
    fake: FakeRegistry,
    store: LocalStore,
    other_store: LocalStore,
    registries: Registries,
    ranges: bool,
) -> None:
    manifest = image_in(fake, store, "broken")
    fake.cut_after, fake.cuts, fake.ranges = 100, 1, ranges
    pull(other_store, registries, f"{fake.host}/broken:1")
    assert other_store.content.exists(manifest.layers[0].digest)
    assert [seen.header("Range") for seen in fake.requests("GET", "blobs") if seen.header("Range")]


def test_busy_registries_are_asked_again(
    fake: FakeRegistry, store: LocalStore, other_store: LocalStore, registries: Registries
) -> None:
    image_in(fake, store, "busy")
    fake.failures = [(429, {"Retry-After": "1"}), (503, {})]
    pull(other_store, registries, f"{fake.host}/busy:1")
    fake.failures = [(429, {"Retry-After": "3600"})]
    with pytest.raises(LaminaError, match="429") as caught:
        pull(other_store, registries, f"{fake.host}/busy:2")
    assert caught.value.kind is Kind.UNAVAILABLE


def test_a_mirror_is_asked_first_and_the_registry_if_it_cannot(
    fake: FakeRegistry, store: LocalStore, command: Lamina, tmp_path: Path
) -> None:
    image_in(fake, store, "library/thing")
    store.close()
    conf = tmp_path / "registries.conf"
    conf.write_text(
        '[[registry]]\nlocation = "docker.io"\n'
        '[[registry.mirror]]\nlocation = "127.0.0.1:1/gone"\n'
        f'[[registry.mirror]]\nlocation = "{fake.host}"\n'
    )
    env = {"CONTAINERS_REGISTRIES_CONF": str(conf), "LAMINA_ROOT": str(tmp_path / "third")}
    done = command("pull", "-q", "thing:1", env=env)
    assert done.stdout.strip() == "docker.io/library/thing:1"
    conf.write_text('[[registry]]\nlocation = "docker.io"\nblocked = true\n')
    done = command("pull", "thing:1", env=env, check=False)
    assert done.returncode == 5
    assert "blocked" in done.stderr


@pytest.mark.root
@pytest.mark.tool("docker-registry", "crun")
def test_a_build_pulls_its_base_and_pushes_its_image(
    store: LocalStore, registries: Registries, docker_registry: Distribution, tmp_path: Path
) -> None:
    base = f"{docker_registry.host}/base:1"
    ImageMaker(store)("content", base)
    push(store, registries, base)
    lamina = Lamina(tmp_path / "other", tmp_path)
    (tmp_path / "work").mkdir()
    (tmp_path / "work/Dockerfile").write_text(f"FROM {base}\nCOPY Dockerfile /d\n")
    app = f"{docker_registry.host}/app:1"
    lamina("build", "-t", app, "--push", "work")
    subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{app}"],
        check=True,
        capture_output=True,
    )
    # everything is here now: no registry is asked, wherever it is
    requests = docker_registry.log.read_text().count("/v2/")
    lamina("build", "-t", app, "work")
    assert docker_registry.log.read_text().count("/v2/") == requests
    lamina("build", "--pull", "-t", app, "work")
    assert docker_registry.log.read_text().count("/v2/") > requests
    done = lamina("run", "--pull", "always", "--rm", f"{docker_registry.host}/none", check=False)
    assert done.returncode == 125
    assert "MANIFEST_UNKNOWN" in done.stderr
    done = lamina("run", "--pull", "never", "--rm", f"{docker_registry.host}/none", check=False)
    assert "not found" in done.stderr
    assert "MANIFEST_UNKNOWN" not in done.stderr


@pytest.mark.parametrize("is_here", [False, True])
def test_image_of_another_platform_is_told_once(
    store: LocalStore, fake: FakeRegistry, command: Lamina, *, is_here: bool
) -> None:
    name = f"{fake.host}/app:1"
    image_in(fake, store, "app")
    if is_here:
        ImageMaker(store)("app", name)
    (command.cwd / "Dockerfile").write_text(f"FROM {name}\nRUN true\n")

    ran = command("run", "--platform", "linux/arm64", name, check=False)
    always = command("run", "--pull=always", "--platform", "linux/arm64", name, check=False)
    built = command("build", "--platform", "linux/arm64", ".", check=False)

    for done in (ran, always, built):
        assert done.stderr.count("the image is for linux/amd64, not for linux/arm64") == 1
        assert f'image "{name}": the image is for' in done.stderr
        assert "not found" not in done.stderr
    said = f"Unable to find image '{name}'" + " for linux/arm64" * is_here + " locally\n"
    assert said in ran.stderr
