# SPDX-License-Identifier: Apache-2.0
"""The tools: how each loads, builds, exports, runs and removes, on a store of its own in `work`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from measure import BenchError, Daemon, Runner

Commands = list[list[str]]
_FOREIGN = ("DOCKER_", "BUILDKIT_", "CONTAINERS_", "CONTAINER_", "LAMINA_", "BUILDAH_", "GIT_")
_CONTAINERS_CONF = """\
[containers]
# a host without CAP_SYS_RESOURCE cannot raise hard limits, which podman does by default
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""


def clean_environment(work: Path) -> dict[str, str]:
    """The caller's environment without what would point a tool elsewhere."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
    kept.pop("SOURCE_DATE_EPOCH", None)
    temporary = work / "tmp"
    temporary.mkdir(exist_ok=True)
    return kept | {"TMPDIR": str(temporary), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


class Tool:
    """A tool; what it cannot do, it refuses by an empty list of commands."""

    name: str
    daemon: Daemon | None = None

    def __init__(self, work: Path, runner: Runner) -> None:
        self.work = work
        self.runner = runner
        self.env = clean_environment(work)

    def version(self) -> str:
        raise NotImplementedError

    def call(self, *argv: str) -> str:
        return self.runner.run(argv, self.env)

    def load(self, archive: Path) -> Commands:
        return []

    def build(self, context: Path, *, no_cache: bool = False) -> Commands:
        return []

    def export(self, context: Path, compression: str, target: Path) -> Commands:
        """Build without cache and write the image to `target`."""
        return []

    def run_true(self, image: str) -> Commands:
        return []

    def forget(self, image: str) -> None:
        """Remove an image and its layers, if it is there."""

    def prune(self) -> None:
        """Remove build cache and images without a name."""


class Lamina(Tool):
    name = "lamina"

    def __init__(self, work: Path, runner: Runner, runtime: str = "") -> None:
        super().__init__(work, runner)
        self.env["LAMINA_ROOT"] = str(work / "lamina")
        self.command = _lamina_command(work)
        self._runtime = [f"--runtime={runtime}"] if runtime else []
        if runtime:
            self.name = f"lamina, {runtime}"

    def version(self) -> str:
        facts = dict(
            line.split(": ", 1)
            for line in self.call(self.command, "info").split("\n")
            if ": " in line
        )
        return f"{facts['Version']}, {facts['Runtime'].split(' (')[0]}, Python {sys.version.split()[0]}"

    def load(self, archive: Path) -> Commands:
        return [[self.command, "load", "-i", str(archive)]]

    def build(self, context: Path, *, no_cache: bool = False) -> Commands:
        fresh = ["--no-cache"] if no_cache else []
        argv = [self.command, "build", "--network=host", *self._runtime, *fresh, "-t", "bench"]
        return [[*argv, str(context)]]

    def export(self, context: Path, compression: str, target: Path) -> Commands:
        output = f"type=oci,dest={target},compression={compression}"
        argv = [self.command, "build", "--network=host", "--no-cache", "-o", output]
        return [[*argv, str(context)]]

    def run_true(self, image: str) -> Commands:
        argv = [self.command, "run", "--rm", "--network=host", *self._runtime]
        return [[*argv, image, "true"]]

    def forget(self, image: str) -> None:
        if self.call(self.command, "images", "-q", image).strip():
            self.call(self.command, "rmi", "-f", image)

    def prune(self) -> None:
        self.call(self.command, "system", "prune", "-f")
        self.call(self.command, "builder", "prune", "-a", "-f")


def _lamina_command(work: Path) -> str:
    """The console script beside this interpreter, or one like it for a checkout."""
    installed = Path(sys.executable).parent / "lamina"
    if installed.exists():
        return str(installed)
    script = work / "lamina-command"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(_source())!r})\n"
        "from lamina.cli.main import script\nscript()\n"
    )
    script.chmod(0o755)
    return str(script)


def _source() -> Path:
    return Path(__file__).resolve().parents[1] / "src"


class Podman(Tool):
    """podman for images and containers; buildah (below) builds in the same store."""

    name = "podman"

    def __init__(self, work: Path, runner: Runner) -> None:
        super().__init__(work, runner)
        conf = work / "containers.conf"
        conf.write_text(_CONTAINERS_CONF)
        self.env["CONTAINERS_CONF"] = str(conf)
        storage = ["--root", str(work / "peer"), "--runroot", str(work / "peer-run")]
        self.podman = ["podman", *storage, "--runtime", "runc", "--cgroup-manager", "cgroupfs"]
        self.buildah = ["buildah", *storage]

    def version(self) -> str:
        return f"{_last_word(self.call('podman', '--version'))} ({_package('podman')}), runc"

    def load(self, archive: Path) -> Commands:
        return [[*self.podman, "load", "-q", "-i", str(archive)]]

    def run_true(self, image: str) -> Commands:
        argv = [*self.podman, "run", "--rm", "--network=host", "--tls-verify=false"]
        return [[*argv, image, "true"]]

    def forget(self, image: str) -> None:
        if self.call(*self.podman, "images", "-q", image).strip():
            self.call(*self.podman, "rmi", "-f", image)

    def prune(self) -> None:
        self.call(*self.podman, "image", "prune", "-f")


class Buildah(Podman):
    name = "buildah"

    def version(self) -> str:
        return f"{self.call('buildah', '--version').split()[2]} ({_package('buildah')}), runc"

    def build(self, context: Path, *, no_cache: bool = False) -> Commands:
        fresh = ["--no-cache"] if no_cache else []
        isolation = ["--isolation", "oci", "--runtime", "runc", "--network", "host"]
        argv = [*self.buildah, "bud", "--layers", "--pull-never", *isolation, *fresh, "-t", "bench"]
        return [[*argv, str(context)]]

    def export(self, context: Path, compression: str, target: Path) -> Commands:
        form = ["--format", "oci", "--compression-format", compression]
        push = [*self.buildah, "push", "-q", *form, "localhost/bench", f"oci-archive:{target}"]
        return [*self.build(context, no_cache=True), push]


class Docker(Tool):
    """docker with BuildKit inside, and a dockerd of its own on a private socket and directories."""

    name = "docker"

    def __init__(self, work: Path, runner: Runner) -> None:
        super().__init__(work, runner)
        place = work / "docker"
        place.mkdir()
        socket_path = place / "sock"
        (place / "daemon.json").write_text("{}\n")
        # the distribution's client, whatever else is first on PATH: newer ones need a plugin to build
        self.docker = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
        self.env |= {
            "DOCKER_HOST": f"unix://{socket_path}",
            "DOCKER_BUILDKIT": "1",
            "DOCKER_CONFIG": str(place / "config"),
        }
        argv = [
            "dockerd",
            "--config-file",
            str(place / "daemon.json"),
            "-H",
            f"unix://{socket_path}",
        ]
        argv += ["--data-root", str(place / "data"), "--exec-root", str(place / "exec")]
        argv += ["--pidfile", str(place / "pid"), "--bridge=none", "--iptables=false"]
        argv += ["--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
        argv += ["--userland-proxy=false", "--storage-driver=overlay2", "--log-level=error"]
        self.registry = ""  # where its gzip export goes; set by the row
        self.daemon = runner.start(argv, place / "log", self._answers, self.env)

    def _answers(self) -> bool:
        argv = [self.docker, "version"]
        return subprocess.run(argv, env=self.env, capture_output=True, check=False).returncode == 0

    def version(self) -> str:
        form = "{{.Client.Version}} client, {{.Server.Version}} daemon"
        text = self.call(self.docker, "version", "--format", form).strip()
        return f"{text} ({_package('docker.io')}), BuildKit inside, runc"

    def load(self, archive: Path) -> Commands:
        return [[self.docker, "load", "-q", "-i", str(archive)]]

    def build(self, context: Path, *, no_cache: bool = False) -> Commands:
        fresh = ["--no-cache"] if no_cache else []
        argv = [self.docker, "build", "--network=host", "--progress=plain", *fresh, "-t", "bench"]
        return [[*argv, str(context)]]

    def export(self, context: Path, compression: str, target: Path) -> Commands:
        """A push, which is where it compresses: it writes no compressed archives."""
        if compression != "gzip" or not self.registry:
            return []
        name = f"{self.registry}/docker-export:latest"
        tag = [self.docker, "tag", "bench", name]
        return [*self.build(context, no_cache=True), tag, [self.docker, "push", "-q", name]]

    def run_true(self, image: str) -> Commands:
        return [[self.docker, "run", "--rm", "--network=host", image, "true"]]

    def forget(self, image: str) -> None:
        if self.call(self.docker, "images", "-q", image).strip():
            self.call(self.docker, "rmi", "-f", image)

    def prune(self) -> None:
        self.call(self.docker, "builder", "prune", "-a", "-f")
        self.call(self.docker, "image", "prune", "-f")


class Skopeo(Tool):
    name = "skopeo"

    def version(self) -> str:
        return f"{_last_word(self.call('skopeo', '--version'))} ({_package('skopeo')})"


class Git(Tool):
    """git on a work tree, with its own directory outside of the tree."""

    name = "git"

    def version(self) -> str:
        return _last_word(self.call("git", "--version"))

    def words(self, folder: Path) -> list[str]:
        return ["git", f"--git-dir={self.work / 'git'}", f"--work-tree={folder}"]

    def adopt(self, folder: Path) -> None:
        shutil.rmtree(self.work / "git", ignore_errors=True)
        self.call(*self.words(folder), "init", "-q")
        self.call(*self.words(folder), "add", "-A")

    def status(self, folder: Path) -> Commands:
        return [[*self.words(folder), "status", "--porcelain"]]


class Registry:
    """Debian's docker-registry with a directory of its own: what the pulls of all tools come from."""

    def __init__(self, work: Path, runner: Runner) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self.place = work / "registry"
        config = work / "registry.yml"
        config.write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.place}}}}}\n"
            f"http: {{addr: '{self.host}'}}\n"
        )
        argv = ["docker-registry", "serve", str(config)]
        runner.start(argv, work / "registry.log", self._answers, clean_environment(work))

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def image_size(self, repository: str) -> int:
        """Bytes of an image's config and layers."""
        url = f"http://{self.host}/v2/{repository}/manifests/latest"
        accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
        with urllib.request.urlopen(urllib.request.Request(url, headers=accept)) as answer:
            manifest = json.load(answer)
        return sum(part["size"] for part in [manifest["config"], *manifest["layers"]])


