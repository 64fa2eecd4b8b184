# SPDX-License-Identifier: Apache-2.0
"""Which endpoint a path is of. Pure.

Source: distribution-spec spec.md §Endpoints (end-1 to end-13) and its grammars of names and tags.
A repository's name may contain the words of the API (`blobs`, `tags`), so a path is read from its
end. Names are checked against the grammar before anything else sees them: they can hold no `..`,
no empty component and no encoded slash.
"""

from __future__ import annotations

import re

from lamina.errors import LaminaError
from lamina.server.wire import Refusal
from lamina.spec.digest import Digest
from lamina.start.record import Record

# distribution-spec spec.md §Pulling manifests
_NAME = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII
)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_UPLOAD = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)  # secrets.token_urlsafe(32)
MAX_NAME = 255  # what distribution accepts, and the file system's longest component


class Base(Record):
    """`/v2/`: is this a registry, and am I known?"""


class Blob(Record):
    repository: str
    digest: Digest


class Uploads(Record):
    """Where uploads of a repository begin."""

    repository: str


class Upload(Record):
    repository: str
    id: str


class ManifestAt(Record):
    """A manifest by tag (`digest` is None) or by digest."""

    repository: str
    tag: str
    digest: Digest | None


class Tags(Record):
    repository: str


class Referrers(Record):
    repository: str
    digest: Digest


class Catalog(Record):
    """`/v2/_catalog`: names of repositories (not in the OCI specification; Docker's)."""


class Page(Record):
    """A page of the server itself: `/healthz`, `/metrics`, `/token`, `/`."""

    name: str


TYPE_CHECKING = False
if TYPE_CHECKING:
    Route = Base | Blob | Uploads | Upload | ManifestAt | Tags | Referrers | Catalog | Page

_PAGES = {"/healthz": "healthz", "/metrics": "metrics", "/token": "token", "/": "index"}


def route(path: str) -> Route:
    """The endpoint of a percent-decoded path.

    Raises:
        Refusal: NAME_INVALID, DIGEST_INVALID, TAG_INVALID, BLOB_UPLOAD_UNKNOWN, or UNSUPPORTED
            with status 404 for a path that is none of the API's.
    """
    if not path.startswith("/v2/"):
        if path in _PAGES:
            return Page(_PAGES[path])
        if path == "/v2":
            return Base()
        raise _no_such_path(path)
    rest = path[4:]
    if not rest:
        return Base()
    if rest == "_catalog":
        return Catalog()
    head, slash, last = rest.rpartition("/")
    if not slash:
        raise _no_such_path(path)
    name, slash, word = head.rpartition("/")
    if word == "manifests" and slash:
        if ":" in last:
            return ManifestAt(check_name(name), "", parse_digest(last))
        return ManifestAt(check_name(name), check_tag(last), None)
    if word == "blobs" and slash:
        return Blob(check_name(name), parse_digest(last))
    if word == "tags" and slash and last == "list":
        return Tags(check_name(name))
    if word == "referrers" and slash:
        return Referrers(check_name(name), parse_digest(last))
    if word == "uploads" and name.endswith("/blobs"):
        repository = check_name(name[: -len("/blobs")])
        if not last:
            return Uploads(repository)
        if not _UPLOAD.fullmatch(last):
            raise Refusal("BLOB_UPLOAD_UNKNOWN", "no such upload")
        return Upload(repository, last)
    if last == "uploads" and word == "blobs" and slash:
        return Uploads(check_name(name))
    raise _no_such_path(path)


def check_name(name: str) -> str:
    """The repository's name, if it follows the grammar.

    Raises:
        Refusal: NAME_INVALID.
    """
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise Refusal("NAME_INVALID", f"invalid repository name {name[:300]!r}")
    return name


def check_tag(tag: str) -> str:
    """The tag, if it follows the grammar.

    Raises:
        Refusal: TAG_INVALID.
    """
    if not _TAG.fullmatch(tag):
        raise Refusal("TAG_INVALID", f"invalid tag {tag[:200]!r}")
    return tag


def parse_digest(text: str) -> Digest:
    """The digest.

    Raises:
        Refusal: DIGEST_INVALID for a wrong form or an algorithm that is not registered.
    """
    try:
        return Digest.parse(text)
    except LaminaError as error:
        raise Refusal("DIGEST_INVALID", f"invalid digest {text[:200]!r}") from error


def _no_such_path(path: str) -> Refusal:
    return Refusal("UNSUPPORTED", f"no such path: {path[:300]!r}", status=404)
