# SPDX-License-Identifier: Apache-2.0
"""The inspect commands' common part: documents of images, containers and networks, and printing them."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

    Document = dict[str, object]


def add_format(parser: Parser) -> None:
    """The flag of each of them."""
    parser.add_argument("-f", "--format", default="", help="'json' or a Go template")


def add_size(parser: Parser, *, help: str) -> None:
    """The flag of those that inspect containers."""
    parser.switch("-s", "--size", help=help)


def add_platform(parser: Parser, *, help: str) -> None:
    """The flag of those that inspect images."""
    parser.add_argument("--platform", default="", help=help)


def show(
    names: Sequence[str], format_text: str, context: Context, *, look: Callable[[str], Document]
) -> int:
    """Print the documents that `look` finds; the exit status.

    Raises:
        LaminaError: as `look`. Of kind NOT_FOUND (an ExceptionGroup of several) it is raised when
            all that were found are printed.
    """
    from lamina.cli.format import documents

    found: list[Document] = []
    missing: list[LaminaError] = []
    for name in names:
        try:
            found.append(look(name))
        except LaminaError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            missing.append(error)
    for line in documents(format_text, found):
        context.print(line)
    if len(missing) > 1:
        raise ExceptionGroup("not found", missing)
    if missing:
        raise missing[0]
    return 0


def image_document(name: str, context: Context, *, platform: str = "") -> Document:
    """The image, of several platforms that for `platform`, or for this host if it is empty.

    Raises:
        LaminaError: as `lamina.image.resolve.find_image`.
    """
    from lamina.app.images import inspect_image
    from lamina.spec.platform import Platform

    wanted = Platform.parse(platform) if platform else context.platform()
    return inspect_image(context.store(), name, platform=wanted, exact=bool(platform))


def network_document(name: str, context: Context) -> Document:
    """The network of this name or id. Raises LaminaError of kind NOT_FOUND."""
    from lamina.app.network_json import inspect

    return inspect(context.store(), name)


def container_document(name: str, context: Context, *, size: bool = False) -> Document:
    """The container; with `size` also how much it wrote, and has with its image.

    Raises:
        LaminaError: as `lamina.app.containers.find`.
    """
    from lamina.app.container_json import inspect
    from lamina.app.containers import find

    store = context.store()
    document = inspect(store, name)
    if size:
        from lamina.image.resolve import find_image

        written = find(store, name).size()
        image = find_image(store, str(document["Image"]))
        document |= {"SizeRw": written, "SizeRootFs": written + image.size}
    return document


def volume_document(name: str, context: Context) -> Document:
    """The volume.

    Raises:
        LaminaError: as `lamina.container.volumes.find`.
    """
    from lamina.app.volumes import volume_json
    from lamina.container.volumes import find

    return volume_json(context.store(), find(context.store(), name))
