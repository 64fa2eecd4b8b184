# SPDX-License-Identifier: Apache-2.0
"""The exporters: one row a `type=` of `--output`. What other code asks of a type is a field of its row.

A class is loaded when it is needed. `options` reads the attributes, by the type of each.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Protocol

    from lamina.exporter.ports import Exporter, Output

    class ExporterClass(Protocol):
        """Makes an exporter; see `make_exporter`."""

        def __call__(
            self,
            output: Output,
            *,
            stdout: IO[bytes] | None,
            privileged: bool,
        ) -> Exporter: ...


class Option(Record):
    """An attribute: `type` is one of `options.READERS`, `field` what it sets of the `Output`."""

    name: str
    type: str
    field: str


class Row(Record):
    """What a type is. `options` are its attributes.

    `dest` is where it goes: empty (the store, or nowhere), `file` (standard output if none is
    given) or `directory`. `is_image` says that it has a config, a manifest and annotations,
    `needs_layers` that it reads the result. `one_platform` is why it cannot hold the results for
    several platforms, with a hint; None: it can.
    """

    load: Callable[[], ExporterClass]
    options: tuple[Option, ...] = ()
    dest: str = ""
    is_image: bool = False
    needs_layers: bool = True
    one_platform: tuple[str, str] | None = None

    @property
    def is_pushed(self) -> bool:
        """Whether its names can go to a registry."""
        return any(option.field == "push" for option in self.options)


def _image() -> ExporterClass:
    from lamina.exporter.stored import StoredExporter

    return StoredExporter


def _oci() -> ExporterClass:
    from lamina.exporter.archives import OciExporter

    return OciExporter


def _docker() -> ExporterClass:
    from lamina.exporter.archives import DockerExporter

    return DockerExporter


def _tar() -> ExporterClass:
    from lamina.exporter.rootfs import TarExporter

    return TarExporter


def _local() -> ExporterClass:
    from lamina.exporter.rootfs import LocalExporter

    return LocalExporter


def _cacheonly() -> ExporterClass:
    from lamina.exporter.cacheonly import NoExporter

    return NoExporter


_DEST = Option("dest", "text", "dest")
_SPLIT = Option("platform-split", "boolean", "platform_split")
_IMAGE = (
    Option("name", "names", "names"),
    Option("compression", "compression", "compression"),
    Option("compression-level", "compression-level", "compression_level"),
    Option("force-compression", "boolean", "force_compression"),
    Option("oci-mediatypes", "boolean", "oci_mediatypes"),
)

TABLE = {
    "image": Row(
        _image,
        (
            *_IMAGE,
            Option("push", "boolean", "push"),
            Option("unpack", "boolean", "unpack"),
            Option("store", "true", ""),
        ),
        is_image=True,
    ),
    "oci": Row(_oci, (*_IMAGE, _DEST, Option("tar", "boolean", "tar")), "file", is_image=True),
    "docker": Row(
        _docker,
        (*_IMAGE, _DEST),
        "file",
        is_image=True,
        one_platform=(
            "docker exporter does not currently support exporting manifest lists",
            "use type=oci, or type=image and 'lamina save --platform'",
        ),
    ),
    "tar": Row(_tar, (_DEST, _SPLIT), "file"),
    "local": Row(_local, (_DEST, _SPLIT), "directory"),
    "cacheonly": Row(_cacheonly, needs_layers=False),
}


def row_of(type: str) -> Row:
    """The row of a type. Raises LaminaError of kind USAGE for one that there is not."""
    row = TABLE.get(type)
    if row is None:
        raise LaminaError(
            f"unknown output type {type!r}", kind=Kind.USAGE, hint=f"types: {', '.join(TABLE)}"
        )
    return row


def make_exporter(
    output: Output,
    *,
    stdout: IO[bytes] | None = None,
    privileged: bool = False,
    platforms: bool = False,
) -> Exporter:
    """The exporter for `output`, whose `dest` is absolute or `-`; `stdout` is for the latter.

    `privileged` (uid 0): `type=local` keeps owners, setuid bits and device nodes; otherwise files
    belong to the caller. `platforms`: it is for `export_platforms`.

    Raises:
        LaminaError: kind USAGE if there is no such type, or if `-` was asked for and there is no
            `stdout`, or it is a terminal; UNSUPPORTED for what the type cannot hold.
    """
    row = row_of(output.type)
    if output.dest == "-" and (stdout is None or stdout.isatty()):
        raise LaminaError(
            f"output type={output.type} is not written to a terminal",
            kind=Kind.USAGE,
            hint="redirect standard output or give dest=FILE",
        )
    if platforms and row.one_platform is not None:
        what, hint = row.one_platform
        raise LaminaError(what, kind=Kind.UNSUPPORTED, hint=hint)
    if not platforms and output.placed_annotations:
        place = output.placed_annotations[0][0]
        raise LaminaError(
            f"{place} annotations are not supported for a single platform export",
            kind=Kind.UNSUPPORTED,
            hint="only manifest annotations are",
        )
    return row.load()(output, stdout=stdout, privileged=privileged)
