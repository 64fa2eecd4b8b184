# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from lamina.container.extras import DeviceRate, Extras
from lamina.container.init import find_init, is_static
from lamina.container.limits import add_resources, check_offered, wanted_of
from lamina.container.ports import ProcessSpec
from lamina.errors import Kind, LaminaError

RATE = DeviceRate("throttleReadBpsDevice", "/dev/null", 5)


def process(extras: Extras | None = None, *, memory_swap: int = 0) -> ProcessSpec:
    return ProcessSpec(argv=("true",), env=(), extras=extras, memory_swap=memory_swap)


def test_controller_of_disks_has_another_name_in_v2() -> None:
    asked = process(Extras(blkio_weight=10, device_rates=(RATE,), cpu_quota=1000))
    flags = ["--cpu-quota", "--blkio-weight", "--device-read-bps"]
    assert [flag for _, flag, _ in wanted_of(asked, "v1")] == flags
    assert [name for name, *_ in wanted_of(asked, "v1")] == ["cpu", "blkio", "blkio"]
    assert [name for name, *_ in wanted_of(asked, "v2")] == ["cpu", "io", "io"]
    assert wanted_of(process(), "v1") == []


@pytest.mark.parametrize(
    ("asked", "flag"),
    [
        (process(Extras(memory_swappiness=0)), "--memory-swappiness"),
        (process(Extras(oom_kill_disable=True)), "--oom-kill-disable"),
    ],
)
def test_limits_of_v1_alone_are_refused_with_v2(asked: ProcessSpec, flag: str) -> None:
    with pytest.raises(LaminaError, match=flag) as caught:
        check_offered(asked, "v2")
    assert caught.value.kind is Kind.UNSUPPORTED


@pytest.mark.parametrize(
    ("asked", "file"),
    [
        (process(memory_swap=-1), "memory/memory.memsw.limit_in_bytes"),
        (process(Extras(blkio_weight=10)), "blkio/blkio.bfq.weight"),
        (process(Extras(device_rates=(RATE,))), "blkio/blkio.throttle.read_bps_device"),
    ],
)
def test_limit_needs_its_file_with_v1(tmp_path: Path, asked: ProcessSpec, file: str) -> None:
    with pytest.raises(LaminaError, match="cannot be enforced: this kernel's"):
        check_offered(asked, "v1", root=str(tmp_path))
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).touch()
    check_offered(asked, "v1", root=str(tmp_path))


def test_resources_are_added_to_those_that_are_there() -> None:
    resources: dict[str, object] = {"memory": {"limit": 9}}
    add_resources(resources, Extras(memory_swappiness=0, cpu_period=1000))
    assert resources == {"memory": {"limit": 9, "swappiness": 0}, "cpu": {"period": 1000}}
    resources = {}
    add_resources(resources, Extras())
    assert resources == {}


def test_rate_is_of_a_block_device() -> None:
    with pytest.raises(LaminaError, match="/dev/null is not a block device"):
        add_resources({}, Extras(device_rates=(RATE,)))


def test_init_that_needs_libraries_is_passed_over(tmp_path: Path) -> None:
    dynamic = os.path.realpath(sys.executable)
    (tmp_path / "tini").symlink_to(dynamic)
    (tmp_path / "catatonit").write_text("#!/bin/sh\n")
    (tmp_path / "catatonit").chmod(0o755)
    assert not is_static(dynamic)
    with pytest.raises(LaminaError, match="--init needs an init") as caught:
        find_init(search_path=str(tmp_path))
    assert caught.value.hint == "install catatonit (or tini) from the distribution"
