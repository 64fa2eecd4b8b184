# SPDX-License-Identifier: Apache-2.0
"""What registries say, without I/O: routes, headers, challenges, errors (distribution-spec 1.1)."""

from __future__ import annotations

import json
import re
from urllib.parse import quote, urlencode

from lamina.errors import Kind, LaminaError
from lamina.spec import mediatype
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamina.spec.digest import Digest

MANIFEST_TYPES = (
    mediatype.OCI_INDEX,
    mediatype.DOCKER_MANIFEST_LIST,
    mediatype.OCI_MANIFEST,
    mediatype.DOCKER_MANIFEST,
)
SCHEMA_1 = frozenset(
    {mediatype.DOCKER_MANIFEST_V1, mediatype.DOCKER_MANIFEST_V1_SIGNED, "application/json"}
)
MAX_ERROR_BODY = 64 * 1024  # bytes of an error body that are read
MAX_ERRORS = 8  # of one body that are shown
MAX_HEADER = 16 * 1024  # of a header that is parsed; HTTP servers stop at 8 to 16 KiB
MAX_RETRY_AFTER = 120.0  # seconds; longer waits are reported instead

KIND_OF_CODE: dict[str, Kind] = {
    "BLOB_UNKNOWN": Kind.NOT_FOUND,
    "BLOB_UPLOAD_INVALID": Kind.INVALID,
    "BLOB_UPLOAD_UNKNOWN": Kind.NOT_FOUND,
    "DIGEST_INVALID": Kind.INTEGRITY,
    "MANIFEST_BLOB_UNKNOWN": Kind.NOT_FOUND,
    "MANIFEST_INVALID": Kind.INVALID,
    "MANIFEST_UNKNOWN": Kind.NOT_FOUND,
    "NAME_INVALID": Kind.INVALID,
    "NAME_UNKNOWN": Kind.NOT_FOUND,
    "SIZE_INVALID": Kind.INTEGRITY,
    "UNAUTHORIZED": Kind.DENIED,
    "DENIED": Kind.DENIED,
    "UNSUPPORTED": Kind.UNSUPPORTED,
    "TOOMANYREQUESTS": Kind.UNAVAILABLE,
    "UNAVAILABLE": Kind.UNAVAILABLE,
}
"""OCI error code -> kind (distribution-spec §Error Codes, distribution's own two)."""

_KIND_OF_STATUS = {
    400: Kind.INVALID,
    401: Kind.DENIED,
    403: Kind.DENIED,
    404: Kind.NOT_FOUND,
    405: Kind.UNSUPPORTED,
    413: Kind.EXHAUSTED,
    416: Kind.INVALID,
    429: Kind.UNAVAILABLE,
}
_CODE_OF_STATUS = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}  # of no body
RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


# --- routes ----------------------------------------------------------------------------------


def blob_route(repository: str, digest: Digest) -> str:
    """Of a blob: GET, HEAD, DELETE."""
    return f"/v2/{repository}/blobs/{digest}"


def manifest_route(repository: str, reference: str) -> str:
    """Of a manifest by tag or digest."""
    return f"/v2/{repository}/manifests/{reference}"


def upload_route(repository: str, query: Sequence[tuple[str, str]] = ()) -> str:
    """Where uploads begin."""
    return with_query(f"/v2/{repository}/blobs/uploads/", query)


def tags_route(repository: str) -> str:
    """Of the list of tags."""
    return f"/v2/{repository}/tags/list?n=1000"


def referrers_route(repository: str, digest: Digest, artifact_type: str = "") -> str:
    """Of the manifests whose subject is `digest`."""
    query = [("artifactType", artifact_type)] if artifact_type else []
    return with_query(f"/v2/{repository}/referrers/{digest}", query)


def referrers_tag(digest: Digest) -> str:
    """The tag that holds the referrers where the registry has no API (§Referrers Tag Schema)."""
    return f"{digest.algorithm}-{digest.hex[:64]}"


def with_query(url: str, query: Sequence[tuple[str, str]]) -> str:
    """`url` with parameters added to those it has."""
    if not query:
        return url
    joint = "&" if "?" in url else "?"
    return f"{url}{joint}{urlencode(query, quote_via=quote, safe=':/')}"


def scope(repository: str, actions: str) -> str:
    """A token scope: `repository:NAME:pull,push`."""
    return f"repository:{repository}:{actions}"


# --- headers ---------------------------------------------------------------------------------


class Challenge(Record):
    """One challenge of WWW-Authenticate: scheme in lower case, parameters by lower-case name."""

    scheme: str
    parameters: tuple[tuple[str, str], ...] = ()

    def parameter(self, name: str) -> str:
        """The parameter, empty if it is not there."""
        return dict(self.parameters).get(name, "")


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PARAMETER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """The challenges of a WWW-Authenticate value (RFC 9110 §11.6.1); what is malformed ends it."""
    header = header[:MAX_HEADER]
    found: list[Challenge] = []
    position = 0
    while position < len(header):
        position = _skip(header, position)
        scheme = _TOKEN.match(header, position)
        if scheme is None:
            break
        position = scheme.end()
        parameters, position = _parse_parameters(header, position)
        found.append(Challenge(scheme.group().lower(), tuple(parameters.items())))
    return tuple(found)


