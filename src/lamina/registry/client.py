# SPDX-License-Identifier: Apache-2.0
"""A repository in a registry as Source: resolve, read, list, delete. Pushing is in `upload`.

Mirrors are tried first, in order; what one does not have or cannot give is asked of the next.
"""

from __future__ import annotations

import io
import json

from lamina.errors import Kind, LaminaError
from lamina.registry import protocol
from lamina.registry.endpoints import Endpoint, Hosts
from lamina.registry.protocol import RegistryError
from lamina.registry.transport import Request, Unreachable
from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import Digest
from lamina.spec.document import MAX_DOCUMENT, parse_object
from lamina.spec.manifest import Index
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, Self, TypeVar

    from lamina.registry.auth import Credentials
    from lamina.registry.registriesconf import RegistriesConf
    from lamina.registry.transport import Response
    from lamina.spec.reference import Reference
    from lamina.tasks import CancelToken

    T = TypeVar("T")

_MAX_PAGES = 1000  # of a list; more is a loop
_MAX_PAGE = 4 * 1024 * 1024  # bytes of one page of tags
_READ = 1024 * 1024
_TRY_NEXT = frozenset({Kind.NOT_FOUND, Kind.UNAVAILABLE, Kind.DENIED, Kind.INTEGRITY})
PULL = "pull"
PUSH = "pull,push"
DELETE = "delete"


class Registries:
    """The way into every registry: credentials, mirrors, connections. Close it at the end."""

    def __init__(
        self,
        hosts: Hosts,
        conf: RegistriesConf,
        *,
        find_credentials: Callable[[str, str], Credentials],
        cancel: CancelToken,
    ) -> None:
        self.hosts = hosts
        self.conf = conf
        self._find_credentials = find_credentials
        self.cancel = cancel
        cancel.on_cancel(hosts.cut)

    def repository(self, reference: Reference, *, for_push: bool = False) -> Repository:
        """The repository that the reference names.

        Raises:
            LaminaError: DENIED if registries.conf blocks it.
        """
        places = self.conf.places(
            reference.name, by_digest=reference.digest is not None, mirrors=not for_push
        )
        endpoints = []
        for place in places:
            host, _, path = place.location.partition("/")
            endpoints.append(
                self.endpoint(host, path, insecure=place.insecure, mirror=place.is_mirror)
            )
        return Repository(tuple(endpoints), reference.familiar_name())

    def endpoint(
        self,
        host: str,
        path: str,
        *,
        insecure: bool = False,
        mirror: bool = False,
        given: Credentials | None = None,
    ) -> Endpoint:
        """One host and the repository `path` there; `given` credentials replace the stored ones."""
        return Endpoint(
            self.hosts,
            host,
            path,
            insecure=insecure,
            is_mirror=mirror,
            credentials=lambda: given if given is not None else self._find_credentials(host, path),
            cancel=self.cancel,
        )

    def close(self) -> None:
        """Close every connection. Idempotent."""
        self.cancel.forget(self.hosts.cut)
        self.hosts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Resolved(Record):
    """What a tag or digest means: the document and its descriptor."""

    descriptor: Descriptor
    raw: bytes


