# SPDX-License-Identifier: Apache-2.0
"""Fuzz one target with atheris: `python fuzz/run.py TARGET [libFuzzer options]`. See README.md."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lamina"]):
    import targets


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in targets.TARGETS:
        sys.exit(f"usage: run.py {'|'.join(targets.TARGETS)} [-runs=N] [-max_total_time=S] ...")
    name = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as corpus:
        for number, data in enumerate(targets.seeds(name)):
            (Path(corpus) / f"seed{number}").write_bytes(data)
        atheris.Setup([sys.argv[0], *sys.argv[2:], corpus], lambda data: targets.run(name, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
