# SPDX-License-Identifier: Apache-2.0
"""Flags of `build` that `bake` shares or that need more than a line to understand."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypedDict

    from lamina.app.buildrequest import BuildRequest
    from lamina.app.contexts import BuildContextSource
    from lamina.app.wiring import BuildHost
    from lamina.buildcache.options import CacheFrom, CacheTo
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context
    from lamina.events import Event
    from lamina.exporter.ports import Output
    from lamina.spec.platform import Platform

    class CachePlaces(TypedDict):
        cache_from: tuple[CacheFrom, ...]
        cache_to: tuple[CacheTo, ...]


PROGRESS = ("auto", "plain", "tty", "json", "rawjson", "quiet")


def add_build_flags(parser: Parser) -> None:
    """Flags of `build` alone."""
    add = parser.add_argument
    add("--annotation", action="append", default=[], help="annotation of the manifest: KEY=VALUE")
    add("--build-arg-file", action="append", default=[], help="a file of NAME=VALUE lines")
    add("--cache-from", action="append", default=[], help="IMAGE, or type=registry|local,...")
    add("--cache-to", action="append", default=[], help="type=registry|local|inline,...")
    add("--call", default="build", help="build, check, outline or targets, with ,format=json")
    parser.switch("--check", help="as --call=check")
    add("--no-cache-filter", action="append", default=[], help="stages whose steps run again")
    add("--on-fail", default="", choices=["", "shell"], help="shell: enter the step that failed")
    parser.switch("--squash", help="one layer for all that the build adds to its base")
    add("--timestamp", default="", help="seconds: as SOURCE_DATE_EPOCH")


def add_shared_flags(parser: Parser) -> None:
    """Flags of `build` and `bake`."""
    add = parser.add_argument
    parser.switch("--pull", help="ask the registries again for base images")
    parser.switch("--push", help="push the image (as --output=type=registry)")
    parser.switch("--load", help="make an image in the store (the default)")
    add("--metadata-file", default="", help="write what was built to this file, as JSON")
    add("--progress", default="", choices=["", *PROGRESS], help="how to show what happens")
    add("--runtime", default="", help="OCI runtime: a name or a path")
    add(
        "--context-modes",
        default="",
        choices=["", "exact", "git"],
        help="git: files of the build context have mode 0644 or 0755, whatever the umask",
    )
    add("--ca-bundle", default="", help="PEM file that RUN steps trust; never left in the image")


def check_flags(args: argparse.Namespace) -> None:
    """Raise for values that contradict each other or that lamina cannot do yet."""
    if args.no_cache and args.no_cache_filter:
        raise LaminaError(
            "--no-cache and --no-cache-filter cannot currently be used together", kind=Kind.USAGE
        )
    if args.on_fail and args.quiet:
        raise LaminaError("--on-fail=shell and --quiet contradict each other", kind=Kind.USAGE)


def progress_of(args: argparse.Namespace, context: Context) -> str:
    """`--progress`, else BUILDKIT_PROGRESS, else `auto`. Raises LaminaError of kind USAGE."""
    if args.progress:
        return str(args.progress)
    value = context.env.get("BUILDKIT_PROGRESS", "") or "auto"
    if value not in PROGRESS:
        raise LaminaError(
            f"invalid BUILDKIT_PROGRESS {value!r}",
            kind=Kind.USAGE,
            hint=f"it can be {', '.join(PROGRESS)}",
        )
    return value


def cache_places(
    sources: Iterable[str],
    targets: Iterable[str],
    build_args: Mapping[str, str],
    absolute: Callable[[str], str],
) -> CachePlaces:
    """The fields of a request for `--cache-from`, `--cache-to` and BUILDKIT_INLINE_CACHE=1.

    Raises:
        LaminaError: kind USAGE, or UNSUPPORTED by name.
    """
    is_inline = build_args.get("BUILDKIT_INLINE_CACHE", "").lower() in {"1", "t", "true"}
    sources, targets = list(sources), list(targets) + ["type=inline"] * is_inline
    if not sources and not targets:
        return {"cache_from": (), "cache_to": ()}
    from lamina.buildcache.options import parse_cache_from, parse_cache_to

    places = [place for text in sources for place in parse_cache_from(text)]
    exports = [export for text in targets for export in parse_cache_to(text)]
    return {
        "cache_from": tuple(
            replace(place, src=absolute(place.src)) if place.src else place for place in places
        ),
        "cache_to": tuple(
            replace(export, dest=absolute(export.dest)) if export.dest else export
            for export in exports
        ),
    }


def comma_list(texts: Iterable[str]) -> tuple[str, ...]:
    """The words of a flag that takes `A,B` and may be repeated."""
    return tuple(word.strip() for text in texts for word in text.split(",") if word.strip())


def build_contexts(texts: Iterable[str], *, cwd: str) -> tuple[BuildContextSource, ...]:
    """What the `NAME=WHERE` of --build-context say. Raises as `context_source`, and USAGE."""
    pairs = []
    for text in texts:
        name, _, where = text.partition("=")
        if not name or not where:
            raise LaminaError(
                f'invalid argument "{text}" for "--build-context" flag: '
                "expected NAME=DIRECTORY, NAME=docker-image://... or NAME=URL",
                kind=Kind.USAGE,
            )
        pairs.append((name, where))
    if not pairs:
        return ()
    from lamina.app.contexts import context_source

    return tuple(context_source(name, where, cwd=cwd) for name, where in pairs)


def platforms_of(texts: Iterable[str], *, host: Platform) -> tuple[Platform, ...]:
    """The platforms of --platform, each a comma list; the host's if there is none."""
    names = comma_list(texts)
    if not names:
        return (host,)
    from lamina.app.platforms import build_platforms

    return build_platforms(names, host=host)


