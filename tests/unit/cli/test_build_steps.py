# SPDX-License-Identifier: Apache-2.0
"""The flags of `build` that steps feel."""

from __future__ import annotations

import argparse
import io
import socket
from pathlib import Path

import pytest

from lamina.builder.options import StepLimits
from lamina.cli.arguments import Parser
from lamina.cli.build import configure
from lamina.cli.build_steps import entitlements, secrets, ssh_agents, step_limits
from lamina.cli.context import Context
from lamina.errors import LaminaError


def context(tmp_path: Path, **env: str) -> Context:
    return Context(
        env=env,
        cwd=str(tmp_path),
        uid=0,
        stdin=io.StringIO(),
        stdout=io.StringIO(),
        stderr=io.StringIO(),
        clock=lambda: 0.0,
        root=str(tmp_path / "store"),
    )


def parse(*argv: str) -> argparse.Namespace:
    parser = Parser("build", summary="", usage="")
    configure(parser)
    return parser.parse([*argv, "."])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("id=s,src=file", b"of the file"),
        ("id=s,source=file", b"of the file"),
        ("type=file,id=s,src=file", b"of the file"),
        ("id=s,env=NAME", b"of NAME"),
        ("type=env,id=s,src=NAME", b"of NAME"),
        ("type=env,id=s,env=NAME", b"of NAME"),
        ("id=NAME", b"of NAME"),
        ("id=file", b"of the file"),
        ("id=s,env=UNSET", b""),
    ],
)
def test_secret_is_found_as_buildx_finds_it(tmp_path: Path, text: str, value: bytes) -> None:
    (tmp_path / "file").write_bytes(b"of the file")
    found = secrets(parse("--secret", text), context(tmp_path, NAME="of NAME"))
    assert found is not None
    id = text.partition("id=")[2].partition(",")[0]
    assert found.get(id) == value
    assert found.get("other") is None
    assert "of " not in repr(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("src=file", "the id is missing"),
        ("id=s,src", "invalid field 'src' must be a key=value pair"),
        ("id=s,type=x", 'unsupported secret type "x"'),
        ("id=s,mode=1", "unexpected key 'mode'"),
        ("id=s,src=missing", "secret s: cannot use"),
        ("id=big,src=big", "larger than 500 KB"),
    ],
)
def test_wrong_secret_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "big").write_bytes(bytes(500 * 1024 + 1))
    with pytest.raises(LaminaError, match=message):
        secrets(parse("--secret", text), context(tmp_path))


def test_agents_are_sockets_or_keys(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        here = context(tmp_path, SSH_AUTH_SOCK=str(tmp_path / "sock"))
        found = ssh_agents(parse("--ssh", "default", "--ssh", "k=key", "--ssh", "s=sock"), here)
        assert found is not None
        assert found.address("default", "") == found.address("s", "") == str(tmp_path / "sock")
        assert found.needs_directory("k")
        assert not found.has("other")
        for words in (["default", "--ssh", "default"], ["a=key,sock"], ["a=sock,sock"], ["a=no"]):
            with pytest.raises(LaminaError):
                ssh_agents(parse("--ssh", *words), here)


def test_no_agent_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="there is no SSH agent"):
        ssh_agents(parse("--ssh", "default"), context(tmp_path))


def test_entitlements() -> None:
    assert entitlements(parse("--allow", "security.insecure", "--network", "host")) == (
        "security.insecure",
        "network.host",
    )
    for name in ("device", "device=x", "fs.read=/", "nothing"):
        with pytest.raises(LaminaError, match=r"--allow device|unknown entitlement"):
            entitlements(parse("--allow", name))


def test_limits() -> None:
    assert step_limits(parse()) is None
    found = step_limits(
        parse(
            *("-m", "100m", "--memory-swap", "-1", "--cpu-quota", "50000", "--cpu-period", "20000"),
            *("-c", "512", "--cpuset-cpus", "0-1,3", "--cpuset-mems", "0"),
            *("--ulimit", "nofile=10:20", "--ulimit", "core=unlimited"),
        )
    )
    assert found == StepLimits(
        memory=100 << 20,
        memory_swap=-1,
        cpus=2.5,
        cpu_period=20000,
        cpu_shares=512,
        cpuset_cpus="0-1,3",
        cpuset_mems="0",
        ulimits=(("nofile", 10, 20), ("core", -1, -1)),
    )
    assert step_limits(parse("--cpus", "1.5")) == StepLimits(cpus=1.5)


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "1m"),
        ("-m", "x"),
        ("--memory-swap", "1g"),
        ("-m", "2g", "--memory-swap", "1g"),
        ("--cpu-period", "1000"),
        ("--cpu-quota", "5"),
        ("--cpu-quota", "1000", "--cpus", "1"),
        ("--cpu-shares", "-1"),
        ("--cpuset-cpus", "a"),
        ("--cpuset-mems", "0-"),
        ("--ulimit", "nofile"),
    ],
)
def test_wrong_limit_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(LaminaError):
        step_limits(parse(*words))


def test_cgroup_parent_is_refused_by_name() -> None:
    with pytest.raises(LaminaError, match="--cgroup-parent"):
        parse("--cgroup-parent", "x")
