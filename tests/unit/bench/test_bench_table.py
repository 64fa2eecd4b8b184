# SPDX-License-Identifier: Apache-2.0
"""What the benchmark's tables say of figures, and where they are written."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parents[3] / "bench"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """bench/table.py, which is no part of a package."""
    names = {path.stem for path in BENCH.glob("*.py")}
    assert not names & set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module("table")
    for name in names & set(sys.modules):
        del sys.modules[name]


def figures(wall: float, cpu: float, **more: float) -> dict[str, float]:
    spread = {"wall_min": wall, "wall_max": wall, "cpu_min": cpu, "peak": 20.0, "tree": 30.0}
    return {"wall": wall, "cpu": cpu, "other": 0.0} | spread | more


def target(table: ModuleType, *words: Any, **more: Any) -> Any:
    return sys.modules["rows"].Target(*words, **more)


def test_a_goal_is_met_at_its_limit(table: ModuleType) -> None:
    medians = {"lamina": figures(0.04, 0.02), "podman": figures(0.1, 0.1)}
    goal = table.judge(medians, target(table, 0.4, "podman"))
    assert goal["ratios"] == pytest.approx({"wall": 0.4, "cpu": 0.2})
    assert table.verdict(goal) == "met"


def test_a_missed_goal_says_by_how_much_of_what(table: ModuleType) -> None:
    medians = {"lamina": figures(0.02, 0.06), "podman": figures(0.1, 0.1)}
    goal = table.judge(medians, target(table, 0.4, "podman"))
    assert table.verdict(goal) == "missed: CPU by 50%"


def test_the_best_peer_is_found_for_time_and_cpu_apart(table: ModuleType) -> None:
    medians = {
        "lamina": figures(1, 1),
        "lamina, runc": figures(0.1, 0.1),
        "buildah": figures(4, 2),
        "docker": figures(2, 5),
    }
    goal = table.judge(medians, target(table, 0.5))
    assert goal["ratios"] == pytest.approx({"wall": 0.5, "cpu": 0.5})
    assert goal["peer"] == "docker, CPU: buildah"


def test_the_verdict_is_from_the_estimate_where_the_peer_stands_for_another(
    table: ModuleType,
) -> None:
    medians = {"lamina": figures(3, 3, size=100), "buildah": figures(10, 10, size=100)}
    goal = table.judge(medians, target(table, 0.4, "buildah", buildkit=(0.5, 1.0, 0.8), size=1.1))
    assert goal["ratios"] == pytest.approx({"wall": 0.3, "cpu": 0.3, "size": 1.0})
    assert goal["buildkit"] == pytest.approx({"wall": 0.6, "cpu": 0.3, "size": 1.25})
    assert table.verdict(goal) == "missed: time by 50%, size by 14%"


def test_a_goal_without_its_peer_is_not_judged(table: ModuleType) -> None:
    assert table.judge({"lamina": figures(1, 1)}, target(table, 0.4)) is None


def document(table: ModuleType, **changes: Any) -> dict[str, Any]:
    medians = {"lamina": figures(1, 1), "docker": figures(4, 4, tree=200.0)}
    row = {
        "title": "a row",
        "medians": medians,
        "failed": {"buildah": "it broke"},
        "goals": [table.judge(medians, target(table, 0.4))],
        "others": 0.1,
    }
    machine = {"cpus": 2, "model": "m", "kernel": "6", "memory_gib": 8.0, "filesystem": "tmpfs"}
    return {
        "date": "today", "seconds": 60.0, "machine": machine, "rows": {"a": row},
        "settings": {"runs": 7, "heavy_runs": 3, "scale": 1.0, "rows": ["a"]},
        "load_before": 0.1, "load_after": 0.2, "others": 0.05,
        "versions": {"lamina": "1"}, "absent": {"podman": "not installed: podman"},
        "flatness": {"files": (30.0, 31.0)}, "server": {"pushes": (2.0, 1.0)},
    } | changes  # fmt: skip


def test_the_tables_replace_only_what_is_between_the_marks(
    table: ModuleType, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write(page, document(table))
    text = page.read_text()
    assert text.startswith(f"before\n{table.BEGIN}\n")
    assert text.endswith(f"{table.END}\nafter\n")
    assert "old" not in text
    assert "| a row | docker | 0.25 / 0.25 |  | <= 0.4 | met |" in text
    assert "| a row | buildah | failed: it broke |" in text
    assert "Not measured: podman (not installed: podman)." in text
    assert "provisional" not in text


def test_a_page_without_marks_is_left_alone(table: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("mine\n")
    with pytest.raises(ValueError, match="does not hold"):
        table.write(page, document(table))
    assert page.read_text() == "mine\n"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"load_before": 5.0}, "provisional"),
        ({"others": 0.9}, "provisional"),
        ({"settings": {"runs": 1, "heavy_runs": 1, "scale": 0.1}}, "0.1 of what the rows say"),
    ],
)
def test_a_disturbed_or_small_run_says_so(
    table: ModuleType, changes: dict[str, Any], words: str
) -> None:
    assert words in table.markdown(document(table, **changes))


def test_the_terminal_shows_failures_and_the_highest_peak(table: ModuleType) -> None:
    text = table.text(document(table))
    assert "it broke" in text
    assert "highest peak of docker: 200 MiB (a row)" in text
