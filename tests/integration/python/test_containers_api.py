# SPDX-License-Identifier: Apache-2.0
"""`lamina.containers`: what a program does with containers."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import lamina
from lamina import Kind, LaminaError, RunOptions
from lamina.testing.waiting import wait_until

pytestmark = pytest.mark.usefixtures("root")
SLEEP = ["sleep", "600"]


def test_run_gives_what_was_written_and_leaves_nothing() -> None:
    assert lamina.containers.run("busybox", "echo 'two  words'") == b"two  words\n"
    assert lamina.containers.run("busybox", ["cat"], input=b"\x00\xff") == b"\x00\xff"
    assert lamina.containers.list(all=True) == []


def test_run_gives_output_of_any_size() -> None:
    script = "head -c 5000000 /dev/zero | tr '\\0' x"
    assert len(lamina.containers.run("busybox", ["sh", "-c", script])) == 5000000


def test_command_that_fails_raises_with_what_it_wrote() -> None:
    with pytest.raises(lamina.ContainerFailed) as caught:
        lamina.containers.run("busybox", ["sh", "-c", "echo out; echo why >&2; exit 7"])
    error = caught.value
    assert (error.status, error.stdout, error.stderr) == (7, b"out\n", b"why\n")
    assert (error.kind, error.hint) == (Kind.STEP_FAILED, "why")
    assert "ended with status 7" in str(error)
    with pytest.raises(LaminaError, match="nosuch"):
        lamina.containers.run("busybox", ["nosuch"])
    with pytest.raises(LaminaError) as missing:
        lamina.containers.run("nosuch:1")
    assert missing.value.kind is Kind.NOT_FOUND
    assert lamina.containers.list(all=True) == []


def test_detached_container_is_removed_by_its_block() -> None:
    with lamina.containers.run("busybox", SLEEP, detach=True, name="web") as container:
        assert container.status == "running"
        assert repr(container) == f"<Container {container.id[:12]} web running>"
        assert lamina.containers.list() == [container]
        assert lamina.containers.get("web") == container
        assert lamina.containers.get(container.short_id).attrs["State"]["Running"] is True
    assert lamina.containers.list(all=True) == []
    assert repr(container).endswith("web removed>")
    with pytest.raises(LaminaError) as gone:
        container.remove()
    assert gone.value.kind is Kind.NOT_FOUND


def test_block_removes_what_an_error_leaves() -> None:
    with pytest.raises(ZeroDivisionError), lamina.run("busybox", SLEEP):
        raise ZeroDivisionError
    assert lamina.containers.list(all=True) == []


def test_block_of_a_container_that_was_removed_is_no_error() -> None:
    with lamina.run("busybox", SLEEP) as container:
        container.remove(force=True)


def test_life_of_a_container() -> None:
    script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    container = lamina.containers.create(
        "busybox",
        ["sh", "-c", script],
        name="life",
        env={"A": "1"},
        options=RunOptions(labels=(("tier", "front"),)),
    )
    assert (container.status, container.exit_status) == ("created", None)
    assert container.labels["tier"] == "front"
    assert container.image == "busybox"
    container.start()
    wait_until(lambda: container.output() == b"ready\n")
    with pytest.raises(LaminaError) as running:
        container.remove()
    assert running.value.kind is Kind.CONFLICT
    container.stop(timeout=20)
    assert (container.status, container.exit_status) == ("exited", 5)
    assert container.wait() == 5
    container.restart()
    container.rename("again")
    assert lamina.containers.get("again").status == "running"
    container.kill("KILL")
    assert container.exit_status == 137
    with pytest.raises(LaminaError, match="invalid signal"):
        container.kill("NOSUCH")
    container.remove()


def test_logs_follow_until_the_end() -> None:
    script = "echo one; echo two >&2; while ! test -e /go; do sleep 0.05; done; echo three"
    with lamina.run("busybox", ["sh", "-c", script]) as container:
        found = []
        for entry in container.logs(follow=True):
            found.append((entry.stream, entry.data))
            if len(found) == 2:
                container.exec("touch /go")
        assert sorted(found[:2]) == [(1, b"one\n"), (2, b"two\n")]  # two pipes
        assert found[2:] == [(1, b"three\n")]
        assert container.output(stderr=False) == b"one\nthree\n"
        assert [entry.data for entry in container.logs(tail=1)] == [b"three\n"]


def test_exec_gives_status_and_streams(tmp_path: Path) -> None:
    with lamina.run("busybox", SLEEP) as container:
        done = container.exec(
            ["sh", "-c", "cat; echo $W; pwd; echo err >&2; exit 3"],
            input=b"in|",
            env={"W": "x"},
            working_dir="/tmp",
        )
        assert done == lamina.ExecResult(3, b"in|x\n/tmp\n", b"err\n")
        with pytest.raises(lamina.ContainerFailed) as caught:
            container.exec("false", check=True)
        assert caught.value.status == 1
        (tmp_path / "in").write_bytes(b"from a file")
        with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
            target.write(b"first ")
            done = container.exec("cat", stdin=source, stdout=target)
        assert done.stdout == b""
        assert (tmp_path / "out").read_bytes() == b"first from a file"
        with pytest.raises(LaminaError, match="nosuch"):
            container.exec("nosuch")
        with pytest.raises(LaminaError, match="both"):
            container.exec("cat", input=b"", stdin=0)
        container.kill()
        with pytest.raises(LaminaError) as stopped:
            container.exec("true")
        assert stopped.value.kind is Kind.CONFLICT


def test_exec_reads_as_it_comes() -> None:
    read_end, write_end = os.pipe()
    with lamina.run("busybox", SLEEP) as container:

        def work() -> None:
            container.exec(
                ["sh", "-c", "echo up; while ! test -e /go; do sleep 0.05; done"], stdout=write_end
            )
            os.close(write_end)

        thread = threading.Thread(target=work)
        thread.start()
        with open(read_end, "rb") as stream:
            assert stream.readline() == b"up\n"
            container.exec("touch /go")
            assert stream.read() == b""
        thread.join()


def test_ports_and_mounts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host")
    mounts = (
        lamina.bind_mount(tmp_path, "/host", read_only=True),
        lamina.tmpfs_mount("/scratch", size=1 << 20),
        lamina.volume_mount("/kept"),
    )
    with lamina.containers.run(
        "busybox", SLEEP, detach=True, ports={8000: 0}, options=RunOptions(mounts=mounts)
    ) as container:
        assert container.host_port(8000) > 0
        assert container.ip_address
        with pytest.raises(LaminaError, match="9000/tcp is not published"):
            container.host_port(9000)
        assert container.exec("cat /host/file").stdout == b"of the host"
        assert container.exec("touch /host/x").status == 1
        assert b"size=1024k" in container.exec("grep scratch /proc/mounts").stdout
        assert container.exec("touch /kept/x").status == 0
    with pytest.raises(LaminaError, match="does not exist"):
        lamina.bind_mount(tmp_path / "nosuch", "/x")
    for bad in ("relative", "/", "/x/.."):
        with pytest.raises(LaminaError, match="has to be absolute"):
            lamina.tmpfs_mount(bad)


def test_bad_requests_are_usage_errors() -> None:
    with pytest.raises(LaminaError) as caught:
        lamina.containers.run("busybox", "cat", detach=True, input=b"x")
    assert caught.value.kind is Kind.USAGE
    with pytest.raises(LaminaError) as caught:
        lamina.containers.get("nosuch")
    assert caught.value.kind is Kind.NOT_FOUND
    assert lamina.containers.list(all=True) == []


def test_many_threads_at_once() -> None:
    outputs: dict[int, bytes] = {}

    def work(number: int) -> None:
        outputs[number] = lamina.containers.run("busybox", ["echo", str(number)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {number: b"%d\n" % number for number in range(6)}


def test_notebook_shows_a_container_without_its_html() -> None:
    with lamina.run("busybox", ["sleep", "600", "<script>"]) as container:
        html = container._repr_html_()
        assert "&lt;script&gt;" in html
        assert "<script>" not in html
