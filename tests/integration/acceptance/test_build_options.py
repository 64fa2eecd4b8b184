# SPDX-License-Identifier: Apache-2.0
"""Options of the build command, with the whole command on the real kernel."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from lamina.testing.command import Lamina, write

pytestmark = [pytest.mark.root, pytest.mark.tool("crun"), pytest.mark.tool("busybox")]

STAGES = """FROM busybox AS first
RUN date > /first; cat /proc/sys/kernel/random/uuid > /id
FROM busybox AS second
RUN echo second > /second
FROM busybox
COPY --from=first /id /id
COPY --from=second /second /second
"""


def outcomes(stderr: str) -> dict[str, str]:
    names: dict[str, str] = {}
    found: dict[str, str] = {}
    for line in stderr.splitlines():
        event = json.loads(line)
        if event["event"] == "VertexPlanned":
            names[event["vertex"]] = event["name"]
        if event["event"] == "VertexDone":
            found[names[event["vertex"]]] = event["outcome"]
    return found


def build(lamina: Lamina, *words: str) -> dict[str, str]:
    return outcomes(lamina("build", "--progress=json", "-t", "app", *words, ".").stderr)


def test_no_cache_filter_runs_the_named_stages_again_and_what_changed_with_them(
    lamina: Lamina,
) -> None:
    write(lamina.cwd, {"Dockerfile": STAGES})
    build(lamina)
    assert set(build(lamina).values()) == {"cached"}
    again = build(lamina, "--no-cache-filter", "FIRST,other")
    ran = sorted(name for name, outcome in again.items() if outcome == "ran")
    assert [name.split("] ")[1].split(" ")[0] for name in ran] == ["RUN", "COPY", "COPY"]
    assert again["[second 2/2] RUN echo second > /second"] == "cached"
    both = lamina("build", "--no-cache", "--no-cache-filter=x", ".", check=False)
    assert both.returncode == 125
    assert "cannot currently be used together" in both.stderr


def test_metadata_file_has_buildxs_keys(lamina: Lamina) -> None:
    write(lamina.cwd, {"Dockerfile": "FROM busybox\nENV A=1\n"})
    lamina("build", "--metadata-file", "m.json", "-t", "a", "-t", "b", ".")
    found = json.loads((lamina.cwd / "m.json").read_text())
    assert sorted(found) == [
        "buildx.build.ref",
        "containerimage.config.digest",
        "containerimage.descriptor",
        "containerimage.digest",
        "image.name",
    ]
    assert found["containerimage.config.digest"] == lamina.id_of("a")
    assert found["image.name"] == "docker.io/library/a:latest,docker.io/library/b:latest"
    blob = lamina.root / "blobs" / found["containerimage.digest"].replace(":", "/")
    assert blob.stat().st_size == found["containerimage.descriptor"]["size"]
    shown = lamina("builds", "inspect", "--format", "{{.Ref}}", found["buildx.build.ref"])
    assert shown.stdout.strip() == found["buildx.build.ref"].rpartition("/")[2]


def manifest_of(lamina: Lamina, name: str) -> dict[str, object]:
    index = json.loads((lamina.root / "index.json").read_text())
    for entry in index["manifests"]:
        if entry["annotations"]["org.opencontainers.image.ref.name"] == f"{name}:latest":
            blob = lamina.root / "blobs" / entry["digest"].replace(":", "/")
            found: dict[str, object] = json.loads(blob.read_text())
            return found
    raise AssertionError(name)


def test_annotations_go_into_the_manifest(lamina: Lamina) -> None:
    write(lamina.cwd, {"Dockerfile": "FROM busybox\nENV A=1\n"})
    lamina("build", "--annotation", "a.b=c=d", "--annotation", "manifest:e=f", "-t", "app", ".")
    assert manifest_of(lamina, "app")["annotations"] == {"a.b": "c=d", "e": "f"}


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ("index:a=b", "index annotations not supported for a single platform export"),
        ("manifest-descriptor:a=b", "manifest-descriptor annotations"),
        ("what:a=b", "unknown annotation type 'what'"),
        ("manifest[linux/amd64]:a=b", "manifest[linux/amd64] annotations"),
        ("novalue", "expected key=value"),
    ],
)
def test_annotation_that_has_no_place_is_refused(
    lamina: Lamina, annotation: str, message: str
) -> None:
    write(lamina.cwd, {"Dockerfile": "FROM busybox\n"})
    done = lamina("build", "--annotation", annotation, ".", check=False)
    assert done.returncode in {8, 125}
    assert message.replace(" not", "") in done.stderr.replace(" are not", "").replace(" not", "")


SQUASHED = """FROM busybox
RUN mkdir -p /srv/keep /srv/gone /d/old /deep/a && echo base > /srv/gone/f && touch /d/old/x \
    && echo l > /deep/a/one && ln /deep/a/one /deep/two && ln -s one /deep/link
