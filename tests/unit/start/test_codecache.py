# SPDX-License-Identifier: Apache-2.0
"""The file of compiled modules: used while it is true, ignored otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src/lamina"
HEAD = len(b"lamina 1 code 1\n") + 4 + 16  # the format with Python's magic, two sizes
PROBE = (
    "from lamina.start import codecache; cache = codecache.install(); import lamina.start.pattern as m; "
    "print(type(m.__loader__).__name__, getattr(m, 'MARK', 'plain'), m.pattern.__code__.co_filename); "
    "cache.keep()"
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A lamina of a few modules, compiled, without the file."""
    place = tmp_path / "site" / "lamina"
    place.mkdir(parents=True)
    (place / "__init__.py").touch()
    (place / "version.py").write_text("__version__ = '1'\n")
    (place / "start").mkdir()
    for name in ("__init__", "codecache", "pattern", "patterncodes"):
        shutil.copy(SOURCE / f"start/{name}.py", place / "start")
    run(place, "-m", "compileall", "-q", str(place))
    return place


def run(place: Path, *words: str, **env: str) -> str:
    """The output of the interpreter, which may write compiled files unless `env` says no."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, *words],
        env={**kept, "PYTHONPATH": str(place.parent), **env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.strip()


def file_of(place: Path) -> Path:
    return place / "__pycache__" / f"modules.{sys.implementation.cache_tag}.codes"


def test_modules_come_from_the_file(package: Path) -> None:
    run(package, "-m", "lamina.start.codecache")
    loader, mark, filename = run(package, "-c", PROBE).split()
    assert (loader, mark) == ("_Loader", "plain")
    assert filename == str(package / "start/pattern.py")


def test_the_first_command_writes_the_file(package: Path) -> None:
    assert run(package, "-c", PROBE).startswith("SourceFileLoader")
    assert file_of(package).exists()
    assert run(package, "-c", PROBE).startswith("_Loader")
    assert os.listdir(package / "__pycache__").count(file_of(package).name) == 1


def test_modules_checked_by_hash_are_not_written_again_and_again(package: Path) -> None:
    for compiled in list(package.rglob("__pycache__")):
        shutil.rmtree(compiled)
    run(package, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", str(package))
    assert run(package, "-c", PROBE).startswith("SourceFileLoader")
    assert not file_of(package).exists()


def test_nothing_is_written_where_python_writes_nothing(package: Path) -> None:
    run(package, "-c", PROBE, PYTHONDONTWRITEBYTECODE="1")
    assert not file_of(package).exists()


def test_a_changed_module_is_read_again(package: Path) -> None:
    run(package, "-m", "lamina.start.codecache")
    changed = package / "start/pattern.py"
    changed.write_text(changed.read_text() + "MARK = 'changed'\n")
    assert run(package, "-c", PROBE).split()[:2] == ["SourceFileLoader", "changed"]
    assert run(package, "-c", PROBE).split()[:2] == ["_Loader", "changed"]  # it was written again


def test_a_module_of_the_same_size_with_another_time_is_read_again(package: Path) -> None:
    run(package, "-m", "lamina.start.codecache")
    changed = package / "start/pattern.py"
    before = changed.stat()
    changed.write_text(changed.read_text().replace("__all__", "MARK_NO"))
    os.utime(changed, (before.st_atime, before.st_mtime + 2))
    assert run(package, "-c", PROBE).startswith("SourceFileLoader")


@pytest.mark.parametrize("damage", ["torn", "index", "other", "empty"])
def test_a_damaged_file_is_ignored(package: Path, damage: str) -> None:
    run(package, "-m", "lamina.start.codecache")
    blob = file_of(package).read_bytes()
    broken = {
        "torn": blob[:-10],
        "index": blob[:HEAD] + b"\xff" * 40 + blob[HEAD + 40 :],
        "other": blob.replace(b"code 1", b"code 0", 1),
        "empty": b"",
    }
    file_of(package).write_bytes(broken[damage])
    assert run(package, "-c", PROBE, PYTHONDONTWRITEBYTECODE="1").startswith("SourceFileLoader")


def test_damaged_code_is_compiled_again(package: Path) -> None:
    run(package, "-m", "lamina.start.codecache")
    blob = bytearray(file_of(package).read_bytes())
    length = int.from_bytes(blob[HEAD - 8 : HEAD], "little")
    blob[HEAD + length :] = b"?" * (len(blob) - HEAD - length)
    file_of(package).write_bytes(blob)
    assert run(package, "-c", PROBE, PYTHONDONTWRITEBYTECODE="1").split()[1] == "plain"


def test_another_version_reads_its_modules_again(package: Path) -> None:
    run(package, "-m", "lamina.start.codecache")
    (package / "version.py").write_text("__version__ = '2.0'\n")
    assert run(package, "-c", PROBE).startswith("SourceFileLoader")
    assert run(package, "-c", PROBE).startswith("_Loader")


def test_other_optimisations_have_no_file(package: Path) -> None:
    run(package, "-m", "lamina.start.codecache")
    code = "from lamina.start import codecache; print(codecache.install())"
    assert run(package, "-O", "-c", code) == "None"


def test_a_python_on_which_it_was_not_tried_has_no_file(package: Path) -> None:
    run(package, "-m", "lamina.start.codecache")
    code = (
        "import sys; sys.version_info = (3, 15, 0, 'final', 0); " + PROBE.split("; ", maxsplit=1)[0]
    )
    assert run(package, "-c", f"{code}; print(codecache.install())") == "None"
