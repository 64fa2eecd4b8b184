# SPDX-License-Identifier: Apache-2.0
"""What `run` makes of its options and of the image's defaults."""

from __future__ import annotations

from itertools import count

import pytest

from lamina.app.run_options import Origin, RunOptions, combine, configure
from lamina.container.instance import signal_number, start_failure
from lamina.container.names import check_name, new_id, new_name
from lamina.container.network.publish import PortMapping
from lamina.container.ports import Mount
from lamina.container.state import ContainerConfig
from lamina.errors import LaminaError
from lamina.spec.config import RunConfig


def merged(options: RunOptions, **image: object) -> ContainerConfig:
    config = RunConfig(**image)  # type: ignore[arg-type]  # one field each
    origin = Origin("app", "sha256:a", "sha256:b")
    return configure(options, config, origin=origin, id="f" * 64, host_name="thehost")


def test_request_replaces_an_images_volume_and_duplicates_are_refused() -> None:
    request = Mount("/data", "tmpfs", "tmpfs", ())
    mounts, volumes = combine([request], ["/data", "/.other"])
    found = {m.destination: m.type for m in mounts}
    assert found == {"/data": "tmpfs", "/.other": "volume"}
    assert volumes == ("/data", "/.other")  # as in Docker's Config.Volumes
    with pytest.raises(LaminaError, match="Duplicate mount point: /data"):
        combine([request, request], [])


def test_anonymous_volume_gives_way_and_may_be_asked_for_twice() -> None:
    anonymous = Mount("/a", "volume", flag="-v")
    named = Mount("/a", "volume", "vv", flag="-v")
    other = Mount("/b", "bind", "/x")
    assert combine([anonymous, anonymous], []) == ((anonymous,), ("/a",))
    assert combine([anonymous, named], [])[0] == (named,)
    inherited = [Mount("/a", "bind", "/theirs"), Mount("/b", "bind", "/theirs")]
    mounts, _ = combine([anonymous, other], ["/b"], inherited)
    assert {m.destination: m.source for m in mounts} == {"/a": "/theirs", "/b": "/x"}


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
