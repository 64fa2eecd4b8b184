# SPDX-License-Identifier: Apache-2.0
"""Requests, responses and errors of the distribution protocol, and the headers in them. Pure.

Source: distribution-spec spec.md §Error Codes, §Pushing a blob in chunks, §Listing Tags; RFC 9110
§14 for ranges.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote

from lamina.errors import Kind, LaminaError
from lamina.spec.document import dump
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future
    from typing import Any, Protocol

    class Headers(Protocol):
        """Header values by lower-case name."""

        def get(self, name: str, default: str, /) -> str: ...

    class Arriving(Protocol):
        """Bytes that arrive while they are sent. Any thread may call it; nothing blocks for long."""

        def ready(self) -> int:
            """How many bytes may be sent. Raises LaminaError once it is known that they will not
            be whole, or not be what they should be.
            """

        def read(self, offset: int, size: int, /) -> bytes:
            """Bytes below `ready`."""

        def watch(self, wake: Callable[[], None]) -> None:
            """Call `wake`, from any thread, whenever `ready` may say something new."""

        def unwatch(self, wake: Callable[[], None]) -> None:
            """Idempotent."""


API_VERSION = ("docker-distribution-api-version", "registry/2.0")
RETRY = (("retry-after", "1"),)
OCTETS = ("content-type", "application/octet-stream")
_JSON = ("content-type", "application/json")

# distribution-spec spec.md §Error Codes, and the status each is sent with.
STATUS = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 404,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "SIZE_INVALID": 400,
    "UNAUTHORIZED": 401,
    "DENIED": 403,
    "UNSUPPORTED": 405,
    "TOOMANYREQUESTS": 429,
    # not in the table of the spec, but sent by distribution
    "TAG_INVALID": 400,
    "PAGINATION_NUMBER_INVALID": 400,
    "RANGE_INVALID": 416,
    "UNAVAILABLE": 503,
    "UNKNOWN": 500,
}

CODE_OF_KIND: dict[Kind, str] = {
    Kind.USAGE: "UNSUPPORTED",
    Kind.INVALID: "MANIFEST_INVALID",
    Kind.NOT_FOUND: "MANIFEST_UNKNOWN",
    Kind.CONFLICT: "TOOMANYREQUESTS",
    Kind.DENIED: "DENIED",
    Kind.INTEGRITY: "DIGEST_INVALID",
    Kind.UNAVAILABLE: "UNAVAILABLE",
    Kind.UNSUPPORTED: "UNSUPPORTED",
    Kind.EXHAUSTED: "UNAVAILABLE",
    Kind.STEP_FAILED: "UNKNOWN",
    Kind.SYSTEM: "UNKNOWN",
}
"""The error code of a failure that no handler gave a closer one."""


class Refusal(LaminaError):
    """An error that a client is told: an error code of the specification, and a status.

    `members` stand beside `errors` in the document, for clients of another specification.
    """

    kind = Kind.INVALID

    def __init__(
        self,
        code: str,
        what: str,
        *,
        status: int = 0,
        detail: object = None,
        headers: tuple[tuple[str, str], ...] = (),
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(what)
        self.code = code
        self.status = status or STATUS[code]
        self.detail = detail
        self.headers = headers
        self.members = members or {}

    def response(self) -> Response:
        """The answer with the error document of the specification."""
        error: dict[str, object] = {"code": self.code, "message": self.what}
        if self.detail is not None:
            error["detail"] = self.detail
        return json_response(
            {"errors": [error], **self.members}, status=self.status, headers=self.headers
        )


def refusal_of(error: LaminaError) -> Refusal:
    """The error as a client is told it; paths and hints of this host are left out of server errors."""
    if isinstance(error, Refusal):
        return error
    code = CODE_OF_KIND[error.kind]
    told = error.what if STATUS[code] < 500 else "the registry cannot do this now"
    return Refusal(code, told, headers=RETRY if code == "UNAVAILABLE" else ())


class Request(Record):
    """A request without its body. Header names are lower case; `path` is percent-decoded."""

    method: str
    path: str
    query: str
    headers: Headers
    client: str
    scheme: str = "http"

    def header(self, name: str) -> str:
        """The header's value, empty if it is absent."""
        return self.headers.get(name, "")

    def parameters(self) -> dict[str, str]:
        """The query's parameters; of a repeated one the first counts.

        Raises:
            Refusal: more than 32 parameters, or bytes that are not UTF-8.
        """
        if not self.query:
            return {}
        found: dict[str, str] = {}
        try:
            pairs = parse_qsl(
                self.query, keep_blank_values=True, max_num_fields=32, errors="strict"
            )
        except ValueError as error:
            raise Refusal("UNSUPPORTED", "invalid query string", status=400) from error
        for name, value in pairs:
            found.setdefault(name, value)
        return found


