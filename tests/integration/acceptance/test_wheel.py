# SPDX-License-Identifier: Apache-2.0
"""The wheel, installed by pip into an environment that has nothing else, and used from there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.testing.registry import RegistryServer, registry

__all__ = ["registry"]

pytestmark = pytest.mark.network

ROOT = Path(__file__).parents[3]
DEVELOPMENT = {"pytest", "mypy", "ruff", "hypothesis", "setuptools", "wheel", "pip"}
HEAVY = {"argparse", "gettext", "datetime", "sqlite3", "ssl", "dataclasses"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("wheel")
    yield place
    shutil.rmtree(place)


def python(*words: str) -> None:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(place: Path) -> Path:
    """The wheel of a copy of the sources: building it where they are would leave files there."""
    source = place / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "bin"):
        shutil.copytree(ROOT / name, source / name, ignore=unwanted)
    flags = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    python("-m", "pip", "wheel", *flags, "-w", str(place), str(source))
    (made,) = place.glob("*.whl")
    return made


class Installed:
    """An environment with the wheel and what it depends on; without pip."""

    def __init__(self, place: Path, wheel: Path) -> None:
        self.bin = place / "bare" / "bin"
        self.work = place / "work"
        self.work.mkdir()
        self.env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(place),
            "LAMINA_ROOT": str(place / "store"),
        }
        python("-m", "venv", "--without-pip", str(place / "bare"))
        flags = ("--disable-pip-version-check", "--only-binary=:all:", "-q")
        python("-m", "pip", "--python", str(self.bin / "python"), "install", *flags, str(wheel))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            words, env=self.env, cwd=self.work, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def __call__(self, *words: str) -> str:
        return self.run(str(self.bin / "lamina"), *words).stdout

    def python(self, code: str) -> str:
        return self.run(str(self.bin / "python"), "-c", code).stdout


@pytest.fixture(scope="module")
def lamina(place: Path, wheel: Path) -> Installed:
    return Installed(place, wheel)


def test_every_file_of_the_package_is_in_the_wheel_and_nothing_else(wheel: Path) -> None:
    source = ROOT / "src"
    files = {
        str(path.relative_to(source))
        for path in (source / "lamina").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if not name.endswith("/")}
    assert {name for name in packed if ".dist-info/" not in name and ".data/" not in name} == files
    assert {name.partition(".data/")[2] for name in packed if ".data/" in name} == {
        "scripts/lamina"
    }
    kinds = {Path(name).suffix or Path(name).name for name in files}
    assert {".py", ".json", ".css", ".js", ".svg", ".typed"} <= kinds


def test_nothing_of_the_development_is_there(lamina: Installed) -> None:
    code = "from importlib import metadata; print(*(d.name for d in metadata.distributions()))"
    names = set(lamina.python(code).split())
    assert "lamina" in names
    assert names & DEVELOPMENT == set()
    place = lamina.python("import lamina; print(lamina.__file__)").strip()
    assert place.startswith(f"{lamina.bin.parent}/lib/")


def test_every_module_of_the_command_is_imported_without_extras(lamina: Installed) -> None:
    """Commands are imported when they are asked for: one that lacks something fails only then."""
    code = """
import importlib, pkgutil, lamina.cli
for module in pkgutil.walk_packages(lamina.cli.__path__, "lamina.cli."):
    importlib.import_module(module.name)
"""
    lamina.python(code)


def test_info_build_and_pull(lamina: Installed, registry: RegistryServer) -> None:
    assert "lamina" in lamina("version")
    assert str(lamina.env["LAMINA_ROOT"]) in lamina("info")
    (lamina.work / "file").write_text("x")
    (lamina.work / "Dockerfile").write_text('FROM scratch\nCOPY file /file\nCMD ["/file"]\n')
    lamina("build", "-t", "app", ".")
    again = lamina.run(str(lamina.bin / "lamina"), "build", "--progress=plain", "-t", "app", ".")
    assert "CACHED" in again.stderr
    assert "DONE" not in again.stderr
    lamina("tag", "app", f"{registry.host}/app:1")
    lamina("push", f"{registry.host}/app:1")
    id = json.loads(lamina("inspect", "app"))[0]["Id"]
    lamina("rmi", "app", f"{registry.host}/app:1")
    assert lamina("images", "-q") == ""
    lamina("pull", f"{registry.host}/app:1")
    assert json.loads(lamina("inspect", f"{registry.host}/app:1"))[0]["Id"] == id


def test_serving_needs_the_extra_and_says_so(lamina: Installed) -> None:
    done = subprocess.run(
        [str(lamina.bin / "lamina"), "serve", "--root", "r"],
        env=lamina.env, cwd=lamina.work, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode not in {0, 70}
    assert "lamina[registry]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.tool("strace")
def test_it_starts_lean_from_one_file_of_modules(lamina: Installed) -> None:
    lamina("images")  # what was not compiled yet
    script, trace = str(lamina.bin / "lamina"), lamina.work.parent / "trace"
    lamina.run("strace", "-f", "-e", "trace=openat", "-o", str(trace), script, "images")
    opened = re.findall(r'"([^"]+/lamina/[^"]+)".* = \d', trace.read_text())
    assert any(path.endswith(".codes") for path in opened)
    assert not [path for path in opened if "/lamina/store/" in path and path.endswith(".pyc")]
    timed = [str(lamina.bin / "python"), "-X", "importtime"]
    imported = [
        set(re.findall(r"\| +([\w.]+)$", lamina.run(*timed, *words).stderr, re.MULTILINE))
        for words in (("-c", "pass"), (script, "images"))
    ]
    assert "lamina.cli.images" in imported[1]
    assert (imported[1] - imported[0]) & HEAVY == set()
