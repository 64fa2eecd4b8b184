# SPDX-License-Identifier: Apache-2.0
"""Where images come from and go to: contracts that registries, stores and layouts keep."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Protocol

    from lamina.spec.descriptor import Descriptor
    from lamina.tasks import CancelToken

    Report = Callable[[int], None]  # bytes of one blob that are through, resumed ones included
else:
    Protocol = object


class Source(Protocol):
    """Blobs and documents by descriptor. Any thread may call every method."""

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> IO[bytes]:
        """The blob from `offset` on, not verified; the caller closes it.

        Raises:
            LaminaError: kind NOT_FOUND, DENIED, UNAVAILABLE.
        """

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest or index, verified for size and digest. Raises as `open`, and INTEGRITY."""

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether a whole blob or document is here, without reading it."""


class Sink(Protocol):
    """What takes an image's parts, leaves first. Any thread may call every method."""

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether it is there already and need not be sent."""

    def put(
        self, descriptor: Descriptor, source: Source, *, report: Report, cancel: CancelToken
    ) -> None:
        """Take a blob from `source`; verified before it is visible, resumed where it was cut off.

        Raises:
            LaminaError: INTEGRITY if the bytes are not the descriptor's, or as `Source.open`.
        """

    def put_document(self, descriptor: Descriptor, raw: bytes) -> None:
        """Take a manifest or index whose parts were put before."""
