# SPDX-License-Identifier: Apache-2.0
"""`lamina events`: what containers go through, in Docker's words and shapes."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from lamina.testing.busybox import Lamina


def documents(lamina: Lamina, *flags: str) -> list[dict[str, Any]]:
    lines = lamina.out("events", "--since", "0", "--until", "0s", "--format", "json", *flags)
    return [json.loads(line) for line in lines.splitlines()]


def actions(lamina: Lamina, name: str, *flags: str) -> list[str]:
    found = documents(lamina, "--filter", f"container={name}", "--filter", "type=container", *flags)
    return [document["Action"] for document in found]


def test_a_run_tells_its_whole_life(lamina: Lamina) -> None:
    lamina("run", "--rm", "--name", "brief", "--label", "a=b", "bb", "sh", "-c", "exit 3", status=3)
    assert actions(lamina, "brief") == ["create", "attach", "start", "die", "destroy"]
    (died,) = documents(lamina, "--filter", "event=die")
    attributes = {"name": "brief", "image": "bb", "a": "b", "exitCode": "3", "execDuration": "0"}
    assert died["Actor"]["Attributes"] == attributes
    assert (died["from"], died["status"], died["scope"]) == ("bb", "die", "local")
    assert died["id"] == died["Actor"]["ID"]
    assert died["time"] == died["timeNano"] // 10**9


def test_every_command_is_told(lamina: Lamina) -> None:
    lamina("create", "--name", "one", "bb", "sleep", "600")
    lamina("start", "one")
    lamina("exec", "one", "sh", "-c", "exit 4", status=4)
    lamina("rename", "one", "two")
    lamina("restart", "-t", "0", "two")
    lamina("stop", "-t", "0", "two")
    lamina("start", "two")
    lamina("kill", "-s", "USR1", "two")
    lamina("kill", "two")
    lamina("commit", "two", "made")
    lamina("rm", "two")
    id = documents(lamina)[0]["Actor"]["ID"]
    expected = [
        *("create", "start", "exec_create: sh -c exit 4", "exec_start: sh -c exit 4", "exec_die"),
        *("rename", "kill", "kill", "die", "stop", "start", "restart"),
        *("kill", "kill", "die", "stop", "start", "kill", "kill", "die", "commit", "destroy"),
    ]
    assert actions(lamina, id) == expected
    (renamed,) = documents(lamina, "--filter", "event=rename")
    assert renamed["Actor"]["Attributes"]["oldName"] == "/one"
    assert renamed["Actor"]["Attributes"]["name"] == "two"
    killed = documents(lamina, "--filter", "event=kill")
    assert [k["Actor"]["Attributes"]["signal"] for k in killed] == ["15", "9", "15", "9", "10", "9"]
    (ran,) = documents(lamina, "--filter", "event=exec_die")
    assert ran["Actor"]["Attributes"]["exitCode"] == "4"
    assert (
        len(documents(lamina, "--filter", "event=exec_create")) == 1
    )  # its command need not be named
    # what a container was called when it died
    died = documents(lamina, "--filter", "event=die")
    assert {d["Actor"]["Attributes"]["name"] for d in died} == {"two"}


def test_a_line_is_dockers(lamina: Lamina) -> None:
    lamina("create", "--name", "one", "--label", "z=1", "--label", "b=2", "bb")
    id = lamina.out("ps", "-aq", "--no-trunc")
    (line,) = lamina.out("events", "--since", "1h", "--until", "0s").splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d)"
    assert re.fullmatch(rf"{stamp} container create {id} \(b=2, image=bb, name=one, z=1\)", line)
    shown = lamina.out("events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Status}} "
                       "{{.Actor.Attributes.name}} {{.From}} {{.ID}}")  # fmt: skip
    assert shown == f"container create one bb {id}"


def test_filters_of_one_name_are_alternatives_and_of_several_conditions(lamina: Lamina) -> None:
    for name in ("one", "two", "three"):
        lamina("create", "--name", name, "--label", f"is={name}", "--label", "all", "bb")

    def names(*filters: str) -> list[str]:
        flags = [word for text in filters for word in ("--filter", text)]
        return [d["Actor"]["Attributes"]["name"] for d in documents(lamina, *flags)]

    assert names("container=one", "container=tw") == ["one", "two"]
    assert names("container=one", "event=start") == []
    assert names("label=is=two") == ["two"]
    assert names("label=all", "label=is=three") == ["three"]
    assert names("image=bb") == ["one", "two", "three"]
    assert names("image=b") == []
    assert names("type=image") == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--filter", "what=1"), "invalid filter 'what'"),
        (("--filter", "type"), "bad format of filter"),
        (("--filter", "service=x"), "lamina has no services"),
        (("--since", "yesterday"), "invalid time"),
        (("--format", "{{.Nope}}", "--since", "0", "--until", "0s"), "Nope"),
        (("--format", "table {{.ID}}"), "no table format"),
    ],
)
def test_bad_input_is_one_error(lamina: Lamina, flags: tuple[str, ...], message: str) -> None:
    lamina("create", "bb")
    done = lamina("events", *flags, status=8 if "service=x" in flags else 125)
    assert message in done.stderr


def test_events_are_followed_until_a_moment_or_a_signal(lamina: Lamina) -> None:
    watcher = lamina.popen("events", "--format", "{{.Action}}", "--filter", "type=container",
                           "--since", "0")  # fmt: skip
    assert watcher.stdout is not None
    lamina("run", "-d", "--name", "one", "bb", "sleep", "600")
    heard = [watcher.stdout.readline().decode().strip() for _ in range(2)]
    assert heard == ["create", "start"]
    lamina("rm", "-f", "one")
    heard = [watcher.stdout.readline().decode().strip() for _ in range(3)]
    assert heard == ["kill", "die", "destroy"]
    watcher.send_signal(signal.SIGINT)
    assert watcher.communicate(timeout=20)[0] == b""
    assert watcher.returncode == 130
    assert lamina.out("system", "events", "--until", "1ms", "--since", "1ms") == ""


def test_images_are_told_by_id_and_name(lamina: Lamina, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM bb\nLABEL made=here\n")
    lamina("build", "-t", "app:1", str(tmp_path))
    lamina("tag", "app:1", "other:2")
    archive = str(tmp_path / "app.tar")
    lamina("save", "-o", archive, "app:1")
    id = lamina.out("inspect", "--format", "{{.Id}}", "app:1")
    lamina("rmi", "app:1", "other:2")
    lamina("load", "-i", archive)
    found = documents(lamina, "--filter", "type=image")
    told = [(d["Action"], d["id"], d["Actor"]["Attributes"]["name"]) for d in found]
    assert told == [
        ("create", id, id),
        ("tag", id, "app:1"),
        ("tag", id, "other:2"),
        ("save", id, id),
        ("untag", id, id),
        ("untag", id, id),
        ("delete", id, id),
        ("load", id, id),
    ]
    assert found[0]["Actor"]["Attributes"]["made"] == "here"
    labelled = documents(lamina, "--filter", "label=made=here", "--filter", "event=load")
    assert len(labelled) == 1


def test_an_imported_and_a_committed_image_are_told(lamina: Lamina, tmp_path: Path) -> None:
    lamina("create", "--name", "one", "bb", "true")
    lamina("export", "-o", str(tmp_path / "files.tar"), "one")
    lamina("import", str(tmp_path / "files.tar"), "files")
    lamina("commit", "one", "made:1")
    told = [d["Action"] for d in documents(lamina)]
    assert told == ["create", "export", "import", "tag", "tag", "commit"]


def told(lamina: Lamina, *flags: str) -> list[tuple[str, str, str]]:
    return [(d["Type"], d["Action"], d["Actor"]["ID"]) for d in documents(lamina, *flags)]


@pytest.mark.parametrize("mode", ["bridge", "host", "none"])
def test_a_run_tells_of_its_network_and_volume(lamina: Lamina, mode: str) -> None:
    mounts = ("-v", "data:/data:ro", "-v", "/anonymous")
    lamina("run", "--name", "one", "--network", mode, *mounts, "bb", "true")
    id = lamina.out("inspect", "--format", "{{.Id}}", "one")
    (other,) = (v for v in lamina.out("volume", "ls", "-q").split() if v != "data")
    network = lamina.out("network", "inspect", "--format", "{{.Id}}", mode)
    found = told(lamina)
    assert sorted(found[:2]) == sorted([("volume", "create", "data"), ("volume", "create", other)])
    assert found[2:5] == [
        ("container", "create", id),
        ("container", "attach", id),
        ("network", "connect", network),
    ]
    assert sorted(found[5:7]) == sorted([("volume", "mount", "data"), ("volume", "mount", other)])
    assert found[7] == ("container", "start", id)
    assert sorted(found[8:]) == sorted(
        [
            ("volume", "unmount", "data"),
            ("volume", "unmount", other),
            ("network", "disconnect", network),
            ("container", "die", id),
        ]
    )
    driver = {"none": "null"}.get(mode, mode)
    for document in documents(lamina, "--filter", "type=network"):
        assert document["Actor"]["Attributes"] == {"container": id, "name": mode, "type": driver}
    mounted, unmounted = documents(lamina, "--filter", "volume=data", "--filter", "event=mount",
                                   "--filter", "event=unmount")  # fmt: skip
    assert mounted["Actor"]["Attributes"] == {
        "driver": "local",
        "container": id,
        "destination": "/data",
        "propagation": "",
        "read/write": "false",
    }
    assert unmounted["Actor"]["Attributes"] == {"driver": "local", "container": id}


@pytest.mark.host_root("networks of one's own take root")
def test_networks_tell_who_comes_and_goes(lamina: Lamina) -> None:
    first = lamina.out("network", "create", "first")
    second = lamina.out("network", "create", "second")
    lamina("run", "-d", "--name", "one", "--network", "first", "bb", "sleep", "600")
    lamina("network", "connect", "second", "one")
    lamina("network", "disconnect", "first", "one")
    lamina("rm", "-f", "one")
    lamina("network", "rm", "first")
    lamina("network", "prune", "-f")
    assert told(lamina, "--filter", "type=network") == [
        ("network", "create", first),
        ("network", "create", second),
        ("network", "connect", first),
        ("network", "connect", second),
        ("network", "disconnect", first),
        ("network", "disconnect", second),
        ("network", "destroy", first),
        ("network", "destroy", second),
        ("network", "prune", ""),
    ]
    assert len(documents(lamina, "--filter", "network=second")) == 4


@pytest.mark.host_root("networks of one's own take root")
def test_a_container_of_the_default_network_joins_another(lamina: Lamina) -> None:
    lamina("network", "create", "mine")
    lamina("run", "-d", "--name", "one", "bb", "sleep", "600")
    lamina("network", "connect", "mine", "one")
    lamina("rm", "-f", "one")
    found = documents(lamina, "--filter", "event=connect", "--filter", "event=disconnect")
    names = [(d["Action"], d["Actor"]["Attributes"]["name"]) for d in found]
    assert names[:2] == [("connect", "bridge"), ("connect", "mine")]
    assert sorted(names[2:]) == [("disconnect", "bridge"), ("disconnect", "mine")]


def test_volumes_are_told_from_making_to_pruning(lamina: Lamina) -> None:
    lamina("volume", "create", "one")
    lamina("volume", "create", "one")  # is there: nothing happens
    lamina("volume", "create", "two")
    lamina("volume", "rm", "one")
    lamina("create", "--rm", "--name", "box", "-v", "/anonymous", "bb")
    lamina("rm", "-v", "box")
    lamina("volume", "prune", "-af")
    found = documents(lamina, "--filter", "type=volume")
    named = [(d["Action"], d["Actor"]["ID"]) for d in found if len(d["Actor"]["ID"]) < 64]
    assert named == [
        ("create", "one"),
        ("create", "two"),
        ("destroy", "one"),
        ("destroy", "two"),
        ("prune", ""),
    ]
    assert [d["Action"] for d in found if len(d["Actor"]["ID"]) == 64] == ["create", "destroy"]
    assert int(found[-1]["Actor"]["Attributes"]["reclaimed"]) >= 0


def test_removing_what_does_not_run_is_told_of_containers_too(lamina: Lamina) -> None:
    lamina("create", "--name", "box", "bb")
    lamina("container", "prune", "-f")
    assert [action for _, action, _ in told(lamina)] == ["create", "destroy", "prune"]


def test_a_copy_into_a_container_is_no_mount_of_its_volumes(lamina: Lamina, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    lamina("create", "--name", "box", "-v", "data:/data", "bb")
    lamina("cp", str(tmp_path / "file"), "box:/data/")
    assert told(lamina, "--filter", "event=mount", "--filter", "event=unmount") == []
