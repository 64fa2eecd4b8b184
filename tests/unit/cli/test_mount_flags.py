# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from lamina.cli.mount_flags import parse_mount, parse_tmpfs, parse_volume, parse_volumes_from
from lamina.container.ports import Mount
from lamina.errors import Kind, LaminaError


def resolve(path: str) -> str:
    return path if path.startswith("/") else f"/cwd/{path}"


def volume(text: str) -> Mount:
    return parse_volume(text, resolve=resolve)


def mount(text: str) -> Mount:
    return parse_mount(text, resolve=resolve)


def test_path_is_a_recursive_bind() -> None:
    assert volume("./src:/dst/:ro") == Mount(
        "/dst", "bind", "/cwd/./src", ("rbind", "ro", "rprivate"), flag="-v", mode="ro"
    )
    assert volume("/a:/b:z,rslave").options == ("rbind", "rslave")


def test_volume_without_source_is_anonymous() -> None:
    assert volume("/data") == Mount("/data", "volume", flag="-v")
    assert mount("dst=/v") == Mount("/v", "volume", flag="--mount")


def test_name_is_a_volume() -> None:
    assert volume("na.me_-1:/d") == Mount("/d", "volume", "na.me_-1", (), flag="-v")
    asked = volume("name:/d:nocopy,ro,z")
    assert (asked.options, asked.mode) == (("nocopy", "ro"), "nocopy,ro,z")


@pytest.mark.parametrize(
    "text",
    [
        "/a:b",
        "/a:/b:bogus",
        "/a:/",
        "",
        "/a::/b",
        "/a:/b:ro:x",
        "/a:/b:ro,rw",
        "/a:/b:ro,ro",
        "/a:/b:nocopy",
        "/a:/b:shared,slave",
        "name:/b:shared",
        "n:/b",
        "-n:/b",
        "a/b:/c",
        "n\u00e4me:/b",
        "/foo:rw",
    ],
)
def test_bad_volumes_are_refused(text: str) -> None:
    with pytest.raises(LaminaError) as caught:
        volume(text)
    assert caught.value.kind is Kind.USAGE


def test_mount_texts() -> None:
    bind = mount("type=bind,src=/etc,dst=/e,readonly")
    assert bind == Mount("/e", "bind", "/etc", ("rbind", "ro", "rprivate"), flag="--mount")
    assert mount("type=bind,src=/etc,dst=/e,ro=false").options == ("rbind", "rprivate")
    assert mount("type=bind,src=/etc,dst=/e,bind-nonrecursive").options == ("bind", "rprivate")
    recursion = "type=bind,src=/etc,dst=/e,ro,bind-recursive=writable,bind-propagation=rslave"
    assert mount(recursion).options == ("rbind", "ro", "rslave")
    tmpfs = mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700")
    assert tmpfs.options == ("noexec", "nosuid", "nodev", "size=1048576", "mode=700")


def test_mount_of_a_volume() -> None:
    asked = mount(
        "src=vv,dst=/d,ro,volume-subpath=a/b,volume-nocopy,volume-label=k=v,volume-label=only,"
        "volume-driver=local,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/x"
    )
    labels = ("label=k=v", "label=only")
    driver = ("option=type=none", "option=o=bind", "option=device=/x")
    assert asked.options == ("ro", "subpath=a/b", "nocopy", *labels, *driver)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("type=bind,dst=/e", "field Source must not be empty"),
        ("type=bind,src=/nonexistent-source,dst=/e", "bind source path does not exist"),
        ("type=bind,src=/etc", "target is required"),
        ("type=bind,src=/etc,dst=e", "mount path must be absolute"),
        ("type=bind,src=/etc,dst=/e,ro=maybe", "invalid value for ro: maybe"),
        ("type=bind,src=/etc,dst=/e,tmpfs-size=1", "cannot mix 'tmpfs-*' options"),
        ("type=bind,src=/etc,dst=/e,volume-driver=x", "cannot mix 'volume-*' options"),
        ("type=bind,src=/etc,dst=/e,volume-label=x", "cannot mix 'volume-*' options"),
        ("src=vv,dst=/e,bind-propagation=shared", "cannot mix 'bind-*' options"),
        ("type=bind,src=/etc,dst=/e,bind-propagation=no", "invalid propagation mode: no"),
        ("type=bind,src=/etc,dst=/e,bind-recursive=no", "invalid value for bind-recursive: no"),
        ("type=bind,src=/etc,dst=/e,bind-recursive=readonly", "readonly is not supported"),
        ("type=npipe,dst=/e", "mount type 'npipe' is not supported"),
        ("type=image,src=bb,dst=/e", "mount type 'image' is not supported"),
        ("type=cluster,src=bb,dst=/e", "mount type 'cluster' is not supported"),
        ("type=bogus,dst=/e", "mount type unknown"),
        ("type=tmpfs,src=x,dst=/e", "field Source must not be specified"),
        ("type=tmpfs,dst=/e,tmpfs-mode=8", "invalid value for tmpfs-mode"),
        ("dst=/e,bogus=1", "unexpected key 'bogus' in 'bogus=1'"),
        ("dst=/e,bogus", "invalid field 'bogus' must be a key=value pair"),
        ("dst=/e,ro", "must not set ReadOnly mode when using anonymous volumes"),
        ("dst=/e,volume-subpath=x", "must not set Subpath when using anonymous volumes"),
        ("src=vv,dst=/e,volume-subpath=../x", "subpath must be a relative path"),
        ("src=vv,dst=/e,volume-subpath=a/../../x", "subpath must be a relative path"),
        ("src=vv,dst=/e,volume-subpath=/x", "subpath must be a relative path"),
        ("src=vv,dst=/e,volume-driver=nfs", "volume driver 'nfs' is not supported"),
        ("src=vv,dst=/e,volume-opt=type=nfs", 'missing required option: "device"'),
        ("src=../vv,dst=/e", "includes invalid characters for a local volume name"),
    ],
)
def test_bad_mounts_are_refused(text: str, why: str) -> None:
    with pytest.raises(LaminaError) as caught:
        mount(text)
    assert caught.value.kind in {Kind.USAGE, Kind.UNSUPPORTED}
    assert why in str(caught.value)


@pytest.mark.parametrize("text", ["", ":ro", "c:bogus", "c:ro,rw", "c:nocopy", "c:shared"])
def test_bad_volumes_from_is_refused(text: str) -> None:
    with pytest.raises(LaminaError) as caught:
        parse_volumes_from(text)
    assert caught.value.kind is Kind.USAGE


def test_tmpfs_options_override_the_defaults() -> None:
    assert parse_tmpfs("/run").options == ("noexec", "nosuid", "nodev", "mode=1777")
    assert "exec" in parse_tmpfs("/run:exec,size=2k").options
    assert "noexec" not in parse_tmpfs("/run:exec").options
    with pytest.raises(LaminaError, match="bogus"):
        parse_tmpfs("/run:bogus")
