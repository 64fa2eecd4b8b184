# SPDX-License-Identifier: Apache-2.0
"""Pages below /lamina/v1/ for who has the right `admin` in a repository: JSON, small.

GET  /lamina/v1/history/NAME?tag=&n=&skip=     moves of tags, the last first
GET  /lamina/v1/removed/NAME                   manifests that can be had back
GET  /lamina/v1/usage/NAME                     bytes and tags, and the quota
POST /lamina/v1/undelete/NAME?tag=&digest=     bring a tag or a manifest back
GET  /lamina/v1/retention                      what the rules would do now (admin of `**`)
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.server import routes
from lamina.server.rights import ADMIN, ADMIN_PATH
from lamina.server.wire import Blocking, Refusal, json_response
from lamina.start.record import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.server.ledger import Ledger
    from lamina.server.past import Past
    from lamina.server.rights import Gate, Identity
    from lamina.server.wire import Answer, Request, Response

_PAGE = 1000
_READS = ("history", "removed", "usage", "retention")


class AdminPages:
    """The pages; `answer` is a handler as `handlers.Registry.answer` is."""

    def __init__(self, past: Past, gate: Gate, *, read_only: bool = False) -> None:
        self._past = past
        self._gate = gate
        self._read_only = read_only

    def answer(self, request: Request) -> Answer:
        """The page. Raises Refusal, LaminaError."""
        name, slash, repository = request.path[len(ADMIN_PATH) :].partition("/")
        if name not in {*_READS, "undelete"} or bool(slash) == (name == "retention"):
            raise Refusal("UNSUPPORTED", "no such page", status=404)
        if slash:
            routes.check_name(repository)
        return Blocking(lambda: self._page(request, name, repository))

    def _page(self, request: Request, name: str, repository: str) -> Response:
        identity = self._gate.known(request) or self._gate.identify(request)
        if not self._gate.allows(identity, repository, ADMIN):
            raise self._gate.refusal(identity, repository, ADMIN)
        ledger = self._past.ledger
        if ledger is None:
            raise Refusal("UNSUPPORTED", "this storage driver keeps no history", status=404)
        method = "POST" if name == "undelete" else "GET"
        if request.method != method:
            raise Refusal("UNSUPPORTED", f"only {method}", headers=(("allow", method),))
        if name == "undelete":
            return self._undelete(request, ledger, repository, identity)
        return json_response(self._document(request, ledger, name, repository))

    def _document(
        self, request: Request, ledger: Ledger, name: str, repository: str
    ) -> dict[str, object]:
        if name == "retention":
            verdicts = ledger.retain(self._past.rules, dry_run=True)
            return {"verdicts": [as_json(verdict) for verdict in verdicts]}
        if name == "history":
            parameters = request.parameters()
            tag = parameters.get("tag", "")
            n = min(_number(parameters.get("n", ""), _PAGE), _PAGE)
            skip = _number(parameters.get("skip", ""), 0)
            moves = ledger.moves(repository, tag=tag, n=n, before=skip)
            return {"repository": repository, "moves": [as_json(move) for move in moves]}
        if name == "removed":
            removed = [as_json(each) for each in ledger.removed(repository)]
            return {"repository": repository, "removed": removed}
        usage = ledger.usage(repository)
        if usage is None:
            raise Refusal("NAME_UNKNOWN", "repository unknown", detail={"name": repository})
        return {"repository": repository, **as_json(usage)}

    def _undelete(
        self, request: Request, ledger: Ledger, repository: str, identity: Identity
    ) -> Response:
        if self._read_only:
            raise Refusal("UNSUPPORTED", "the registry is read-only")
        parameters = request.parameters()
        tag, digest = parameters.get("tag", ""), parameters.get("digest", "")
        if tag:
            routes.check_tag(tag)
        if digest:
            routes.parse_digest(digest)
        if not tag and not digest:
            raise Refusal("UNSUPPORTED", "tag or digest is missing", status=400)
        try:
            restored = ledger.undelete(repository, tag=tag, digest=digest, user=identity.user)
        except LaminaError as error:
            if error.kind is Kind.INVALID and not isinstance(error, Refusal):
                raise Refusal("TAG_INVALID", f"{error.what}: {error.hint}", status=409) from error
            raise
        return json_response(as_json(restored))


def as_json(value: object) -> dict[str, object]:
    """A record's fields by name, underscores as dashes are in the specifications: camelCase."""
    return {_camel(name): getattr(value, name) for name in fields(type(value))}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


def _number(text: str, default: int) -> int:
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise Refusal("PAGINATION_NUMBER_INVALID", f"invalid number {text[:50]!r}")
    return int(text)
