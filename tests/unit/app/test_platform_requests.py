# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from lamina.app.platforms import parse_platforms
from lamina.bootstrap.foreignbusybox import applets_of
from lamina.errors import LaminaError
from lamina.spec.platform import Platform

HOST = Platform("linux", "amd64")


def test_platforms_are_lists_given_once_or_several_times_each_once() -> None:
    found = parse_platforms(["linux/arm64, linux/arm/v7", "local", "aarch64,"], host=HOST)
    assert [str(each) for each in found] == ["linux/arm64", "linux/arm/v7", "linux/amd64"]


@pytest.mark.parametrize("text", ["windows/amd64", "linux/", "linux", "linux/nothing", "a/b/c/d"])
def test_what_is_no_linux_platform_is_refused(text: str) -> None:
    with pytest.raises(LaminaError):
        parse_platforms([text], host=HOST)


def test_applets_are_those_that_the_program_names() -> None:
    names = [b"[", b"[[", *(b"a%d" % n for n in range(30)), b"cat", b"zcat"]
    program = b"\x7fELF.." + b"\x00" + b"\x00".join(names) + b"\x00\xff\xfe"
    places = [b"bin/cat", b"bin/dog", b"usr/bin/[", b"bin/a7"]
    assert applets_of(program, places) == [b"bin/cat", b"usr/bin/[", b"bin/a7"]
    with pytest.raises(LaminaError, match="lists no applets"):
        applets_of(b"\x7fELF", places)
