# SPDX-License-Identifier: Apache-2.0
"""`copy_graph`: an image or index with all it points to, from a Source to a Sink.

Pull, push and copy are this one walk: documents are read from the root down, blobs are moved in
parallel, then documents are put from the leaves up, so that the root is last and never points to
something that is not there.
"""

from __future__ import annotations

import threading
from collections import deque

from lamina.errors import Kind, LaminaError
from lamina.events import Phase, Progress
from lamina.spec import mediatype
from lamina.spec.manifest import MAX_ENTRIES, MAX_INDEX_DEPTH, Index, Manifest
from lamina.start.record import Record
from lamina.tasks import TaskGroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamina.events import Emitter
    from lamina.registry.ports import Sink, Source
    from lamina.spec.descriptor import Descriptor
    from lamina.spec.digest import Digest
    from lamina.tasks import CancelToken, Work

    Choose = Callable[[Sequence[Descriptor]], Sequence[Descriptor]]

JOBS = 4  # blobs moved at one time; Docker pulls 3 and pushes 5
_REPORT_EVERY = 1 << 20  # bytes between progress events of one blob...
_REPORT_SECONDS = 0.25  # ...or seconds, on slow networks
FOREIGN = frozenset(
    kind
    for kind in mediatype.LAYER_COMPRESSION
    if kind.startswith(mediatype.OCI_NONDISTRIBUTABLE) or kind == mediatype.DOCKER_FOREIGN_LAYER
)


class Copied(Record):
    """What a copy did: blobs that were moved and that were there, and the bytes moved."""

    moved: int
    present: int
    size: int


def every(entries: Sequence[Descriptor]) -> Sequence[Descriptor]:
    """Choose all images of an index."""
    return entries


def copy_graph(
    source: Source,
    sink: Sink,
    root: Descriptor,
    *,
    work: Work,
    jobs: int = JOBS,
    choose: Choose = every,
    phase: Phase = Phase.COPYING,
) -> Copied:
    """Copy `root` and what it points to; `choose` picks the entries of an index to follow.

    Layers marked as not to be distributed are neither fetched from their addresses nor pushed. A
    `subject` is not followed. Progress events of the blobs are of `phase`; every blob is announced
    as waiting before the first moves.

    Raises:
        LaminaError: what Source or Sink raised first; INVALID for a graph without end.
        Cancelled.
    """
    walk = _Walk(source, choose, work.cancel)
    walk.visit(root, 0)
    copying = _Copying(source, sink, emit=work.emit, clock=work.clock, phase=phase)
    pending = deque(walk.blobs.values())
    for descriptor in pending:
        copying.tell(descriptor, 0, Phase.WAITING)

    def send(token: CancelToken) -> None:
        while pending:
            token.check()
            try:
                descriptor = pending.popleft()
            except IndexError:
                return
            copying.blob(descriptor, token)

    if len(pending) == 1:
        send(work.cancel)
    elif pending:
        try:
            with TaskGroup(work.cancel) as group:
                for number in range(min(jobs, len(pending))):
                    group.start(lambda: send(group.token), name=f"{phase.value} {number}")
        except BaseExceptionGroup as several:
            raise _one_of(several) from several
    for descriptor, raw in walk.documents.values():
        work.cancel.check()
        sink.put_document(descriptor, raw)
    return Copied(copying.moved, copying.present, copying.size)


def _one_of(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of errors that have one cause (no rights, no answer); else the group."""
    kinds = {error.kind if isinstance(error, LaminaError) else None for error in several.exceptions}
    if kinds in ({Kind.DENIED}, {Kind.UNAVAILABLE}):
        return several.exceptions[0]
    return several


class _Walk:
    """Reads documents, children first in `documents`; `blobs` in the order they are met."""

    def __init__(self, source: Source, choose: Choose, cancel: CancelToken) -> None:
        self._source = source
        self._choose = choose
        self._cancel = cancel
        self.documents: dict[Digest, tuple[Descriptor, bytes]] = {}
        self.blobs: dict[Digest, Descriptor] = {}

    def visit(self, descriptor: Descriptor, depth: int) -> None:
        if descriptor.digest in self.documents or descriptor.digest in self.blobs:
            return
        if depth > MAX_INDEX_DEPTH:
            raise LaminaError(f"index {descriptor.digest}: nested too deeply", kind=Kind.INVALID)
        if len(self.documents) + len(self.blobs) > MAX_ENTRIES:
            raise LaminaError(f"more than {MAX_ENTRIES} parts in one image", kind=Kind.INVALID)
        self._cancel.check()
        if descriptor.media_type in mediatype.INDEXES:
            raw = self._source.document(descriptor)
            index = Index.parse(raw, media_type=descriptor.media_type)
            for entry in self._choose(index.manifests):
                self.visit(entry, depth + 1)
        elif descriptor.media_type in mediatype.MANIFESTS:
            raw = self._source.document(descriptor)
            manifest = Manifest.parse(raw, media_type=descriptor.media_type)
            for part in (manifest.config, *manifest.layers):
                if part.media_type not in FOREIGN:
                    self._check_size(part)
                    self.blobs.setdefault(part.digest, part)
        else:
            self.blobs.setdefault(descriptor.digest, descriptor)
            return
        self.documents[descriptor.digest] = (descriptor, raw)

    def _check_size(self, part: Descriptor) -> None:
        known = self.blobs.get(part.digest)
        if known is not None and known.size != part.size:
            raise LaminaError(f"blob {part.digest} has two sizes", kind=Kind.INVALID)


class _Copying:
    """Moves blobs and counts."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        *,
        emit: Emitter,
        clock: Callable[[], float],
        phase: Phase,
    ) -> None:
        self._source = source
        self._sink = sink
        self._emit = emit
        self._clock = clock
        self._phase = phase
        self._lock = threading.Lock()
        self.moved = 0
        self.present = 0
        self.size = 0

    def blob(self, descriptor: Descriptor, cancel: CancelToken) -> None:
        if self._sink.exists(descriptor):
            with self._lock:
                self.present += 1
            self.tell(descriptor, descriptor.size, Phase.PRESENT, done=True)
            return
        self.tell(descriptor, 0, self._phase)
        reported, last = 0, self._clock()

        def report(current: int) -> None:
            nonlocal reported, last
            now = self._clock()
            if abs(current - reported) < _REPORT_EVERY and now - last < _REPORT_SECONDS:
                return
            reported, last = current, now
            self.tell(descriptor, current, self._phase)

        try:
            self._sink.put(descriptor, self._source, report=report, cancel=cancel)
        except LaminaError as error:
            if str(descriptor.digest) in error.what or descriptor.digest.short() in error.what:
                raise
            raise error.about(f"{noun(descriptor)} {descriptor.digest.short()}") from error
        self.tell(descriptor, descriptor.size, self._phase, done=True)
        with self._lock:
            self.moved += 1
            self.size += descriptor.size

    def tell(
        self, descriptor: Descriptor, current: int, phase: Phase, *, done: bool = False
    ) -> None:
        """Emit how far the blob is. All phases of one copy have one id."""
        verb = self._phase.value
        self._emit(
            Progress(
                id=f"{verb} {descriptor.digest}",
                name=f"{verb} {noun(descriptor)} {descriptor.digest.short()}",
                current=current,
                total=descriptor.size,
                at=self._clock(),
                done=done,
                subject=descriptor.digest,
                phase=phase,
            )
        )


def noun(descriptor: Descriptor) -> str:
    """What people call it: layer, config or blob."""
    if mediatype.is_layer(descriptor.media_type):
        return "layer"
    return "config" if descriptor.media_type in mediatype.CONFIGS else "blob"
