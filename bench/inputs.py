# SPDX-License-Identifier: Apache-2.0
"""The inputs: build contexts, the same bytes for every tool. `scale` 1 is the size the rows name."""

from __future__ import annotations

import random
import sysconfig
from pathlib import Path

_HALF = 50_000


def counted(number: int, scale: float) -> int:
    """`number` of something at this scale, at least 2."""
    return max(2, round(number * scale))


def python_app(folder: Path) -> None:
    """Eight instructions, a context of 200 files."""
    for number in range(200):
        path = folder / f"pkg{number % 10}/module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"VALUE = {number}\n" * 40)
    (folder / "Dockerfile").write_text(
        "FROM busybox\nLABEL a=b\nENV X=1\nWORKDIR /app\nRUN echo deps > /deps\n"
        'COPY . /app\nEXPOSE 8000\nCMD ["sh"]\n'
    )


def steps(folder: Path, count: int) -> None:
    lines = "".join(f"RUN echo {number} > /f{number}\n" for number in range(count))
    (folder / "Dockerfile").write_text(f"FROM busybox\n{lines}")


def stages(folder: Path) -> None:
    text = "".join(f"FROM busybox AS s{n}\nRUN sleep 2 && echo {n} > /o{n}\n" for n in range(4))
    text += "FROM busybox\n" + "".join(f"COPY --from=s{n} /o{n} /\n" for n in range(4))
    (folder / "Dockerfile").write_text(text)


def many_files(folder: Path, count: int, *, size: int, dockerfile: str, seed: int = 1) -> None:
    """`count` files of `size` bytes, no two equal, 100 to a directory; other bytes for each seed."""
    block = random.Random(seed).randbytes(size)
    for number in range(count):
        path = folder / f"d{number // 100}/f{number}"
        if number % 100 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(number.to_bytes(8, "big") + block[8:])
    (folder / "Dockerfile").write_text(dockerfile)


def pool(folder: Path, files: int) -> None:
    """Files of 100 kB: half noise, half text (Python sources), as images hold both."""
    noise = random.Random(2)
    library = Path(sysconfig.get_path("stdlib"))
    text = b"".join(file.read_bytes() for file in sorted(library.glob("*.py")))
    folder.mkdir()
    for number in range(files):
        start = number * _HALF % (len(text) - _HALF)
        (folder / f"f{number}").write_bytes(noise.randbytes(_HALF) + text[start : start + _HALF])


def written_files(folder: Path, rounds: int) -> None:
    """A RUN that copies the pool of its base again and again.

    The pool is longer than any compressor's default window: no copy is found as a repetition.
    """
    (folder / "Dockerfile").write_text(
        "FROM bench-pool\nRUN mkdir /data; for i in $(seq "
        f"{rounds}); do cp -r /pool /data/$i || exit 1; done\n"
    )


def layered(folder: Path, layers: int, files: int) -> None:
    """An image of some layers with small and middling files, as an application's."""
    lines = ""
    for layer in range(layers):
        noise = random.Random(layer)
        for number in range(files):
            path = folder / f"l{layer}/d{number // 50}/f{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(noise.randbytes(12_000) + b"text and more text, " * 1_500)
        lines += f"COPY l{layer} /opt/l{layer}\n"
    (folder / "Dockerfile").write_text(f"FROM busybox\n{lines}")
