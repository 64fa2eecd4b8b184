# SPDX-License-Identifier: Apache-2.0
"""References are normalised as Docker does."""

from __future__ import annotations

import pytest

from lamina.errors import LaminaError
from lamina.spec.reference import InvalidReference, Reference, is_image_id

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("ubuntu:22.04", "docker.io/library/ubuntu:22.04", "ubuntu:22.04"),
        ("a/b", "docker.io/a/b:latest", "a/b:latest"),
        ("docker.io/a/b", "docker.io/a/b:latest", "a/b:latest"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("index.docker.io/ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("host:5000/x:t", "host:5000/x:t", "host:5000/x:t"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("gcr.io/a/b/c", "gcr.io/a/b/c:latest", "gcr.io/a/b/c:latest"),
        ("Host/x", "Host/x:latest", "Host/x:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("docker.io/localhost/x", "docker.io/localhost/x:latest", "docker.io/localhost/x:latest"),
        (f"x@sha256:{HEX}", f"docker.io/library/x@sha256:{HEX}", f"x@sha256:{HEX}"),
        (f"h:5/x:t@sha256:{HEX}", f"h:5/x:t@sha256:{HEX}", f"h:5/x:t@sha256:{HEX}"),
        ("a__b/c--d.e", "docker.io/a__b/c--d.e:latest", "a__b/c--d.e:latest"),
    ],
)
def test_normalisation(text: str, full: str, familiar: str) -> None:
    reference = Reference.parse(text).with_default_tag()
    assert str(reference) == full
    assert reference.familiar() == familiar


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":tag",
        "@",
        "x:",
        "UPPER",
        "a/UPPER",
        "x:a b",
        "x\n",
        "../x",
        "a//b",
        "/a",
        "a/",
        HEX,
        "x@sha256:00",
        f"x@sha256:{HEX.upper()}",
        "x:" + "t" * 129,
        "-x",
        "x_",
        "a___b",
        "ü",
        "h:port/x",
        "-h.io/x",
        "a.b/" + "c" * 255,
        "x@",
        "x:t:u",
        f"@sha256:{HEX}",
    ],
)
def test_malformed_references_are_refused(text: str) -> None:
    with pytest.raises(LaminaError):
        Reference.parse(text)


def test_upper_case_is_named_as_the_reason() -> None:
    with pytest.raises(InvalidReference, match="must be lowercase"):
        Reference.parse("a/UPPER")


@pytest.mark.parametrize(
    ("text", "possible"),
    [
        ("abc", True),
        ("sha256:abc", True),
        (HEX, True),
        (HEX + "a", False),
        ("", False),
        ("xyz", False),
        ("ABC", False),
    ],
)
def test_image_ids(text: str, possible: bool) -> None:
    assert is_image_id(text) is possible
