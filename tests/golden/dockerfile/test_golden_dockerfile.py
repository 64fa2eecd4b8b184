# SPDX-License-Identifier: Apache-2.0
"""Dockerfiles and what they become: images asked for, plan, config, history, findings.

A case is a directory with a `Dockerfile` and `result.txt`; `case.json` may hold `options` (platform, target,
build_args, labels, ignore, contexts) and `images` (reference -> image config to answer with). `negative/`
holds the exact error text instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lamina.dockerfile.ast import Stage
from lamina.dockerfile.lower import Lowering, LowerOptions, NeedRemotes, ResolvedImage
from lamina.dockerfile.lowered import Lowered
from lamina.dockerfile.parser import parse
from lamina.dockerfile.remotes import (
    Answer,
    GitAnswer,
    NamedContext,
    RemoteRequest,
    UrlAnswer,
    UrlRequest,
)
from lamina.errors import LaminaError
from lamina.plan.dump import dump_plan
from lamina.spec.config import ImageConfig
from lamina.spec.digest import Digest
from lamina.spec.platform import Platform

HERE = Path(__file__).parent
CASES = sorted(p.parent.name for p in HERE.glob("*/Dockerfile"))
NEGATIVE = sorted(p.parent.name for p in HERE.glob("negative/*/Dockerfile"))
AMD64 = Platform("linux", "amd64")


def load_case(directory: Path) -> dict[str, Any]:
    path = directory / "case.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def options_of(case: dict[str, Any]) -> LowerOptions:
    given = case.get("options", {})
    return LowerOptions(
        platform=Platform.parse(given.get("platform", str(AMD64))),
        build_platform=Platform.parse(given.get("build_platform", str(AMD64))),
        several_platforms=given.get("several_platforms", False),
        target=given.get("target", ""),
        build_args=tuple(given.get("build_args", {}).items()),
        labels=tuple(given.get("labels", {}).items()),
        ignore=tuple(given.get("ignore", ())),
        contexts=tuple(
            NamedContext(each["name"], each.get("image", ""), tuple(each.get("ignore", ())))
            for each in given.get("contexts", ())
        ),
    )


def answer(reference: str, images: dict[str, Any]) -> ResolvedImage:
    """A base image with one layer, made up from its name unless the case says otherwise."""
    layer = Digest.of(f"layer of {reference}".encode())
    document: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [str(layer)]},
        "history": [{"created_by": "base"}],
    }
    document.update(images.get(reference, {}))
    config = ImageConfig.parse(json.dumps(document).encode())
    return ResolvedImage(reference, Digest.of(reference.encode()), config)


def lower(directory: Path) -> tuple[Lowered, list[str]]:
    case = load_case(directory)
    lowering = Lowering(parse((directory / "Dockerfile").read_bytes()), options_of(case))
    resolved: dict[tuple[str, str], ResolvedImage] = {}
    rounds = []
    answers: dict[tuple[str, str], Answer] = {}
    while not isinstance(found := lowering.step(resolved, answers), Lowered):
        if isinstance(found, NeedRemotes):
            rounds.append(" ".join(request.key[1] for request in found.requests))
            for each in found.requests:
                assert each.key not in answers
                answers[each.key] = remote_answer(each)
            continue
        assert all(request.key not in resolved for request in found.requests)
        rounds.append(" ".join(request.reference for request in found.requests))
        for request in found.requests:
            resolved[request.key] = answer(request.reference, case.get("images", {}))
    return found, rounds


def remote_answer(request: RemoteRequest) -> Answer:
    """What the network would say: made up from the question."""
    made = Digest.of(request.key[1].encode())
    if isinstance(request, UrlRequest):
        return UrlAnswer(made, 1_700_000_000)
    return GitAnswer(made.hex[:40], request.ref or "refs/heads/main")


def show(lowered: Lowered, rounds: list[str], stages: Sequence[Stage]) -> str:
    parts = [f"need {names}\n" for names in rounds]
    parts.append(dump_plan(lowered.plan))
    document = lowered.config.to_json()
    history = document.pop("history", [])
    document.pop("rootfs")
    names = [stages[index].start.name or f"stage-{index}" for index in lowered.stages]
    parts.append(f"\nbase layers {lowered.base_layers}, stages {', '.join(names)}\n")
    parts.append(json.dumps(document, indent=1, ensure_ascii=False) + "\n\n")
    assert isinstance(history, list)
    for entry in history:
        mark = "empty" if entry.get("empty_layer") else "layer"
        parts.append(f"{mark} {entry.get('created_by')!r} {entry.get('comment', '')}\n")
    for found in lowered.diagnostics:
        assert found.span is not None
        parts.append(f"{found.span.location()} {found.rule}: {found.message}\n")
    return "".join(parts)


@pytest.mark.parametrize("name", CASES)
def test_dockerfile_becomes_plan_and_config(name: str, golden: Callable[[Path, str], None]) -> None:
    lowered, rounds = lower(HERE / name)
    stages = parse((HERE / name / "Dockerfile").read_bytes()).stages
    golden(HERE / name / "result.txt", show(lowered, rounds, stages))


@pytest.mark.parametrize("name", CASES)
def test_every_layer_in_the_history_is_a_vertex_of_the_chain(name: str) -> None:
    lowered, _ = lower(HERE / name)
    known = {vertex.digest: vertex for vertex in lowered.plan.vertices}
    layers = 0
    edge = lowered.plan.outputs[0]
    while edge is not None and known[edge.vertex].inputs:
        assert known[edge.vertex].meta.exported
        layers += 1
        edge = known[edge.vertex].inputs[0]
    base = len(lowered.config.diff_ids)
    assert base == lowered.base_layers
    written = [h for h in lowered.config.history if not h.empty_layer and h.comment]
    assert layers == len(written)


@pytest.mark.parametrize("name", NEGATIVE)
def test_bad_dockerfile_is_refused_with_this_text(
    name: str, golden: Callable[[Path, str], None]
) -> None:
    directory = HERE / "negative" / name
    with pytest.raises(LaminaError) as raised:
        lower(directory)
    error = raised.value
    hint = f"hint: {error.hint}\n" if error.hint else ""
    golden(directory / "error.txt", f"{error.kind.value}\n{error}\n{hint}")
