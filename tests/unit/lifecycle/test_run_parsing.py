# SPDX-License-Identifier: Apache-2.0
"""What `run` makes of its flags and of the image's defaults."""

from __future__ import annotations

from itertools import count

import pytest

from lamina.app.mount_flags import (
    combine,
    parse_mount,
    parse_size,
    parse_tmpfs,
    parse_volume,
)
from lamina.app.run_options import Origin, RunOptions, configure
from lamina.container.instance import signal_number, start_failure
from lamina.container.names import check_name, new_id, new_name
from lamina.container.network.publish import PortMapping
from lamina.container.ports import Mount
from lamina.container.state import ContainerConfig
from lamina.errors import Kind, LaminaError
from lamina.spec.config import RunConfig


def resolve(path: str) -> str:
    return path if path.startswith("/") else f"/cwd/{path}"


def merged(options: RunOptions, **image: object) -> ContainerConfig:
    config = RunConfig(**image)  # type: ignore[arg-type]  # one field each
    origin = Origin("app", "sha256:a", "sha256:b")
    return configure(options, config, origin=origin, id="f" * 64, host_name="thehost")


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


def test_request_replaces_an_images_volume_and_duplicates_are_refused() -> None:
    request = parse_tmpfs("/data")
    mounts, volumes = combine([request], ["/data", "/.other"])
    assert ([m.destination for m in mounts], volumes) == (["/data"], ("/.other",))
    with pytest.raises(LaminaError, match="Duplicate mount point: /data"):
        combine([request, request], [])


@pytest.mark.parametrize(
    ("text", "size"),
    [("10", 10), ("1k", 1024), ("1.5m", 1572864), ("2GB", 2 << 30), ("3 KiB", 3072)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1x", "1kk", "1e9"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(LaminaError, match="invalid size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (RunOptions(), ("e", "c")),
        (RunOptions(command=("x",)), ("e", "x")),
        (RunOptions(entrypoint=("n",)), ("n",)),
        (RunOptions(entrypoint=("n",), command=("x",)), ("n", "x")),
        (RunOptions(entrypoint=("",), command=("x",)), ("x",)),
    ],
)
def test_entrypoint_and_cmd_follow_dockers_rules(
    options: RunOptions, expected: tuple[str, ...]
) -> None:
    assert merged(options, entrypoint=("e",), cmd=("c",)).process.argv == expected


def test_nothing_to_run_is_an_error() -> None:
    with pytest.raises(LaminaError, match="no command specified"):
        merged(RunOptions(entrypoint=("",)), cmd=("c",))


def test_options_win_over_the_image() -> None:
    config = merged(
        RunOptions(
            command=("x",), env=(("B", "2"), ("C", "3")), labels=(("l", "mine"),), user="me"
        ),
        env=(("A", "1"), ("B", "1")),
        labels=(("l", "image"), ("k", "image")),
        user="image",
        stop_signal="SIGINT",
        working_dir="/w//x/",
    )
    assert config.process.env == (("A", "1"), ("B", "2"), ("C", "3"))
    assert config.labels == (("k", "image"), ("l", "mine"))
    assert (config.process.user, config.process.cwd) == ("me", "/w/x")
    assert config.stop_signal == "SIGINT"


def test_hostname_is_the_short_id_or_the_hosts() -> None:
    assert merged(RunOptions(command=("x",))).process.hostname == "f" * 12
    assert merged(RunOptions(command=("x",), network="host")).process.hostname == "thehost"


def test_publish_all_adds_what_is_exposed_once() -> None:
    options = RunOptions(
        command=("x",), publish_all=True, ports=(PortMapping(80, host_port=1),), expose=("90",)
    )
    config = merged(options, exposed_ports=("80/tcp", "443/tcp"))
    assert config.exposed == ("80/tcp", "90/tcp", "443/tcp")
    ports = {(p.container_port, p.host_port) for p in config.ports}
    assert ports == {(80, 1), (90, 0), (443, 0)}
    assert merged(RunOptions(command=("x",), publish_all=True, network="none")).ports == ()


def test_signals_by_name_and_number() -> None:
    assert [signal_number(t) for t in ("TERM", "SIGTERM", "sigterm", "15")] == [15] * 4
    assert signal_number("RTMIN+3") == signal_number("SIGRTMIN") + 3
    for text in ("", "0", "NOPE", "99", "SIG", "SIG_IGN"):
        with pytest.raises(LaminaError, match="invalid signal"):
            signal_number(text)


def test_names_are_checked_and_made() -> None:
    numbers = count()
    assert check_name("/web.1") == "web.1"
    for bad in ("", "-a", "a", "a b", "a/b", "é1"):
        with pytest.raises(LaminaError, match="Invalid container name"):
            check_name(bad)
    assert new_id(lambda n: bytes([next(numbers)]) * n) == "00" * 32
    assert check_name(new_name(lambda n: bytes([7, 200])[:n]))


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("executable file `x` not found in $PATH: No such file or directory", 127),
        ('exec: "x": executable file not found in $PATH', 127),
        ("open executable: Permission denied", 126),
        ('exec: "/bin": permission denied', 126),
        ("open executable: Operation not permitted", 126),
        ("mount `proc`: something else", 125),
    ],
)
def test_runtime_errors_have_dockers_status(message: str, status: int) -> None:
    assert start_failure(message).status == status
