# SPDX-License-Identifier: Apache-2.0
"""What a run of the benchmarks found, judged by the goals, as text and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from measure import Sample
from rows import MEMORY_MIB, Target

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
Document = dict[str, Any]


def is_peer(tool: str) -> bool:
    return not tool.startswith("lamina")


def judge(medians: Mapping[str, Sample], target: Target) -> Document | None:
    """Ratios of the goal's subject to its peer, and whether it is reached; None: one is missing."""
    subject = medians.get(target.subject)
    names = [name for name in medians if is_peer(name) and target.peer in {"best", name}]
    if subject is None or not names:
        return None
    found: Document = {"subject": target.subject, "limit": target.limit, "over": []}
    wall, cpu = (min(names, key=lambda name: medians[name][key]) for key in ("wall", "cpu"))
    found["peer"] = wall if wall == cpu else f"{wall}, CPU: {cpu}"
    ratios = {
        "wall": _ratio(subject["wall"], medians[wall]["wall"]),
        "cpu": _ratio(subject["cpu"], medians[cpu]["cpu"]),
    }
    if target.size is not None and "size" in subject and "size" in medians[wall]:
        ratios["size"] = _ratio(subject["size"], medians[wall]["size"])
    found["ratios"] = ratios
    judged = ratios
    if target.buildkit:
        factors = dict(zip(("wall", "cpu", "size"), target.buildkit, strict=True))
        judged = {key: value / factors[key] for key, value in ratios.items()}
        found["buildkit"] = judged
    for key, value in judged.items():
        limit = target.size if key == "size" else target.limit
        assert limit is not None
        if round(value, 2) > limit:
            found["over"].append([key, value / limit - 1])
    return found


def _ratio(one: float, other: float) -> float:
    return one / other if other else float("inf")


def verdict(goal: Document) -> str:
    words = {"wall": "time", "cpu": "CPU", "size": "size"}
    if not goal["over"]:
        return "met"
    return "missed: " + ", ".join(f"{words[key]} by {share:.0%}" for key, share in goal["over"])


def memory(document: Document) -> list[tuple[str, float, str]]:
    """For each tool its highest peak: (tool, MiB, row)."""
    peaks: dict[str, tuple[float, str]] = {}
    for row in document["rows"].values():
        for tool, found in row["medians"].items():
            peak = found.get("tree", found["peak"])
            if peak > peaks.get(tool, (0.0, ""))[0]:
                peaks[tool] = (peak, row["title"])
    return [(tool, *peak) for tool, peak in peaks.items() if tool != "git"]


def text(document: Document) -> str:
    """For a terminal: every row and tool, then the goals."""
    head = f"{'workload':<44} {'tool':<13} {'wall s':>8} {'min':>8} {'cpu s':>8} {'MiB':>6}"
    lines = [f"{head} {'MB out':>7} {'wall/it':>8} {'cpu/it':>7} {'others':>7}"]
    for row in document["rows"].values():
        own = row["medians"].get("lamina")
        for tool, found in row["medians"].items():
            ratios = ""
            if own and tool != "lamina":
                wall, cpu = (_ratio(own[key], found[key]) for key in ("wall", "cpu"))
                ratios = f"{wall:8.2f} {cpu:7.2f}"
            size = f"{found['size']:7.0f}" if "size" in found else ""
            lines.append(
                f"{row['title'][:44]:<44} {tool:<13} {found['wall']:8.3f} {found['wall_min']:8.3f}"
                f" {found['cpu']:8.3f} {found.get('tree', found['peak']):6.0f} {size:7} {ratios:16}"
                f" {row['others']:7.2f}"
            )
        lines += [
            f"{row['title'][:44]:<44} {tool:<13} {why}" for tool, why in row["failed"].items()
        ]
    lines.append("")
    for row in document["rows"].values():
        for goal in row["goals"]:
            subject = "" if goal["subject"] == "lamina" else f" ({goal['subject']})"
            title = f"{row['title']}{subject}"
            lines.append(
                f"{title[:56]:<56} <= {goal['limit']:<4} x {goal['peer']}: {verdict(goal)}"
            )
    for name, (small, large) in document.get("flatness", {}).items():
        lines.append(f"peak MiB of lamina, a tenth and all of the {name}: {small:.0f}, {large:.0f}")
    for tool, peak, title in memory(document):
        lines.append(f"highest peak of {tool}: {peak:.0f} MiB ({title})")
    for name, (ours, theirs) in document.get("server", {}).items():
        lines.append(f"{name:<40} lamina {ours:.1f}, docker-registry {theirs:.1f}")
    lines += [f"not measured: {tool}: {why}" for tool, why in document["absent"].items()]
    return "\n".join(lines) + "\n"


def markdown(document: Document) -> str:
    """For docs/benchmarks.md."""
    return "\n\n".join(
        "\n".join(part)
        for part in (
            list(_circumstances(document)),
            list(_goals(document)),
            list(_figures(document)),
            list(_memory(document)),
            list(_server(document)),
        )
        if part
    )


