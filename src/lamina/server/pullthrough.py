# SPDX-License-Identifier: Apache-2.0
"""The pull-through cache: what a repository behind a prefix lacks is fetched from its upstream.

A read is answered from the storage if that is enough; otherwise it waits (`wire.Later`) until what
it needs was fetched, and is then answered from the storage. A blob is sent while it is fetched
(`flights`). Requests for the same thing share one question to the upstream. The rights of the
client were checked before anything here is called.

Tags that were pushed here win: their upstream is not asked. Others are asked for again after the
proxy's `tag-ttl`. What has a digest is never asked for again. ADR 92.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from lamina.errors import Kind, LaminaError
from lamina.registry.protocol import RegistryError
from lamina.server import manifests, routes
from lamina.server.answers import blob_headers, referrers_page, tags_page
from lamina.server.flights import Crew, Flight
from lamina.server.ports import Referrer
from lamina.server.wire import (
    RETRY,
    Feed,
    FileRegion,
    Later,
    Refusal,
    Response,
    parse_page,
    parse_range,
)
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from typing import Any

    from lamina.registry.client import Resolved
    from lamina.registry.transport import Response as UpstreamResponse
    from lamina.server.ledger import CachedTags
    from lamina.server.metrics import Metrics
    from lamina.server.ports import NewManifest, ReadableUploads, Storage, UploadSession
    from lamina.server.upstream import Upstream
    from lamina.server.wire import Answer, Request
    from lamina.spec.descriptor import Descriptor
    from lamina.spec.digest import Digest

_log = logging.getLogger(__name__)
_QUESTIONS = 16  # to upstreams at once
_DOWNLOADS = 32  # of blobs at once; more wait
_LISTS = 256  # lists of tags that are remembered
_READ = 128 << 10  # bytes; a client hears nothing until as many have come
_MAX_REFERRERS = 10_000  # of one subject that are merged
# RFC 7234 §5.5.2: "revalidation failed"; obsolete since RFC 9111, but what people look for
_STALE = ("warning", '111 lamina "Revalidation Failed"')
_RETRY = (("retry-after", "60"),)


class PullThrough:
    """The caches of a configuration. `handlers` asks it about every read. Close it at the end."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        storage: Storage,
        cached: CachedTags,
        readable: ReadableUploads | None,
        *,
        clock: Callable[[], float],
        metrics: Metrics,
        check_room: Callable[[str, int], None],
        page: int,
    ) -> None:
        self._upstreams = sorted(upstreams, key=lambda each: -len(each.proxy.prefix))
        self._storage = storage
        self._cached = cached
        self._readable = readable
        self._clock = clock
        self._metrics = metrics
        self._check_room = check_room
        self._page = page
        self._questions = Crew(_QUESTIONS, name="upstream")
        self._downloads = Crew(_DOWNLOADS, name="download")
        self._closing = False
        self._guard = threading.Lock()
        self._open: dict[Hashable, Future[Any]] = {}
        self._lists: OrderedDict[str, tuple[float, list[str]]] = OrderedDict()

    def namespaced(self, found: routes.Route, request: Request) -> routes.Route:
        """The route that containerd means with `?ns=docker.io`: below that upstream's prefix."""
        if request.method not in {"GET", "HEAD"}:
            return found
        namespace = request.parameters().get("ns", "")
        for upstream in self._upstreams:
            if upstream.namespace == namespace and isinstance(
                found, routes.ManifestAt | routes.Blob | routes.Referrers | routes.Tags
            ):
                if found.repository.startswith(upstream.proxy.prefix) and upstream.proxy.prefix:
                    return found
                name = routes.check_name(upstream.proxy.prefix + found.repository)
                return replace(found, repository=name)
        return found

    def answer(
        self, request: Request, found: routes.Route, local: Callable[[], Response]
    ) -> Answer:
        """The answer to a read; `local` gives it from the storage alone."""
        match found:
            case routes.ManifestAt():
                return self._manifest(found, local)
            case routes.Blob():
                return self._blob(request, found, local)
            case routes.Tags():
                return self._tags(request, found, local)
            case routes.Referrers():
                return self._referrers(request, found, local)
        return local()

    def complete(self, repository: str, manifest: NewManifest) -> None:
        """Fetch what a manifest that is pushed needs: its client was told that it exists here.

        Blocks. What cannot be had is left out; the storage says so.
        """
        place = self._place(repository)
        if place is None:
            return
        upstream, path = place
        with suppress(LaminaError):
            for digest in manifest.manifests:
                if self._storage.manifests.find(repository, digest=str(digest)) is None:
                    self._fetch_manifest(upstream, path, repository, digest)
            for digest in manifest.blobs:
                if self._storage.blobs.find(repository, digest) is None:
                    flight = self._fly(upstream, path, routes.Blob(repository, digest)).result()
                    if flight is not None:
                        flight.wait()

    def close(self) -> None:
        """Nothing more is fetched: what is under way ends with its next piece, or the process."""
        self._closing = True

    # ---- manifests

    def _manifest(self, at: routes.ManifestAt, local: Callable[[], Response]) -> Answer:
        place = self._place(at.repository)
        if place is None:
            return local()
        upstream, path = place
        if at.digest is not None:
            if self._storage.manifests.find(at.repository, digest=str(at.digest)) is not None:
                return self._hit(local)
            digest = at.digest
            return Later(
                self._once(
                    ("manifest", at.repository, str(digest)),
                    lambda: self._fetch_manifest(upstream, path, at.repository, digest),
                ),
                lambda _: local(),
            )
        if self._is_known(upstream, at):
            return self._hit(local)
        return Later(
            self._once(("tag", at.repository, at.tag), lambda: self._fetch_tag(upstream, path, at)),
            lambda stale: _warned(local()) if stale else local(),
        )

    def _is_known(self, upstream: Upstream, at: routes.ManifestAt) -> bool:
        """Whether the tag was pushed here, or was asked for not long ago."""
        known = self._cached.tag(at.repository, at.tag)
        return known is not None and (
            known.checked is None or self._clock() - known.checked < upstream.proxy.tag_ttl
        )

    def _fetch_manifest(
        self, upstream: Upstream, path: str, repository: str, digest: Digest
    ) -> None:
        self._count("misses", "Reads that an upstream was asked for.")
        try:
            resolved = upstream.resolve(path, str(digest))
        except LaminaError as error:
            raise self._refusal(error, "MANIFEST_UNKNOWN") from error
        self._cached.put(repository, _parsed(resolved, digest))

    def _fetch_tag(self, upstream: Upstream, path: str, at: routes.ManifestAt) -> bool:
        """Bring the tag up to date; True if that was not possible and an old one will do."""
        if self._is_known(upstream, at):  # another flight has just landed
            return False
        self._count("misses", "Reads that an upstream was asked for.")
        known = self._cached.tag(at.repository, at.tag)
        try:
            if known is not None:
                current = upstream.head(path, at.tag)
                if current is not None and str(current.digest) == known.digest:
                    self._cached.confirm(at.repository, at.tag, known.digest)
                    return False
            resolved = upstream.resolve(path, at.tag)
        except LaminaError as error:
            if known is not None and self._may_serve_stale(upstream, error):
                _log.warning("%s:%s is served as it was: %s", at.repository, at.tag, error)
                self._count("stale", "Reads answered from the cache while the upstream failed.")
                return True
            if known is not None and error.kind is Kind.NOT_FOUND:
                self._cached.forget(at.repository, at.tag)
            raise self._refusal(error, "MANIFEST_UNKNOWN") from error
        self._cached.put(at.repository, _parsed(resolved, None), tag=at.tag)
        return False

    # ---- blobs

    def _blob(self, request: Request, at: routes.Blob, local: Callable[[], Response]) -> Answer:
        place = self._place(at.repository)
        if place is None:
            return local()
        digest = str(at.digest)
        if (
            self._storage.blobs.find(at.repository, at.digest) is not None
            or self._storage.manifests.find(at.repository, digest=digest) is not None
        ):
            return self._hit(local)
        upstream, path = place
        headers = blob_headers(digest)
        if request.method == "HEAD":
            return Later(
                self._once(
                    ("size", at.repository, digest),
                    lambda: self._size(upstream, path, at),
                ),
                lambda size: Response(200, headers, FileRegion("", 0, size)),
            )
        flight = self._fly(upstream, path, at)
        return Later(
            flight, lambda found: local() if found is None else _fed(request, found, headers)
        )

    def _size(self, upstream: Upstream, path: str, at: routes.Blob) -> int:
        """How large the upstream says the blob is. Raises Refusal."""
        try:
            answer, size = upstream.blob(path, at.digest, method="HEAD")
        except LaminaError as error:
            raise self._refusal(error, "BLOB_UNKNOWN") from error
        answer.close()
        if size < 0:
            raise _unavailable("the upstream does not say how large the blob is")
        return size

    def _fly(self, upstream: Upstream, path: str, at: routes.Blob) -> Future[Flight | None]:
        """The blob's flight, begun if there is none: done as soon as its size is known.

        Its result is None if the blob is in the storage.
        """
        key = ("blob", at.repository, str(at.digest))
        with self._guard:
            found = self._open.get(key)
            if found is None:
                found = self._open[key] = Future()
                self._downloads.submit(partial(self._download, upstream, path, at, found, key))
            return found

    def _download(
        self,
        upstream: Upstream,
        path: str,
        at: routes.Blob,
        landed: Future[Flight | None],
        key: Hashable,
    ) -> None:
        try:
            if self._storage.blobs.find(at.repository, at.digest) is None:
                self._count("misses", "Reads that an upstream was asked for.")
                if not self._borrow(upstream, path, at):
                    self._fetch_blob(upstream, path, at, landed)
            with self._guard:
                self._open.pop(key, None)
            if not landed.done():
                landed.set_result(None)
        except Exception as error:  # noqa: BLE001  # the thread's edge: its readers are told
            with self._guard:
                self._open.pop(key, None)
            refusal = self._refusal(error, "BLOB_UNKNOWN")
            if not landed.done():
                landed.set_exception(refusal)
            else:
                _log.warning("blob %s of %s was not cached: %s", at.digest, at.repository, error)
                flight = landed.result()
                if flight is not None:
                    flight.fail(refusal)

    def _borrow(self, upstream: Upstream, path: str, at: routes.Blob) -> bool:
        """Whether another repository has the blob, and the upstream says that this one does too."""
        holders = self._storage.blobs.holders(at.digest)
        if not holders:
            return False
        answer, _ = upstream.blob(path, at.digest, method="HEAD")
        answer.close()
        return any(
            self._storage.blobs.mount(at.digest, source=holder, target=at.repository)
            for holder in holders
        )

    def _fetch_blob(
        self, upstream: Upstream, path: str, at: routes.Blob, landed: Future[Flight | None]
    ) -> None:
        answer, size = upstream.blob(path, at.digest)
        try:
            if size > 0:
                self._check_room(at.repository, size)
            flight: Flight | None = None
            session: UploadSession
            # clients of a driver whose uploads cannot be read back wait for the whole
            if self._readable is not None and size >= 0:
                session = readable = self._readable.start(
                    at.repository, user="", algorithm=at.digest.algorithm
                )
            else:
                readable = None
                session = self._storage.uploads.start(
                    at.repository, user="", algorithm=at.digest.algorithm
                )
            try:
                if readable is not None:
                    flight = Flight(readable.reader(), size)
                    landed.set_result(flight)
                self._receive(answer, session.write, flight)
                if size not in {-1, session.offset}:
                    raise _unavailable("the upstream's answer ended early")
                session.commit(at.digest)
            except BaseException:
                session.cancel()
                raise
        finally:
            answer.close()
        if flight is not None:
            flight.finish()

    def _receive(
        self,
        answer: UpstreamResponse,
        write: Callable[[bytes], None],
        flight: Flight | None,
    ) -> None:
        received = 0
        while data := answer.read(_READ):
            if self._closing:
                raise _unavailable("the registry is stopping")
            write(data)
            received += len(data)
            if flight is not None:
                if received > flight.size:
                    raise _unavailable("the upstream sent more than it said")
                flight.advance(received)
            self._metrics.add(
                "lamina_registry_upstream_bytes_total",
                len(data),
                help="Bytes of blobs received from upstreams.",
            )

    # ---- listings

    def _tags(self, request: Request, at: routes.Tags, local: Callable[[], Response]) -> Answer:
        place = self._place(at.repository)
        if place is None:
            return local()
        n, last = parse_page(request.parameters(), limit=self._page)
        upstream, path = place

        def merged(theirs: list[str] | None) -> Response:
            if theirs is None:
                return _warned(local())
            ours = self._storage.manifests.tags(at.repository, n=1 << 40, last="") or ()
            after = sorted(
                (tag for tag in {*ours, *theirs} if (tag.lower(), tag) > (last.lower(), last)),
                key=lambda tag: (tag.lower(), tag),
            )
            return tags_page(at.repository, after[: n + 1], n=n)

        return Later(
            self._once(("tags", at.repository), lambda: self._their_tags(upstream, path, at)),
            merged,
        )

    def _their_tags(self, upstream: Upstream, path: str, at: routes.Tags) -> list[str] | None:
        """The upstream's tags; None if only those that are here can be told."""
        with self._guard:
            known = self._lists.get(at.repository)
        if known is not None and self._clock() - known[0] < upstream.proxy.tag_ttl:
            return known[1]
        try:
            found = [tag for tag in upstream.tags(path) if _is_tag(tag)]
        except LaminaError as error:
            here = self._storage.manifests.tags(at.repository, n=1, last="") is not None
            if here and error.kind is Kind.NOT_FOUND:
                return []
            if here and self._may_serve_stale(upstream, error):
                _log.warning("tags of %s are those that are here: %s", at.repository, error)
                return None
            raise self._refusal(error, "NAME_UNKNOWN") from error
        with self._guard:
            self._lists[at.repository] = (self._clock(), found)
            self._lists.move_to_end(at.repository)
            if len(self._lists) > _LISTS:
                self._lists.popitem(last=False)
        return found

    def _referrers(
        self, request: Request, at: routes.Referrers, local: Callable[[], Response]
    ) -> Answer:
        place = self._place(at.repository)
        if place is None:
            return local()
        parameters = request.parameters()
        n, last = parse_page(parameters, limit=self._page)
        wanted = parameters.get("artifactType", "")
        upstream, path = place

        def ask() -> tuple[Descriptor, ...] | None:
            try:
                return upstream.referrers(path, at.digest)
            except LaminaError as error:
                if error.kind is Kind.NOT_FOUND:
                    return ()
                _log.warning("referrers of %s are those that are here: %s", at.repository, error)
                return None

        def merged(theirs: tuple[Descriptor, ...] | None) -> Response:
            if theirs is None:
                return _warned(local())
            ours = self._storage.manifests.referrers(
                at.repository, at.digest, n=_MAX_REFERRERS, last=""
            )
            found = {str(entry.digest): _referrer(entry) for entry in theirs}
            found |= {entry.digest: entry for entry in ours}
            after = [
                found[digest]
                for digest in sorted(found)
                if digest > last and (not wanted or found[digest].artifact_type == wanted)
            ]
            return referrers_page(at, after[: n + 1], n=n, artifact_type=wanted)

        return Later(self._once(("referrers", at.repository, str(at.digest)), ask), merged)

    # ---- inside

    def _place(self, repository: str) -> tuple[Upstream, str] | None:
        """The upstream of the longest prefix, and the repository's path there."""
        for upstream in self._upstreams:
            prefix = upstream.proxy.prefix
            if repository.startswith(prefix) and len(repository) > len(prefix):
                return upstream, upstream.path(repository[len(prefix) :])
        return None

    def _once(self, key: Hashable, ask: Callable[[], Any]) -> Future[Any]:
        """The result of `ask`, which others may wait for too; done in a thread."""
        with self._guard:
            found = self._open.get(key)
            if found is None:
                found = self._open[key] = Future()
                self._questions.submit(partial(self._ask, key, ask, found))
            return found

    def _ask(self, key: Hashable, ask: Callable[[], Any], answered: Future[Any]) -> None:
        try:
            result = ask()
        except BaseException as error:  # noqa: BLE001  # given to whoever waits for it
            with self._guard:
                del self._open[key]
            answered.set_exception(error)
        else:
            with self._guard:
                del self._open[key]
            answered.set_result(result)

    def _may_serve_stale(self, upstream: Upstream, error: LaminaError) -> bool:
        """Whether the upstream is down or asks for patience; not if it says no."""
        return upstream.proxy.serve_stale and error.kind in {Kind.UNAVAILABLE, Kind.SYSTEM}

    def _refusal(self, error: Exception, unknown: str) -> Refusal:
        """What a client is told of an upstream's failure. Never 401: its own credentials are fine."""
        if isinstance(error, Refusal):
            return error
        self._count("upstream_errors", "Questions that upstreams did not answer.")
        if not isinstance(error, LaminaError):
            _log.error("a pull-through cache failed", exc_info=error)
            return Refusal("UNKNOWN", "internal error")
        status = error.status if isinstance(error, RegistryError) else 0
        if status == 429:
            return Refusal("TOOMANYREQUESTS", "the upstream asks for patience", headers=_RETRY)
        match error.kind:
            case Kind.NOT_FOUND:
                return Refusal(unknown, "neither here nor at the upstream")
            case Kind.DENIED:
                return Refusal("DENIED", "the upstream does not let this cache read it")
            case Kind.INTEGRITY:
                return _unavailable("the upstream sent something else than was asked for")
            case Kind.UNSUPPORTED | Kind.INVALID:
                return _unavailable("the upstream's answer cannot be understood")
        _log.warning("%s", error)
        return _unavailable("the upstream does not answer")

    def _hit(self, local: Callable[[], Response]) -> Response:
        self._count("hits", "Reads behind a prefix answered without the upstream.")
        return local()

    def _count(self, what: str, help: str) -> None:
        self._metrics.add(f"lamina_registry_cache_{what}_total", 1, help=help)


