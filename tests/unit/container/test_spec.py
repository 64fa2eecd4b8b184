# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from lamina.container.capabilities import ALL_CAPABILITIES
from lamina.container.ports import Mount, ProcessSpec
from lamina.container.spec import HostFacts, checked_path, container_environment, make_spec
from lamina.container.users import ResolvedUser
from lamina.errors import Kind, LaminaError
from lamina.start.record import replace

HOST = HostFacts(architecture="amd64", kernel=(6, 1), capabilities=ALL_CAPABILITIES)
PROCESS = ProcessSpec(argv=("true",), env=())


def spec(host: HostFacts = HOST, **fields: Any) -> Any:
    process = replace(PROCESS, **fields)
    return make_spec(
        process, rootfs="/r", user=ResolvedUser(), host=host, seccomp={"defaultAction": "x"}
    )


def namespaces(document: Any) -> set[str]:
    return {entry["type"] for entry in document["linux"]["namespaces"]}


def test_namespaces_are_new_ones() -> None:
    assert namespaces(spec()) == {"pid", "ipc", "uts", "mount", "cgroup", "network"}


def test_host_network_has_no_network_namespace_and_no_sysctls() -> None:
    host = replace(HOST, sysctls=(("net.ipv4.ping_group_range", "0 1"),))
    found = spec(host, host_network=True)
    assert "network" not in namespaces(found)
    assert "sysctl" not in found["linux"]
    assert spec(host)["linux"]["sysctl"] == {"net.ipv4.ping_group_range": "0 1"}


def test_host_without_cgroup_namespaces() -> None:
    assert "cgroup" not in namespaces(spec(replace(HOST, cgroup_namespaces=False)))


def test_without_device_control_the_right_to_make_devices_is_withheld() -> None:
    host = replace(HOST, device_control=False)
    assert "CAP_MKNOD" not in spec(host)["process"]["capabilities"]["bounding"]
    assert "CAP_MKNOD" in spec(host, cap_add=("mknod",))["process"]["capabilities"]["bounding"]
    assert "devices" not in spec(host)["linux"]["resources"]


def test_privileged_has_no_masks_and_no_filter() -> None:
    linux = spec(privileged=True)["linux"]
    assert not {"maskedPaths", "readonlyPaths", "seccomp"} & set(linux)
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"argv": ()}, Kind.USAGE),
        ({"argv": ("",)}, Kind.USAGE),
        ({"cwd": "relative"}, Kind.INVALID),
        ({"cwd": "/a/../b"}, Kind.INVALID),
        ({"cwd": "/a\0b"}, Kind.INVALID),
        ({"ulimits": (("speed", 1, 1),)}, Kind.USAGE),
        ({"ulimits": (("nofile", 2, 1),)}, Kind.USAGE),
        ({"ulimits": (("nofile", -1, 1),)}, Kind.USAGE),
        ({"mounts": (Mount("/", "tmpfs"),)}, Kind.INVALID),
        ({"mounts": (Mount("/x/../..", "tmpfs"),)}, Kind.INVALID),
        ({"mounts": (Mount("/proc/sys", "bind", "/x"),)}, Kind.INVALID),
        ({"mounts": (Mount("/sys/fs", "tmpfs"),)}, Kind.INVALID),
        ({"mounts": (Mount("/x", "overlay"),)}, Kind.INVALID),
        ({"mounts": (Mount("/x", "bind", "relative"),)}, Kind.INVALID),
        ({"mounts": (Mount("/x", "bind", "/a", ("ro,suid",)),)}, Kind.INVALID),
        ({"mounts": (Mount("/x", "bind", "/a", ("size=1m",)),)}, Kind.INVALID),
        ({"mounts": (Mount("/x", "tmpfs", "", ("size=1m,exec",)),)}, Kind.INVALID),
        ({"mounts": (Mount("/x", "tmpfs", "", ("mpol=bind",)),)}, Kind.INVALID),
    ],
)
def test_bad_input_is_refused(fields: dict[str, Any], kind: Kind) -> None:
    with pytest.raises(LaminaError) as caught:
        spec(**fields)
    assert caught.value.kind is kind


def test_parent_is_mounted_before_what_lies_in_it() -> None:
    found = spec(mounts=(Mount("/x/y/z", "tmpfs"), Mount("/x", "tmpfs"), Mount("/x/y", "tmpfs")))
    assert [m["destination"] for m in found["mounts"]][-3:] == ["/x", "/x/y", "/x/y/z"]


def test_own_mount_replaces_a_default_one() -> None:
    found = spec(mounts=(Mount("/dev/shm/", "bind", "/big"),))
    assert [m["source"] for m in found["mounts"] if m["destination"] == "/dev/shm"] == ["/big"]


def test_limits_are_bytes_and_microseconds() -> None:
    resources = spec(memory=5, cpus=0.5, pids_limit=7)["linux"]["resources"]
    assert resources["memory"] == {"limit": 5}
    assert resources["cpu"] == {"quota": 50_000, "period": 100_000}
    assert resources["pids"] == {"limit": 7}
    assert not {"memory", "cpu", "pids"} & set(spec(pids_limit=-1)["linux"]["resources"])


def test_path_is_normalised() -> None:
    assert checked_path("//a/./b//", what="x") == "/a/b"
    assert checked_path("/", what="x") == "/"


@pytest.mark.parametrize(
    ("fields", "environment"),
    [
        ({}, ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/h"]),
        ({"env": (("PATH", "/p"), ("HOME", "/x"))}, ["PATH=/p", "HOME=/x"]),
        ({"env": (("PATH", "/p"), ("HOME", ""))}, ["PATH=/p", "HOME=/h"]),
        (
            {"env": (("PATH", "/p"),), "terminal": True, "hostname": "b"},
            ["HOSTNAME=b", "TERM=xterm", "PATH=/p", "HOME=/h"],
        ),
        (
            {"env": (("PATH", "/p"), ("TERM", "vt100")), "terminal": True},
            ["PATH=/p", "TERM=vt100", "HOME=/h"],
        ),
    ],
)
def test_environment(fields: dict[str, Any], environment: list[str]) -> None:
    process = replace(PROCESS, **fields)
    assert container_environment(process, ResolvedUser(home="/h")) == environment


def test_device_nodes_of_the_root_are_made_useless_last() -> None:
    host = replace(HOST, nodev=True)
    own = (Mount("/data/deep", "bind", "/srv", ()),)
    found = spec(host, mounts=own)
    assert found["mounts"][-1] == {
        "destination": "/.",
        "type": "bind",
        "source": "/r",
        "options": ["bind", "remount", "nodev"],
    }
    assert found["root"] == {"path": "/r", "readonly": False}
    assert spec(mounts=own)["mounts"] == found["mounts"][:-1]


def test_read_only_root_is_made_so_with_its_device_nodes() -> None:
    found = spec(replace(HOST, nodev=True), read_only=True)
    assert found["root"]["readonly"] is False  # a runtime that does it sets other flags back
    assert found["mounts"][-1]["options"] == ["bind", "remount", "nodev", "ro"]
    assert spec(read_only=True)["root"]["readonly"] is True


def test_privileged_container_may_open_what_its_root_holds() -> None:
    found = spec(replace(HOST, nodev=True), privileged=True, read_only=True)
    assert "/." not in {mount["destination"] for mount in found["mounts"]}
    assert found["root"]["readonly"] is True
