# SPDX-License-Identifier: Apache-2.0
"""Configuration and state survive their files; who is alive is asked, not assumed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lamina.container import state
from lamina.container.network.publish import PortMapping
from lamina.container.ports import Mount, ProcessSpec
from lamina.container.state import ContainerConfig, State
from lamina.errors import Kind, LaminaError
from lamina.start.record import replace

BOOT = "boot-1"
CONFIG = ContainerConfig(
    image="app",
    image_id="sha256:" + "a" * 64,
    chain="sha256:" + "b" * 64,
    process=ProcessSpec(
        argv=("sh", "-c", "é"),
        env=(("A", "1"), ("B", "")),
        mounts=(Mount("/a", "bind", "/b", ("ro",)),),
        ulimits=(("nofile", 1, 2),),
        cpus=1.5,
    ),
    ports=(PortMapping(80, host_port=8080),),
    labels=(("k", "v"),),
)


def test_configuration_survives_its_json() -> None:
    assert ContainerConfig.parse(CONFIG.to_json()) == CONFIG


def test_document_pins_what_the_container_stands_on() -> None:
    document = json.loads(CONFIG.to_json())
    assert document["pins"] == [CONFIG.chain, CONFIG.image_id]
    assert document["image_id"] == CONFIG.image_id


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"format":1}', '{"format":1,"pins":[]}'])
def test_damaged_configuration_is_an_error(text: str) -> None:
    with pytest.raises(LaminaError, match="damaged"):
        ContainerConfig.parse(text)


def test_configuration_of_another_version_says_so() -> None:
    document = {**json.loads(CONFIG.to_json()), "format": 99}
    with pytest.raises(LaminaError, match="another version"):
        ContainerConfig.parse(json.dumps(document))


def test_state_survives_its_file(tmp_path: Path) -> None:
    written = State(status=state.EXITED, exit_status=3, ports=CONFIG.ports, error="x")
    state.write_state(str(tmp_path), written)
    assert state.read_state(str(tmp_path)) == written
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_no_file_is_created(tmp_path: Path) -> None:
    assert state.read_state(str(tmp_path)).status == state.CREATED


@pytest.mark.parametrize("text", ["", "[]", '{"status":"exited"}', '{"ports":[],"bogus":1}'])
def test_damaged_state_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(LaminaError, match="damaged") as caught:
        state.read_state(str(tmp_path))
    assert caught.value.kind is Kind.INVALID


def running(tmp_path: Path, pid: int) -> State:
    found = State(
        status=state.RUNNING, pid=pid, pid_started=state.start_ticks(pid), boot=BOOT, started=1.0
    )
    state.write_state(str(tmp_path), found)
    return found


def test_running_with_a_monitor_is_running(tmp_path: Path) -> None:
    running(tmp_path, os.getpid())
    lock = state.acquire(str(tmp_path))
    assert lock is not None
    found = state.observe(str(tmp_path), boot=BOOT)
    assert (found.status, found.orphaned) == (state.RUNNING, False)
    os.close(lock)


def test_running_without_a_monitor_is_orphaned(tmp_path: Path) -> None:
    running(tmp_path, os.getpid())
    assert state.observe(str(tmp_path), boot=BOOT).orphaned


@pytest.mark.parametrize("change", [{"boot": "boot-0"}, {"pid_started": 1}, {"pid": 4_194_303}])
def test_process_that_is_not_the_one_is_exited(tmp_path: Path, change: dict[str, object]) -> None:
    changed = replace(running(tmp_path, os.getpid()), **change)  # type: ignore[arg-type]  # one field
    state.write_state(str(tmp_path), changed)
    found = state.observe(str(tmp_path), boot=BOOT)
    assert (found.status, found.exit_status) == (state.EXITED, 255)


def test_lock_is_exclusive_and_looking_does_not_take_it(tmp_path: Path) -> None:
    directory = str(tmp_path)
    assert not state.is_locked(directory)
    first = state.acquire(directory)
    assert first is not None
    assert state.acquire(directory) is None
    assert state.is_locked(directory)
    os.close(first)
    assert not state.is_locked(directory)


def test_lock_lives_in_every_copy_of_its_descriptor(tmp_path: Path) -> None:
    first = state.acquire(str(tmp_path))
    assert first is not None
    copy = os.dup(first)
    os.close(first)
    assert state.is_locked(str(tmp_path))
    os.close(copy)
    assert not state.is_locked(str(tmp_path))


def test_lock_of_a_removed_container_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(state.ContainerNotFound):
        state.acquire(str(tmp_path / "gone"))


def test_start_ticks_of_nobody_is_zero() -> None:
    assert state.start_ticks(4_194_303) == 0
    assert state.start_ticks(os.getpid()) > 0