def _circumstances(document: Document) -> Iterator[str]:
    machine, settings = document["machine"], document["settings"]
    yield (
        f"Taken on {document['date']}: {machine['cpus']} CPUs ({machine['model']}), Linux"
        f" {machine['kernel']}, {machine['memory_gib']:.0f} GiB, all stores on"
        f" {machine['filesystem']}; {settings['runs']} timed runs of each light row and"
        f" {settings['heavy_runs']} of each heavy one, alternating, one more for memory;"
        f" {document['seconds'] / 60:.1f} minutes in all."
    )
    load = ", ".join(f"{value:.1f}" for value in (document["load_before"], document["load_after"]))
    yield (
        f"Load average before and after: {load}; other work on the machine used"
        f" {document['others']:.2f} CPUs on average while something was measured."
    )
    if settings["scale"] != 1:
        yield f"**Sizes of the heavy inputs: {settings['scale']:g} of what the rows say.**"
    if document["load_before"] > machine["cpus"] or document["others"] > 0.2:
        yield "**The machine was disturbed: the figures are provisional.**"
    yield ""
    yield "Versions: " + "; ".join(f"{name} {text}" for name, text in document["versions"].items())
    for tool, why in document["absent"].items():
        yield f"Not measured: {tool} ({why.splitlines()[0]})."


def _pair(values: Mapping[str, float]) -> str:
    shown = f"{values['wall']:.2f} / {values['cpu']:.2f}"
    return shown + (f", size {values['size']:.2f}" if "size" in values else "")


def _goals(document: Document) -> Iterator[str]:
    yield "| workload | peer | time / CPU as a ratio | the same to BuildKit, estimated | goal | verdict |"
    yield "|---|---|---|---|---|---|"
    for row in document["rows"].values():
        for goal in row["goals"]:
            subject = "" if goal["subject"] == "lamina" else f" ({goal['subject']})"
            estimate = _pair(goal["buildkit"]) if "buildkit" in goal else ""
            yield (
                f"| {row['title']}{subject} | {goal['peer']} | {_pair(goal['ratios'])} | {estimate}"
                f" | <= {goal['limit']:g} | {verdict(goal)} |"
            )
    peaks = {tool: peak for tool, peak, _ in memory(document)}
    if "lamina" in peaks:
        over = peaks["lamina"] / MEMORY_MIB - 1
        said = "met" if over <= 0 else f"missed by {over:.0%}"
        yield f"| peak memory of all of them, MiB | | {peaks['lamina']:.0f} | | < {MEMORY_MIB:.0f} | {said} |"


def _figures(document: Document) -> Iterator[str]:
    yield (
        "| workload | tool | s (least - most) | CPU s | MiB: tree, largest process | MB written |"
        " lamina / it, time / CPU | others, CPUs |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for row in document["rows"].values():
        own = row["medians"].get("lamina")
        for tool, found in row["medians"].items():
            ratio = ""
            if own and tool != "lamina":
                ratio = _pair({key: _ratio(own[key], found[key]) for key in ("wall", "cpu")})
            size = f"{found['size']:.0f}" if "size" in found else ""
            tree = f"{found['tree']:.0f}, " if "tree" in found else ""
            yield (
                f"| {row['title']} | {tool} | {found['wall']:.3f} ({found['wall_min']:.3f} -"
                f" {found['wall_max']:.3f}) | {found['cpu']:.3f} | {tree}{found['peak']:.0f} | {size}"
                f" | {ratio} | {row['others']:.2f} |"
            )
        for tool, why in row["failed"].items():
            yield f"| {row['title']} | {tool} | failed: {why.splitlines()[0]} | | | | | |"


def _memory(document: Document) -> Iterator[str]:
    yield "| tool, with its daemon | highest peak of the tree, MiB | in |"
    yield "|---|---|---|"
    for tool, peak, title in memory(document):
        yield f"| {tool} | {peak:.0f} | {title} |"
    for name, (small, large) in document.get("flatness", {}).items():
        what = {"files": "20,000 files of 1 kB", "layer": "a layer of 500 MB, exported"}[name]
        yield f"| lamina, a tenth of {what}; all of it | {small:.0f}; {large:.0f} | |"


def _server(document: Document) -> Iterator[str]:
    if not document.get("server"):
        return
    yield "| registry server | lamina | docker-registry | ratio |"
    yield "|---|---|---|---|"
    for name, (ours, theirs) in document["server"].items():
        yield f"| {name} | {ours:.1f} | {theirs:.1f} | {_ratio(ours, theirs):.2f} |"


def write(path: Path, document: Document) -> None:
    """Put the tables between the two marks of a Markdown file.

    Raises: ValueError: the marks are not there.
    """
    old = path.read_text()
    head, begun, rest = old.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"{path} does not hold {BEGIN} and {END}")
    path.write_text(f"{head}{BEGIN}\n{markdown(document)}\n{END}{tail}")
