# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from lamina.cli.mount_flags import parse_mount, parse_tmpfs, parse_volume
from lamina.container.ports import Mount
from lamina.errors import Kind, LaminaError


def resolve(path: str) -> str:
    return path if path.startswith("/") else f"/cwd/{path}"


def test_volume_is_a_recursive_bind() -> None:
    request = parse_volume("./src:/dst/:ro", resolve=resolve)
    assert request.mount == Mount("/dst", "bind", "/cwd/./src", ("rbind", "ro", "rprivate"))


def test_volume_without_source_is_anonymous() -> None:
    assert parse_volume("/data", resolve=resolve).volume


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("name:/data", Kind.UNSUPPORTED),
        ("/a:b", Kind.USAGE),
        ("/a:/b:bogus", Kind.USAGE),
        ("/a:/", Kind.USAGE),
        ("", Kind.USAGE),
        ("/a::/b", Kind.USAGE),
        ("/a:/b:ro:x", Kind.USAGE),
    ],
)
def test_bad_volumes_are_refused(text: str, kind: Kind) -> None:
    with pytest.raises(LaminaError) as caught:
        parse_volume(text, resolve=resolve)
    assert caught.value.kind is kind


def test_mount_texts() -> None:
    bind = parse_mount("type=bind,src=/etc,dst=/e,readonly", resolve=resolve)
    assert bind.mount == Mount("/e", "bind", "/etc", ("rbind", "ro", "rprivate"))
    tmpfs = parse_mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700", resolve=resolve)
    assert tmpfs.mount.options == ("noexec", "nosuid", "nodev", "size=1048576", "mode=700")
    assert parse_mount("dst=/v", resolve=resolve).volume


@pytest.mark.parametrize(
    "text",
    [
        "type=bind,dst=/e",
        "type=bind,src=/nonexistent-source,dst=/e",
        "type=bind,src=/etc",
        "type=bind,src=/etc,dst=e",
        "type=bind,src=/etc,dst=/e,ro=maybe",
        "type=bind,src=/etc,dst=/e,tmpfs-size=1",
        "type=npipe,dst=/e",
        "type=volume,src=named,dst=/e",
        "type=bind,src=/etc,dst=/e,volume-driver=x",
    ],
)
def test_bad_mounts_are_refused(text: str) -> None:
    with pytest.raises(LaminaError) as caught:
        parse_mount(text, resolve=resolve)
    assert caught.value.kind in {Kind.USAGE, Kind.UNSUPPORTED}


def test_tmpfs_options_override_the_defaults() -> None:
    assert parse_tmpfs("/run").mount.options == ("noexec", "nosuid", "nodev", "mode=1777")
    assert "exec" in parse_tmpfs("/run:exec,size=2k").mount.options
    assert "noexec" not in parse_tmpfs("/run:exec").mount.options
    with pytest.raises(LaminaError, match="bogus"):
        parse_tmpfs("/run:bogus")
