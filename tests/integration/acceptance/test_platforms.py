# SPDX-License-Identifier: Apache-2.0
"""Images for several platforms: built, kept, shown, saved and loaded. Nothing foreign runs here."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lamina.container.emulation import NoEmulator, require_emulation
from lamina.spec.platform import host
from lamina.testing.command import Lamina
from lamina.testing.skips import host_lacks

pytestmark = [pytest.mark.root, pytest.mark.tool("crun"), pytest.mark.tool("busybox")]

NATIVE = host(os.uname().machine)
BOTH = ("--platform", "linux/amd64,linux/arm64")
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
CROSS = """FROM --platform=$BUILDPLATFORM busybox AS shared
RUN cat /proc/sys/kernel/random/uuid > /id
FROM shared AS cross
ARG TARGETPLATFORM TARGETARCH
RUN echo "for $TARGETARCH ($TARGETPLATFORM)" > /out
FROM scratch
COPY --from=cross /out /out
COPY --from=shared /id /id
ARG TARGETARCH
LABEL arch=$TARGETARCH
"""


def dockerfile(lamina: Lamina, text: str) -> None:
    (lamina.cwd / "Dockerfile").write_text(text)


def document(lamina: Lamina, digest: str) -> dict[str, Any]:
    path = lamina.root / "blobs" / digest.replace(":", "/")
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def target_of(lamina: Lamina, name: str) -> str:
    text = lamina("inspect", "--format", "{{json .RepoDigests}}", name).stdout
    digest: str = json.loads(text)[0].partition("@")[2]
    return digest


def inspected(lamina: Lamina, name: str, platform: str, template: str) -> str:
    return lamina("inspect", "--platform", platform, "--format", template, name).stdout.strip()


def foreign_image(lamina: Lamina, name: str, platform: str) -> None:
    """An image that says it is for the platform; its programs are no programs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in ("bin", "bin/sh"):
            entry = tarfile.TarInfo(path)
            entry.mode = 0o755
            entry.type = tarfile.DIRTYPE if path == "bin" else tarfile.REGTYPE
            tar.addfile(entry)
    lamina("import", "--platform", platform, "-", name, stdin=buffer.getvalue())


def test_index_has_an_image_for_each_platform_in_order(lamina: Lamina) -> None:
    dockerfile(lamina, CROSS)
    lamina("build", *BOTH, "--platform", "linux/arm/v7", "-t", "app", ".")
    index = document(lamina, target_of(lamina, "app"))
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert [entry["platform"] for entry in index["manifests"]] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux"},
        {"architecture": "arm", "os": "linux", "variant": "v7"},
    ]
    labels = [inspected(lamina, "app", f"linux/{a}", "{{.Config.Labels.arch}}") for a in
              ("amd64", "arm64", "arm/v7")]  # fmt: skip
    assert labels == ["amd64", "arm64", "arm"]


def test_stage_of_the_build_platform_runs_once(lamina: Lamina, tmp_path: Path) -> None:
    dockerfile(lamina, CROSS)
    done = lamina("build", *BOTH, "-o", f"type=local,dest={tmp_path}/o", ".")
    assert done.stderr.count("RUN cat /proc/sys/kernel/random/uuid") == 1
    assert "[linux/amd64->arm64 cross" in done.stderr or NATIVE.architecture != "amd64"
    one, other = (tmp_path / "o" / f"linux_{arch}" for arch in ("amd64", "arm64"))
    assert (one / "id").read_text() == (other / "id").read_text()
    assert (one / "out").read_text() == "for amd64 (linux/amd64)\n"
    assert (other / "out").read_text() == "for arm64 (linux/arm64)\n"


