# SPDX-License-Identifier: Apache-2.0
"""Docker's seccomp profile format, reduced to what one container needs (pure).

A profile in Docker's format (`seccomp_default.json`, or `--security-opt seccomp=FILE`) has rules
that depend on architecture, capabilities and kernel; an OCI runtime wants plain rules. Only the
native architecture is kept: compiling for three costs 20 ms a container (docs/adr/0032-seccomp.md).
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

ARCHITECTURES = {
    "386": "SCMP_ARCH_X86",
    "amd64": "SCMP_ARCH_X86_64",
    "arm": "SCMP_ARCH_ARM",
    "arm64": "SCMP_ARCH_AARCH64",
    "loong64": "SCMP_ARCH_LOONGARCH64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "riscv64": "SCMP_ARCH_RISCV64",
    "s390x": "SCMP_ARCH_S390X",
}
"""libseccomp's names of the platforms' architectures."""

COMPATIBLE = {("amd64", "386"), ("arm64", "arm")}
"""(host, image): the 32-bit images a host runs without emulation."""


class InvalidProfile(LaminaError):
    kind = Kind.INVALID


def container_seccomp(
    profile: Mapping[str, Any],
    *,
    architecture: str,
    capabilities: Collection[str],
    kernel: tuple[int, int],
    image_architecture: str = "",
) -> dict[str, object]:
    """`linux.seccomp` of the runtime spec for a container with these (bounding) capabilities.

    Only programs of the host's `architecture` may make system calls, and those of the image's if
    the host runs it natively.

    Raises:
        InvalidProfile: the profile does not follow Docker's format.
        LaminaError: kind UNSUPPORTED for an architecture that libseccomp does not know.
    """
    native = ARCHITECTURES.get(architecture)
    if native is None:
        raise LaminaError(f"no seccomp profile for {architecture}", kind=Kind.UNSUPPORTED)
    architectures = [native]
    if (architecture, image_architecture) in COMPATIBLE:
        architectures.append(ARCHITECTURES[image_architecture])
    try:
        rules = [
            _rule(entry)
            for entry in profile.get("syscalls") or ()
            if _applies(entry, architecture, capabilities, kernel)
        ]
        result: dict[str, object] = {
            "defaultAction": profile["defaultAction"],
            "architectures": architectures,
            "syscalls": rules,
        }
        if profile.get("defaultErrnoRet") is not None:
            result["defaultErrnoRet"] = int(profile["defaultErrnoRet"])
        if profile.get("flags"):
            result["flags"] = [str(flag) for flag in profile["flags"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidProfile(f"invalid seccomp profile: {error!r}") from error
    return result


def _applies(
    entry: Mapping[str, Any],
    architecture: str,
    capabilities: Collection[str],
    kernel: tuple[int, int],
) -> bool:
    """Whether all of `includes` and none of `excludes` hold (moby's order of conditions)."""
    excludes, includes = entry.get("excludes") or {}, entry.get("includes") or {}
    if architecture in (excludes.get("arches") or ()):
        return False
    if any(name in capabilities for name in excludes.get("caps") or ()):
        return False
    if excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]):
        return False
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    if not all(name in capabilities for name in includes.get("caps") or ()):
        return False
    return not includes.get("minKernel") or kernel >= _version(includes["minKernel"])


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or "0")


def _rule(entry: Mapping[str, Any]) -> dict[str, object]:
    names = entry.get("names") or [entry["name"]]
    if not all(isinstance(name, str) for name in names):
        raise TypeError("a system call's name is not a string")
    rule: dict[str, object] = {"names": list(names), "action": str(entry["action"])}
    if entry.get("errnoRet") is not None:
        rule["errnoRet"] = int(entry["errnoRet"])
    if entry.get("args"):
        rule["args"] = [_argument(argument) for argument in entry["args"]]
    return rule


def _argument(argument: Mapping[str, Any]) -> dict[str, object]:
    result: dict[str, object] = {
        "index": int(argument["index"]),
        "value": int(argument["value"]),
        "op": str(argument["op"]),
    }
    if argument.get("valueTwo"):
        result["valueTwo"] = int(argument["valueTwo"])
    return result
