# SPDX-License-Identifier: Apache-2.0
"""A build for several platforms: the Dockerfile lowered once for each, all in one plan.

A stage on `FROM --platform=$BUILDPLATFORM` that asks for no target ARG is the same vertices in every
lowering, so it runs once. docs/adr/0063-several-platforms.md.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.events import Diagnostic
from lamina.plan.graph import merged
from lamina.spec.platform import Platform
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lamina.dockerfile.lower import LowerOptions
    from lamina.dockerfile.lowered import Lowered
    from lamina.events import Emitter, Event
    from lamina.plan.graph import Plan


def parse_platforms(texts: Iterable[str], *, host: Platform) -> tuple[Platform, ...]:
    """The platforms of `--platform` values, each a comma list, each once; `local` is the host's.

    Raises:
        InvalidPlatform; LaminaError of kind UNSUPPORTED for anything but Linux.
    """
    found: list[Platform] = []
    for text in texts:
        for word in text.split(","):
            if not word.strip():
                continue
            platform = host if word.strip().lower() == "local" else Platform.parse(word)
            if platform.os != "linux":
                raise LaminaError(
                    f"cannot build for {platform}: lamina builds Linux images only",
                    kind=Kind.UNSUPPORTED,
                )
            found.append(platform)
    return tuple(dict.fromkeys(found))


def lower_each(
    options: LowerOptions,
    platforms: Sequence[Platform],
    *,
    lower: Callable[[LowerOptions, Emitter], Lowered],
    emit: Emitter,
) -> tuple[Lowered, ...]:
    """The Dockerfile lowered for each platform, in order. A finding is told once."""
    told: set[str] = set()

    def tell(event: Event) -> None:
        if isinstance(event, Diagnostic):
            text = repr(event)
            if text in told:
                return
            told.add(text)
        emit(event)

    return tuple(
        lower(replace(options, platform=platform, several_platforms=True), tell)
        for platform in platforms
    )


def plan_of(parts: Sequence[Lowered]) -> Plan:
    """One plan for all; its outputs are the parts' results, in order."""
    return parts[0].plan if len(parts) == 1 else merged(part.plan for part in parts)