@pytest.mark.tool("skopeo")
def test_archive_of_an_index_is_read_by_skopeo(lamina: Lamina, tmp_path: Path) -> None:
    dockerfile(lamina, CROSS)
    lamina("build", *BOTH, "-t", "app", "-o", f"type=oci,dest={tmp_path}/a.tar", ".")
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci-archive:{tmp_path}/a.tar"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    assert [m["platform"]["architecture"] for m in json.loads(raw)["manifests"]] == [
        "amd64",
        "arm64",
    ]
    subprocess.run(
        ["skopeo", "copy", "--all", f"oci-archive:{tmp_path}/a.tar", f"oci:{tmp_path}/copy:x"],
        check=True, capture_output=True,
    )  # fmt: skip
    for arch in ("amd64", "arm64"):
        shown = subprocess.run(
            ["skopeo", f"--override-arch={arch}", "inspect", f"oci:{tmp_path}/copy:x"],
            check=True, capture_output=True,
        ).stdout  # fmt: skip
        assert json.loads(shown)["Architecture"] == arch


def test_same_sources_give_the_same_index_in_any_store(lamina: Lamina, tmp_path: Path) -> None:
    dockerfile(lamina, CROSS.replace("cat /proc/sys/kernel/random/uuid", "echo 1"))
    other = Lamina(tmp_path / "other", lamina.cwd)
    subprocess.run(["cp", "-a", str(lamina.root), str(other.root)], check=True)
    ids = [each("build", "-q", *BOTH, ".", env=EPOCH).stdout for each in (lamina, other)]
    assert ids[0] == ids[1]
    assert lamina("build", "-q", *BOTH, ".", env=EPOCH).stdout == ids[0]


def test_rebuild_of_nothing_keeps_the_index(lamina: Lamina) -> None:
    dockerfile(lamina, CROSS)
    first = lamina("build", "-q", *BOTH, "-t", "app", ".").stdout
    assert lamina("build", "-q", *BOTH, "-t", "app", ".").stdout == first


def test_ids_and_metadata_are_those_of_the_index(lamina: Lamina) -> None:
    dockerfile(lamina, CROSS)
    done = lamina(
        "build", "-q", *BOTH, "-t", "app", "--iidfile", "id", "--metadata-file", "m.json", "."
    )
    digest = target_of(lamina, "app")
    assert done.stdout.strip() == (lamina.cwd / "id").read_text() == digest
    metadata = json.loads((lamina.cwd / "m.json").read_text())
    assert metadata["containerimage.digest"] == digest
    assert metadata["containerimage.descriptor"]["mediaType"].endswith("index.v1+json")
    assert "containerimage.config.digest" not in metadata
    assert lamina("inspect", "--format", "{{.Architecture}}", digest).stdout.strip()


def test_docker_media_types_make_a_manifest_list(lamina: Lamina) -> None:
    dockerfile(lamina, CROSS)
    lamina("build", *BOTH, "-t", "app", "-o", "type=image,oci-mediatypes=false", ".")
    index = document(lamina, target_of(lamina, "app"))
    assert index["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    assert {m["mediaType"] for m in index["manifests"]} == {
        "application/vnd.docker.distribution.manifest.v2+json"
    }


def test_docker_archive_of_several_platforms_is_refused(lamina: Lamina, tmp_path: Path) -> None:
    dockerfile(lamina, "FROM scratch\nCOPY Dockerfile /\n")
    done = lamina("build", *BOTH, "-o", f"type=docker,dest={tmp_path}/a.tar", ".", check=False)
    assert "does not currently support exporting manifest lists" in done.stderr
    assert not (tmp_path / "a.tar").exists()


def test_trees_lie_side_by_side_or_over_each_other(lamina: Lamina, tmp_path: Path) -> None:
    dockerfile(lamina, CROSS)
    lamina("build", *BOTH, "-o", f"type=tar,dest={tmp_path}/a.tar", ".")
    with tarfile.open(tmp_path / "a.tar") as tar:
        names = set(tar.getnames())
    assert {"linux_amd64", "linux_amd64/out", "linux_arm64", "linux_arm64/out"} <= names
    over = f"type=local,dest={tmp_path}/over,platform-split=false"
    done = lamina("build", *BOTH, "-o", over, ".", check=False)
    assert "cannot overwrite 'id' from linux/amd64 with linux/arm64" in done.stderr
    dockerfile(lamina, "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /dir/$TARGETARCH\n")
    lamina("build", *BOTH, "-o", over, ".")
    assert sorted(os.listdir(tmp_path / "over" / "dir")) == ["amd64", "arm64"]


