# SPDX-License-Identifier: Apache-2.0
"""The pages' frame, the list of repositories, a repository, and errors, as HTML. Pure."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from lamina.server.web.html import Html, el, join, markup, moment, size
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.server.web.html import Content
    from lamina.server.web.views import RepositoryRow, TagRow

SHOWN_PLATFORMS = 4  # of one tag in a list; the image's page has all


class Frame(Record):
    """What every page is drawn with: where clients reach the registry, who looks, and when."""

    host: str
    user: str
    signs_in: bool
    now: float


class Slice(Record):
    """Which part of a listing a page shows; pages count from 1."""

    total: int
    page: int
    per_page: int

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // self.per_page))


def repository_path(name: str) -> str:
    return f"/repositories/{quote(name)}"


def image_path(name: str, *, tag: str = "", digest: str = "") -> str:
    return f"/images/{quote(name)}{f':{tag}' if tag else f'@{digest}'}"


def document(
    frame: Frame, title: str, *content: Content, crumbs: Sequence[tuple[str, str]] = ()
) -> bytes:
    """A whole page. `crumbs` are (text, path) of the pages above it."""
    head = el(
        "head",
        None,
        el("meta", {"charset": "utf-8"}),
        el("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        el("meta", {"name": "color-scheme", "content": "light dark"}),
        el("title", None, f"{title} · {frame.host}"),
        el("link", {"rel": "stylesheet", "href": "/assets/style.css"}),
        el("link", {"rel": "icon", "href": "/assets/icon.svg", "type": "image/svg+xml"}),
        el("script", {"src": "/assets/page.js", "defer": ""}),
    )
    if frame.user:
        who: Content = el("span", {"class": "user"}, frame.user)
    else:
        who = el("a", {"href": "/sign-in"}, "Sign in") if frame.signs_in else None
    header = el(
        "header",
        {"class": "top"},
        el("a", {"class": "brand", "href": "/"}, frame.host),
        el("nav", {"aria-label": "Session"}, who) if who is not None else None,
    )
    trail = el(
        "nav",
        {"class": "crumbs", "aria-label": "Where this is"},
        el("ol", None, *(el("li", None, el("a", {"href": path}, text)) for text, path in crumbs)),
    )
    body = el(
        "body",
        None,
        el("a", {"class": "skip", "href": "#main"}, "Skip to the content"),
        header,
        el("main", {"id": "main", "tabindex": "-1"}, trail if crumbs else None, *content),
        el("p", {"id": "said", "role": "status", "class": "said"}),
    )
    return ("<!doctype html>\n" + markup(el("html", {"lang": "en"}, head, body)) + "\n").encode()


def repositories(frame: Frame, rows: Sequence[RepositoryRow], part: Slice, *, search: str) -> bytes:
    """The list of repositories."""
    listing: Content
    if rows:
        listing = _table(
            "Repositories",
            ("Repository", "Tags", "Size", "Last push"),
            [_repository_cells(row, now=frame.now) for row in rows],
        )
    elif search:
        listing = _empty(f"No repository here has “{search}” in its name.", all_at="/")
    else:
        listing = join(
            [
                el("p", {"class": "empty"}, "Nothing here yet. Push an image:"),
                commands(
                    [
                        ("with lamina", f"lamina push IMAGE {frame.host}/NAME:TAG"),
                        ("with docker", f"docker push {frame.host}/NAME:TAG"),
                    ]
                ),
            ]
        )
    return document(
        frame,
        "Repositories",
        el("h1", None, "Repositories"),
        _search("/", search, label="Search repositories", what="repositories"),
        _counted(part, "repository", "repositories", search),
        listing,
        _pager("/", part, {"q": search}),
    )


def repository(
    frame: Frame,
    row: RepositoryRow,
    tags: Sequence[TagRow],
    part: Slice,
    *,
    search: str,
    order: str,
    sortable: bool,
) -> bytes:
    """The page of a repository; `order` is `newest` or `name`."""
    here = repository_path(row.name)
    listing: Content
    if tags:
        listing = _table(
            "Tags",
            ("Tag", "Platforms", "Size", "Tag set", "Digest"),
            [_tag_cells(row.name, tag, now=frame.now) for tag in tags],
        )
    elif search:
        listing = _empty(f"No tag here has “{search}” in its name.", all_at=here)
    else:
        listing = el("p", {"class": "empty"}, "No tags. Manifests are reached by their digests.")
    return document(
        frame,
        row.name,
        el("h1", None, row.name),
        _facts(row, now=frame.now),
        _search(here, search, label="Search tags", what="tags"),
        el(
            "div",
            {"class": "bar"},
            _counted(part, "tag", "tags", search),
            _orders(here, order, search) if sortable else None,
        ),
        listing,
        _pager(here, part, {"q": search, "sort": order if order != "newest" else ""}),
        crumbs=(("Repositories", "/"),),
    )


def refused(frame: Frame, status: int, title: str, text: str) -> bytes:
    """The page of an error."""
    return document(
        frame,
        title,
        el("h1", None, title),
        el("p", None, text),
        el("p", {"class": "none"}, f"Status {status}"),
        crumbs=(("Repositories", "/"),),
    )


def commands(rows: Sequence[tuple[str, str]]) -> Html:
    """Commands to copy, each with what it is for."""
    return el(
        "dl",
        {"class": "commands"},
        *(
            el(
                "div",
                None,
                el("dt", None, label),
                el("dd", None, el("code", {"class": "command"}, text), copy_button(text, label)),
            )
            for label, text in rows
        ),
    )


def copy_button(text: str, label: str) -> Html:
    """A button that copies; without a script it stays hidden, and the text can be selected."""
    attributes = {
        "type": "button",
        "class": "copy",
        "data-copy": text,
        "aria-label": f"Copy: {label}",
        "hidden": "",
    }
    return el("button", attributes, "Copy")


def digest(text: str) -> Html:
    """A digest, short; the whole where the mouse asks."""
    algorithm, _, hex_digits = text.partition(":")
    return el("code", {"title": text, "class": "digest"}, f"{algorithm}:{hex_digits[:12]}")


def _repository_cells(row: RepositoryRow, *, now: float) -> list[Html]:
    name = el("th", {"scope": "row"}, el("a", {"href": repository_path(row.name)}, row.name))
    if row.summary is None:
        return [name, *(el("td", {"class": "number"}, "—") for _ in range(3))]
    return [
        name,
        el("td", {"class": "number"}, _label("Tags"), f"{row.summary.tags:,}"),
        el("td", {"class": "number"}, _label("Size"), size(row.summary.bytes)),
        el("td", None, _label("Last push"), moment(row.summary.pushed, now=now)),
    ]


def _tag_cells(repository: str, row: TagRow, *, now: float) -> list[Html]:
    link = el("a", {"href": image_path(repository, tag=row.tag)}, row.tag)
    names: list[Content] = [
        el("span", {"class": "chip"}, name) for name in row.platforms[:SHOWN_PLATFORMS]
    ]
    more = len(row.platforms) - SHOWN_PLATFORMS
    if more > 0:
        names.append(el("span", {"class": "none"}, f"and {more} more"))
    if not names:
        names.append(el("span", {"class": "none"}, row.kind))
    by_digest = {"href": image_path(repository, digest=row.digest), "class": "quiet"}
    return [
        el("th", {"scope": "row"}, link),
        el("td", None, _label("Platforms"), el("span", {"class": "chips"}, *names)),
        el("td", {"class": "number"}, _label("Size"), size(row.size)),
        el("td", None, _label("Tag set"), moment(row.set_at, now=now)),
        el("td", None, _label("Digest"), el("a", by_digest, digest(row.digest))),
    ]


def _label(text: str) -> Html:
    """A column's name in the cell itself, for narrow screens; the table has it for the ears."""
    return el("span", {"class": "label", "aria-hidden": "true"}, text)


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Html]]) -> Html:
    numbers = {"Size", "Tags"}
    return el(
        "table",
        {"class": "listing"},
        el("caption", None, caption),
        el(
            "thead",
            None,
            el(
                "tr",
                None,
                *(
                    el("th", {"scope": "col", **({"class": "number"} if c in numbers else {})}, c)
                    for c in columns
                ),
            ),
        ),
        el("tbody", None, *(el("tr", None, *cells) for cells in rows)),
    )


