# SPDX-License-Identifier: Apache-2.0
"""What the registry answers: routes and storage put together, with no socket in sight.

`Registry.answer` takes a request without its body and gives a response, or a step: `Blocking` to be done
in a thread, `Buffered` or `Streamed` to be fed the body. The HTTP edge (`rsgi`) does the steps; tests
can do them with bytes. Order of checks: the path's grammar, who asks and what they may, read-only
mode, then the method.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from lamina.errors import never
from lamina.server import manifests, routes
from lamina.server.answers import blob_headers, referrers_page, tags_page
from lamina.server.limits import PAGE, Limits
from lamina.server.ports import BlobFile
from lamina.server.rights import DELETE, PULL, PUSH
from lamina.server.wire import (
    API_VERSION,
    OCTETS,
    Blocking,
    Buffered,
    FileRegion,
    Refusal,
    Request,
    Response,
    Stream,
    Streamed,
    json_response,
    next_link,
    parse_content_range,
    parse_page,
    parse_range,
)
from lamina.spec.digest import HEX_LENGTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.server.ledger import Ledger
    from lamina.server.ports import Storage, StoredBlob, UploadSession
    from lamina.server.pullthrough import PullThrough
    from lamina.server.rights import Gate, Identity
    from lamina.server.wire import Answer
    from lamina.spec.digest import Digest

_MAX_TAGS = 100  # of one manifest in one request


class Registry:
    """The registry's answers. `notify` is called with each push and delete that was acknowledged."""

    def __init__(
        self,
        storage: Storage,
        gate: Gate,
        *,
        limits: Limits | None = None,
        read_only: bool = False,
        notify: Callable[[str, str, str, str], None] | None = None,
        ledger: Ledger | None = None,
        upstreams: PullThrough | None = None,
    ) -> None:
        self._storage = storage
        self._gate = gate
        self._limits = limits or Limits()
        self._read_only = read_only
        self._notify = notify or _nobody
        self._ledger = ledger
        self._upstreams = upstreams

    def answer(self, request: Request) -> Answer:
        """The response, or the first step towards it.

        Raises:
            Refusal: what the client did wrong.
            LaminaError: what the registry could not do.
        """
        try:
            found = routes.route(request.path)
            if self._upstreams is not None and "ns=" in request.query:
                found = self._upstreams.namespaced(found, request)
        except Refusal as error:
            if error.code == "TAG_INVALID" and request.method != "PUT":
                # what cannot be a tag is none that exists
                raise Refusal("MANIFEST_UNKNOWN", error.what) from error
            raise
        identity = self._gate.known(request)
        if identity is None or self._storage.remote:
            return Blocking(
                lambda: self._serve(request, found, identity or self._gate.identify(request))
            )
        return self._serve(request, found, identity)

    def _serve(self, request: Request, found: routes.Route, identity: Identity) -> Answer:
        method = request.method
        match found:
            case routes.ManifestAt():
                return self._manifest(request, found, identity)
            case routes.Blob():
                return self._blob(request, found, identity)
            case routes.Uploads():
                self._check(identity, found.repository, PUSH)
                if method == "POST":
                    self._check_writable()
                    return self._begin(request, found, identity)
                raise _not_allowed(method, "POST")
            case routes.Upload():
                self._check(identity, found.repository, PUSH)
                return self._upload(request, found, identity)
            case routes.Tags():
                self._check(identity, found.repository, PULL)
                if method in _READS:
                    return self._through(request, found, lambda: self._tags(request, found))
                raise _not_allowed(method, "GET, HEAD")
            case routes.Referrers():
                self._check(identity, found.repository, PULL)
                if method in _READS:
                    return self._through(request, found, lambda: self._referrers(request, found))
                raise _not_allowed(method, "GET, HEAD")
            case routes.Catalog():
                self._gate.check_known(identity)
                if method in _READS:
                    return self._catalog(request, identity)
                raise _not_allowed(method, "GET, HEAD")
            case routes.Base():
                self._gate.check_known(identity)
                if method in _READS:
                    return json_response({})
                raise _not_allowed(method, "GET, HEAD")
            case routes.Page():
                raise Refusal("UNSUPPORTED", "no such page", status=404)
            case _:
                return never(found)

    def _through(
        self, request: Request, found: routes.Route, local: Callable[[], Response]
    ) -> Answer:
        """The answer of a read: `local`, after what an upstream has was fetched."""
        if self._upstreams is None:
            return local()
        return self._upstreams.answer(request, found, local)

    # ---- manifests

    def _manifest(self, request: Request, at: routes.ManifestAt, identity: Identity) -> Answer:
        method = request.method
        if method in _READS:
            self._check(identity, at.repository, PULL)
            return self._through(request, at, lambda: self._get_manifest(request, at))
        if method == "PUT":
            self._check(identity, at.repository, PUSH)
            self._check_writable()
            return Buffered(
                self._limits.manifest,
                lambda raw: self._put_manifest(request, at, raw, user=identity.user),
            )
        if method == "DELETE":
            self._check(identity, at.repository, DELETE)
            self._check_writable()
            return Blocking(lambda: self._delete_manifest(at, user=identity.user))
        raise _not_allowed(method, "GET, HEAD, PUT, DELETE")

    def _get_manifest(self, request: Request, at: routes.ManifestAt) -> Response:
        digest = "" if at.digest is None else str(at.digest)
        found = self._storage.manifests.find(at.repository, tag=at.tag, digest=digest)
        if found is None:
            raise Refusal(
                "MANIFEST_UNKNOWN", "manifest unknown", detail={"reference": digest or at.tag}
            )
        headers = (
            ("content-type", found.media_type),
            ("docker-content-digest", found.digest),
            ("etag", f'"{found.digest}"'),
            API_VERSION,
            OCTETS,
        )
        if self._ledger is not None and request.method == "GET":
            self._ledger.pulled(at.repository, found.digest)
        if _matches(request.header("if-none-match"), found.digest):
            return Response(304, headers)
        return Response(200, headers, found.raw)

    def _put_manifest(
        self, request: Request, at: routes.ManifestAt, raw: bytes, *, user: str
    ) -> Response:
        manifest = manifests.parse(
            raw, content_type=request.header("content-type"), digest=at.digest
        )
        tags = (at.tag,) if at.tag else _tags_asked(request)
        if self._upstreams is not None:
            self._upstreams.complete(at.repository, manifest)
        self._storage.manifests.put(at.repository, manifest, tags=tags, user=user)
        digest = str(manifest.digest)
        for tag in tags or ("",):
            self._notify("push", at.repository, digest, tag)
        headers = [
            ("location", f"/v2/{at.repository}/manifests/{digest}"),
            ("docker-content-digest", digest),
            API_VERSION,
            OCTETS,
        ]
        if tags and not at.tag:
            headers.append(("oci-tag", ", ".join(tags)))
        if manifest.subject:
            headers.append(("oci-subject", manifest.subject))
        return Response(201, tuple(headers))

    def _delete_manifest(self, at: routes.ManifestAt, *, user: str) -> Response:
        if at.digest is None:
            removed = self._storage.manifests.untag(at.repository, at.tag, user=user)
        else:
            removed = self._storage.manifests.remove(at.repository, at.digest, user=user)
        if not removed:
            raise Refusal("MANIFEST_UNKNOWN", "manifest unknown")
        self._notify("delete", at.repository, str(at.digest or ""), at.tag)
        return Response(202, (API_VERSION,))

    # ---- blobs

    def _blob(self, request: Request, at: routes.Blob, identity: Identity) -> Answer:
        method = request.method
        if method in _READS:
            self._check(identity, at.repository, PULL)
            return self._through(request, at, lambda: self._get_blob(request, at))
        if method == "DELETE":
            self._check(identity, at.repository, DELETE)
            self._check_writable()
            return Blocking(lambda: self._delete_blob(at))
        raise _not_allowed(method, "GET, HEAD, DELETE")

    def _get_blob(self, request: Request, at: routes.Blob) -> Response:
        digest = str(at.digest)
        headers = blob_headers(digest)
        # only HEAD asks whether a push can leave the blob out
        found = self._storage.blobs.find(at.repository, at.digest, keep=request.method == "HEAD")
        if found is None:
            # containerd fetches manifests of an index as blobs too
            manifest = self._storage.manifests.find(at.repository, digest=digest)
            if manifest is None:
                raise Refusal("BLOB_UNKNOWN", "blob unknown", detail={"digest": digest})
            return Response(200, headers, manifest.raw)
        if _matches(request.header("if-none-match"), digest):
            return Response(304, headers)
        return _blob_response(request, found, headers)

    def _delete_blob(self, at: routes.Blob) -> Response:
        if not self._storage.blobs.remove(at.repository, at.digest):
            raise Refusal("BLOB_UNKNOWN", "blob unknown", detail={"digest": str(at.digest)})
        return Response(202, (API_VERSION,))

    # ---- uploads

    def _begin(self, request: Request, at: routes.Uploads, identity: Identity) -> Answer:
        parameters = request.parameters()
        if "mount" in parameters:
            digest = routes.parse_digest(parameters["mount"])
            source = parameters.get("from", "")
            return Blocking(lambda: self._mount(at, digest, source=source, identity=identity))
        if "digest" in parameters:
            digest = routes.parse_digest(parameters["digest"])
            length = _length(request)
            self._check_size(length)
            self._check_room(at.repository, length, digest=digest)
            session = self._storage.uploads.start(
                at.repository, user=identity.user, algorithm=digest.algorithm
            )
            return self._streamed(
                session,
                at.repository,
                length=length,
                last=lambda: self._commit(session, at.repository, digest),
                keep=False,
            )
        algorithm = parameters.get("digest-algorithm", "sha256")
        if algorithm not in HEX_LENGTH:
            raise Refusal("DIGEST_INVALID", f"unknown digest algorithm {algorithm[:50]!r}")
        return Blocking(lambda: self._start(at.repository, identity, algorithm=algorithm))

    def _start(self, repository: str, identity: Identity, *, algorithm: str) -> Response:
        session = self._storage.uploads.start(repository, user=identity.user, algorithm=algorithm)
        session.release()
        return _progress(repository, session.id, 0, status=202)

    def _mount(
        self, at: routes.Uploads, digest: Digest, *, source: str, identity: Identity
    ) -> Response:
        """201 if the client may read the blob in `source`; else an upload begins.

        Without a source any repository that the client may read will do (§Mounting a blob).
        """
        sources = [routes.check_name(source)] if source else self._storage.blobs.holders(digest)
        for name in sources:
            if self._gate.allows(identity, name, PULL) and self._storage.blobs.mount(
                digest, source=name, target=at.repository
            ):
                return _blob_created(at.repository, digest)
        return self._start(at.repository, identity, algorithm=digest.algorithm)

    def _upload(self, request: Request, at: routes.Upload, identity: Identity) -> Answer:
        method = request.method
        uploads = self._storage.uploads
        if method in _READS:
            offset = uploads.offset(at.repository, at.id, user=identity.user)
            return _progress(at.repository, at.id, offset, status=204)
        self._check_writable()
        if method == "DELETE":
            uploads.open(at.repository, at.id, user=identity.user).cancel()
            return Response(204, (API_VERSION,))
        if method == "PATCH":
            return self._append(request, at, identity, digest=None)
        if method == "PUT":
            text = request.parameters().get("digest")
            if text is None:
                raise Refusal("DIGEST_INVALID", "the digest parameter is missing")
            return self._append(request, at, identity, digest=routes.parse_digest(text))
        raise _not_allowed(method, "GET, HEAD, PATCH, PUT, DELETE")

    def _append(
        self, request: Request, at: routes.Upload, identity: Identity, *, digest: Digest | None
    ) -> Answer:
        session = self._storage.uploads.open(at.repository, at.id, user=identity.user)
        try:
            length = _length(request)
            given = request.header("content-range")
            if given:
                first, last = parse_content_range(given)
                if length is not None and length != last - first + 1:
                    raise Refusal(
                        "SIZE_INVALID", f"Content-Range {given!r}, but {length} bytes follow"
                    )
                length = last - first + 1
                if first != session.offset:
                    raise Refusal(
                        "RANGE_INVALID",
                        f"the upload continues at {session.offset}, not at {first}",
                        headers=_progress_headers(at.repository, at.id, session.offset),
                    )
            self._check_size(session.offset + (length or 0))
            self._check_room(at.repository, session.offset + (length or 0), digest=digest)
        except BaseException:
            session.release()
            raise

        def answer() -> Response:
            if digest is None:
                return _progress(at.repository, at.id, session.offset, status=202)
            return self._commit(session, at.repository, digest)

        return self._streamed(
            session,
            at.repository,
            length=length,
            last=answer,
        )

    def _streamed(
        self,
        session: UploadSession,
        repository: str,
        *,
        length: int | None,
        last: Callable[[], Response],
        keep: bool = True,
    ) -> Streamed:
        """The body into the session, then `last`.

        A body that is longer than it said is taken back; one that ends early stays, and the client
        can go on from there (unless nothing would know the session: `keep`).
        """
        start = session.offset
        done = False

        def write(data: bytes) -> None:
            if length is not None and session.offset + len(data) > start + length:
                session.cut(start)
                raise Refusal("SIZE_INVALID", f"more than {length} bytes follow")
            self._check_size(session.offset + len(data))
            session.write(data)

        def finish(complete: bool) -> Response:  # noqa: FBT001  # the step's signature
            nonlocal done
            if not complete or (length is not None and session.offset != start + length):
                raise Refusal("SIZE_INVALID", "the body ended early")
            response = last()
            done = True
            return response

        def close() -> None:
            if not done and not keep:
                session.cancel()
            session.release()

        return Streamed(write, finish, close)

    def _commit(self, session: UploadSession, repository: str, digest: Digest) -> Response:
        session.commit(digest)
        return _blob_created(repository, digest)

    # ---- listings

    def _tags(self, request: Request, at: routes.Tags) -> Response:
        n, last = parse_page(request.parameters(), limit=self._limits.page)
        found = self._storage.manifests.tags(at.repository, n=n + 1, last=last)
        if found is None:
            raise Refusal("NAME_UNKNOWN", "repository unknown", detail={"name": at.repository})
        return tags_page(at.repository, found, n=n)

    def _referrers(self, request: Request, at: routes.Referrers) -> Response:
        parameters = request.parameters()
        n, last = parse_page(parameters, limit=self._limits.page)
        wanted = parameters.get("artifactType", "")
        found = self._storage.manifests.referrers(
            at.repository, at.digest, n=n + 1, last=last, artifact_type=wanted
        )
        return referrers_page(at, found, n=n, artifact_type=wanted)

    def _catalog(self, request: Request, identity: Identity) -> Response:
        n, last = parse_page(request.parameters(), limit=self._limits.page)
        page: list[str] = []
        more = n > 0
        while more and len(page) <= n:
            names = self._storage.manifests.repositories(n=PAGE, last=last)
            page += [name for name in names if self._gate.allows(identity, name, PULL)]
            more = len(names) == PAGE
            last = names[-1] if names else last
        headers: tuple[tuple[str, str], ...] = ()
        if len(page) > n > 0:
            headers = (next_link("/v2/_catalog", n=n, last=page[n - 1]),)
        return json_response({"repositories": page[:n]}, headers=headers)

    # ---- checks

    def _check(self, identity: Identity, repository: str, action: str) -> None:
        if not self._gate.allows(identity, repository, action):
            raise self._gate.refusal(identity, repository, action)

    def _check_writable(self) -> None:
        if self._read_only:
            raise Refusal("UNSUPPORTED", "the registry is read-only")

    def _check_size(self, size: int | None) -> None:
        if self._limits.blob and size is not None and size > self._limits.blob:
            raise Refusal(
                "SIZE_INVALID",
                f"blobs of more than {self._limits.blob} bytes are not taken",
                status=413,
            )

    def _check_room(self, repository: str, size: int | None, *, digest: Digest | None) -> None:
        if self._ledger is not None and size:
            self._ledger.check_room(repository, size, digest=digest)


