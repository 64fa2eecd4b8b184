# SPDX-License-Identifier: Apache-2.0
"""Pushing: a repository as Sink (ports.Sink).

An upload goes through these states; each arrow is a request:

    none --POST (mount?)--> done, if the registry mounted the blob from another repository
    none --POST--> open(0) --PATCH*--> open(n) --PUT digest--> done
    any failure that may pass: ask the registry how far it is (GET) and go on from there;
    what it cannot tell, or refuses in pieces: once more from 0, in one piece as Docker sends it

Address and offset of an open upload are kept in a journal, so that a push that was killed goes on.
A small blob is sent with the PUT.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.registry import protocol
from lamina.registry.client import PUSH, has
from lamina.registry.protocol import RegistryError
from lamina.registry.transport import Request, Unreachable
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO, Protocol, Self

    from lamina.registry.endpoints import Endpoint
    from lamina.registry.ports import Report, Source
    from lamina.registry.transport import Response
    from lamina.spec.descriptor import Descriptor
    from lamina.spec.digest import Digest
    from lamina.tasks import CancelToken
else:
    Protocol = object

CHUNK = 32 * 1024 * 1024  # bytes a PATCH: what a killed push may have to send again
SMALL = 1024 * 1024  # bytes that go with the PUT
_MAX_FAILURES = 6  # in a row without progress
_FIRST_PAUSE = 0.5  # seconds
_REFUSALS = frozenset({400, 404, 405, 411, 413, 501})  # of an upload in pieces, or forgotten
_OCTETS = ("Content-Type", "application/octet-stream")


class OpenUpload(Record):
    """Where an upload goes on: the address the registry gave last, and the bytes it has."""

    url: str
    offset: int


class UploadJournal(Protocol):
    """Remembers open uploads by (repository with its registry, digest)."""

    def get(self, repository: str, digest: Digest) -> OpenUpload | None: ...
    def put(self, repository: str, digest: Digest, upload: OpenUpload) -> None: ...
    def forget(self, repository: str, digest: Digest) -> None: ...


class NoJournal:
    """For pushes that need not survive this process."""

    def get(self, repository: str, digest: Digest) -> OpenUpload | None:
        return None

    def put(self, repository: str, digest: Digest, upload: OpenUpload) -> None: ...

    def forget(self, repository: str, digest: Digest) -> None: ...


class RegistrySink:
    """One image's way into a repository; the root document gets `tags` (none: only its digest).

    `mounts` says in which other repositories of this registry a blob may be.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        root: Digest,
        tags: Sequence[str] = (),
        journal: UploadJournal | None = None,
        mounts: Callable[[Digest], Sequence[str]] | None = None,
        chunk: int = CHUNK,
    ) -> None:
        self._endpoint = endpoint
        self._root = root
        self._tags = tuple(tags)
        self._journal: UploadJournal = journal or NoJournal()
        self._mounts = mounts
        self._chunk = chunk
        self.mounted: dict[Digest, str] = {}
        self.subject = ""  # OCI-Subject of the last manifest: the registry keeps referrers

    def exists(self, descriptor: Descriptor) -> bool:
        return has(self._endpoint, descriptor)

    def put(
        self, descriptor: Descriptor, source: Source, *, report: Report, cancel: CancelToken
    ) -> None:
        _Upload(self, descriptor, source, report=report, cancel=cancel).run()

    def put_document(self, descriptor: Descriptor, raw: bytes) -> None:
        is_root = descriptor.digest == self._root
        for reference in (self._tags if is_root else ()) or (str(descriptor.digest),):
            self._put_manifest(descriptor, raw, reference)

    def _put_manifest(self, descriptor: Descriptor, raw: bytes, reference: str) -> None:
        endpoint = self._endpoint
        answer = endpoint.send(
            Request(
                "PUT",
                protocol.manifest_route(endpoint.repository, reference),
                (("Content-Type", descriptor.media_type),),
                raw,
                len(raw),
            ),
            scopes=self._scopes(),
            what=f"pushing manifest {reference} to {endpoint.host}/{endpoint.repository}",
            expect=(201, 200, 202),
        )
        answer.close()
        self.subject = answer.header("OCI-Subject")

    def _scopes(self, mount_from: str = "") -> tuple[str, ...]:
        own = protocol.scope(self._endpoint.repository, PUSH)
        return (own, protocol.scope(mount_from, "pull")) if mount_from else (own,)


