# SPDX-License-Identifier: Apache-2.0
"""The seccomp profile of a process: Docker's default (a data file), none, or the user's own."""

from __future__ import annotations

from functools import lru_cache

from lamina.container.seccomp import InvalidProfile, container_seccomp
from lamina.container.spec import granted_capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
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
    profile = _parse(process.seccomp) if process.seccomp else default_profile()
    return container_seccomp(
        profile,
        architecture=host.architecture,
        capabilities=granted_capabilities(process, host),
        kernel=host.kernel,
        image_architecture=process.architecture,
    )


@lru_cache(maxsize=1)
def default_profile() -> Mapping[str, Any]:
    """Docker's default profile, as it is in the package."""
    with open(f"{__file__.rpartition('/')[0]}/seccomp_default.json", encoding="utf-8") as file:
        return _parse(file.read())


def _parse(text: str) -> Mapping[str, Any]:
    import json  # costs 8 ms to import; a cached build runs no container

    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidProfile(f"invalid seccomp profile: {error}") from error
    if not isinstance(document, dict):
        raise InvalidProfile("invalid seccomp profile: not a JSON object")
    return document
