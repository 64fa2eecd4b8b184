# SPDX-License-Identifier: Apache-2.0
"""Mounts of named contexts and of stages that end in a linked layer."""

from __future__ import annotations

import pytest

from lamina.testing.command import Lamina

pytestmark = [pytest.mark.root, pytest.mark.tool("crun"), pytest.mark.tool("busybox")]


def test_mounts_from_a_context_and_from_a_linked_stage(lamina: Lamina) -> None:
    (lamina.cwd / "other").mkdir()
    (lamina.cwd / "other" / "a").write_text("context\n")
    (lamina.cwd / "f").write_text("linked\n")
    (lamina.cwd / "Dockerfile").write_text(
        "FROM busybox AS s\nCOPY --link f /f\n"
        "FROM busybox\n"
        "COPY --link --chown=nobody f /own\n"
        "RUN --mount=from=other,target=/m --mount=from=s,source=/f,target=/n"
        " cat /m/a /n && test -f /own && echo done > /done\n"
    )
    words = ("build", "--progress=plain", "--build-context", "other=other", ".")
    log = lamina(*words).stderr
    assert "context" in log
    assert "linked" in log
    (lamina.cwd / "other" / "a").write_text("changed\n")
    assert "changed" in lamina(*words).stderr