def test_annotations_go_to_each_place(lamina: Lamina) -> None:
    dockerfile(lamina, "FROM scratch\nARG TARGETARCH\nENV A=$TARGETARCH\n")
    words = [f"{place}:at={place}" for place in ("manifest", "index", "manifest-descriptor")]
    flags = [word for text in words for word in ("--annotation", text)]
    lamina("build", *BOTH, *flags, "--annotation", "manifest[linux/arm64]:own=1", "-t", "app", ".")
    index = document(lamina, target_of(lamina, "app"))
    assert index["annotations"] == {"at": "index"}
    entries = index["manifests"]
    assert [entry["annotations"] for entry in entries] == [{"at": "manifest-descriptor"}] * 2
    manifests = [document(lamina, entry["digest"])["annotations"] for entry in entries]
    assert manifests == [{"at": "manifest"}, {"at": "manifest", "own": "1"}]


def test_one_foreign_platform_is_a_plain_image(lamina: Lamina) -> None:
    dockerfile(lamina, CROSS + "ARG BUILDPLATFORM\nLABEL build=$BUILDPLATFORM\n")
    lamina("build", "--platform", "linux/s390x", "-t", "app", ".")
    assert document(lamina, target_of(lamina, "app"))["layers"]
    text = "{{.Architecture}} {{.Config.Labels.arch}} {{.Config.Labels.build}}"
    shown = lamina("inspect", "--format", text, "app").stdout.strip()
    assert shown == f"s390x s390x {NATIVE}"


def test_platforms_that_are_none_are_usage_errors(lamina: Lamina) -> None:
    dockerfile(lamina, "FROM scratch\nENV A=1\n")
    for text, message in (
        ("linux/amd64,what", "unknown architecture 'what'"),
        ("windows/amd64", "Linux images only"),
    ):
        assert message in lamina("build", "--platform", text, ".", check=False).stderr
    lamina("build", "--platform", "local,linux/amd64,linux/arm64,local", "-t", "app", ".")
    assert len(document(lamina, target_of(lamina, "app"))["manifests"]) == 2


def test_base_of_another_platform_is_an_error_at_its_line(lamina: Lamina) -> None:
    dockerfile(lamina, "FROM busybox\nRUN true\n")
    done = lamina("build", "--platform", "linux/s390x", ".", check=False)
    assert f"the image is for {NATIVE}, not for linux/s390x" in done.stderr
    assert ">>> FROM busybox" in done.stderr


def test_step_without_an_emulator_names_its_line_and_the_package(lamina: Lamina) -> None:
    try:
        require_emulation("riscv64", host=NATIVE.architecture)
    except NoEmulator:
        pass
    else:
        host_lacks("a processor that is no riscv64")
    foreign_image(lamina, "foreign", "linux/riscv64")
    dockerfile(lamina, "FROM foreign\nRUN make\n")
    done = lamina("build", "--platform", "linux/riscv64", ".", check=False)
    assert "does not run riscv64 programs" in done.stderr
    assert ">>> RUN make" in done.stderr
    assert "apt-get install qemu-user-static binfmt-support" in done.stderr
    done = lamina("run", "--rm", "foreign", "/bin/sh", check=False)
    assert "does not match the detected host platform" in done.stderr
    assert "does not run riscv64 programs" in done.stderr
    assert lamina("ps", "-aq").stdout == ""


