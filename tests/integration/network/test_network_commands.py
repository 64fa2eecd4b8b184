# SPDX-License-Identifier: Apache-2.0
"""`lamina network create|ls|inspect|rm|prune`: Docker's words, columns, filters and exit statuses."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from lamina.testing.network import run

if TYPE_CHECKING:
    from lamina.testing.busybox import Lamina

pytestmark = [pytest.mark.root, pytest.mark.tool("crun", "busybox", "nft", "ip")]


def inspected(lamina: Lamina, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(lamina.out("network", "inspect", name))[0]
    return document


def subnets(lamina: Lamina, name: str) -> list[str]:
    return [part["Subnet"] for part in inspected(lamina, name)["IPAM"]["Config"]]


def test_the_predefined_networks_are_there_and_stay(lamina: Lamina) -> None:
    lines = lamina.out("network", "ls").splitlines()
    assert lines[0].split("  ")[0] == "NETWORK ID"
    assert [line.split()[1:] for line in lines[1:]] == [
        ["bridge", "bridge", "local"],
        ["host", "host", "local"],
        ["none", "null", "local"],
    ]
    for name in ("bridge", "host", "none"):
        said = lamina("network", "rm", name, status=1).stderr
        assert f"{name} is a pre-defined network and cannot be removed" in said
        assert "predefined" in lamina("network", "create", name, status=1).stderr


def test_create_prints_the_id_and_inspect_shows_what_was_asked(lamina: Lamina) -> None:
    id = lamina.out(
        "network", "create", "--subnet=10.77.0.0/16", "--gateway=10.77.0.9", "--internal",
        "--ip-range=10.77.5.0/24", "--label=a=b", "--attachable",
        "-o", "com.docker.network.driver.mtu=1400", "backend",
    )  # fmt: skip
    found = inspected(lamina, "backend")
    assert len(id) == 64
    assert found["Id"] == id == inspected(lamina, id[:12])["Id"]
    assert found["IPAM"]["Config"] == [
        {"Subnet": "10.77.0.0/16", "Gateway": "10.77.0.9", "IPRange": "10.77.5.0/24"}
    ]
    assert (found["Internal"], found["Attachable"], found["EnableIPv6"]) == (True, True, False)
    assert found["Labels"] == {"a": "b"}
    assert found["Options"] == {"com.docker.network.driver.mtu": "1400"}
    assert found["Containers"] == {}


def test_pools_are_dockers_and_avoid_the_hosts_routes(lamina: Lamina) -> None:
    run("ip addr add 172.19.3.4/24 dev lo")
    for name in ("one", "two"):
        lamina("network", "create", name)
    assert subnets(lamina, "one") == ["172.18.0.0/16"]
    assert subnets(lamina, "two") == ["172.20.0.0/16"]


def test_ipv6_gets_a_unique_local_prefix(lamina: Lamina) -> None:
    lamina("network", "create", "--ipv6", "six")
    v4, v6 = subnets(lamina, "six")
    assert v4 == "172.18.0.0/16"
    assert v6.startswith("fd")
    assert v6.endswith("::/64")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--subnet=10.1.2.3/16"], "invalid subnet 10.1.2.3/16: it should be 10.1.0.0/16"),
        (["--subnet=10.1.0.0"], "invalid --subnet"),
        (["--subnet=fd00::/64"], "needs --ipv6"),
        (["--subnet=10.1.0.0/31"], "no room"),
        (["--subnet=10.1.0.0/24", "--gateway=10.2.0.1"], "no matching subnet for gateway"),
        (["--subnet=10.1.0.0/24", "--ip-range=10.1.1.0/24"], "no matching subnet for range"),
        (["--subnet=10.1.0.0/24", "--subnet=10.2.0.0/24"], "one subnet of each family"),
        (["-d", "macvlan"], "--driver macvlan is not supported"),
        (["-o", "parent=eth0"], "parent is not supported"),
        (["-o", "com.docker.network.driver.mtu=x"], "invalid value"),
        (["-o", "com.docker.network.bridge.name=lo"], "the interface name lo is taken"),
        (["--ingress"], "--ingress is not supported"),
        (["--aux-address", "a=10.0.0.1"], "--aux-address is not supported"),
    ],
)
def test_what_cannot_be_is_refused_by_name(lamina: Lamina, flags: list[str], said: str) -> None:
    done = subprocess.run(
        lamina.argv("network", "create", *flags, "x"),
        env=lamina.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said in done.stderr
    assert done.returncode in {1, 125}
    assert lamina.out("network", "ls", "-q", "--filter=type=custom") == ""


def test_names_and_subnets_are_unique(lamina: Lamina) -> None:
    lamina("network", "create", "--subnet=10.5.0.0/16", "x")
    assert "already exists" in lamina("network", "create", "x", status=1).stderr
    said = lamina("network", "create", "--subnet=10.5.7.0/24", "y", status=1).stderr
    assert "10.5.7.0/24 overlaps with 10.5.0.0/16" in said


def test_filters_and_formats(lamina: Lamina) -> None:
    id = lamina.out("network", "create", "--label=tier=db", "--internal", "back-end")
    lamina("network", "create", "--ipv6", "front")

    def listed(*filters: str) -> str:
        words = [word for text in filters for word in ("--filter", text)]
        return " ".join(lamina.out("network", "ls", "--format={{.Name}}", *words).split())

    assert listed("type=custom") == "back-end front"
    assert listed("type=builtin") == "bridge host none"
    assert listed("driver=null") == "none"
    assert listed("name=end") == "back-end"
    assert listed(f"id={id[:9]}") == "back-end"
    assert listed("label=tier") == listed("label=tier=db") == "back-end"
    assert listed("label=tier=web") == ""
    assert listed("dangling=true") == "back-end front"
    assert listed("dangling=false") == "bridge host none"
    assert listed("name=front", "name=host") == "front host"
    assert lamina.out("network", "ls", "-q", "--no-trunc", "-f", "name=back-end") == id
    row = json.loads(lamina.out("network", "ls", "--format=json", "-f", "name=front"))
    assert (row["IPv6"], row["Internal"], row["Scope"]) == ("true", "false", "local")
    assert "invalid filter" in lamina("network", "ls", "-f", "colour=red", status=1).stderr


def test_rm_goes_on_after_a_failure(lamina: Lamina) -> None:
    lamina("network", "create", "a")
    done = lamina("network", "rm", "nope", "a", status=1)
    assert done.stdout == "a\n"
    assert "network nope not found" in done.stderr
    assert lamina("network", "rm", "-f", "nope").stdout == ""
    assert lamina("network", "inspect", "nope", status=1).stdout == "[]\n"


def test_prune_removes_what_nobody_uses(lamina: Lamina) -> None:
    lamina("network", "create", "--label=keep", "a")
    lamina("network", "create", "b")
    assert lamina("network", "prune", input="n\n", status=1).stdout.endswith("[y/N] ")
    done = lamina.out("network", "prune", "-f", "--filter=label!=keep")
    assert done == "Deleted Networks:\nb"
    assert "Deleted Networks:\na\n" in lamina.out("system", "prune", "-f")


def test_many_at_once_get_subnets_of_their_own(lamina: Lamina) -> None:
    started = [lamina.popen("network", "create", f"n{n}") for n in range(6)]
    assert [each.wait(60) for each in started] == [0] * 6
    for each in started:
        each.communicate()
    found = [subnets(lamina, f"n{n}")[0] for n in range(6)]
    assert len(set(found)) == 6


def test_inspect_finds_networks_behind_containers_and_images(lamina: Lamina) -> None:
    id = lamina.out("network", "create", "net")
    assert json.loads(lamina.out("inspect", "net"))[0]["Id"] == id
    assert lamina.out("inspect", "--type=network", "-f", "{{.Driver}}", "none") == "null"
    assert "not found" in lamina("inspect", "--type=network", "bb", status=3).stderr
    assert "No such object" in lamina("inspect", "nothing", status=3).stderr
