# SPDX-License-Identifier: Apache-2.0
"""The seccomp profile of a process: Docker's default (a data file), none, or the user's own."""

from __future__ import annotations

from lamina.container.seccomp import InvalidProfile, container_seccomp
from lamina.container.spec import granted_capabilities
from lamina.start.jsontext import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

    from lamina.container.ports import ProcessSpec
    from lamina.container.spec import HostFacts


def seccomp_for(process: ProcessSpec, host: HostFacts) -> dict[str, object] | None:
    """`linux.seccomp` for `process`; None when it runs unconfined (asked for, or privileged).

    Raises:
        InvalidProfile: the process's own profile does not follow Docker's format.
    """
    if process.privileged or process.seccomp == "unconfined":
        return None
    capabilities = granted_capabilities(process, host)
    if process.seccomp:
        return _reduced(_parse(process.seccomp), process, host, capabilities)
    # the same for nearly every step of a build; callers do not change it
    key = (tuple(capabilities), host.architecture, host.kernel, process.architecture)
    if key not in _defaults:
        _defaults[key] = _reduced(default_profile(), process, host, capabilities)
    return _defaults[key]


def _reduced(
    profile: Mapping[str, Any], process: ProcessSpec, host: HostFacts, capabilities: Collection[str]
) -> dict[str, object]:
    return container_seccomp(
        profile,
        architecture=host.architecture,
        capabilities=capabilities,
        kernel=host.kernel,
        image_architecture=process.architecture,
    )


_defaults: dict[tuple[object, ...], dict[str, object]] = {}
_default: Mapping[str, Any] | None = None


def default_profile() -> Mapping[str, Any]:
    """Docker's default profile, as it is in the package."""
    global _default
    if _default is None:
        path = f"{__file__.rpartition('/')[0]}/seccomp_default.json"
        with open(path, encoding="utf-8") as file:
            _default = _parse(file.read())
    return _default


def _parse(text: str) -> Mapping[str, Any]:
    try:
        document = loads(text)
    except ValueError as error:
        raise InvalidProfile(f"invalid seccomp profile: {error}") from error
    if not isinstance(document, dict):
        raise InvalidProfile("invalid seccomp profile: not a JSON object")
    return document
