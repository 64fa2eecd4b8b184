# SPDX-License-Identifier: Apache-2.0
"""Platform aliases, defaults and which image runs where."""

from __future__ import annotations

import pytest

from lamina.spec.descriptor import Descriptor
from lamina.spec.manifest import Index
from lamina.spec.mediatype import OCI_MANIFEST
from lamina.spec.platform import InvalidPlatform, Platform, host


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("Linux/AMD64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm/6", "linux/arm/v6"),
        ("macos/arm64", "darwin/arm64"),
    ],
)
def test_parse_normalises(text: str, normal: str) -> None:
    assert str(Platform.parse(text)) == normal
    assert Platform.parse(normal) == Platform.parse(text)


@pytest.mark.parametrize(
    "text", ["", "/", "linux", "linux/", "linux/pdp11", "plan10/amd64", "a/b/c/d", "linux/am d64"]
)
def test_malformed_platforms_are_refused(text: str) -> None:
    with pytest.raises(InvalidPlatform):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("machine", "image", "runs"),
    [
        ("x86_64", "linux/amd64", True),
        ("x86_64", "linux/386", True),
        ("x86_64", "linux/arm64", False),
        ("x86_64", "windows/amd64", False),
        ("x86_64", "linux/amd64/v3", False),
        ("aarch64", "linux/arm64/v8", True),
        ("aarch64", "linux/arm/v7", True),
        ("aarch64", "linux/arm/v6", True),
        ("armv7l", "linux/arm/v6", True),
        ("armv6l", "linux/arm/v7", False),
    ],
)
def test_hosts_run_compatible_images(machine: str, image: str, runs: bool) -> None:
    assert host(machine).runs(Platform.parse(image)) is runs


def test_index_prefers_the_closest_platform() -> None:
    entries = [
        Descriptor.of(OCI_MANIFEST, b"386"),
        Descriptor(
            OCI_MANIFEST, Descriptor.of("", b"a").digest, 1, platform=Platform("linux", "386")
        ),
        Descriptor(
            OCI_MANIFEST, Descriptor.of("", b"b").digest, 1, platform=Platform("linux", "amd64")
        ),
        Descriptor(
            OCI_MANIFEST, Descriptor.of("", b"c").digest, 1, platform=Platform("linux", "amd64")
        ),
    ]
    index = Index.make(entries)
    assert index.select(host("x86_64")) == entries[2]
    assert index.select(host("riscv64")) is None