class Repository:
    """A repository as Source (ports.Source). Any thread may call it."""

    def __init__(self, endpoints: tuple[Endpoint, ...], name: str) -> None:
        self.name = name
        self._endpoints = endpoints
        self._preferred = endpoints[0]
        self._documents: dict[Digest, Resolved] = {}

    @property
    def own(self) -> Endpoint:
        """The registry itself, not a mirror."""
        return self._endpoints[-1]

    # --- reading ---

    def head(self, reference: str) -> Descriptor | None:
        """What the tag points to, cheaply; None if the registry does not say it in headers."""

        def ask(endpoint: Endpoint) -> Descriptor | None:
            answer = self._get_manifest(endpoint, reference, method="HEAD")
            answer.close()
            return _descriptor_in_headers(answer)

        return self._first(ask)

    def resolve(self, reference: str) -> Resolved:
        """The document behind a tag or digest, verified if it is a digest.

        Raises:
            RegistryError: NOT_FOUND, DENIED, UNAVAILABLE...; UNSUPPORTED for a schema 1 manifest.
            LaminaError: kind INTEGRITY or INVALID for a bad document.
        """
        expected = Digest.parse(reference) if ":" in reference else None

        def ask(endpoint: Endpoint) -> Resolved:
            answer = self._get_manifest(endpoint, reference)
            raw = _read_limited(answer, MAX_DOCUMENT, f"manifest {self.name}:{reference}")
            media_type = manifest_type(raw, answer.header("Content-Type"), name=self.name)
            algorithm = expected.algorithm if expected is not None else "sha256"
            digest = Digest.of(raw, algorithm=algorithm)
            if expected is not None and digest != expected:
                raise LaminaError(
                    f"{endpoint.host} sent a manifest {digest} for {self.name}@{expected}",
                    kind=Kind.INTEGRITY,
                )
            return Resolved(Descriptor(media_type, digest, len(raw)), raw)

        found = self._first(ask)
        self._documents[found.descriptor.digest] = found
        return found

    def document(self, descriptor: Descriptor) -> bytes:
        found = self._documents.get(descriptor.digest) or self.resolve(str(descriptor.digest))
        if found.descriptor.size != descriptor.size:
            raise LaminaError(
                f"manifest {descriptor.digest} has {found.descriptor.size} bytes instead of "
                f"{descriptor.size}",
                kind=Kind.INTEGRITY,
            )
        return found.raw

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> IO[bytes]:
        if offset >= descriptor.size:
            return io.BytesIO()
        return self._first(lambda endpoint: self._open(endpoint, descriptor, offset))

    def _open(self, endpoint: Endpoint, descriptor: Descriptor, offset: int) -> IO[bytes]:
        headers = (("Range", f"bytes={offset}-"),) if offset else ()
        answer = endpoint.send(
            Request("GET", protocol.blob_route(endpoint.repository, descriptor.digest), headers),
            scopes=(protocol.scope(endpoint.repository, PULL),),
            what=f"blob {descriptor.digest.short()} of {self.name}",
            expect=(200, 206),
        )
        try:
            start = 0
            if answer.status == 206:
                found = protocol.parse_content_range(answer.header("Content-Range"))
                if found is None or found[0] > offset:
                    raise RegistryError(
                        f"{endpoint.host} sent another part of blob {descriptor.digest} than asked",
                        kind=Kind.UNAVAILABLE,
                    )
                start = found[0]
            _discard(answer, offset - start)
        except BaseException:
            answer.close()
            raise
        return _Body(answer)  # type: ignore[return-value]  # only read and close are used

    def exists(self, descriptor: Descriptor) -> bool:
        return has(self.own, descriptor)

    def tags(self) -> list[str]:
        """Every tag, sorted as the registry sorts them."""
        endpoint = self.own
        found: list[str] = []
        for body in self._pages(endpoint, protocol.tags_route(endpoint.repository), "tags"):
            tags = body.get("tags") or []
            if isinstance(tags, list):
                found += [tag for tag in tags if isinstance(tag, str)]
        return found

    def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Manifests whose subject is `digest`, by the API or the tag that stands in for it."""
        endpoint = self.own
        route = protocol.referrers_route(endpoint.repository, digest, artifact_type)
        found: list[Descriptor] = []
        try:
            for body in self._pages(endpoint, route, "referrers"):
                raw = json.dumps(body).encode()
                found += Index.parse(raw, media_type=mediatype.OCI_INDEX).manifests
        except RegistryError as error:
            if error.status not in {400, 404, 405}:
                raise
            found = list(self.tagged_referrers(digest))
        return tuple(
            entry for entry in found if not artifact_type or entry.artifact_type == artifact_type
        )

    def tagged_referrers(self, digest: Digest) -> tuple[Descriptor, ...]:
        """Those in the tag that stands in for the API; none if it is not there."""
        try:
            found = self.resolve(protocol.referrers_tag(digest))
        except RegistryError as error:
            if error.kind is Kind.NOT_FOUND:
                return ()
            raise
        return Index.parse(found.raw, media_type=found.descriptor.media_type).manifests

    def delete(self, reference: str) -> None:
        """Delete a tag or a manifest by digest.

        Raises:
            RegistryError: NOT_FOUND, DENIED; UNSUPPORTED if the registry does not delete.
        """
        endpoint = self.own
        endpoint.send(
            Request("DELETE", protocol.manifest_route(endpoint.repository, reference)),
            scopes=(protocol.scope(endpoint.repository, DELETE),),
            what=f"deleting {self.name}:{reference}",
            expect=(200, 202, 204),
        ).close()

    # --- inside ---

    def _get_manifest(self, endpoint: Endpoint, reference: str, *, method: str = "GET") -> Response:
        headers = (("Accept", ", ".join(protocol.MANIFEST_TYPES)),)
        shown = f"@{reference}" if ":" in reference else f":{reference}"
        return endpoint.send(
            Request(method, protocol.manifest_route(endpoint.repository, reference), headers),
            scopes=(protocol.scope(endpoint.repository, PULL),),
            what=f"{self.name}{shown}",
            expect=(200,),
        )

    def _pages(self, endpoint: Endpoint, route: str, what: str) -> Iterator[dict[str, object]]:
        seen: set[str] = set()
        while route and route not in seen and len(seen) < _MAX_PAGES:
            seen.add(route)
            answer = endpoint.send(
                Request("GET", route, (("Accept", "*/*"),)),
                scopes=(protocol.scope(endpoint.repository, PULL),),
                what=f"{what} of {self.name}",
                expect=(200,),
            )
            raw = _read_limited(answer, _MAX_PAGE, f"{what} of {self.name}")
            yield parse_object(raw, what=what, limit=_MAX_PAGE)
            link = protocol.next_link(answer.header("Link"))
            route = endpoint.address(link) if link else ""

    def _first(self, ask: Callable[[Endpoint], T]) -> T:
        """The answer of the first endpoint that has one, the one that had the last first."""
        ordered = [self._preferred, *(e for e in self._endpoints if e is not self._preferred)]
        for endpoint in ordered:
            try:
                found = ask(endpoint)
            except LaminaError as error:
                if endpoint is ordered[-1] or error.kind not in _TRY_NEXT:
                    raise
                continue
            self._preferred = endpoint
            return found
        raise AssertionError("unreachable: the last endpoint returns or raises")


def has(endpoint: Endpoint, descriptor: Descriptor) -> bool:
    """Whether the registry has this blob or manifest in this repository."""
    is_document = (
        descriptor.media_type in mediatype.MANIFESTS or descriptor.media_type in mediatype.INDEXES
    )
    if is_document:
        route = protocol.manifest_route(endpoint.repository, str(descriptor.digest))
    else:
        route = protocol.blob_route(endpoint.repository, descriptor.digest)
    headers = (("Accept", ", ".join(protocol.MANIFEST_TYPES)),) if is_document else ()
    answer = endpoint.send(
        Request("HEAD", route, headers),
        scopes=(protocol.scope(endpoint.repository, PUSH),),
        what=f"blob {descriptor.digest.short()} of {endpoint.repository}",
        expect=(200, 404),
    )
    answer.close()
    return answer.status == 200


class _Body:
    """A blob's body as a file object."""

    def __init__(self, answer: Response) -> None:
        self._answer = answer

    def read(self, size: int = -1, /) -> bytes:
        return self._answer.read1(size if size >= 0 else _READ)

    def close(self) -> None:
        self._answer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _discard(answer: Response, count: int) -> None:
    """Read past bytes that are here already: the registry does not do ranges."""
    while count > 0:
        data = answer.read(min(count, _READ))
        if not data:
            raise Unreachable("the blob ended early", transient=True)
        count -= len(data)