def epoch_of(args: argparse.Namespace, context: Context) -> int | None:
    """`--timestamp`, else SOURCE_DATE_EPOCH. Raises LaminaError of kind USAGE."""
    from lamina.cli.values import parse_epoch

    if not args.timestamp:
        return parse_epoch(context.env.get("SOURCE_DATE_EPOCH", ""))
    if not (args.timestamp.isascii() and args.timestamp.isdigit()):
        raise LaminaError(
            f'invalid argument "{args.timestamp}" for "--timestamp" flag: not a number of seconds',
            kind=Kind.USAGE,
        )
    return int(args.timestamp)


def file_args(paths: Iterable[str], context: Context) -> list[str]:
    """The `NAME=VALUE` lines of --build-arg-file; blank lines and `#` comments are left out."""
    found: list[str] = []
    for path in paths:
        with open(context.path(path), encoding="utf-8") as file:
            for line in file:
                text = line.strip()
                if text and not text.startswith("#"):
                    found.append(text)
    return found


def parse_annotations(texts: Iterable[str]) -> tuple[tuple[str, str, str], ...]:
    """(place, name, value) of `[TYPE,...:]NAME=VALUE`, sorted; `manifest` without a type.

    Raises:
        LaminaError: kind USAGE for a malformed one.
    """
    found: dict[tuple[str, str], str] = {}
    for text in texts:
        from lamina.exporter.options import annotation_place

        key, equals, value = text.partition("=")
        if not equals:
            raise LaminaError(f'invalid annotation "{text}", expected key=value', kind=Kind.USAGE)
        places, colon, name = key.partition(":")
        if not colon:
            places, name = "manifest", key
        if not name:
            raise LaminaError(f'invalid annotation "{text}", the key is empty', kind=Kind.USAGE)
        for place in places.split(","):
            found[annotation_place(place), name] = value
    return tuple((place, name, value) for (place, name), value in sorted(found.items()))


def annotated(
    outputs: tuple[Output, ...], annotations: tuple[tuple[str, str, str], ...]
) -> tuple[Output, ...]:
    """The outputs (an image if there is none) with the annotations on those that are images.

    Raises LaminaError of kind USAGE if none of them is.
    """
    if not annotations:
        return outputs
    from lamina.exporter.ports import Output
    from lamina.exporter.table import row_of
    from lamina.start.record import replace

    outputs = outputs or (Output(),)
    if not any(row_of(output.type).is_image for output in outputs):
        raise LaminaError("--annotation needs an output that is an image", kind=Kind.USAGE)
    manifest = {name: value for place, name, value in annotations if place == "manifest"}
    placed = tuple(each for each in annotations if each[0] != "manifest")
    return tuple(
        replace(
            output,
            annotations=tuple(sorted({**dict(output.annotations), **manifest}.items())),
            placed_annotations=(*output.placed_annotations, *placed),
        )
        if row_of(output.type).is_image
        else output
        for output in outputs
    )


def with_flags(request: BuildRequest, args: argparse.Namespace, context: Context) -> BuildRequest:
    """The request with what `add_build_flags` adds."""
    return replace(
        request,
        outputs=annotated(request.outputs, parse_annotations(args.annotation)),
        epoch=epoch_of(args, context),
        no_cache_filter=comma_list(args.no_cache_filter),
        squash=args.squash,
    )


def is_index(platforms: tuple[Platform, ...], build_args: Mapping[str, str]) -> bool:
    """Whether the result is an index: of several images, or if BUILDKIT_MULTI_PLATFORM asks."""
    wanted = build_args.get("BUILDKIT_MULTI_PLATFORM", "")
    return len(platforms) > 1 or wanted.lower() in {"1", "t", "true"}


def make_host(
    args: argparse.Namespace, context: Context, view: Callable[[Event], None]
) -> BuildHost:
    """What the steps run on, as flags and settings say."""
    from lamina.app.wiring import BuildHost

    settings = context.settings()
    if args.ca_bundle:
        settings = replace(settings, ca_bundle=context.path(args.ca_bundle))
    if args.runtime:
        settings = replace(settings, runtime=args.runtime)
    if args.context_modes:
        settings = replace(settings, context_modes=args.context_modes)
    return BuildHost(
        context.store(),
        settings,
        search_path=context.env.get("PATH", ""),
        emit=view,
        env=context.env,
        registries=context.registries,
    )