"""
ABOVE = """FROM lower
RUN rm -r /srv/gone && echo new > /srv/new
RUN rm -r /d && mkdir -p /d/young && echo y > /d/young/y
RUN echo temporary > /tmp/t && rm /deep/two
RUN rm /tmp/t; chmod 4755 /deep/a/one; echo more >> /srv/new; ln /srv/new /srv/hard
COPY f /srv/keep/
RUN rm -r /deep/a && echo file > /deep/a
RUN rm /deep/a && mkdir /deep/a && echo z > /deep/a/z
"""


def listing(lamina: Lamina, name: str, tmp_path: Path) -> list[tuple[object, ...]]:
    """Every file of the image's tree: name, type, mode, owner, size, link, number of names."""
    lamina("build", "-o", f"type=tar,dest={tmp_path}/{name}.tar", "-f", f"{name}.df", ".")
    with tarfile.open(f"{tmp_path}/{name}.tar") as tar:
        return sorted((m.name, m.type, m.mode, m.uid, m.gid, m.size, m.linkname) for m in tar)


def test_squash_gives_the_same_tree_in_one_layer_above_the_base(
    lamina: Lamina, tmp_path: Path
) -> None:
    write(lamina.cwd, {"Dockerfile": SQUASHED, "above": ABOVE, "f": "f"})
    lamina("build", "-t", "lower", ".")
    lamina("build", "-t", "plain", "-f", "above", ".")
    lamina("build", "--squash", "-t", "squashed", "-f", "above", ".")
    layers = {
        name: json.loads(lamina("inspect", "--format", "{{json .RootFS.Layers}}", name).stdout)
        for name in ("lower", "plain", "squashed")
    }
    assert len(layers["squashed"]) == len(layers["lower"]) + 1
    assert layers["squashed"][:-1] == layers["lower"]
    # trees as another build sees them, unpacked from the layers
    write(lamina.cwd, {"plain.df": "FROM plain\n", "squashed.df": "FROM squashed\n"})
    assert listing(lamina, "squashed", tmp_path) == listing(lamina, "plain", tmp_path)
    again = lamina("build", "--squash", "-t", "again", "-f", "above", ".")
    assert "CACHED" in again.stderr
    assert lamina.id_of("again") == lamina.id_of("squashed")
    history = lamina("history", "--format", "{{.Size}} {{.Comment}}", "squashed").stdout
    assert "merge 7 layers into one" in history.splitlines()[0]


def test_squash_hides_what_was_deleted_from_other_tools(lamina: Lamina, tmp_path: Path) -> None:
    write(lamina.cwd, {"Dockerfile": SQUASHED, "above": ABOVE, "f": "f"})
    lamina("build", "-t", "lower", ".")
    lamina("build", "--squash", "-f", "above", "-o", f"type=oci,tar=false,dest={tmp_path}/o", ".")
    index = json.loads((tmp_path / "o" / "index.json").read_text())
    digest = index["manifests"][0]["digest"].replace(":", "/")
    manifest = json.loads((tmp_path / "o" / "blobs" / digest).read_text())
    layer = tmp_path / "o" / "blobs" / manifest["layers"][-1]["digest"].replace(":", "/")
    with tarfile.open(layer) as tar:
        names = tar.getnames()
    assert {"srv/.wh.gone", "deep/.wh.two", "d/.wh..wh..opq", "deep/a/.wh..wh..opq"} <= set(names)
    assert not any(name.startswith("tmp/") for name in names)
    assert len(names) == len(set(names))


def test_timestamp_is_the_time_of_everything(lamina: Lamina) -> None:
    write(lamina.cwd, {"Dockerfile": "FROM busybox\nRUN touch /now\n"})
    lamina("build", "--timestamp", "1600000000", "-t", "app", ".")
    assert lamina("inspect", "--format", "{{.Created}}", "app").stdout.startswith("2020-09-13T")
    assert lamina("run", "--rm", "app", "stat", "-c", "%Y", "/now").stdout == "1600000000\n"
    assert lamina("build", "--timestamp", "soon", ".", check=False).returncode == 125


