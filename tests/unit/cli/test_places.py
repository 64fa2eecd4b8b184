# SPDX-License-Identifier: Apache-2.0
"""Where caches go and come from."""

from __future__ import annotations

import pytest

from lamina.app.copying import Place
from lamina.cli.places import parse_cache_place
from lamina.errors import Kind, LaminaError


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("/caches", Place("oci", "/caches", "latest")),
        ("./caches", Place("oci", "/cwd/./caches", "latest")),
        ("oci:dir:name", Place("oci", "/cwd/dir", "name")),
        ("oci-archive:f.tar", Place("oci-archive", "/cwd/f.tar", "latest")),
        ("team/caches:main", Place("docker", name="team/caches:main")),
        ("docker://host:5000/c", Place("docker", name="host:5000/c")),
        ("type=local,dest=dir", Place("oci", "/cwd/dir", "latest")),
        ("type=local,src=dir", Place("oci", "/cwd/dir", "latest")),
        ("type=oci,dest=f.tar", Place("oci-archive", "/cwd/f.tar", "latest")),
        ("type=registry,ref=a/b:1", Place("docker", name="a/b:1")),
    ],
)
def test_destinations(text: str, place: Place) -> None:
    assert parse_cache_place(text, absolute=absolute) == place


def absolute(path: str) -> str:
    return path if path.startswith("/") else f"/cwd/{path}"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("store:x", Kind.UNSUPPORTED),
        ("docker-archive:x", Kind.UNSUPPORTED),
        ("dir:x", Kind.UNSUPPORTED),
        ("type=gha", Kind.UNSUPPORTED),
        ("type=local", Kind.USAGE),
        ("type=local,ref=x", Kind.USAGE),
        ("type=registry,dest=x", Kind.USAGE),
        ("type=local,dest=x,mode=max", Kind.USAGE),
        ("type=local,dest=x,src=y", Kind.USAGE),
        ("a//b", Kind.INVALID),
    ],
)
def test_what_is_no_destination_is_refused(text: str, kind: Kind) -> None:
    with pytest.raises(LaminaError) as caught:
        parse_cache_place(text, absolute=absolute)
    assert caught.value.kind is kind