class FileRegion(Record):
    """`length` bytes of the file at `path`, from `offset`."""

    path: str
    offset: int
    length: int
    whole: bool = True


class Feed(Record):
    """`length` bytes from `offset` of what is still arriving. If it fails, so does the connection."""

    source: Arriving
    offset: int
    length: int


class Stream(Record):
    """`length` bytes in pieces; each step of the iterator may block. It is closed in every case."""

    pieces: Callable[[], Iterator[bytes]]
    length: int


class Response(Record):
    """A complete answer. With HEAD only headers are sent."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | FileRegion | Stream | Feed = b""


class Blocking(Record):
    """A step that may block (on the disk, on a password hash) and is done in a thread."""

    run: Callable[[], Answer]


class Later(Record):
    """A step that waits, without a thread, for what another request may wait for too."""

    result: Future[Any]  # of what `then` takes
    then: Callable[[Any], Answer]


class Buffered(Record):
    """A step that needs the whole body, of at most `limit` bytes; `then` may block."""

    limit: int
    then: Callable[[bytes], Answer]


class Streamed(Record):
    """A step that takes the body in pieces; each call may block.

    `write` appends; `finish(complete)` gives the answer, where `complete` says whether the body
    arrived whole; `close` is called in every case, last.
    """

    write: Callable[[bytes], None]
    finish: Callable[[bool], Response]
    close: Callable[[], None]


if TYPE_CHECKING:
    Answer = Response | Blocking | Later | Buffered | Streamed


def json_response(
    document: object, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()
) -> Response:
    """`document` as JSON."""
    return Response(status, (_JSON, API_VERSION, *headers), dump(document))


_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?(\d{1,18})-(\d{1,18})(?:/(?:\d{1,18}|\*))?", re.ASCII)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


def parse_content_range(text: str) -> tuple[int, int]:
    """(first, last) of a chunk's Content-Range, both inclusive.

    The specification's form is `first-last`; the forms of RFC 9110 and of old clients are taken.

    Raises:
        Refusal: BLOB_UPLOAD_INVALID for anything else.
    """
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None or int(match[1]) > int(match[2]):
        raise Refusal("BLOB_UPLOAD_INVALID", f"invalid Content-Range {text[:100]!r}")
    return int(match[1]), int(match[2])


def parse_range(text: str, *, size: int) -> tuple[int, int] | None:
    """(offset, length) of the only range in a Range header; None if the whole is to be sent.

    Several ranges and units other than bytes are ignored, as RFC 9110 §14.2 allows.

    Raises:
        Refusal: RANGE_INVALID if no byte of the range exists.
    """
    match = _RANGE.fullmatch(text.strip())
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match[1], match[2]
    if not first:
        length = min(int(last), size)
        start = size - length
    else:
        start = int(first)
        end = min(int(last), size - 1) if last else size - 1
        length = end - start + 1
    if length <= 0 or start >= size:
        raise Refusal(
            "RANGE_INVALID",
            f"no byte of range {text[:100]!r} exists",
            headers=(("content-range", f"bytes */{size}"),),
        )
    return start, length


def parse_page(parameters: Mapping[str, str], *, limit: int) -> tuple[int, str]:
    """(n, last) of a listing; n is `limit` if it is absent or greater.

    Raises:
        Refusal: PAGINATION_NUMBER_INVALID.
    """
    text = parameters.get("n", "")
    if not text:
        return limit, parameters.get("last", "")
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise Refusal("PAGINATION_NUMBER_INVALID", f"invalid number of results {text[:50]!r}")
    return min(int(text), limit), parameters.get("last", "")


def next_link(path: str, *, n: int, last: str, extra: str = "") -> tuple[str, str]:
    """The Link header (RFC 8288) to the page after `last`."""
    return ("link", f'<{path}?n={n}&last={quote(last, safe="")}{extra}>; rel="next"')