TOOLS: Mapping[str, tuple[type[Tool], tuple[str, ...]]] = {
    "buildah": (Buildah, ("buildah", "podman", "runc")),
    "podman": (Podman, ("podman", "runc")),
    "docker": (Docker, ("dockerd", "containerd", "docker", "runc")),
    "skopeo": (Skopeo, ("skopeo",)),
    "git": (Git, ("git",)),
}


def open_tools(
    work: Path, runner: Runner, wanted: Sequence[str]
) -> tuple[dict[str, Tool], dict[str, str]]:
    """The tools that are there, and why each of the others is not."""
    tools: dict[str, Tool] = {"lamina": Lamina(work, runner)}
    if shutil.which("runc"):
        tools["lamina, runc"] = Lamina(work, runner, "runc")
    absent = {}
    for name in wanted:
        make, programs = TOOLS[name]
        missing = [program for program in programs if not shutil.which(program)]
        if missing:
            absent[name] = f"not installed: {', '.join(missing)}"
            continue
        try:
            tools[name] = make(work, runner)
        except BenchError as error:
            absent[name] = str(error)
    return tools, absent


def _last_word(text: str) -> str:
    return text.rsplit(maxsplit=1)[-1]


def _package(name: str) -> str:
    argv = ["dpkg-query", "-W", "-f", "${Version}", name]
    with contextlib.suppress(OSError):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return f"Debian {done.stdout.strip()}"
    return "not from a package"
