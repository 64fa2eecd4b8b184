# SPDX-License-Identifier: Apache-2.0
"""`lamina volume`, and volumes in what other commands list and remove."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lamina.testing.busybox import Lamina


def names(lamina: Lamina, *flags: str) -> list[str]:
    return lamina.out("volume", "ls", "-q", *flags).split()


def test_create_ls_inspect_rm(lamina: Lamina) -> None:
    assert lamina.out("volume", "create", "--label", "a=1", "--label", "b", "one") == "one"
    assert lamina.out("volume", "create", "--name", "v10") == "v10"
    assert lamina.out("volume", "create", "v2") == "v2"
    made_up = lamina.out("volume", "create")
    assert re.fullmatch("[0-9a-f]{64}", made_up)
    table = lamina.out("volume", "ls").split("\n")
    assert table[0] == "DRIVER    VOLUME NAME"
    assert sorted(table[1:]) == sorted(f"local     {n}" for n in ("one", "v2", "v10", made_up))
    listed = names(lamina)
    assert listed.index("v2") < listed.index("v10")  # as people count
    (found,) = json.loads(lamina.out("volume", "inspect", "one"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", found.pop("CreatedAt"))
    assert found == {
        "Driver": "local",
        "Labels": {"a": "1", "b": ""},
        "Mountpoint": f"{lamina.root}/volumes/one/_data",
        "Name": "one",
        "Options": None,
        "Scope": "local",
    }
    assert lamina.out("volume", "rm", "one", "v2") == "one\nv2"
    assert lamina.out("volume", "remove", "v10") == "v10"
    assert names(lamina) == [made_up]


def test_create_of_what_is_there_changes_nothing(lamina: Lamina) -> None:
    lamina("volume", "create", "--label", "a=1", "one")
    Path(lamina.root, "volumes/one/_data/kept").touch()
    assert lamina.out("volume", "create", "--label", "a=2", "one") == "one"
    assert lamina.out("volume", "inspect", "-f", "{{.Labels.a}}", "one") == "1"
    assert Path(lamina.root, "volumes/one/_data/kept").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["-f", "name=^web"], ["web1", "web2"]),
        (["-f", "name=b1"], ["db1", "web1"]),
        (["-f", "name=db", "-f", "name=2"], ["db1", "web2"]),
        (["-f", "label=env"], ["db1", "web1"]),
        (["-f", "label=env=prod"], ["web1"]),
        (["-f", "label=env", "-f", "label=tier=db"], ["db1"]),
        (["-f", "driver=local"], ["db1", "web1", "web2"]),
        (["-f", "driver=nfs"], []),
        (["-f", "dangling=true"], ["db1", "web2"]),
        (["-f", "dangling=0"], ["web1"]),
        (["--format", "{{.Name}}:{{.Labels}}", "-f", "name=db"], ["db1:env=dev,tier=db"]),
        (["--format", "table {{.Name}}", "-f", "name=db"], ["db1"]),
    ],
)
def test_filters_and_formats(lamina: Lamina, flags: list[str], expected: list[str]) -> None:
    lamina("volume", "create", "--label", "env=prod", "web1")
    lamina("volume", "create", "web2")
    lamina("volume", "create", "--label", "env=dev", "--label", "tier=db", "db1")
    lamina("create", "-v", "web1:/w", "bb", "true")
    quiet = [] if "--format" in flags else ["-q"]
    out = lamina.out("volume", "ls", *quiet, *flags).split("\n")
    assert [line for line in out if line not in {"", "VOLUME NAME"}] == expected


def test_ls_as_json(lamina: Lamina) -> None:
    lamina("volume", "create", "one")
    assert json.loads(lamina.out("volume", "ls", "--format", "json")) == {
        **dict.fromkeys(("Availability", "Group", "Links", "Size", "Status"), "N/A"),
        "Driver": "local",
        "Labels": "",
        "Mountpoint": f"{lamina.root}/volumes/one/_data",
        "Name": "one",
        "Scope": "local",
    }


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (["create", "-d", "nfs"], 1, "volume driver 'nfs' is not supported"),
        (["create", "--name=aa", "bb"], 125, "cannot specify a volume-name through both --name"),
        (["create", "aa", "bb"], 125, "unexpected 'bb'"),
        (["create", "../up"], 125, "includes invalid characters for a local volume name"),
        (["create", "x"], 125, "volume name is too short"),
        (["create", "-o", "type=nfs", "one"], 125, 'missing required option: "device"'),
        (["create", "-o", "type=tmpfs", "-o", "device=tmpfs", "one"], 1, "type=tmpfs"),
        (["create", "--group", "g"], 1, "--group is not supported"),
        (["inspect", "none"], 1, "get none: no such volume"),
        (["inspect", ".."], 1, "get ..: no such volume"),
        (["rm", "none"], 1, "get none: no such volume"),
        (["rm", "-f", "../blobs"], 0, ""),
        (["rm"], 125, "requires at least 1 argument"),
        (["ls", "-f", "bogus=1"], 125, "invalid filter 'bogus'"),
        (["ls", "-f", "dangling=maybe"], 125, "invalid filter 'dangling=maybe'"),
        (["prune", "-a", "--filter", "all=1"], 125, "cannot specify both --all and --filter"),
        (["prune", "-f", "--filter", "until=1h"], 125, "invalid filter 'until'"),
        (["update", "x"], 8, "lamina has no `volume update`"),
    ],
)
def test_what_cannot_be_done_is_said(
    lamina: Lamina, words: list[str], status: int, why: str
) -> None:
    assert why in lamina("volume", *words, status=status).stderr
    assert Path(lamina.root, "blobs").is_dir()


def test_inspect_prints_what_it_found_of_several(lamina: Lamina) -> None:
    lamina("volume", "create", "one")
    done = lamina("volume", "inspect", "none", "one", status=1)
    assert [each["Name"] for each in json.loads(done.stdout)] == ["one"]
    assert json.loads(lamina("volume", "inspect", "none", status=1).stdout) == []
    assert lamina.out("inspect", "-f", "{{.Mountpoint}}", "one").endswith("/volumes/one/_data")
    assert lamina.out("inspect", "--type", "volume", "-f", "{{.Name}}", "one") == "one"


def test_volume_in_use_stays_and_says_of_whom(lamina: Lamina) -> None:
    ids = [lamina.out("create", "-v", "one:/w", "bb", "true") for _ in range(2)]
    done = lamina("volume", "rm", "one", "none", status=1)
    in_use = re.search(r"remove one: volume is in use - \[(.*)\]", done.stderr)
    assert in_use is not None
    assert sorted(in_use[1].split(", ")) == sorted(ids)
    assert "volume is in use" in lamina("volume", "rm", "-f", "one", status=1).stderr
    lamina("rm", *ids)
    assert lamina.out("volume", "rm", "one") == "one"


def test_prune_takes_the_unnamed_and_unused(lamina: Lamina) -> None:
    used = lamina.out("create", "-v", "/w", "-v", "used:/u", "bb", "true")
    lamina("volume", "create", "named")
    lamina("volume", "create", "--label", "keep", "kept")
    anonymous = lamina.out("volume", "create")
    asked = lamina("volume", "prune", input="n\n", status=1)
    assert "WARNING! This will remove anonymous local volumes not used by" in asked.stdout
    assert "volume prune has been cancelled" in asked.stderr
    out = lamina("volume", "prune", input="y\n").stdout
    assert f"Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: " in out
    assert (
        "will remove all local volumes"
        in lamina("volume", "prune", "-a", input="n", status=1).stdout
    )
    out = lamina.out("volume", "prune", "-af", "--filter", "label!=keep")
    assert "named" in out
    assert {"used", "kept"} < set(names(lamina))
    assert "kept" in lamina.out("volume", "prune", "-f", "--filter=all=1", "--filter=label=keep")
    assert len(names(lamina)) == 2
    lamina("rm", "-v", used)
    assert names(lamina) == ["used"]
    assert lamina.out("volume", "prune", "-f") == "Total reclaimed space: 0B"


def test_anonymous_volumes_go_with_v_and_rm(lamina: Lamina) -> None:
    lamina("run", "--rm", "-v", "/w", "-v", "named:/n", "v", "true")
    assert names(lamina) == ["named"]
    lamina("run", "--name=one", "v", "true")
    (anonymous,) = names(lamina, "-f", "name=^[0-9a-f]{64}$")
    assert lamina.out("inspect", "-f", "{{(index .Mounts 0).Name}}", "one") == anonymous
    labels = lamina.out("volume", "inspect", "-f", "{{json .Labels}}", anonymous)
    assert json.loads(labels) == {"com.docker.volume.anonymous": ""}
    lamina("rm", "one")
    assert anonymous in names(lamina)
    lamina("run", "-d", "--name=two", "v", "sleep", "600")
    lamina("rm", "-fv", "two")
    assert sorted(names(lamina)) == sorted([anonymous, "named"])


def test_df_counts_volumes_once(lamina: Lamina) -> None:
    lamina(
        "run",
        "--name=one",
        "-v",
        "used:/w",
        "bb",
        "dd",
        "if=/dev/zero",
        "of=/w/f",
        "bs=1M",
        "count=3",
    )
    lamina(
        "run", "--rm", "-v", "idle:/w", "bb", "dd", "if=/dev/zero", "of=/w/f", "bs=1M", "count=2"
    )
    rows = {
        row["Type"]: row
        for row in map(json.loads, lamina.out("system", "df", "--format", "json").split("\n"))
    }
    found = rows["Local Volumes"]
    assert (found["TotalCount"], found["Active"]) == ("2", "1")
    assert re.fullmatch(r"5\.[23]\d?MB", found["Size"])
    assert re.fullmatch(r"2\.1\d?MB \(40%\)", found["Reclaimable"])
    verbose = lamina.out("system", "df", "-v")
    assert re.search(r"\nused +1 +3\.1\d?MB\n", verbose)
    assert re.search(r"\nidle +0 +2\.1\d?MB\n", verbose)
    out = lamina.out("system", "prune", "-f", "--volumes")  # takes the container, no named volume
    assert "Deleted Volumes" not in out
    assert names(lamina) == ["idle", "used"]


def test_system_prune_with_volumes(lamina: Lamina) -> None:
    lamina("run", "v", "true")
    (anonymous,) = names(lamina)
    assert "Deleted Volumes" not in lamina.out("system", "prune", "-f")
    out = lamina.out("system", "prune", "-f", "--volumes")
    assert f"Deleted Volumes:\n{anonymous}\n" in out
    assert names(lamina) == []
    question = lamina("system", "prune", "--volumes", input="n\n", status=1).stdout
    assert "  - all anonymous volumes not used by at least one container\n" in question


def test_ps_shows_and_finds_volumes(lamina: Lamina) -> None:
    lamina("create", "--name=one", "-v", "first:/w", "--tmpfs=/t", "bb", "true")
    lamina("create", "--name=two", "-v", "/w", "-v", "/tmp:/host", "bb", "true")
    show = ("ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.LocalVolumes}} {{.Mounts}}")
    rows = dict(line.split(" ", 1) for line in lamina.out(*show).split("\n"))
    assert rows["one"] == "1 first"
    assert re.fullmatch("1 (/tmp,)?[0-9a-f]{64}(,/tmp)?", rows["two"])
    find = ("ps", "-a", "--format={{.Names}}", "--filter")
    assert lamina.out(*find, "volume=first") == "one"
    assert lamina.out(*find, "volume=/w").split() == ["two", "one"]
    assert lamina.out(*find, "volume=/tmp") == "two"
    assert lamina.out(*find, "volume=firs") == ""