def _facts(row: RepositoryRow, *, now: float) -> Html | None:
    if row.summary is None:
        return None
    manifests = row.summary.manifests
    return el(
        "p",
        {"class": "facts"},
        f"{size(row.summary.bytes)} in {manifests:,} manifest{'' if manifests == 1 else 's'}"
        " and their blobs, last push ",
        moment(row.summary.pushed, now=now),
    )


def _search(action: str, search: str, *, label: str, what: str) -> Html:
    attributes = {
        "type": "search",
        "id": "q",
        "name": "q",
        "value": search,
        "placeholder": f"Filter {what}",
        "autocomplete": "off",
        "autocapitalize": "none",
        "spellcheck": "false",
        "aria-keyshortcuts": "/",
    }
    if not search:
        del attributes["value"]
    return el(
        "form",
        {"class": "search", "role": "search", "action": action, "method": "get"},
        el("label", {"for": "q"}, label),
        el(
            "div",
            None,
            el("input", attributes),
            el("button", {"type": "submit"}, "Search"),
            el("a", {"href": action, "class": "clear"}, "Clear") if search else None,
        ),
    )


def _orders(here: str, order: str, search: str) -> Html:
    links = []
    for name, text in (("newest", "newest first"), ("name", "by name")):
        query = {"sort": name, **({"q": search} if search else {})}
        attributes = {"href": f"{here}?{urlencode(query)}"}
        if name == order:
            attributes["aria-current"] = "true"
        links.append(el("a", attributes, text))
    return el("nav", {"class": "orders", "aria-label": "Order of tags"}, *links)


def _counted(part: Slice, one: str, many: str, search: str) -> Html:
    text = f"{part.total:,} {one if part.total == 1 else many}"
    if search:
        text += f" with “{search}”"
    if part.pages > 1:
        text += f", page {part.page:,} of {part.pages:,}"
    return el("p", {"class": "count"}, text)


def _empty(text: str, *, all_at: str) -> Html:
    return el("p", {"class": "empty"}, text, " ", el("a", {"href": all_at}, "Show all"))


def _pager(here: str, part: Slice, query: dict[str, str]) -> Html | None:
    if part.pages == 1:
        return None

    def link(page: int, text: str, *, rel: str = "") -> Html:
        if page == part.page:
            return el("span", {"aria-current": "page"}, text)
        wanted = {key: value for key, value in {**query, "page": str(page)}.items() if value}
        attributes = {"href": f"{here}?{urlencode(wanted)}", **({"rel": rel} if rel else {})}
        return el("a", attributes, text)

    near = sorted(
        {1, part.pages} | set(range(max(1, part.page - 2), min(part.pages, part.page + 2) + 1))
    )
    items: list[Html] = []
    if part.page > 1:
        items.append(link(part.page - 1, "Previous", rel="prev"))
    for before, page in zip([0, *near], near, strict=False):
        if page - before > 1:
            items.append(el("span", {"class": "none"}, "…"))
        items.append(link(page, str(page)))
    if part.page < part.pages:
        items.append(link(part.page + 1, "Next", rel="next"))
    return el("nav", {"class": "pager", "aria-label": "Pages"}, *items)