def _parsed(resolved: Resolved, digest: Digest | None) -> NewManifest:
    try:
        return manifests.parse(
            resolved.raw, content_type=resolved.descriptor.media_type, digest=digest
        )
    except Refusal as error:
        raise _unavailable(f"the upstream's manifest: {error.what}") from error


def _unavailable(what: str) -> Refusal:
    return Refusal("UNAVAILABLE", what, headers=RETRY)


def _fed(request: Request, flight: Flight, headers: tuple[tuple[str, str], ...]) -> Response:
    asked = request.header("range")
    region = parse_range(asked, size=flight.size) if asked else None
    if region is None:
        return Response(200, headers, Feed(flight, 0, flight.size))
    offset, length = region
    span = ("content-range", f"bytes {offset}-{offset + length - 1}/{flight.size}")
    return Response(206, (*headers, span), Feed(flight, offset, length))


def _warned(response: Response) -> Response:
    return replace(response, headers=(*response.headers, _STALE))


def _is_tag(text: str) -> bool:
    with suppress(Refusal):
        return bool(routes.check_tag(text))
    return False


def _referrer(entry: Descriptor) -> Referrer:
    return Referrer(
        str(entry.digest),
        entry.media_type,
        entry.size,
        entry.artifact_type,
        tuple(entry.annotations),
    )
