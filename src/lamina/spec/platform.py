# SPDX-License-Identifier: Apache-2.0
"""Platforms: `os/architecture[/variant]` and which image runs on which host.

Sources: image-spec image-index.md §platform; containerd's `platforms` package for the
normalisation and the order in which variants are tried.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

_OS_ALIASES = {"macos": "darwin"}
# uname -m and other spellings -> (GOARCH, variant)
_ARCH_ALIASES: dict[str, tuple[str, str]] = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "mips64el": ("mips64le", ""),
    "ppc64el": ("ppc64le", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv8l": ("arm", "v7"),
    "loongarch64": ("loong64", ""),
}
KNOWN_OS = frozenset({"linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "wasip1"})
KNOWN_ARCHITECTURES = frozenset(
    {
        "386",
        "amd64",
        "arm",
        "arm64",
        "loong64",
        "mips",
        "mips64",
        "mips64le",
        "mipsle",
        "ppc64",
        "ppc64le",
        "riscv64",
        "s390x",
        "wasm",
    }
)


class InvalidPlatform(LaminaError):
    kind = Kind.INVALID


class Platform(Record):
    """A normalised platform: GOOS, GOARCH, and a variant (`v7`; empty where the default)."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @staticmethod
    def parse(text: str) -> Platform:
        """The platform written as `os/arch[/variant]` (or one of the two alone).

        Raises:
            InvalidPlatform: empty or unknown parts, or too many of them.
        """
        parts = text.strip().lower().split("/")
        if not all(parts) or not all(_is_word(part) for part in parts) or len(parts) > 3:
            raise InvalidPlatform(f"invalid platform {text!r}: expected os/arch[/variant]")
        if len(parts) == 1:
            name = _OS_ALIASES.get(parts[0], parts[0])
            if name in KNOWN_OS:
                raise InvalidPlatform(f"invalid platform {text!r}: the architecture is missing")
            parts = ["linux", parts[0]]
        return normalise(parts[0], parts[1], parts[2] if len(parts) == 3 else "")

    def runs(self, image: Platform) -> bool:
        """Whether a host of this platform runs `image` natively."""
        return self.preference(image) is not None

    def preference(self, image: Platform) -> int | None:
        """Rank of `image` for this host: 0 is exact, greater is worse, None does not run."""
        if image.os != self.os:
            return None
        for rank, candidate in enumerate(_compatible(self.architecture, self.variant)):
            if (image.architecture, image.variant) == candidate:
                return rank
        return None


def normalise(os: str, architecture: str, variant: str = "") -> Platform:
    """The platform with aliases resolved and default variants dropped (arm64/v8 = arm64).

    Raises:
        InvalidPlatform: the operating system or the architecture is not known.
    """
    os = _OS_ALIASES.get(os.lower(), os.lower())
    architecture = architecture.lower()
    variant = variant.lower()
    alias = _ARCH_ALIASES.get(architecture)
    if alias is not None:
        architecture, variant = alias[0], variant or alias[1]
    if architecture == "arm64" and variant in {"8", "v8"}:
        variant = ""
    elif architecture == "arm" and variant in {"", "7"}:
        variant = "v7"
    elif architecture == "arm" and variant in {"5", "6", "8"}:
        variant = f"v{variant}"
    elif architecture == "amd64" and variant == "v1":
        variant = ""
    if os not in KNOWN_OS:
        raise InvalidPlatform(f"unknown operating system {os!r} in platform")
    if architecture not in KNOWN_ARCHITECTURES:
        raise InvalidPlatform(f"unknown architecture {architecture!r} in platform")
    return Platform(os, architecture, variant)


def host(machine: str) -> Platform:
    """The platform of this host, given `os.uname().machine`."""
    return normalise("linux", machine)


def _compatible(architecture: str, variant: str) -> list[tuple[str, str]]:
    """What an (architecture, variant) executes, best first (containerd platformVector)."""
    vector = [(architecture, variant)]
    if architecture == "amd64":
        level = int(variant[1:]) if variant[1:].isdigit() else 1
        vector += [("amd64", f"v{n}") for n in range(level - 1, 1, -1)]
        vector += [("amd64", "")] if variant else []
        vector += [("386", "")]
    elif architecture == "arm":
        level = int(variant[1:]) if variant[1:].isdigit() else 7
        vector += [("arm", f"v{n}") for n in range(level - 1, 4, -1)]
    elif architecture == "arm64":
        level = int(variant[1:].split(".", maxsplit=1)[0]) if variant[1:2].isdigit() else 8
        vector += [("arm64", f"v{n}") for n in range(level - 1, 8, -1)]
        vector += [("arm64", "")] if variant else []
        vector += [("arm", f"v{n}") for n in range(8, 4, -1)]
    return vector


def _is_word(part: str) -> bool:
    return all(char.isascii() and (char.isalnum() or char in "_-.") for char in part)
