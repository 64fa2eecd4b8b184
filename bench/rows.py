# SPDX-License-Identifier: Apache-2.0
"""The rows of the table: inputs, what each tool is asked to do, and what lamina is to reach."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import inputs
from measure import Runner, Sample, total
from tools import Commands, Docker, Git, Lamina, Registry, Tool

FULL_LAYERS, FULL_LAYER_FILES = 4, 1_250
POOL_FILES = 200
MEMORY_MIB = 75.0


class Target(NamedTuple):
    """`subject` is to take at most `limit` of what `peer` takes, of wall time and of CPU.

    `peer` "best" is, for each of the two, the one that takes least. The table of the project's goals
    names a newer BuildKit than distributions have inside docker: `buildkit` is how much of `peer`'s
    wall, CPU and output it took on a quiet machine (docs/benchmarks.md), and the ratio to it is
    estimated with that. `size` is the limit of the output.
    """

    limit: float
    peer: str = "best"
    subject: str = "lamina"
    buildkit: tuple[float, float, float] | None = None
    size: float | None = None


class Bench:
    """What the rows share: a place, tools, archives of the base images, a registry, the sizes."""

    def __init__(self, work: Path, runner: Runner, tools: Mapping[str, Tool], scale: float) -> None:
        self.work = work
        self.runner = runner
        self.tools = tools
        own = tools["lamina"]
        assert isinstance(own, Lamina)
        self._own = own
        self.scale = scale
        self.registry: Registry | None = None
        self.context = work / "context"
        self._loaded: set[tuple[str, str]] = set()

    def archive(self, name: str) -> Path:
        """A docker archive of a base image of lamina's store."""
        path = self.work / f"{name}.tar"
        if not path.exists():
            self.lamina("save", "-o", str(path), f"{name}:latest")
        return path

    def lamina(self, *words: str) -> str:
        return self._own.call(self._own.command, *words)

    def offer(self, name: str, tools: Sequence[str]) -> None:
        """Put a base image of lamina's store into each tool's store, once."""
        for tool in tools:
            store = {"podman": "buildah", "lamina, runc": "lamina"}.get(tool, tool)
            if store != "lamina" and (store, name) not in self._loaded:
                for argv in self.tools[tool].load(self.archive(name)):
                    self.tools[tool].call(*argv)
            self._loaded.add((store, name))

    def pushed(self, name: str) -> str:
        """The name in the registry of an image of lamina's store, which is pushed there."""
        assert self.registry is not None
        there = f"{self.registry.host}/{name}:latest"
        self.lamina("tag", f"{name}:latest", there)
        self.lamina("push", "-q", there)
        self.lamina("rmi", "-f", there)
        return there


class Row:
    """A workload. `heavy` ones are run fewer times; `tools` take part if they are there."""

    key: str
    title: str
    tools: tuple[str, ...] = ("lamina", "buildah", "docker")
    bases: tuple[str, ...] = ("busybox",)
    targets: tuple[Target, ...] = ()
    heavy = False
    needs_registry = False

    def prepare(self, bench: Bench) -> None:
        """Write the inputs; not measured."""

    def warm(self, bench: Bench, tool: Tool) -> None:
        """Bring the tool into the state that each run starts from; not measured."""

    def before(self, bench: Bench, tool: Tool) -> None:
        """Set back what the last run changed; not measured."""

    def after(self, bench: Bench, tool: Tool) -> None:
        """Remove what the row left in the tool's store that another row's runs could use."""
        tool.prune()

    def commands(self, bench: Bench, tool: Tool) -> Commands:
        raise NotImplementedError

    def sample(self, bench: Bench, tool: Tool, *, memory: bool) -> Sample:
        self.before(bench, tool)
        return self.measured(bench, tool, self.commands(bench, tool), memory=memory)

    def measured(self, bench: Bench, tool: Tool, commands: Commands, *, memory: bool) -> Sample:
        run = bench.runner.measure
        return total([run(argv, tool.env, daemon=tool.daemon, memory=memory) for argv in commands])

    def goals(self, bench: Bench) -> tuple[Target, ...]:
        return self.targets


class Cached(Row):
    key = "cached"
    title = "no-op rebuild, all cached, 200 files"
    # 0.048 s of docker's 0.069 s, 0.073 of its 0.099 s CPU
    targets = (Target(0.6, "docker", buildkit=(0.69, 0.74, 1.0)), Target(0.1, "buildah"))

    def prepare(self, bench: Bench) -> None:
        inputs.python_app(bench.context)

    def warm(self, bench: Bench, tool: Tool) -> None:
        for argv in tool.build(bench.context):
            tool.call(*argv)

    def commands(self, bench: Bench, tool: Tool) -> Commands:
        return tool.build(bench.context)


