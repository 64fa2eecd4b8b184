# SPDX-License-Identifier: Apache-2.0
"""Programs for another architecture: whether this host starts them, and what is missing if not.

The kernel starts a foreign program through a handler of binfmt_misc: a pattern for the first bytes
of a file and an interpreter (qemu-user). With the flag F the interpreter was opened when the
handler was registered, so it works in every root filesystem; without it, it must be inside.

The handlers are read through a mount of our own that no directory shows: hosts without systemd
often have binfmt_misc mounted nowhere. Sources: Documentation/admin-guide/binfmt-misc.rst.
"""

from __future__ import annotations

import os

from lamina.container.seccomp import COMPATIBLE
from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

DIRECTORY = "/proc/sys/fs/binfmt_misc"
PACKAGES = "qemu-user-static binfmt-support"  # Debian's and Ubuntu's
_MAX_HANDLER = 4096  # bytes of one handler's text; the kernel's fits a page

# architecture -> (64 bit, big endian, e_machine of <elf.h>)
_ELF = {
    "386": (False, False, 3),
    "amd64": (True, False, 62),
    "arm": (False, False, 40),
    "arm64": (True, False, 183),
    "loong64": (True, False, 258),
    "mips": (False, True, 8),
    "mips64": (True, True, 8),
    "mips64le": (True, False, 8),
    "mipsle": (False, False, 8),
    "ppc64": (True, True, 21),
    "ppc64le": (True, False, 21),
    "riscv64": (True, False, 243),
    "s390x": (True, True, 22),
}
_EXECUTABLE, _SHARED = 2, 3  # e_type; position-independent programs are the latter


class NoEmulator(LaminaError):
    """This host does not start programs of the architecture."""

    kind = Kind.UNSUPPORTED


class Handler(Record):
    """A handler of binfmt_misc that matches by magic: `mask` has the length of `magic`."""

    interpreter: str
    flags: str
    offset: int
    magic: bytes
    mask: bytes

    def matches(self, header: bytes) -> bool:
        """Whether it starts files that begin with `header`."""
        part = header[self.offset : self.offset + len(self.magic)]
        return len(part) == len(self.magic) and all(
            found & mask == wanted & mask
            for found, wanted, mask in zip(part, self.magic, self.mask, strict=True)
        )


def parse_handler(text: str) -> Handler | None:
    """The handler as its file describes it; None if it is disabled or goes by file extension."""
    lines = text.splitlines()
    fields = dict(line.split(" ", 1) for line in lines if " " in line)
    try:
        magic = bytes.fromhex(fields["magic"])
        mask = bytes.fromhex(fields.get("mask", "ff" * len(magic)))
        offset = int(fields.get("offset", "0"))
    except (KeyError, ValueError):
        return None
    if lines[0] != "enabled" or len(mask) != len(magic):
        return None
    return Handler(fields.get("interpreter", ""), fields.get("flags:", ""), offset, magic, mask)


def elf_headers(architecture: str) -> tuple[bytes, ...]:
    """The first 20 bytes of programs for the architecture, of either type; none if it is unknown."""
    known = _ELF.get(architecture)
    if known is None:
        return ()
    wide, big, machine = known
    order = "big" if big else "little"
    ident = b"\x7fELF" + bytes([2 if wide else 1, 2 if big else 1, 1]) + bytes(9)
    return tuple(
        ident + kind.to_bytes(2, order) + machine.to_bytes(2, order)  # type: ignore[arg-type]  # a literal
        for kind in (_EXECUTABLE, _SHARED)
    )


def is_native(architecture: str, host: str) -> bool:
    """Whether `host` (an architecture) starts programs of `architecture` without any help."""
    return architecture in {"", host} or (host, architecture) in COMPATIBLE


def read_handlers() -> tuple[Handler, ...]:
    """The handlers that are enabled now; none where binfmt_misc cannot be seen."""
    from lamina.system.mounts import filesystem_fd

    if not os.path.exists(f"{DIRECTORY}/status"):
        try:
            directory = filesystem_fd("binfmt_misc")
        except LaminaError:
            return ()  # no such file system in this kernel, or no right to look
    else:
        directory = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _read(directory, "status").strip() != "enabled":
            return ()
        names = sorted(set(os.listdir(directory)) - {"register", "status"})
        found = [parse_handler(_read(directory, name)) for name in names]
    finally:
        os.close(directory)
    return tuple(handler for handler in found if handler is not None)


def _read(directory: int, name: str) -> str:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return ""  # it was removed at this moment
    try:
        return os.read(fd, _MAX_HANDLER).decode(errors="replace")
    finally:
        os.close(fd)


def require_emulation(architecture: str, *, host: str, root: int | None = None) -> None:
    """Do nothing if this host (an architecture) starts programs of `architecture`.

    `root` is a descriptor of the root filesystem they are in, where an interpreter counts too.

    Raises:
        NoEmulator: kind UNSUPPORTED, naming the packages that help.
    """
    if not is_native(architecture, host):
        check_handlers(architecture, read_handlers(), host=host, root=root)


def check_handlers(
    architecture: str, handlers: Iterable[Handler], *, host: str, root: int | None = None
) -> None:
    """As `require_emulation`, with the handlers given."""
    headers = elf_headers(architecture)
    found = [handler for handler in handlers if headers and all(map(handler.matches, headers))]
    if not found:
        raise NoEmulator(
            f"this host ({host}) does not run {architecture} programs: "
            "no emulator is registered with binfmt_misc",
            hint=f"apt-get install {PACKAGES}",
        )
    if any("F" in handler.flags or _is_inside(handler, root) for handler in found):
        return
    raise NoEmulator(
        f"this host ({host}) runs {architecture} programs by {found[0].interpreter}, "
        "which is registered without the flag F, so it works outside of images only",
        hint=f"apt-get install {PACKAGES}, or register it again with the flag F",
    )


def _is_inside(handler: Handler, root: int | None) -> bool:
    if root is None:
        return False
    try:
        os.stat(handler.interpreter.lstrip("/"), dir_fd=root, follow_symlinks=False)
    except OSError:
        return False
    return True