_READS = ("GET", "HEAD")


def _blob_response(
    request: Request, blob: StoredBlob, headers: tuple[tuple[str, str], ...]
) -> Response:
    if not isinstance(blob, BlobFile) and blob.address is not None and request.method == "GET":
        # what is signed expires, and the client repeats its Range there (RFC 9110 §15.4.8)
        kept = tuple(header for header in headers if header[0] not in {"cache-control", "etag"})
        return Response(307, (*kept, ("cache-control", "no-store"), ("location", blob.address())))
    asked = request.header("range")
    if asked and request.method == "GET":
        region = parse_range(asked, size=blob.size)
        if region is not None:
            offset, length = region
            span = ("content-range", f"bytes {offset}-{offset + length - 1}/{blob.size}")
            return Response(206, (*headers, span), _region(blob, offset, length, whole=False))
    return Response(200, headers, _region(blob, 0, blob.size, whole=True))


def _region(blob: StoredBlob, offset: int, length: int, *, whole: bool) -> FileRegion | Stream:
    if isinstance(blob, BlobFile):
        return FileRegion(blob.path, offset, length, whole=whole)
    return Stream(lambda: blob.read(offset, length), length)


def _blob_created(repository: str, digest: Digest) -> Response:
    return Response(
        201,
        (
            ("location", f"/v2/{repository}/blobs/{digest}"),
            ("docker-content-digest", str(digest)),
            API_VERSION,
            OCTETS,
        ),
    )