class Edited(Cached):
    key = "edited"
    title = "rebuild after one source file changed"
    # 0.089 s of docker's 0.110 s; CPU was not recorded: taken as the same
    targets = (Target(0.45, "docker", buildkit=(0.80, 0.80, 1.0)), Target(0.12, "buildah"))

    def before(self, bench: Bench, tool: Tool) -> None:
        (bench.context / "pkg0/module0.py").write_text(f"VALUE = {time.time_ns()}\n")


class Copied(Row):
    key = "copy"
    title = "cold COPY of 20,000 files (200 MB) + RUN"
    heavy = True

    _seed = 0

    def before(self, bench: Bench, tool: Tool) -> None:
        """Other bytes each time: a layer that a store has already would not be made again."""
        self._seed += 1
        dockerfile = "FROM busybox\nCOPY . /data\nRUN true\n"
        count = inputs.counted(20_000, bench.scale)
        inputs.many_files(bench.context, count, size=10_008, dockerfile=dockerfile, seed=self._seed)

    def commands(self, bench: Bench, tool: Tool) -> Commands:
        return tool.build(bench.context, no_cache=True)

    def goals(self, bench: Bench) -> tuple[Target, ...]:
        """The goal is lower where layers are mounted and not unpacked."""
        mounted = any((bench.work / "lamina/snapshots").glob("*/layer.erofs"))
        # 6.0 s of docker's 6.3 s, 8.5 of its 9.2 s CPU
        return (Target(0.2 if mounted else 0.4, buildkit=(0.96, 0.92, 1.0)),)


class Steps(Row):
    """20 steps less one step, so that start and export do not count."""

    key = "steps"
    title = "20 tiny RUN steps, per step"
    heavy = True
    tools = ("lamina", "lamina, runc", "buildah", "docker")
    targets = (Target(0.4), Target(0.8, subject="lamina, runc"))

    def prepare(self, bench: Bench) -> None:
        for count in (1, 20):
            (bench.context / str(count)).mkdir()
            inputs.steps(bench.context / str(count), count)

    def sample(self, bench: Bench, tool: Tool, *, memory: bool) -> Sample:
        few, many = (
            self.measured(
                bench, tool, tool.build(bench.context / count, no_cache=True), memory=memory
            )
            for count in ("1", "20")
        )
        return many | {key: max(0.0, many[key] - few[key]) / 19 for key in ("wall", "cpu")}


class Exported(Row):
    compression = "gzip"
    key = "gzip"
    title = "RUN writing 500 MB in 5,000 files, gzip OCI export"
    bases = ("bench-pool",)
    heavy = True
    needs_registry = True
    # 10.0 s of buildah's 18.1 s, 10.3 of its 24.0 s CPU, 447 of its 460 MB
    targets = (Target(0.4, "buildah", buildkit=(0.55, 0.43, 0.97), size=1.12),)

    def prepare(self, bench: Bench) -> None:
        inputs.written_files(bench.context, inputs.counted(25, bench.scale))

    def commands(self, bench: Bench, tool: Tool) -> Commands:
        return tool.export(bench.context, self.compression, self._target(bench))

    def _target(self, bench: Bench) -> Path:
        return bench.work / "export.tar"

    def sample(self, bench: Bench, tool: Tool, *, memory: bool) -> Sample:
        target = self._target(bench)
        target.unlink(missing_ok=True)
        if isinstance(tool, Docker) and bench.registry is not None:
            tool.registry = bench.registry.host
        sample = super().sample(bench, tool, memory=memory)
        if target.exists():
            sample["size"] = target.stat().st_size / 1e6
            target.unlink()
        elif bench.registry:
            sample["size"] = bench.registry.image_size("docker-export") / 1e6
        tool.prune()  # a layer of 500 MB each time would fill a tmpfs
        return sample


class ExportedZstd(Exported):
    compression = "zstd"
    key = "zstd"
    title = "the same, zstd OCI export"
    tools = ("lamina", "buildah")
    needs_registry = False
    # 7.3 s of buildah's 14.2 s, 407 MB each; CPU was not recorded: taken as with gzip
    targets = (Target(0.4, "buildah", buildkit=(0.51, 0.43, 1.0), size=1.0),)


class Stages(Row):
    key = "stages"
    title = "4 independent stages of sleep 2"
    heavy = True
    targets = (Target(0.85),)

    def prepare(self, bench: Bench) -> None:
        inputs.stages(bench.context)

    def commands(self, bench: Bench, tool: Tool) -> Commands:
        return tool.build(bench.context, no_cache=True)


class RunTrue(Row):
    key = "run"
    title = "run --rm IMAGE true"
    tools = ("lamina", "lamina, runc", "podman", "docker")
    targets = (Target(0.4, "podman"),)

    def commands(self, bench: Bench, tool: Tool) -> Commands:
        return tool.run_true("busybox")


