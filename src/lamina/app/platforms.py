# SPDX-License-Identifier: Apache-2.0
"""A build for several platforms: the Dockerfile lowered once for each, all in one plan.

A stage on `FROM --platform=$BUILDPLATFORM` that asks for no target ARG is the same vertices in every
lowering, so it runs once. docs/adr/0063-several-platforms.md.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.events import Diagnostic
from lamina.spec.platform import Platform
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lamina.dockerfile.lower import Lowered, LowerOptions
    from lamina.events import Emitter, Event


def build_platforms(names: Iterable[str], *, host: Platform) -> tuple[Platform, ...]:
    """The platforms that are named, each once; `local` is the host's. None named: the host's.

    Raises:
        InvalidPlatform; LaminaError of kind UNSUPPORTED for anything but Linux.
    """
    platforms: list[Platform] = []
    for name in names:
        platform = host if name.lower() == "local" else Platform.parse(name)
        if platform.os != "linux":
            raise LaminaError(
                f"cannot build for {platform}: lamina builds Linux images only",
                kind=Kind.UNSUPPORTED,
            )
        platforms.append(platform)
    return tuple(dict.fromkeys(platforms)) or (host,)


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