def _progress(repository: str, id: str, offset: int, *, status: int) -> Response:
    return Response(status, (*_progress_headers(repository, id, offset), API_VERSION))


def _progress_headers(repository: str, id: str, offset: int) -> tuple[tuple[str, str], ...]:
    return (
        ("location", f"/v2/{repository}/blobs/uploads/{id}"),
        ("range", f"0-{max(offset - 1, 0)}"),
        ("docker-upload-uuid", id),
    )


def _length(request: Request) -> int | None:
    text = request.header("content-length")
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise Refusal("SIZE_INVALID", f"invalid Content-Length {text[:50]!r}")
    return int(text)


def _tags_asked(request: Request) -> tuple[str, ...]:
    """The `tag` parameters of a manifest that is pushed by digest (a draft of the specification).

    Raises:
        Refusal: TAG_INVALID, or UNSUPPORTED for more than a client can mean.
    """
    if "tag=" not in request.query:
        return ()
    try:
        pairs = parse_qsl(request.query, max_num_fields=_MAX_TAGS, errors="strict")
    except ValueError as error:
        raise Refusal("UNSUPPORTED", "invalid query string", status=400) from error
    return tuple(routes.check_tag(value) for name, value in pairs if name == "tag")


def _matches(given: str, digest: str) -> bool:
    """Whether an If-None-Match header names the digest (RFC 9110 §13.1.2)."""
    if not given:
        return False
    tags = {part.strip().removeprefix("W/").strip('"') for part in given.split(",")}
    return digest in tags or "*" in tags


def _not_allowed(method: str, allowed: str) -> Refusal:
    return Refusal(
        "UNSUPPORTED", f"{method[:20]} is not possible here", headers=(("allow", allowed),)
    )


def _nobody(event: str, repository: str, digest: str, tag: str) -> None:
    """Nobody asked to be told."""
