# SPDX-License-Identifier: Apache-2.0
"""`inspect` of one container that has a bit of everything: no part forgets what another one knows."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from lamina.testing.busybox import Lamina
from lamina.testing.waiting import wait_until


def kill(pid: int) -> None:
    assert pid > 1
    os.kill(pid, signal.SIGKILL)


@pytest.mark.host_root("networks of one's own take root")
def test_a_container_with_everything(lamina: Lamina, tmp_path: Path) -> None:
    network = lamina.out("network", "create", "--subnet", "10.231.7.0/24", "mine")
    (tmp_path / "file").write_text("1")
    lamina(
        *("run", "-d", "--init", "--restart", "on-failure:2", "--network", "mine"),
        *("--network-alias", "db", "--health-cmd", "true", "--health-interval", "100ms"),
        *("-v", "data:/data:ro", "-v", f"{tmp_path}/file:/file", "--tmpfs", "/tmp"),
        *("--uts", "host", "--oom-score-adj", "100", "--device", "/dev/null:/dev/nothing:r"),
        *("--annotation", "a=b", "--dns-search", "example.org", "--name", "one"),
        *("bb", "sleep", "600"),
    )
    wait_until(lambda: lamina.inspect("one")["State"]["Health"]["Status"] == "healthy")
    assert lamina.out("ps", "-q", "--filter", "health=healthy", "--filter", "network=mine",
                      "--filter", "volume=data") != ""  # fmt: skip
    assert lamina.out("ps", "-q", "--filter", "health=none") == ""
    found = lamina.inspect("one")
    host = found["HostConfig"]
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    assert (host["Init"], host["UTSMode"], host["OomScoreAdj"]) == (True, "host", 100)
    assert (host["Annotations"], host["DnsSearch"]) == ({"a": "b"}, ["example.org"])
    assert host["Devices"] == [
        {
            "PathOnHost": "/dev/null",
            "PathInContainer": "/dev/nothing",
            "CgroupPermissions": "r",
        }
    ]
    assert host["Binds"] == ["data:/data:ro", f"{tmp_path}/file:/file"]
    assert (host["Tmpfs"], host["NetworkMode"]) == ({"/tmp": ""}, "mine")
    assert {(m["Type"], m["Destination"], m["RW"]) for m in found["Mounts"]} == {
        ("volume", "/data", False),
        ("bind", "/file", True),
    }
    assert found["Config"]["Healthcheck"]["Test"] == ["CMD-SHELL", "true"]
    assert {each["ExitCode"] for each in found["State"]["Health"]["Log"]} == {0}
    (place,) = found["NetworkSettings"]["Networks"].items()
    assert (place[0], place[1]["NetworkID"], place[1]["Aliases"]) == ("mine", network, ["db"])
    assert (place[1]["Gateway"], place[1]["IPPrefixLen"]) == ("10.231.7.1", 24)


@pytest.mark.host_root("networks of one's own take root")
def test_the_default_gateway_is_the_one_that_the_container_has(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "one", "bb", "sleep", "600")
    route = re.search(r"default via (\S+)", lamina.out("exec", "one", "ip", "route"))
    subnet = re.search(r"inet \S+/(\d+).*eth0", lamina.out("exec", "one", "ip", "addr"))
    assert route is not None
    assert subnet is not None
    place = lamina.inspect("one")["NetworkSettings"]["Networks"]["bridge"]
    assert (place["Gateway"], place["IPPrefixLen"]) == (route[1], int(subnet[1]))


@pytest.mark.parametrize("policy", ["always", "on-failure:3"])
def test_an_updated_policy_is_gone_by_at_the_next_end(lamina: Lamina, policy: str) -> None:
    lamina("run", "-d", "--name", "one", "bb", "sleep", "600")
    name, _, count = policy.partition(":")
    lamina("update", "--restart", policy, "one")
    found = lamina.inspect("one")
    assert found["HostConfig"]["RestartPolicy"] == {
        "Name": name,
        "MaximumRetryCount": int(count or 0),
    }
    first = found["State"]["Pid"]
    kill(first)
    wait_until(lambda: lamina.inspect("one")["State"]["Pid"] not in {0, first})
    assert lamina.inspect("one")["RestartCount"] == 1
    lamina("update", "--restart", "no", "one")
    kill(lamina.inspect("one")["State"]["Pid"])
    wait_until(lambda: lamina.inspect("one")["State"]["Status"] == "exited")
    assert lamina.inspect("one")["HostConfig"]["RestartPolicy"]["Name"] == "no"


def test_a_policy_that_cannot_be_is_refused(lamina: Lamina) -> None:
    lamina("run", "-d", "--rm", "--name", "brief", "bb", "sleep", "600")
    assert "AutoRemove" in lamina("update", "--restart", "always", "brief", status=1).stderr
    assert lamina.inspect("brief")["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert "sometimes" in lamina("update", "--restart", "sometimes", "brief", status=1).stderr


def test_nothing_attaches_to_a_container_between_two_runs(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "one", "--restart", "always", "bb", "false")
    wait_until(lambda: lamina.inspect("one")["RestartCount"] >= 5, seconds=30)
    wait_until(lambda: lamina.inspect("one")["State"]["Status"] == "restarting")
    refused = lamina("attach", "one", status=1).stderr
    assert "restarting" in refused
    assert "wait until it is running" in refused