def test_commands_choose_the_host_or_the_platform_asked_for(lamina: Lamina) -> None:
    dockerfile(lamina, CROSS)
    lamina("build", "--platform", "linux/s390x,local", "-t", "app", ".")
    assert lamina("inspect", "--format", "{{.Architecture}}", "app").stdout.strip() == (
        NATIVE.architecture
    )
    assert inspected(lamina, "app", "linux/s390x", "{{.Architecture}}") == "s390x"
    listed = lamina("images", "--format", "{{.Repository}}", "app").stdout.split()
    assert listed == ["app"]
    assert (
        "arch=s390x" in lamina("history", "--platform", "linux/s390x", "--no-trunc", "app").stdout
    )
    for command in ("inspect", "history"):
        done = lamina(command, "--platform", "linux/ppc64le", "app", check=False)
        assert done.returncode
        assert "linux/ppc64le" in done.stderr
    lamina("tag", "app", "other")
    assert target_of(lamina, "other") == target_of(lamina, "app")
    assert "Untagged: app:latest" in lamina("rmi", "app").stdout
    assert inspected(lamina, "other", "linux/s390x", "{{.Architecture}}") == "s390x"


def test_save_and_load_keep_an_index_or_one_platform_of_it(lamina: Lamina, tmp_path: Path) -> None:
    dockerfile(lamina, CROSS)
    lamina("build", "--platform", "linux/s390x,local", "-t", "app", ".")
    digest = target_of(lamina, "app")
    lamina("save", "--format", "oci-archive", "-o", f"{tmp_path}/all.tar", "app")
    lamina("save", "--platform", "linux/s390x", "-o", f"{tmp_path}/one.tar", "app")
    lamina("rmi", "app")
    lamina("load", "-i", f"{tmp_path}/all.tar")
    assert target_of(lamina, "app") == digest
    lamina("rmi", "app")
    lamina("load", "-i", f"{tmp_path}/one.tar")
    assert lamina("inspect", "--format", "{{.Architecture}}", "app").stdout.strip() == "s390x"
    lamina("load", "--platform", "linux/s390x", "-i", f"{tmp_path}/all.tar")
    assert document(lamina, target_of(lamina, "app")).get("manifests") is None
    done = lamina("load", "--platform", "linux/ppc64le", "-i", f"{tmp_path}/all.tar", check=False)
    assert "linux/ppc64le" in done.stderr


def test_bake_target_of_several_platforms(lamina: Lamina) -> None:
    dockerfile(lamina, CROSS)
    (lamina.cwd / "docker-bake.json").write_text(
        json.dumps({"target": {"default": {
            "tags": ["app"], "platforms": ["linux/amd64", "linux/arm64"]
        }, "one": {"tags": ["one"], "platforms": ["linux/s390x"]}},
            "group": {"all": {"targets": ["default", "one"]}}})
    )  # fmt: skip
    lamina("bake", "all")
    assert len(document(lamina, target_of(lamina, "app"))["manifests"]) == 2
    assert lamina("inspect", "--format", "{{.Architecture}}", "one").stdout.strip() == "s390x"


@pytest.mark.host_root("a program of root uses the store")
def test_python_api_builds_for_several_platforms(lamina: Lamina) -> None:
    dockerfile(lamina, "FROM scratch\nARG TARGETARCH\nENV A=$TARGETARCH\n")
    script = (
        "import lamina; image = lamina.build('.', tags=['app'], platforms=['linux/s390x', 'local']);"
        "print(image.config().architecture)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=lamina.env, cwd=lamina.cwd, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == NATIVE.architecture
    assert len(document(lamina, target_of(lamina, "app"))["manifests"]) == 2


def test_squash_of_several_platforms(lamina: Lamina) -> None:
    dockerfile(lamina, CROSS)
    lamina("build", *BOTH, "--squash", "-t", "app", ".")
    for entry in document(lamina, target_of(lamina, "app"))["manifests"]:
        assert len(document(lamina, entry["digest"])["layers"]) == 1


def test_parallel_copies_from_one_stage_see_it_unchanged(lamina: Lamina) -> None:
    stages = [
        f"FROM busybox AS s{n}\n" + "RUN true\n" * (n % 2) + "COPY --from=made /made /made\n"
        for n in range(6)
    ]
    copies = "".join(f"COPY --from=s{n} /made /made{n}\n" for n in range(6))
    for turn in range(3):
        made = f"FROM busybox AS made\nRUN echo {turn} > /made\n"
        dockerfile(lamina, made + "".join(stages) + "FROM scratch\n" + copies)
        lamina("build", ".")