class _Upload:
    """One blob's upload."""

    def __init__(
        self,
        sink: RegistrySink,
        descriptor: Descriptor,
        source: Source,
        *,
        report: Report,
        cancel: CancelToken,
    ) -> None:
        self._sink = sink
        self._endpoint = sink._endpoint
        self._journal = sink._journal
        self._name = f"{self._endpoint.host}/{self._endpoint.repository}"
        self._descriptor = descriptor
        self._source = source
        self._report = report
        self._cancel = cancel
        self._chunk = sink._chunk
        self._what = f"pushing blob {descriptor.digest.short()} to {self._name}"

    def run(self) -> None:
        """Until the registry has the blob."""
        upload = self._remembered()
        if upload is None:
            upload = self._mount()
            if self._descriptor.digest in self._sink.mounted:
                return
        failures = 0
        while True:
            self._cancel.check()
            try:
                if upload is None:
                    upload = self._begin()
                upload = self._advance(upload)
                if upload is None:
                    self._journal.forget(self._name, self._descriptor.digest)
                    return
                failures = 0
            except (Unreachable, RegistryError) as error:
                failures += 1
                if failures >= _MAX_FAILURES or not _may_pass(error, upload):
                    raise
                status = error.status if isinstance(error, RegistryError) else 0
                if status in _REFUSALS:
                    self._chunk = max(self._descriptor.size, 1)  # not in pieces, then
                    failures = max(failures, _MAX_FAILURES - 2)
                    upload = None
                    continue
                if status != 401:  # a token that expired meanwhile needs no pause
                    self._cancel.wait(_FIRST_PAUSE * 2 ** (failures - 1))
                upload = self._state(upload)

    # --- states ---

    def _mount(self) -> OpenUpload | None:
        """Try each repository that may have the blob; an upload if the registry opened one."""
        mounts = self._sink._mounts
        for repository in mounts(self._descriptor.digest) if mounts is not None else ():
            query = [("mount", str(self._descriptor.digest)), ("from", repository)]
            try:
                answer = self._send(
                    Request(
                        "POST",
                        protocol.upload_route(self._endpoint.repository, query),
                        (("Content-Length", "0"),),
                    ),
                    expect=(201, 202),
                    scopes=self._sink._scopes(repository),
                )
            except RegistryError as error:
                if error.kind is Kind.UNAVAILABLE:
                    raise
                continue  # no right to that repository: upload it
            answer.close()
            if answer.status == 201:
                self._sink.mounted[self._descriptor.digest] = repository
                self._report(self._descriptor.size)
                return None
            return self._remember(self._opened(answer, 0))
        return None

    def _remembered(self) -> OpenUpload | None:
        known = self._journal.get(self._name, self._descriptor.digest)
        return self._state(known)

    def _begin(self) -> OpenUpload:
        answer = self._send(
            Request(
                "POST",
                protocol.upload_route(self._endpoint.repository),
                (("Content-Length", "0"),),
            ),
            expect=(202,),
        )
        answer.close()
        minimum = answer.header("OCI-Chunk-Min-Length")
        if minimum.isascii() and minimum.isdigit():
            self._chunk = max(self._chunk, int(minimum))
        return self._remember(self._opened(answer, 0))

    def _advance(self, upload: OpenUpload) -> OpenUpload | None:
        """The upload after the next request; None when the registry has the blob."""
        left = self._descriptor.size - upload.offset
        if left <= SMALL:
            self._finish(upload, left)
            return None
        length = min(left, self._chunk)
        end = upload.offset + length
        headers = [_OCTETS]
        if length < self._descriptor.size:
            headers.append(("Content-Range", f"{upload.offset}-{end - 1}"))
        with self._bytes(upload.offset, length) as body:
            answer = self._send(
                Request("PATCH", upload.url, tuple(headers), body, length),  # type: ignore[arg-type]  # only read is used
                expect=(202, 204),
                attempts=1,
            )
        answer.close()
        reached = protocol.parse_upload_range(answer.header("Range"))
        opened = self._opened(answer, end if reached is None else reached)
        if opened.offset != end:
            raise RegistryError(
                f"{self._what}: the registry has {opened.offset} bytes instead of {end}",
                kind=Kind.UNAVAILABLE,
                status=416,
            )
        return self._remember(opened)

    def _finish(self, upload: OpenUpload, left: int) -> None:
        url = protocol.with_query(upload.url, [("digest", str(self._descriptor.digest))])
        with self._bytes(upload.offset, left) as body:
            request = Request(
                "PUT",
                url,
                (_OCTETS,),
                body if left else b"",  # type: ignore[arg-type]  # only read is used
                left,
            )
            self._send(request, expect=(201, 204), attempts=1).close()
        self._report(self._descriptor.size)

    def _remember(self, upload: OpenUpload) -> OpenUpload:
        if self._descriptor.size > SMALL:
            self._journal.put(self._name, self._descriptor.digest, upload)
        return upload

    def _state(self, upload: OpenUpload | None) -> OpenUpload | None:
        """How far the registry is; None (begin again) if it does not know the upload any more."""
        if upload is None:
            return None
        try:
            answer = self._send(Request("GET", upload.url), expect=(204, 200, 202))
        except RegistryError as error:
            if error.kind in {Kind.UNAVAILABLE, Kind.DENIED} and error.status != 403:
                raise
            self._journal.forget(self._name, self._descriptor.digest)
            return None
        answer.close()
        offset = protocol.parse_upload_range(answer.header("Range"))
        if offset is None or offset > self._descriptor.size:
            self._journal.forget(self._name, self._descriptor.digest)
            return None
        return self._opened(answer, offset, before=upload.url)

    # --- requests ---

    def _opened(self, answer: Response, offset: int, *, before: str = "") -> OpenUpload:
        location = answer.header("Location")
        if not location and not before:
            raise RegistryError(
                f"{self._what}: the registry did not say where to upload", kind=Kind.UNAVAILABLE
            )
        return OpenUpload(self._endpoint.address(location or before), offset)

    def _send(
        self,
        request: Request,
        *,
        expect: Sequence[int],
        scopes: Sequence[str] = (),
        attempts: int = 3,
    ) -> Response:
        return self._endpoint.send(
            request,
            scopes=scopes or self._sink._scopes(),
            what=self._what,
            expect=expect,
            attempts=attempts,
        )

    def _bytes(self, offset: int, length: int) -> _Window:
        return _Window(
            self._source.open(self._descriptor, offset=offset) if length else None,
            offset,
            length,
            report=self._report,
            cancel=self._cancel,
        )