def _parse_parameters(header: str, position: int) -> tuple[dict[str, str], int]:
    """Parameters up to the next scheme, and where that begins."""
    parameters: dict[str, str] = {}
    while True:
        start = _skip(header, position)
        if not parameters and start > position and "," not in header[position:start]:
            blob = _TOKEN68.match(header, start)
            if blob is not None:
                return parameters, blob.end()
        parameter = _PARAMETER.match(header, start)
        if parameter is None:
            return parameters, start
        value = _QUOTED.match(header, parameter.end())
        if value is not None:
            text = re.sub(r"\\(.)", r"\1", value.group(1), flags=re.DOTALL)
        else:
            value = _TOKEN.match(header, parameter.end())
            if value is None:
                return parameters, len(header)
            text = value.group()
        parameters.setdefault(parameter.group(1).lower(), text)
        position = value.end()


def _skip(header: str, position: int) -> int:
    while position < len(header) and header[position] in " \t,":
        position += 1
    return position


_UPLOAD_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)


def parse_upload_range(header: str) -> int | None:
    """How many bytes of an upload the registry has: `0-1023` is 1024; None if it does not say.

    `0-0` is what registries answer for none at all; an upload of exactly one byte begins anew.
    """
    match = _UPLOAD_RANGE.fullmatch(header.strip())
    if match is None:
        return None
    last = int(match.group(1))
    return last + 1 if last else 0


def parse_content_range(header: str) -> tuple[int, int] | None:
    """(first byte, total or -1) of a 206 answer's Content-Range."""
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        return None
    total = match.group(3)
    return int(match.group(1)), -1 if total == "*" else int(total)


_LINK = re.compile(r"<([^<>]*)>([^<]*)")


def next_link(header: str) -> str:
    """The address of `rel="next"` in a Link header, empty if there is none."""
    for address, parameters in _LINK.findall(header[:MAX_HEADER]):
        if re.search(r';\s*rel\s*=\s*"?next"?', parameters):
            return str(address)
    return ""


def retry_after(header: str, *, now: float) -> float | None:
    """Seconds to wait as Retry-After says (a number, or an HTTP date); None if it does not."""
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


# --- errors ----------------------------------------------------------------------------------


class RegistryError(LaminaError):
    """A registry refused or failed; `code` is the OCI error code, `status` that of HTTP."""

    kind = Kind.UNAVAILABLE

    def __init__(
        self, what: str, *, kind: Kind, status: int = 0, code: str = "", hint: str = ""
    ) -> None:
        super().__init__(what, kind=kind, hint=hint)
        self.status = status
        self.code = code


class Complaint(Record):
    """An entry of an error body."""

    code: str
    message: str
    detail: str = ""


def parse_complaints(body: bytes) -> tuple[Complaint, ...]:
    """The errors in a body; nothing if it is not the JSON of distribution-spec §Error Codes."""
    try:
        document = json.loads(body[:MAX_ERROR_BODY])
    except (ValueError, RecursionError):
        return ()
    if not isinstance(document, dict):
        return ()
    entries = document.get("errors")
    if not isinstance(entries, list):
        return _plain_complaint(document)
    found = []
    for entry in entries[:MAX_ERRORS]:
        if isinstance(entry, dict):
            detail = entry.get("detail")
            found.append(
                Complaint(
                    _text(entry.get("code")).upper(),
                    _text(entry.get("message")),
                    detail[:300] if isinstance(detail, str) else "",
                )
            )
    return tuple(found)


def _plain_complaint(document: Mapping[str, object]) -> tuple[Complaint, ...]:
    """Token servers answer `{"details": ...}` (Docker Hub) or OAuth's `error_description`."""
    for key in ("details", "error_description", "message", "error"):
        if text := _text(document.get(key)):
            return (Complaint("", text),)
    return ()


def _text(value: object) -> str:
    return value[:300] if isinstance(value, str) else ""


def _bare(code: str, status: int) -> str:
    """The text for an answer without an error body (to HEAD there is never one)."""
    return f"{code + ': ' if code else ''}the registry answered with HTTP status {status}"


def error_of(status: int, body: bytes, *, what: str) -> RegistryError:
    """The error for an unexpected answer; `what` says what was asked for."""
    complaints = parse_complaints(body)
    code = complaints[0].code if complaints else _CODE_OF_STATUS.get(status, "")
    kind = KIND_OF_CODE.get(code)
    if kind is None or status == 429:
        kind = _KIND_OF_STATUS.get(status)
    if kind is None:
        kind = Kind.INVALID if 400 <= status < 500 else Kind.UNAVAILABLE
    said = "; ".join(
        ": ".join(part for part in (entry.code, entry.message, entry.detail) if part)
        for entry in complaints
    )
    hint = ""
    if status == 401 or code == "UNAUTHORIZED":
        hint = "log in with 'lamina login'"
    elif kind is Kind.DENIED:
        hint = "the repository does not exist, or these credentials have no right to it"
    elif status == 429:
        hint = "the registry limits requests: log in, wait, or use a mirror"
    return RegistryError(
        f"{what}: {said or _bare(code, status)}",
        kind=kind,
        status=status,
        code=code,
        hint=hint,
    )
