# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from lamina.container.host import capability_mask, kernel_version, list_devices, parse_cgroups

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "30 23 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n"
    "31 30 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "32 30 0:27 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n"
)
UNIFIED = "33 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "controllers", "mode", "shield"),
    [
        (V2, "cpu memory pids", "v2", "/sys/fs/cgroup"),
        (V1, "", "v1", ""),
        (V1 + UNIFIED, "", "v1", ""),
        (V1 + UNIFIED, "hugetlb", "hybrid", "/sys/fs/cgroup/unified"),
        ("1 0 0:1 / / rw - ext4 /dev/vda rw\n", "", "none", ""),
        ("", "", "none", ""),
        ("garbage\n- -\n", "", "none", ""),
    ],
)
def test_cgroup_mode(mountinfo: str, controllers: str, mode: str, shield: str) -> None:
    found = parse_cgroups(mountinfo, unified_controllers=controllers)
    assert (found.mode, found.unified) == (mode, shield)


def test_v1_controllers_are_listed() -> None:
    found = parse_cgroups(V1, unified_controllers="")
    assert found.controllers == ("cpu", "cpuacct", "devices")


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.18.44-fc-v782", (6, 18)), ("5.4-rc1", (5, 4)), ("6-custom", (6, 0))],
)
def test_kernel_version(release: str, version: tuple[int, int]) -> None:
    assert kernel_version(release) == version


def test_capability_mask_is_what_is_permitted_and_bounded() -> None:
    assert capability_mask("CapPrm:\t00ff\nCapEff:\tffff\nCapBnd:\t0f0f\n") == 0x0F
    assert capability_mask("") == 0


def test_devices_of_host_leave_out_terminals() -> None:
    found = {device.path: device for device in list_devices()}
    assert (found["/dev/null"].type, found["/dev/null"].major, found["/dev/null"].minor) == (
        "c",
        1,
        3,
    )
    assert not any(path.startswith("/dev/pts/") for path in found)
