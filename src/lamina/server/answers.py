# SPDX-License-Identifier: Apache-2.0
"""Answers that are made the same way from the storage and from an upstream. Pure."""

from __future__ import annotations

from urllib.parse import quote

from lamina.server import manifests
from lamina.server.wire import API_VERSION, OCTETS, Response, json_response, next_link, refusal_of
from lamina.spec import mediatype

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.errors import LaminaError
    from lamina.server import routes
    from lamina.server.ports import Referrer


def tags_page(repository: str, found: Sequence[str], *, n: int) -> Response:
    """At most `n` of the tags that were found, and where the others are."""
    page = list(found[:n])
    headers: tuple[tuple[str, str], ...] = ()
    if len(found) > n and page:
        headers = (next_link(f"/v2/{repository}/tags/list", n=n, last=page[-1]),)
    return json_response({"name": repository, "tags": page}, headers=headers)


def referrers_page(
    at: routes.Referrers, found: Sequence[Referrer], *, n: int, artifact_type: str
) -> Response:
    """At most `n` of the referrers that were found, and where the others are."""
    headers = [("content-type", mediatype.OCI_INDEX), API_VERSION]
    extra = ""
    if artifact_type:
        headers.append(("oci-filters-applied", "artifactType"))
        extra = f"&artifactType={quote(artifact_type, safe='')}"
    page = found[:n]
    if len(found) > n and page:
        path = f"/v2/{at.repository}/referrers/{at.digest}"
        headers.append(next_link(path, n=n, last=page[-1].digest, extra=extra))
    return Response(200, tuple(headers), manifests.referrers_index(page))


def blob_headers(digest: str) -> tuple[tuple[str, str], ...]:
    """The headers of a blob, but for its length."""
    return (
        OCTETS,
        ("docker-content-digest", digest),
        ("etag", f'"{digest}"'),
        ("accept-ranges", "bytes"),
        ("cache-control", "max-age=31536000"),
        API_VERSION,
    )


def answer_of_error(error: LaminaError) -> Response:
    """The response that tells a client of the error."""
    return refusal_of(error).response()
