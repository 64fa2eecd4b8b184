# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from lamina.app.platforms import build_platforms
from lamina.bootstrap.foreignbusybox import applets_of
from lamina.cli.build_flags import platforms_of
from lamina.errors import LaminaError
from lamina.spec.platform import Platform

HOST = Platform("linux", "amd64")


def test_platforms_are_those_named_each_once() -> None:
    names = ["linux/arm64", "linux/arm/v7", "local", "aarch64"]
    platforms = [str(each) for each in build_platforms(names, host=HOST)]
    assert platforms == ["linux/arm64", "linux/arm/v7", "linux/amd64"]
    assert build_platforms([], host=HOST) == (HOST,)


def test_a_flags_platforms_are_lists_given_once_or_several_times() -> None:
    platforms = platforms_of(["linux/arm64, linux/arm/v7", "aarch64,"], host=HOST)
    assert [str(each) for each in platforms] == ["linux/arm64", "linux/arm/v7"]


@pytest.mark.parametrize("text", ["windows/amd64", "linux/", "linux", "linux/nothing", "a/b/c/d"])
def test_what_is_no_linux_platform_is_refused(text: str) -> None:
    with pytest.raises(LaminaError):
        build_platforms([text], host=HOST)


def test_applets_are_those_that_the_program_names() -> None:
    names = [b"[", b"[[", *(b"a%d" % n for n in range(30)), b"cat", b"zcat"]
    program = b"\x7fELF.." + b"\x00" + b"\x00".join(names) + b"\x00\xff\xfe"
    places = [b"bin/cat", b"bin/dog", b"usr/bin/[", b"bin/a7"]
    assert applets_of(program, places) == [b"bin/cat", b"usr/bin/[", b"bin/a7"]
    with pytest.raises(LaminaError, match="lists no applets"):
        applets_of(b"\x7fELF", places)
