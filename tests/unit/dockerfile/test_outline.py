# SPDX-License-Identifier: Apache-2.0
"""Outlines: which parameters a target takes."""

from __future__ import annotations

from pathlib import Path

from lamina.app.buildrequest import BuildRequest
from lamina.app.calls import outline, targets
from lamina.dockerfile.outline import outline as outline_of
from lamina.dockerfile.parser import parse
from lamina.spec.platform import Platform
from lamina.store import LocalStore

FILE = """# BASE what it stands on
ARG BASE=busy${KIND}
ARG KIND=box
ARG OTHER=unused
FROM scratch AS one
# SIZE in bytes
ARG SIZE=1
ARG EMPTY
FROM one AS two
ARG OTHER
RUN --mount=type=secret,id=token,required=true --mount=type=ssh --mount=type=secret,target=/k/key x
FROM scratch AS three
ARG UNSEEN=1
"""


def test_arguments_of_needed_stages_are_listed_in_file_order(
    tmp_path: Path, store: LocalStore
) -> None:
    request = BuildRequest(
        str(tmp_path),
        FILE.replace("RUN --mount", "# RUN").encode(),
        Platform("linux", "amd64"),
        target="two",
        build_args=(("SIZE", "5"),),
    )
    found = outline(request, store)
    assert [(a.name, a.value, a.description) for a in found.arguments] == [
        ("OTHER", "unused", ""),
        ("SIZE", "5", "in bytes"),
        ("EMPTY", "", ""),
    ]
    assert found.name == "two"


def test_arguments_behind_a_base_name_are_used(tmp_path: Path, store: LocalStore) -> None:
    file = "ARG KIND=box\nARG BASE=busy${KIND}\nARG NO=1\nFROM ${BASE}\n"
    request = BuildRequest(str(tmp_path), file.encode(), Platform("linux", "amd64"))
    found = outline(request, store)
    assert [(a.name, a.value) for a in found.arguments] == [("KIND", "box"), ("BASE", "busybox")]


def test_secrets_and_agents_come_from_the_mounts() -> None:
    found = outline_of(
        parse(FILE.encode(), name="Dockerfile"),
        target=1,
        stages=(0, 1),
        global_values={},
        stage_values={},
        used_in_from=(),
    )
    assert [(s.name, s.is_required) for s in found.secrets] == [("token", True), ("key", False)]
    assert [(s.name, s.is_required) for s in found.agents] == [("default", False)]


def test_every_stage_is_a_target_and_the_last_is_the_default(tmp_path: Path) -> None:
    request = BuildRequest(str(tmp_path), FILE.encode(), Platform("linux", "amd64"))
    found = targets(request)
    assert [(t.name, t.base, t.is_default) for t in found] == [
        ("one", "scratch", False),
        ("two", "one", False),
        ("three", "scratch", True),
    ]
