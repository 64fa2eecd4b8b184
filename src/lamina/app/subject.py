# SPDX-License-Identifier: Apache-2.0
"""What a build's record says about the request: names and paths, no contents."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from lamina.app.buildrequest import BuildRequest


def subject_of(request: BuildRequest, target: str = "") -> dict[str, Any]:
    """The fields of the record that do not depend on how the build goes.

    Values of build arguments are kept, as they are in the image's history, secrets of URLs masked;
    predefined proxy arguments are not.
    """
    from lamina.dockerfile.stage import PROXY_ARGS

    args = [(name, value) for name, value in request.build_args if name.lower() not in PROXY_ARGS]
    return {
        "name": _display_name(request, target),
        "bake_target": target,
        "context": request.context if request.is_lasting else "-",
        "dockerfile": request.dockerfile_name,
        "target": request.target,
        "platform": ",".join(map(str, request.platforms or (request.platform,))),
        "tags": list(request.tags),
        "build_args": _masked(args),
        "labels": _masked(request.labels),
        "no_cache": request.no_cache,
    }


def _masked(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    if not pairs:
        return {}
    from lamina.redaction import redacted

    return {name: redacted(value) for name, value in pairs}


def _display_name(request: BuildRequest, bake_target: str) -> str:
    """The name that listings show: the context's directory, and what differs from the default."""
    base = os.path.basename(request.context.rstrip("/")) if request.is_lasting else "-"
    details = []
    if os.path.basename(request.dockerfile_name) != "Dockerfile":
        details.append(os.path.basename(request.dockerfile_name))
    if request.target:
        details.append(request.target)
    name = base or "/"
    if details:
        name += f" ({' '.join(details)})"
    return f"{name}/{bake_target}" if bake_target else name
