# SPDX-License-Identifier: Apache-2.0
"""`--output`: what is understood, and what is refused by name."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.exporter.options import READERS, parse_output
from lamina.exporter.ports import Output
from lamina.exporter.table import TABLE, make_exporter, row_of
from lamina.start.record import fields

ADR = Path(__file__).parents[3] / "docs/adr/0044-exporters.md"


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("out", Output("local", "out")),
        ("-", Output("tar", "-")),
        ("type=local,dest=out", Output("local", "out")),
        ("type=tar", Output("tar", "-")),
        ("type=oci,dest=x.tar", Output("oci", "x.tar")),
        ("type=oci,dest=x,tar=false", Output("oci", "x", tar=False)),
        ("type=docker,dest=-", Output("docker", "-")),
        ("type=docker", Output("image")),
        ("type=image,push=false,store=true,unpack=true", Output("image", unpack=True)),
        ("type=image,push=true", Output("image", push=True)),
        ("type=registry,name=a", Output("image", names=("a",), push=True)),
        ('type=image,"name=a,b:2"', Output("image", names=("a", "b:2"))),
        (
            "type=image,compression=zstd,compression-level=7,force-compression=true",
            Output("image", compression="zstd", compression_level=7, force_compression=True),
        ),
        (
            "type=oci,dest=-,annotation.b=2,annotation.a=1,oci-mediatypes=false",
            Output("oci", "-", annotations=(("a", "1"), ("b", "2")), oci_mediatypes=False),
        ),
    ],
)
def test_outputs(text: str, output: Output) -> None:
    assert parse_output(text) == output


@pytest.mark.parametrize(
    ("text", "named", "kind"),
    [
        ("", "empty", Kind.USAGE),
        ("dest=x", "type is missing", Kind.USAGE),
        ("type=nope", "'nope'", Kind.USAGE),
        ("type=image,store=false", "store=false", Kind.UNSUPPORTED),
        ("type=image,dest=x", "'dest'", Kind.UNSUPPORTED),
        ("type=image,name-canonical=true", "'name-canonical'", Kind.UNSUPPORTED),
        ("type=docker,dest=x,tar=false", "'tar'", Kind.UNSUPPORTED),
        ("type=local", "dest", Kind.USAGE),
        ("type=local,dest=-", "standard output", Kind.USAGE),
        ("type=tar,dest=x,compression=gzip", "'compression'", Kind.UNSUPPORTED),
        ("type=tar,dest=x,annotation.a=1", "annotation.a", Kind.UNSUPPORTED),
        ("type=image,compression=estargz", "estargz", Kind.UNSUPPORTED),
        ("type=image,compression-level=x", "compression-level", Kind.USAGE),
        ("type=image,compression-level=10", "0 to 9", Kind.USAGE),
        ("type=image,force-compression=maybe", "maybe", Kind.USAGE),
        ("type=image,compression=zstd,oci-mediatypes=false", "zstd", Kind.UNSUPPORTED),
        ("type=image,name=a,name=b", "twice", Kind.USAGE),
        ("type=image,junk", "'junk'", Kind.USAGE),
        ("type=image,annotation.=x", "annotation", Kind.USAGE),
        ('type=image,"name=a', "invalid output", Kind.USAGE),
    ],
)
def test_what_is_not_done_is_refused_by_name(text: str, named: str, kind: Kind) -> None:
    with pytest.raises(LaminaError) as caught:
        parse_output(text)
    assert named in str(caught.value)
    assert caught.value.kind is kind


@pytest.mark.parametrize("platforms", [False, True])
def test_a_type_that_there_is_not_exports_nothing_else(platforms: bool) -> None:
    with pytest.raises(LaminaError, match="unknown output type 'squashfs'") as caught:
        make_exporter(Output("squashfs", "x"), platforms=platforms)
    assert caught.value.kind is Kind.USAGE


@pytest.mark.parametrize("type", TABLE)
def test_row_leads_to_an_exporter_with_readable_options(type: str) -> None:
    row = row_of(type)
    exporter = row.load()(Output(type), stdout=None, privileged=False)
    assert callable(exporter.export)
    assert callable(exporter.export_platforms)
    for option in row.options:
        assert option.type in READERS
        assert option.field in {*fields(Output), ""}
    assert f"| `{type}`" in ADR.read_text()


def test_a_docker_archive_holds_one_platform() -> None:
    with pytest.raises(LaminaError, match="manifest lists"):
        make_exporter(Output("docker", "x"), platforms=True)


def test_an_archive_is_not_written_to_a_terminal() -> None:
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    for stdout in (None, Terminal()):
        with pytest.raises(LaminaError, match="terminal"):
            make_exporter(Output("oci", "-"), stdout=stdout)
