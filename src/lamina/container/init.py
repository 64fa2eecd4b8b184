# SPDX-License-Identifier: Apache-2.0
"""The init of `--init`: a program of the host's that forwards signals and reaps processes."""

from __future__ import annotations

import struct

from lamina.errors import Kind, LaminaError
from lamina.system.programs import find_program

NAMES = ("docker-init", "catatonit", "tini-static", "tini")
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin:/usr/libexec/podman"
_PT_INTERP = 3  # elf(5): the segment that names the loader of a program that needs libraries


def find_init(*, search_path: str = _PATH) -> str:
    """The path of an init that runs in any image, needing no library.

    Raises LaminaError of kind NOT_FOUND: none is installed.
    """
    for name in NAMES:
        path = find_program(name, search_path=search_path)
        if path and is_static(path):
            return path
    raise LaminaError(
        f"--init needs an init on this host: none of {', '.join(NAMES)} is a static program in "
        f"{search_path}",
        kind=Kind.NOT_FOUND,
        hint="install catatonit (or tini) from the distribution",
    )


def is_static(path: str) -> bool:
    """Whether the file is an ELF program that no loader has to be found for."""
    try:
        with open(path, "rb") as file:
            header = file.read(64)
            if header[:4] != b"\x7fELF" or header[4] != 2:  # 64 bit
                return False
            order = "<" if header[5] == 1 else ">"
            (start,) = struct.unpack_from(f"{order}Q", header, 32)
            size, count = struct.unpack_from(f"{order}HH", header, 54)
            file.seek(start)
            table = file.read(size * count)
        kinds = [struct.unpack_from(f"{order}I", table, size * n)[0] for n in range(count)]
    except (OSError, struct.error, IndexError):
        return False
    return _PT_INTERP not in kinds
