# SPDX-License-Identifier: Apache-2.0
"""The page of an image, as HTML. Pure."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from lamina.server.web.html import Html, el, join, moment, size
from lamina.server.web.pages import (
    commands,
    copy_button,
    digest,
    document,
    image_path,
    repository_path,
)
from lamina.server.web.views import REFERRERS
from lamina.spec import mediatype

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.server.web.html import Content
    from lamina.server.web.pages import Frame
    from lamina.server.web.views import ImageView, LayerRow
    from lamina.spec.config import History, ImageConfig

_MOST_TEXT = 200_000  # characters of a document that the page shows
_LONG = 240  # characters of a command from which on it is folded


def image(frame: Frame, view: ImageView) -> bytes:
    """The page of an image, an index or another artifact."""
    name = f":{view.tag}" if view.tag else f"@{view.top.digest[:19]}…"
    return document(
        frame,
        f"{view.repository}{name}",
        el("h1", None, view.repository, el("span", {"class": "reference"}, name)),
        _summary(frame, view),
        _pull(frame, view),
        _platforms(view),
        el("p", {"class": "trouble", "role": "alert"}, view.trouble) if view.trouble else None,
        _layer_table(view),
        _config(view.config) if view.config is not None else None,
        _pairs("Labels", "label", () if view.config is None else view.config.config.labels),
        _pairs("Annotations", "annotation", view.annotations),
        _history(view.history),
        _attestations(view),
        _referrers(view),
        _documents(view),
        crumbs=(
            ("Repositories", "/"),
            (view.repository, repository_path(view.repository)),
        ),
    )


def _summary(frame: Frame, view: ImageView) -> Html:
    facts: list[tuple[str, Content]] = [("Digest", _whole_digest(view.top.digest, "digest"))]
    if view.shown is not None and view.shown.digest != view.top.digest:
        facts.append(("This platform", _whole_digest(view.shown.digest, "platform's digest")))
    if view.manifest is not None:
        count = len(view.manifest.layers)
        layers = f" in {count} layer{'' if count == 1 else 's'}"
        facts.append(("Size", f"{size(view.size)} to pull{layers}"))
    if view.config is not None and not view.platforms:
        facts.append(("Platform", f"{view.config.os}/{view.config.architecture}"))
    if view.config is not None and view.config.created:
        facts.append(("Made", view.config.created.replace("T", " ").partition(".")[0].rstrip("Z")))
    if view.manifest is not None and view.config is None:
        kind = view.manifest.artifact_type or view.manifest.config.media_type
        facts.append(("Type", el("code", None, kind)))
    facts += [
        ("Pushed", moment(view.pushed, now=frame.now)),
        ("Media type", el("code", None, view.top.media_type)),
    ]
    return _list(facts)


def _pull(frame: Frame, view: ImageView) -> Html:
    by_digest = f"{frame.host}/{view.repository}@{view.top.digest}"
    if view.config is None and not view.platforms:
        rows = [("to a directory", f"oras pull {by_digest}")]
    else:
        name = f"{frame.host}/{view.repository}:{view.tag}" if view.tag else by_digest
        rows = [("lamina", f"lamina pull {name}"), ("docker", f"docker pull {name}")]
        if view.tag:
            rows.append(("by digest", f"docker pull {by_digest}"))
        rows.append(("Dockerfile", f"FROM {by_digest}"))
    return _section("Pull", commands(rows))


def _platforms(view: ImageView) -> Html | None:
    if not view.platforms:
        return None
    links = []
    for platform in view.platforms:
        path = image_path(view.repository, tag=view.tag, digest=view.top.digest)
        attributes = {"href": f"{path}?{urlencode({'manifest': platform.digest})}"}
        if view.shown is not None and platform.digest == view.shown.digest:
            attributes["aria-current"] = "true"
        links.append(el("li", None, el("a", attributes, platform.name)))
    return el(
        "nav",
        {"class": "platforms", "aria-label": "Platforms"},
        el("h2", None, "Platforms"),
        el("ul", None, *links),
    )


def _layer_table(view: ImageView) -> Html | None:
    if not view.layers:
        return None
    title = "Layers" if view.config is not None else "Blobs"
    largest = max(row.descriptor.size for row in view.layers) or 1
    rows = [_layer(number, row, largest) for number, row in enumerate(view.layers, start=1)]
    columns = ("", "Made by" if view.config is not None else "Content", "Size", "Digest")
    heads = [
        el("th", {"scope": "col", **({"class": "number"} if c == "Size" else {})}, c or "No.")
        for c in columns
    ]
    return _section(
        title,
        el(
            "table",
            {"class": "listing layers"},
            el("thead", None, el("tr", None, *heads)),
            el("tbody", None, *rows),
        ),
    )


def _layer(number: int, row: LayerRow, largest: int) -> Html:
    layer = row.descriptor
    title = layer.annotation("org.opencontainers.image.title") or ""
    what = row.command or title
    share = f"{layer.size / largest * 100:.1f}%"
    bar = el(
        "svg",
        {"class": "share", "aria-hidden": "true", "width": "100%", "height": "4"},
        el("rect", {"width": share, "height": "4", "rx": "2"}),
    )
    kind = mediatype.LAYER_COMPRESSION.get(layer.media_type, layer.media_type)
    return el(
        "tr",
        None,
        el("td", {"class": "number"}, str(number)),
        el(
            "td",
            {"class": "made"},
            _command(what) if what else el("span", {"class": "none"}, "not recorded"),
            el("span", {"class": "kind"}, kind),
        ),
        el("td", {"class": "number"}, size(layer.size), bar),
        el("td", None, digest(str(layer.digest)), copy_button(str(layer.digest), "layer's digest")),
    )


def _command(text: str) -> Html:
    """A command; a long one is folded behind its beginning."""
    if len(text) <= _LONG and text.count("\n") < 4:
        return el("code", {"class": "made-by"}, text)
    beginning = " ".join(text[:_LONG].split())[:100]
    return el(
        "details",
        None,
        el("summary", None, el("code", None, f"{beginning}…")),
        el("pre", None, text[:_MOST_TEXT]),
    )


def _config(config: ImageConfig) -> Html:
    run = config.config
    facts: list[tuple[str, Content]] = []
    for label, words in (
        ("Entrypoint", run.entrypoint),
        ("Command", run.cmd),
        ("Shell", run.shell),
    ):
        if words is not None:
            facts.append((label, el("code", None, json.dumps(list(words), ensure_ascii=False))))
    for label, text in (
        ("User", run.user or "root (not set)"),
        ("Working directory", run.working_dir),
        ("Stop signal", run.stop_signal),
        ("Author", config.author),
    ):
        if text:
            facts.append((label, el("code", None, text)))
    for label, many in (
        ("Ports", run.exposed_ports),
        ("Volumes", run.volumes),
        ("On build", run.on_build),
    ):
        if many:
            facts.append((label, join(el("code", {"class": "chip"}, text) for text in many)))
    if run.healthcheck is not None:
        facts.append(("Health check", el("code", None, json.dumps(list(run.healthcheck.test)))))
    return join(
        [
            _section("Config", _list(facts)),
            _pairs("Environment", "variable", run.env),
        ]
    )


def _pairs(title: str, what: str, pairs: Sequence[tuple[str, str]]) -> Html | None:
    if not pairs:
        return None
    rows = [
        el("tr", None, el("th", {"scope": "row"}, el("code", None, key)), el("td", None, _value(v)))
        for key, v in pairs
    ]
    heads = [el("th", {"scope": "col"}, what.capitalize()), el("th", {"scope": "col"}, "Value")]
    return _section(
        title,
        el(
            "table",
            {"class": "pairs"},
            el("thead", None, el("tr", None, *heads)),
            el("tbody", None, *rows),
        ),
    )


def _value(text: str) -> Html:
    """A value; an address becomes a link that tells its target nothing."""
    if text.startswith(("https://", "http://")) and text.isprintable() and " " not in text:
        return el("a", {"href": text, "rel": "noopener noreferrer nofollow"}, text)
    return el("code", None, text[:_MOST_TEXT])


def _history(entries: Sequence[tuple[History, int]]) -> Html | None:
    if not entries:
        return None
    items = [
        el(
            "li",
            None,
            _command(entry.created_by or entry.comment or "not recorded"),
            el("span", {"class": "kind"}, f"layer {number}" if number else "no layer"),
        )
        for entry, number in entries
    ]
    return _section("History", el("ol", {"class": "history"}, *items))


def _attestations(view: ImageView) -> Html | None:
    if not view.attestations:
        return None
    names = {platform.digest: platform.name for platform in view.platforms}
    items = [
        el(
            "li",
            None,
            el(
                "a",
                {"href": image_path(view.repository, digest=attestation.digest)},
                digest(attestation.digest),
            ),
            f" about {names.get(attestation.about, attestation.about[:19])}: ",
            join(el("code", {"class": "chip"}, text) for text in attestation.predicates),
        )
        for attestation in view.attestations
    ]
    return _section("Attestations", el("ul", {"class": "plain"}, *items))


def _referrers(view: ImageView) -> Html | None:
    if not view.referrers:
        return None
    items = []
    for subject, referrer in view.referrers:
        about = " (of the whole index)" if view.platforms and subject == view.top.digest else ""
        made = dict(referrer.annotations).get("org.opencontainers.image.created", "")
        path = image_path(view.repository, digest=referrer.digest)
        items.append(
            el(
                "li",
                None,
                el("code", {"class": "chip"}, referrer.artifact_type or referrer.media_type),
                " ",
                el("a", {"href": path}, digest(referrer.digest)),
                f" {size(referrer.size)}{about}",
                el("span", {"class": "kind"}, made) if made else None,
            )
        )
    more: Content = None
    if view.next_referrers:
        query = {"after": view.next_referrers}
        if view.shown is not None and view.shown.digest != view.top.digest:
            query["manifest"] = view.shown.digest
        here = image_path(view.repository, tag=view.tag, digest=view.top.digest)
        text = f"The next {REFERRERS}"
        more = el("p", None, el("a", {"href": f"{here}?{urlencode(query)}", "rel": "next"}, text))
    return _section("Referrers", el("ul", {"class": "plain"}, *items), more)


def _documents(view: ImageView) -> Html:
    shown: list[tuple[str, bytes]] = []
    if view.platforms or view.manifest is None:
        shown.append(("Index" if view.platforms else "Document", view.top.raw))
    if view.manifest is not None:
        shown.append(("Manifest", view.manifest.raw))
    if view.config is not None:
        shown.append(("Config", view.config.serialise()))
    folded = [
        el("details", None, el("summary", None, title), el("pre", {"tabindex": "0"}, _pretty(raw)))
        for title, raw in shown
    ]
    return _section("Documents", *folded)


def _pretty(raw: bytes) -> str:
    try:
        text = json.dumps(json.loads(raw), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = raw.decode(errors="replace")
    return text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + "\n…"


def _whole_digest(text: str, label: str) -> Html:
    return join([el("code", {"class": "whole"}, text), copy_button(text, label)])


def _list(facts: Sequence[tuple[str, Content]]) -> Html:
    rows = (el("div", None, el("dt", None, key), el("dd", None, value)) for key, value in facts)
    return el("dl", {"class": "facts"}, *rows)


def _section(title: str, *content: Content) -> Html:
    return el("section", {"aria-label": title}, el("h2", None, title), *content)
