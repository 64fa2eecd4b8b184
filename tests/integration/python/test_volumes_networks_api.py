# SPDX-License-Identifier: Apache-2.0
"""`lamina.volumes` and `lamina.networks`: what a program does with them, beside the page's examples."""

from __future__ import annotations

from pathlib import Path

import pytest

import lamina
from lamina import Kind, LaminaError, RunOptions

pytestmark = pytest.mark.usefixtures("root")
SLEEP = ["sleep", "600"]


def test_volumes_are_made_found_and_removed() -> None:
    made = lamina.volumes.create("data", labels={"a": "b"})
    assert lamina.volumes.create("data") == made == lamina.volumes.get("data")
    assert (repr(made), made.labels) == ("<Volume data>", {"a": "b"})
    assert made.attrs["Name"] == "data"
    assert "data" in made._repr_html_()
    anonymous = lamina.volumes.create()
    assert {each.name for each in lamina.volumes.list()} == {"data", anonymous.name}
    assert Path(made.mountpoint).is_dir()
    assert lamina.volumes.prune() == [anonymous.name]
    lamina.volumes.remove("data")
    lamina.volumes.remove("data", force=True)
    for gone in (made.remove, lambda: made.attrs, lambda: lamina.volumes.get("data")):
        with pytest.raises(LaminaError) as caught:
            gone()
        assert caught.value.kind is Kind.NOT_FOUND
    with pytest.raises(LaminaError) as bad:
        lamina.volumes.create("no/name")
    assert bad.value.kind is Kind.USAGE


def test_a_volume_in_use_stays() -> None:
    options = RunOptions(mounts=(lamina.volume_mount("/data", "data"),))
    with lamina.containers.create("busybox", SLEEP, options=options):
        with pytest.raises(LaminaError) as used:
            lamina.volumes.remove("data")
        assert used.value.kind is Kind.CONFLICT
        assert lamina.volumes.prune(all=True) == []
    assert lamina.volumes.prune(all=True) == ["data"]


def test_networks_are_made_found_and_removed() -> None:
    made = lamina.networks.create("mine", subnet="10.231.9.0/24", labels={"a": "b"})
    assert lamina.networks.get("mine") == made
    assert lamina.networks.get(made.short_id) == made
    assert [each.name for each in lamina.networks.list()] == ["bridge", "host", "mine", "none"]
    assert (repr(made), made.labels) == (f"<Network {made.short_id} mine bridge>", {"a": "b"})
    assert made.attrs["IPAM"]["Config"][0]["Subnet"] == "10.231.9.0/24"
    assert "10.231.9.0/24" in made._repr_html_()
    with lamina.containers.run("busybox", SLEEP, detach=True) as container:
        made.connect(container, ip="10.231.9.7")
        assert made.containers == [container]
        with pytest.raises(LaminaError) as used:
            made.remove()
        assert used.value.kind is Kind.CONFLICT
        places = container.attrs["NetworkSettings"]["Networks"]
        assert places["mine"]["IPAddress"] == "10.231.9.7"
        assert set(places) == {"bridge", "mine"}
    assert lamina.networks.prune() == ["mine"]
    with pytest.raises(LaminaError) as gone:
        lamina.networks.remove("mine")
    assert gone.value.kind is Kind.NOT_FOUND


def test_what_is_asked_for_is_checked() -> None:
    for wrong in (
        lambda: lamina.network_request("mine", ip="300.1.2.3"),
        lambda: lamina.network_request("bridge", aliases=["db"]),
        lambda: lamina.health_check("true", interval=0.0001),
        lambda: lamina.health_check("true", retries=-1),
        lambda: lamina.containers.create("busybox", options=RunOptions(restart="sometimes")),
    ):
        with pytest.raises(LaminaError) as caught:
            wrong()
        assert caught.value.kind is Kind.USAGE


def test_only_what_runs_uses_something() -> None:
    with lamina.containers.create("busybox", SLEEP) as container:
        with pytest.raises(LaminaError) as resting:
            container.stats()
        assert resting.value.kind is Kind.CONFLICT
        container.start()
        used = container.stats()
        assert used.pids == 1
        assert used.memory > 0


def test_networks_that_are_asked_for_take_the_place_of_the_default_one() -> None:
    lamina.networks.create("mine")
    options = RunOptions(networks=(lamina.network_request("mine"),))
    with lamina.containers.create("busybox", SLEEP, options=options) as container:
        assert set(container.attrs["NetworkSettings"]["Networks"]) == {"mine"}
    lamina.networks.remove("mine")


def test_volumes_that_nobody_named_go_with_their_container() -> None:
    options = RunOptions(mounts=(lamina.volume_mount("/data"),))
    with lamina.containers.run("busybox", SLEEP, detach=True, options=options):
        assert len(lamina.volumes.list()) == 1
    assert lamina.volumes.list() == []