class BigContext(Row):
    key = "context"
    title = "unchanged context of 100,000 files (git: git status)"
    tools = ("lamina", "git")
    targets = (Target(2.0, "git"),)

    def prepare(self, bench: Bench) -> None:
        dockerfile = "FROM busybox\nCOPY . /data\n"
        count = inputs.counted(100_000, bench.scale)
        inputs.many_files(bench.context, count, size=100, dockerfile=dockerfile)

    def warm(self, bench: Bench, tool: Tool) -> None:
        if isinstance(tool, Git):
            tool.adopt(bench.context)
        for argv in self.commands(bench, tool):
            tool.call(*argv)

    def commands(self, bench: Bench, tool: Tool) -> Commands:
        if isinstance(tool, Git):
            return tool.status(bench.context)
        return tool.build(bench.context)


class Layered(Row):
    """The base of the transfer rows: an image of 4 layers with 5,000 files, 200 MB."""

    heavy = True
    tools: tuple[str, ...] = ("lamina", "podman", "docker")
    image: str

    def before(self, bench: Bench, tool: Tool) -> None:
        self.after(bench, tool)

    def after(self, bench: Bench, tool: Tool) -> None:
        tool.forget(self.image)
        tool.prune()

    def prepare(self, bench: Bench) -> None:
        if bench.lamina("images", "-q", "bench-layers").strip():
            return
        files = inputs.counted(FULL_LAYER_FILES, bench.scale)
        inputs.layered(bench.context, FULL_LAYERS, files)
        bench.lamina("build", "--network=host", "-t", "bench-layers:latest", str(bench.context))


class PullToRun(Layered):
    key = "pull"
    title = "run of an image that has to be pulled, 4 layers, 5,000 files, 200 MB"
    needs_registry = True

    def prepare(self, bench: Bench) -> None:
        super().prepare(bench)
        self.image = bench.pushed("bench-layers")
        bench.lamina("rmi", "-f", "bench-layers:latest")  # or its layers would be there already

    def commands(self, bench: Bench, tool: Tool) -> Commands:
        return tool.run_true(self.image)


class CopyFromRegistry(PullToRun):
    key = "transfer"
    title = "the same image copied from a registry to an OCI layout"
    tools = ("lamina", "skopeo")

    def after(self, bench: Bench, tool: Tool) -> None:
        shutil.rmtree(bench.work / "layout", ignore_errors=True)

    def commands(self, bench: Bench, tool: Tool) -> Commands:
        target = f"oci:{bench.work / 'layout'}:latest"
        if isinstance(tool, Lamina):
            return [[tool.command, "copy", "-q", self.image, target]]
        words = ["copy", "-q", "--src-tls-verify=false", f"docker://{self.image}", target]
        return [["skopeo", *words]]


class LoadToRun(Layered):
    key = "load"
    image = "bench-layers"
    title = "load of the same image from an archive, then run"

    def prepare(self, bench: Bench) -> None:
        if not (bench.work / "bench-layers.tar").exists():
            super().prepare(bench)
            bench.archive("bench-layers")
            bench.lamina("rmi", "-f", "bench-layers:latest")

    def commands(self, bench: Bench, tool: Tool) -> Commands:
        return [*tool.load(bench.work / "bench-layers.tar"), *tool.run_true("bench-layers")]


ROWS: tuple[type[Row], ...] = (
    Cached, Edited, Copied, Steps, Exported, ExportedZstd, Stages, RunTrue, BigContext, LoadToRun,
    PullToRun, CopyFromRegistry,
)  # fmt: skip


def make_base(bench: Bench, name: str) -> None:
    """A base image in lamina's store: busybox from the distribution, or one with the pool."""
    if name == "busybox":
        bench.lamina("bootstrap", "busybox", "-t", "busybox:latest")
        return
    folder = bench.work / "pool-context"
    folder.mkdir()
    inputs.pool(folder / "pool", POOL_FILES if bench.scale >= 0.1 else 20)
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY pool /pool\n")
    bench.lamina("build", "-t", f"{name}:latest", str(folder))
    shutil.rmtree(folder)


def flatness(bench: Bench) -> dict[str, tuple[float, float]]:
    """lamina's peak MiB at a tenth of the size and at the size: in files, and in bytes of a layer."""
    found = {}
    lamina = bench.tools["lamina"]
    target = bench.work / "export.tar"

    def peak(commands: Commands) -> float:
        return max(bench.runner.measure(argv, lamina.env, memory=True)["tree"] for argv in commands)

    for name, number in (("files", 20_000), ("layer", 25)):
        peaks = []
        for scale in (bench.scale / 10, bench.scale):
            bench.context.mkdir()
            count = inputs.counted(number, scale)
            if name == "files":
                dockerfile = "FROM busybox\nCOPY . /data\nRUN true\n"
                inputs.many_files(bench.context, count, size=1_000, dockerfile=dockerfile)
                peaks.append(peak(lamina.build(bench.context, no_cache=True)))
            else:
                inputs.written_files(bench.context, count)
                peaks.append(peak(lamina.export(bench.context, "gzip", target)))
                target.unlink()
            shutil.rmtree(bench.context)
            lamina.prune()
        found[name] = (peaks[0], peaks[1])
    return found