def _read_limited(answer: Response, limit: int, what: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        while data := answer.read(min(_READ, limit + 1 - size)):
            parts.append(data)
            size += len(data)
            if size > limit:
                raise LaminaError(f"{what}: larger than {limit} bytes", kind=Kind.INVALID)
    finally:
        answer.close()
    return b"".join(parts)


def manifest_type(raw: bytes, content_type: str, *, name: str = "manifest") -> str:
    """The media type of a document: what it says of itself, else the header, else its shape.

    Raises:
        RegistryError: kind UNSUPPORTED for schema 1 and for what is neither manifest nor index.
    """
    document = parse_object(raw, what=f"manifest of {name}")
    header = content_type.partition(";")[0].strip().lower()
    inside = document.get("mediaType", "")
    known = mediatype.MANIFESTS | mediatype.INDEXES
    if document.get("schemaVersion") == 1 or header in protocol.SCHEMA_1 - {"application/json"}:
        raise RegistryError(
            f"{name}: the image is in Docker's schema 1 format, which registries gave up in 2023",
            kind=Kind.UNSUPPORTED,
            hint="push it again with a current tool",
        )
    if isinstance(inside, str) and inside in known:
        return inside
    if header in known:
        return header
    if inside or header not in {"", "application/json", "application/octet-stream", "text/plain"}:
        raise RegistryError(
            f"{name}: unknown kind of manifest: {str(inside) or header}", kind=Kind.UNSUPPORTED
        )
    return mediatype.OCI_INDEX if "manifests" in document else mediatype.OCI_MANIFEST


def _descriptor_in_headers(answer: Response) -> Descriptor | None:
    media_type = answer.header("Content-Type").partition(";")[0].strip()
    size = answer.header("Content-Length")
    try:
        digest = Digest.parse(answer.header("Docker-Content-Digest"))
    except LaminaError:
        return None
    if not (size.isascii() and size.isdigit()):
        return None
    return Descriptor(media_type, digest, int(size))
