# SPDX-License-Identifier: Apache-2.0
"""The runtime spec of typical processes, whole. UPDATE_GOLDEN=1 rewrites the files: read the diff.

seccomp has its own tests, so a short stand-in keeps these files readable.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lamina.container.capabilities import ALL_CAPABILITIES
from lamina.container.ports import Mount, ProcessSpec
from lamina.container.spec import Device, HostFacts, make_spec
from lamina.container.users import ResolvedUser
from lamina.start.record import replace

HERE = Path(__file__).parent
HOST = HostFacts(
    architecture="amd64",
    kernel=(6, 1),
    capabilities=ALL_CAPABILITIES,
    sysctls=(("net.ipv4.ip_unprivileged_port_start", "0"),),
)
CASES = {
    "run-step": ProcessSpec(argv=("/bin/sh", "-c", "true"), env=()),
    "web-app": ProcessSpec(
        argv=("python3", "app.py"),
        env=(("PATH", "/opt/bin:/bin"), ("A", "1")),
        cwd="/app/",
        user="app",
        hostname="box",
        terminal=True,
        network_ns="/run/ns",
        no_new_privileges=True,
        cap_drop=("MKNOD",),
        read_only=True,
        shm_size=1 << 20,
        memory=256 << 20,
        cpus=1.5,
        pids_limit=100,
        ulimits=(("nofile", 1024, -1),),
        mounts=(
            Mount("/a/b/c", "tmpfs", "", ("size=64m",)),
            Mount("/a/b", "bind", "/srv/data", ("ro",)),
            Mount("/dev/shm", "tmpfs", "", ("size=1m",)),
        ),
    ),
    "privileged": ProcessSpec(argv=("sh",), env=(), privileged=True, host_network=True),
}


@pytest.mark.parametrize("name", CASES)
def test_spec_is_as_recorded(name: str) -> None:
    spec = make_spec(
        CASES[name],
        rootfs="/merged",
        user=ResolvedUser(uid=1001, gid=2001, groups=(2001, 50), home="/home/app"),
        host=HOST,
        seccomp={"defaultAction": "SCMP_ACT_ERRNO"},
        etc_mounts=(Mount("/etc/hosts", "bind", "/bundle/hosts"),),
        cgroup="/lamina-1",
        devices=(Device("/dev/kmsg", "c", 1, 11, 0o644, 0, 0),),
    )
    text = json.dumps(spec, indent=1) + "\n"
    path = HERE / name / "config.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_same_input_gives_the_same_spec() -> None:
    process = replace(CASES["run-step"], env=(("B", "2"), ("A", "1")))
    specs = [
        make_spec(process, rootfs="/r", user=ResolvedUser(), host=HOST, seccomp=None)
        for _ in range(2)
    ]
    assert specs[0] == specs[1]