class _Window:
    """`length` bytes of a stream; a context manager that closes it."""

    def __init__(
        self,
        stream: IO[bytes] | None,
        offset: int,
        length: int,
        *,
        report: Report,
        cancel: CancelToken,
    ) -> None:
        self._stream = stream
        self._at = offset
        self._left = length
        self._report = report
        self._cancel = cancel

    def read(self, size: int = -1, /) -> bytes:
        if not self._left or self._stream is None:
            return b""
        self._cancel.check()
        data = self._stream.read(self._left if size < 0 else min(size, self._left))
        if not data:
            raise LaminaError("the blob ended early", kind=Kind.INTEGRITY)
        self._left -= len(data)
        self._at += len(data)
        self._report(self._at)
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._stream is not None:
            self._stream.close()


def _may_pass(error: Unreachable | RegistryError, upload: OpenUpload | None) -> bool:
    """Whether going on, or beginning again, may help."""
    if isinstance(error, Unreachable):
        return error.transient or upload is not None
    if error.code in {"DIGEST_INVALID", "DENIED", "NAME_INVALID", "NAME_UNKNOWN"}:
        return False
    if error.status == 401:
        return upload is not None
    return error.status in protocol.RETRIED_STATUS or (
        upload is not None and (error.status == 416 or error.status in _REFUSALS)
    )
