# SPDX-License-Identifier: Apache-2.0
"""Fuzz one target with atheris: `python fuzz/run.py TARGET [libFuzzer options]`. See README.md."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = "--in"


def main() -> int:
    """Run the fuzzer in a child: libFuzzer ends its process without clean-up."""
    import targets

    if len(sys.argv) < 2 or sys.argv[1] not in targets.TARGETS:
        sys.exit(f"usage: run.py {'|'.join(targets.TARGETS)} [-runs=N] [-max_total_time=S] ...")
    name, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as corpus:
        for number, data in enumerate(targets.seeds(name)):
            (Path(corpus) / f"seed{number}").write_bytes(data)
        command = [sys.executable, __file__, CHILD, name, *options, corpus]
        return subprocess.run(command, check=False).returncode


def fuzz(name: str, options: list[str]) -> None:
    """Fuzz in this process, with lamina instrumented."""
    import atheris

    with atheris.instrument_imports(include=["lamina"]):
        import targets
    atheris.Setup([sys.argv[0], *options], lambda data: targets.run(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        fuzz(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
