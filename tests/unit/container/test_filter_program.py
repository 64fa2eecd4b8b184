# SPDX-License-Identifier: Apache-2.0
"""The compiled filter is handed back for exactly the profile that it was made from."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from lamina.container.filterprogram import ANNOTATION, hand_back, with_program
from lamina.container.host import Cgroups, Runtime
from lamina.container.spec import HostFacts
from lamina.start.record import replace

PROFILE: dict[str, Any] = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"]}]}
PROGRAM = bytes(range(64))


@pytest.fixture
def runtime() -> Runtime:
    plain = Runtime(
        name="crun",
        path="/usr/bin/crun",
        version="1",
        manager="cgroupfs",
        cgroups=Cgroups("v2"),
        shield="",
        seccomp=True,
        host=HostFacts(architecture="amd64", kernel=(6, 1), capabilities=()),
    )
    return with_program(plain, PROFILE, PROGRAM)


def annotated(runtime: Runtime, profile: dict[str, Any] | None) -> dict[str, str]:
    spec: dict[str, Any] = {}
    hand_back(runtime, spec, profile)
    found: dict[str, str] = spec.get("annotations", {})
    return found


def test_the_profile_it_was_made_from_gets_the_program(runtime: Runtime) -> None:
    found = annotated(runtime, dict(PROFILE))
    assert base64.b64decode(found[ANNOTATION]) == PROGRAM


@pytest.mark.parametrize("profile", [None, {}, {**PROFILE, "defaultAction": "SCMP_ACT_KILL"}])
def test_another_profile_gets_none(runtime: Runtime, profile: dict[str, Any] | None) -> None:
    assert annotated(runtime, profile) == {}


def test_a_program_is_checked_for_every_profile_and_runtime(runtime: Runtime) -> None:
    other = {**PROFILE, "defaultAction": "SCMP_ACT_KILL"}
    for _ in range(2):
        assert annotated(runtime, PROFILE)
        assert not annotated(runtime, other)
        assert not annotated(replace(runtime, program_digest="0" * 64), PROFILE)


def test_a_damaged_program_is_not_used(runtime: Runtime) -> None:
    damaged = replace(runtime, program="B" + runtime.program[1:])
    assert runtime.program != damaged.program
    assert annotated(runtime, PROFILE)
    assert annotated(damaged, PROFILE) == {}


def test_a_runtime_without_a_program_is_given_none(runtime: Runtime) -> None:
    assert annotated(replace(runtime, program="", program_digest=""), dict(PROFILE)) == {}
