# SPDX-License-Identifier: Apache-2.0
"""`import lamina`: a public name is the same object however and whenever it is asked for."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import lamina

NAMES = sorted(lamina.__all__)
MODULES = sorted(module.name for module in pkgutil.iter_modules(lamina.__path__))
SOURCES = Path(lamina.__file__).parent.parent

# Each order in a fork of a process that has imported nothing yet; every module of the package is
# imported before the first name, after the last, or not at all: an import puts itself over a name.
LOOK = """
import importlib, os, sys
sys.path.insert(0, {sources!r})

def tell(names):
    for name in names:
        value = getattr(lamina, name)
        print(name, getattr(value, "__module__", "-"), getattr(value, "__qualname__", value))

for place in range({count}):
    child = os.fork()
    if child == 0:
        import lamina
        names = sorted(lamina.__all__)
        for step in {{0: "nm", 1: "mn"}}.get(place, "n"):
            if step == "m":
                for module in {modules!r}:
                    importlib.import_module("lamina." + module)
            tell(names[place:] + names[:place])
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"order {{place}}")
"""


def look(modules: list[str], count: int) -> set[str]:
    """The lines that were printed, each once."""
    code = LOOK.format(sources=str(SOURCES), modules=modules, count=count)
    argv = [sys.executable, "-I", "-c", code]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return set(done.stdout.splitlines())


def test_no_public_name_is_that_of_a_module() -> None:
    """An imported submodule becomes an attribute of its package, over whatever was there."""
    assert set(NAMES) & set(MODULES) == set()


def test_public_names_are_the_same_in_every_order() -> None:
    """Whichever name is asked for first, and whatever was imported before and afterwards."""
    lines = look(MODULES, len(NAMES))

    assert sorted(line.split()[0] for line in lines) == NAMES, sorted(lines)


def test_type_checker_sees_the_names_that_there_are(tmp_path: Path) -> None:
    modules = "".join(f"import lamina.{name}\n" for name in MODULES)
    names = "".join(f"reveal_type(lamina.{name})\n" for name in NAMES)
    (tmp_path / "use.py").write_text(
        f"import lamina\n{modules}{names}lamina.nothing_of_this_name\n"
    )

    cache = str(SOURCES.parent / ".mypy_cache")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, str(tmp_path / "use.py")],
        cwd=SOURCES.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    revealed = [line for line in done.stdout.splitlines() if "Revealed type" in line]
    assert len(revealed) == len(NAMES), done.stdout
    for name, line in zip(NAMES, revealed, strict=True):
        value = getattr(lamina, name)
        own = type(value).__module__.partition(".")[0] == "lamina"
        plain = f'"{type(value).__module__}.{type(value).__name__}"' if own else '"str"'
        kind = '"def (' if callable(value) else plain
        assert kind in line, f"lamina.{name}: {line}"
    assert 'Module has no attribute "nothing_of_this_name"' in done.stdout
