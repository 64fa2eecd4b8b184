# SPDX-License-Identifier: Apache-2.0
"""Which path is which page, who may see it, and what a browser is told beside it.

    /                       repositories (`q` filters, `page`)
    /repositories/NAME      a repository's tags (`q`, `sort=name`, `page`)
    /images/NAME:TAG        an image; /images/NAME@DIGEST too (`manifest`: one of an index, `after`)
    /sign-in                asks a browser for a password
    /assets/*               style sheet, script, icon

A page shows what the caller may pull and nothing else: what one may not pull and what does not
exist are the same answer. Everything is escaped, and the Content-Security-Policy allows a browser
no script and no request but the page's own files, so a label that got through would still do nothing.
"""

from __future__ import annotations

import hashlib
import os
import re

from lamina.server import routes
from lamina.server.rights import PULL
from lamina.server.web import image, pages
from lamina.server.web.views import RepositoryRow, Views
from lamina.server.wire import Blocking, Refusal, Response
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.server.ports import Overview, Storage
    from lamina.server.rights import Gate, Identity
    from lamina.server.wire import Answer, Request

PER_PAGE = 50  # rows of a listing
_MOST_SEARCHED = 255  # characters of a filter: no name is longer
_HOST = re.compile(r"[A-Za-z0-9._-]+(?::\d{1,5})?|\[[0-9a-fA-F:.]+\](?::\d{1,5})?", re.ASCII)
_ASSETS = {
    "style.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_GUARDS = (
    (
        "content-security-policy",
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
)
_PAGE_HEADERS = (
    ("content-type", "text/html; charset=utf-8"),
    ("cache-control", "private, no-cache"),
    *_GUARDS,
)
_TITLES = {401: "Sign in", 403: "Not allowed", 404: "Not found", 405: "Not possible"}


class Asset(Record):
    """A file of the page, and the headers it is sent with."""

    headers: tuple[tuple[str, str], ...]
    content: bytes


class Site:
    """The web page. `address` is where clients reach the registry if they do not say."""

    def __init__(
        self,
        storage: Storage,
        gate: Gate,
        *,
        overview: Overview | None,
        address: str,
        clock: Callable[[], float],
    ) -> None:
        self._views = Views(storage, gate, overview)
        self._gate = gate
        self._address = address
        self._clock = clock
        self._sortable = overview is not None
        self._assets = {name: _asset(name, kind) for name, kind in _ASSETS.items()}

    @staticmethod
    def owns(path: str) -> bool:
        """Whether the path is the page's."""
        return path in {"/", "/sign-in"} or path.startswith(
            ("/repositories/", "/images/", "/assets/")
        )

    def answer(self, request: Request) -> Answer:
        """The page at a path that the site owns; reads in a thread."""
        if request.path.startswith("/assets/"):
            return self._asset(request)
        return Blocking(lambda: self._guarded(request))

    def _guarded(self, request: Request) -> Response:
        """The page, or the page that says why not."""
        identity: Identity | None = None
        try:
            if request.method not in {"GET", "HEAD"}:
                raise Refusal("UNSUPPORTED", "only GET and HEAD", headers=(("allow", "GET, HEAD"),))
            identity = self._gate.known(request)
            if identity is None:
                identity = self._gate.identify(request)
            return self._page(request, identity)
        except Refusal as error:
            frame = self._frame(request, identity)
            title = _TITLES.get(error.status, "That did not work")
            text = error.what[:1].upper() + error.what[1:] + "."
            body = pages.refused(frame, error.status, title, text)
            return Response(error.status, (*_PAGE_HEADERS, *error.headers), body)

    def _page(self, request: Request, identity: Identity) -> Response:
        path = request.path
        frame = self._frame(request, identity)
        parameters = request.parameters()
        if path == "/sign-in":
            if self._gate.signs_in and not identity.user:
                raise self._gate.refusal(identity, "", PULL)
            return Response(303, (("location", "/"), ("cache-control", "no-store"), *_GUARDS))
        if path == "/":
            return self._repositories(frame, identity, parameters)
        if path.startswith("/repositories/"):
            name = routes.check_name(path.removeprefix("/repositories/"))
            self._check(identity, name)
            return self._repository(frame, name, parameters)
        name, tag, digest = _image_named(path.removeprefix("/images/"))
        self._check(identity, name)
        chosen = parameters.get("manifest", "")
        view = self._views.image(
            name,
            tag=tag,
            digest=digest,
            chosen=str(routes.parse_digest(chosen)) if chosen else "",
            after=parameters.get("after", ""),
        )
        if view is None:
            raise _not_there()
        return _html(image.image(frame, view))

    def _repositories(
        self, frame: pages.Frame, identity: Identity, parameters: dict[str, str]
    ) -> Response:
        search = _searched(parameters).lower()
        names = self._views.names(identity, search)
        if not names and not identity.user and identity.grants is None and self._gate.signs_in:
            raise self._gate.refusal(identity, "", PULL)
        part, first = _slice(parameters, len(names))
        rows = self._views.rows(names[first : first + PER_PAGE])
        return _html(pages.repositories(frame, rows, part, search=search))

    def _repository(self, frame: pages.Frame, name: str, parameters: dict[str, str]) -> Response:
        search = _searched(parameters)
        order = "newest" if self._sortable and parameters.get("sort") != "name" else "name"
        tags = self._views.tags(name, search, newest_first=order == "newest")
        if tags is None:
            raise _not_there()
        part, first = _slice(parameters, len(tags))
        row = RepositoryRow(name, self._views.summary(name))
        rows = self._views.tag_rows(name, tags[first : first + PER_PAGE])
        return _html(
            pages.repository(
                frame, row, rows, part, search=search, order=order, sortable=self._sortable
            )
        )

    def _asset(self, request: Request) -> Response:
        asset = self._assets.get(request.path.removeprefix("/assets/"))
        if asset is None:
            raise Refusal("UNSUPPORTED", "no such file", status=404)
        if request.method not in {"GET", "HEAD"}:
            raise Refusal("UNSUPPORTED", "only GET and HEAD", headers=(("allow", "GET, HEAD"),))
        if request.header("if-none-match") == dict(asset.headers)["etag"]:
            return Response(304, asset.headers)
        return Response(200, asset.headers, asset.content)

    def _check(self, identity: Identity, repository: str) -> None:
        if self._gate.allows(identity, repository, PULL):
            return
        if self._gate.signs_in:
            raise self._gate.refusal(identity, "", PULL)  # a password, not the API's token
        raise Refusal("DENIED", "this is not open to everybody")

    def _frame(self, request: Request, identity: Identity | None) -> pages.Frame:
        host = request.header("host")
        return pages.Frame(
            host if _HOST.fullmatch(host) else self._address,
            "" if identity is None else identity.user,
            self._gate.signs_in,
            self._clock(),
        )


def _image_named(text: str) -> tuple[str, str, str]:
    """(repository, tag, digest) of `NAME:TAG` or `NAME@DIGEST`.

    Raises:
        Refusal: as `routes.route`.
    """
    name, at, digest = text.partition("@")
    if at:
        return routes.check_name(name), "", str(routes.parse_digest(digest))
    name, colon, tag = text.rpartition(":")
    if not colon:
        raise _not_there()
    return routes.check_name(name), routes.check_tag(tag), ""


def _searched(parameters: dict[str, str]) -> str:
    return parameters.get("q", "").strip()[:_MOST_SEARCHED]


def _slice(parameters: dict[str, str], total: int) -> tuple[pages.Slice, int]:
    """The part of a listing that is asked for (the last page for a number beyond it)."""
    text = parameters.get("page", "")
    asked = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 1
    part = pages.Slice(total, 1, PER_PAGE)
    page = min(max(1, asked), part.pages)
    return pages.Slice(total, page, PER_PAGE), (page - 1) * PER_PAGE


def _asset(name: str, kind: str) -> Asset:
    with open(os.path.join(os.path.dirname(__file__), name), "rb") as file:
        content = file.read()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = (("content-type", kind), ("etag", etag), ("cache-control", "no-cache"), *_GUARDS)
    return Asset(headers, content)


def _html(body: bytes) -> Response:
    return Response(200, _PAGE_HEADERS, body)


def _not_there() -> Refusal:
    return Refusal("NAME_UNKNOWN", "the registry holds nothing here")
