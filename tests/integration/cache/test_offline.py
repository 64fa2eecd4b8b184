# SPDX-License-Identifier: Apache-2.0
"""A build whose base is of a registry that is gone: what was resolved before still holds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lamina.testing.command import Lamina
from lamina.testing.registry import RegistryServer

pytestmark = [pytest.mark.root, pytest.mark.tool("crun")]


def outcomes(lamina: Lamina, *words: str) -> list[str]:
    """How the steps of a build ended, after it was checked that the registry is not there."""
    done = lamina("build", "--progress=json", *words, ".")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    planned = {e["vertex"]: e["name"] for e in events if e["event"] == "VertexPlanned"}
    return [
        event["outcome"]
        for event in events
        if event["event"] == "VertexDone" and "internal" not in planned[event["vertex"]]
    ]


def test_cached_builds_need_no_registry(
    tmp_path: Path, busybox_store: Path, registry: RegistryServer
) -> None:
    subprocess.run(["cp", "-a", str(busybox_store), str(tmp_path / "maker")], check=True)
    maker = Lamina(tmp_path / "maker", tmp_path)
    base = f"{registry.host}/base"
    maker("bootstrap", "busybox", "--arch", "arm64", "-t", "busybox:latest")
    maker("tag", "busybox", f"{base}:1")
    maker("push", f"{base}:1")
    digest = maker("digest", f"{base}:1").stdout.strip().rpartition("@")[2]
    lamina = Lamina(tmp_path / "store", tmp_path)
    (tmp_path / "file").write_text("x")
    both = ("--platform", "linux/amd64,linux/arm64")
    dockerfiles = {
        "tag": (f"FROM {base}:1\nCOPY file /f\nRUN cat /f > /g\n", ()),
        "digest": (f"FROM {base}:1@{digest}\nCOPY file /f\nRUN cat /f > /g\n", ()),
        "only-digest": (f"FROM {base}@{digest}\nCOPY file /other\n", ()),
        "platforms": (f"FROM {base}:1\nCOPY file /f\n", both),
        "platforms-digest": (f"FROM {base}@{digest}\nCOPY file /f2\n", both),
    }
    targets = {}
    for name, (text, words) in dockerfiles.items():
        (tmp_path / f"{name}.Dockerfile").write_text(text)
        outcomes(lamina, "-f", f"{name}.Dockerfile", "-t", f"app:{name}", *words)
        targets[name] = lamina("images", "-q", "--no-trunc", f"app:{name}").stdout
    registry.stop()
    for name, (_, words) in dockerfiles.items():
        found = outcomes(lamina, "-f", f"{name}.Dockerfile", "-t", f"app:{name}", *words)
        assert set(found) == {"cached"}, (name, found)
        assert lamina("images", "-q", "--no-trunc", f"app:{name}").stdout == targets[name]
    for name in ("tag", "platforms"):  # the registry is asked again, and is not there
        words = dockerfiles[name][1]
        asked = lamina("build", "--pull", "-f", f"{name}.Dockerfile", *words, ".", check=False)
        assert asked.returncode == 7, (name, asked.stderr)