def test_several_outputs_are_made_by_one_build(lamina: Lamina, tmp_path: Path) -> None:
    write(lamina.cwd, {"Dockerfile": "FROM busybox\nRUN echo x > /x\n"})
    done = lamina(
        "build", "-q", "-t", "app",
        "-o", f"type=local,dest={tmp_path}/split,platform-split=true",
        "-o", f"type=tar,dest={tmp_path}/a.tar",
        "-o", f"type=oci,dest={tmp_path}/a.oci",
        "-o", "type=image",
        ".",
    )  # fmt: skip
    assert done.stdout.strip() == lamina.id_of("app")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "")
    assert (tmp_path / "split" / f"linux_{machine}" / "x").read_text() == "x\n"
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert "x" in tar.getnames()
    assert (tmp_path / "a.oci").exists()


def test_cacheonly_makes_nothing_but_the_cache(lamina: Lamina) -> None:
    write(lamina.cwd, {"Dockerfile": "FROM busybox\nRUN echo x > /x\n"})
    before = lamina("images", "-q").stdout
    done = lamina("build", "-q", "-o", "type=cacheonly", ".")
    assert done.stdout == ""
    assert lamina("images", "-q").stdout == before
    assert set(build(lamina).values()) == {"cached"}


def test_pull_asks_again_for_a_base_that_is_here(lamina: Lamina) -> None:
    lamina("tag", "busybox", "127.0.0.1:1/busybox")  # nothing listens on port 1
    write(lamina.cwd, {"Dockerfile": "FROM 127.0.0.1:1/busybox\n"})
    lamina("build", "--pull=false", ".")
    failed = lamina("build", "--pull", ".", check=False)
    assert failed.returncode == 7
    assert "could not be pulled: cannot reach 127.0.0.1:1" in failed.stderr


def test_buildkit_progress_is_the_default_of_progress(lamina: Lamina) -> None:
    write(lamina.cwd, {"Dockerfile": "FROM busybox\nENV A=1\n"})
    quiet = lamina("build", "-t", "app", ".", env={"BUILDKIT_PROGRESS": "quiet"})
    assert quiet.stderr == ""
    shown = lamina("build", "--progress=plain", ".", env={"BUILDKIT_PROGRESS": "quiet"})
    assert "CACHED" in shown.stderr
    wrong = lamina("build", ".", env={"BUILDKIT_PROGRESS": "loud"}, check=False)
    assert wrong.returncode == 125
    assert "BUILDKIT_PROGRESS" in wrong.stderr


def test_build_arg_file_gives_arguments_that_flags_override(lamina: Lamina) -> None:
    write(
        lamina.cwd,
        {
            "Dockerfile": "FROM busybox\nARG A\nARG B\nENV AB=$A-$B\n",
            "args": "# for the build\nA=file\n\nB=file\n",
        },
    )
    lamina("build", "--build-arg-file", "args", "--build-arg", "B=flag", "-t", "app", ".")
    env = lamina("inspect", "--format", "{{json .Config.Env}}", "app").stdout
    assert "AB=file-flag" in env


def test_label_of_the_command_line_wins(lamina: Lamina) -> None:
    write(lamina.cwd, {"Dockerfile": "FROM busybox\nLABEL a=file b=file\n"})
    lamina("build", "--label", "a=flag", "--label", "c", "-t", "app", ".")
    labels = json.loads(lamina("inspect", "--format", "{{json .Config.Labels}}", "app").stdout)
    assert {key: labels[key] for key in "abc"} == {"a": "flag", "b": "file", "c": ""}


def test_check_finds_without_building(lamina: Lamina) -> None:
    write(lamina.cwd, {"Dockerfile": "from busybox AS x\nRUN exit 1\nCMD true\n"})
    done = lamina("build", "--check", ".", check=False)
    assert done.returncode == 1
    assert "JSONArgsRecommended" in done.stdout
    assert lamina("builds", "-q").stdout == ""
    write(lamina.cwd, {"Dockerfile": 'FROM busybox\nCMD ["true"]\n'})
    assert lamina("build", "--check", ".").stdout == "Check complete, no warnings found.\n"


def test_check_errors_stop_a_build_that_asks_for_it(lamina: Lamina) -> None:
    write(lamina.cwd, {"Dockerfile": "# check=error=true\nFROM busybox\nMAINTAINER me\n"})
    done = lamina("build", ".", check=False)
    assert done.returncode == 2
    assert "lint violation found for rules: MaintainerDeprecated" in done.stderr


def test_everything_is_documented_by_help(lamina: Lamina) -> None:
    text = subprocess.run(
        lamina.argv("build", "--help"), env=lamina.env, capture_output=True, check=True
    ).stdout.decode()
    for flag in ("--check", "--call", "--no-cache-filter", "--squash", "--on-fail", "--timestamp"):
        assert flag in text
