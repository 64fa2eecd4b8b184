# SPDX-License-Identifier: Apache-2.0
"""Containers in the background: ps, logs, stop, kill, rm, exec, wait, start, ports."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lamina.testing.busybox import Lamina, make_image
from lamina.testing.waiting import wait_until

SLEEP = ["bb", "sleep", "600"]
SERVER = ["nc", "-ll", "-p", "8000", "-e", "echo"]
TRAPPED = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fetch(port: int) -> bytes:
    """What the server behind the port says; empty while there is none."""
    with (
        suppress(ConnectionError),
        socket.create_connection(("127.0.0.1", port), timeout=10) as client,
    ):
        client.settimeout(10)
        data = b""
        while block := client.recv(4096):
            data += block
        return data
    return b""


def test_run_d_prints_the_id_and_the_container_runs(lamina: Lamina) -> None:
    id = lamina.out("run", "-d", "--name", "web", *SLEEP)
    assert re.fullmatch("[0-9a-f]{64}", id)
    assert lamina.out("ps", "-q", "--no-trunc") == id
    assert lamina.inspect(id[:10])["State"]["Status"] == "running"


def test_ps_has_dockers_columns(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "web", "-p", f"{free_port()}:80", "-l", "a=b", *SLEEP)
    header, row = lamina.out("ps").split("\n")
    assert header.split() == [
        "CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES",
    ]  # fmt: skip
    assert re.search(r'^[0-9a-f]{12}  +bb  +"sleep 600"  +.* ago  +Up .*->80/tcp  +web$', row)


def test_ps_filters_select(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "one", "-l", "tier=front", *SLEEP)
    lamina("run", "--name", "two", "bb", "sh", "-c", "exit 3", status=3)

    def names(*flags: str) -> set[str]:
        return set(lamina.out("ps", "--format", "{{.Names}}", *flags).split())

    assert names() == {"one"}
    assert names("-a") == {"one", "two"}
    assert names("-f", "status=exited") == {"two"}
    assert names("-f", "exited=3") == {"two"}
    assert names("-a", "-f", "name=^t") == {"two"}
    assert names("-a", "-f", "label=tier=front") == {"one"}
    assert names("-a", "-f", "label=tier=back") == set()
    assert names("-a", "-f", "ancestor=bb") == {"one", "two"}
    assert names("-l") == {"two"}
    assert names("-n", "2") == {"one", "two"}
    assert "invalid filter" in lamina("ps", "-f", "bogus=1", status=125).stderr
    row = json.loads(lamina.out("ps", "-a", "-f", "name=two", "--format", "json"))
    assert row["Status"].startswith("Exited (3)")


def test_random_names_are_given(lamina: Lamina) -> None:
    lamina("run", "bb", "true")
    assert re.fullmatch("[a-z]+_[a-z]+", lamina.out("ps", "-a", "--format", "{{.Names}}"))


def test_logs_keep_both_streams_and_their_order(lamina: Lamina) -> None:
    lamina("run", "--name", "lg", "bb", "sh", "-c", "echo 1; echo 2 >&2; printf 3")
    done = lamina("logs", "lg")
    assert (done.stdout, done.stderr) == ("1\n3", "2\n")
    assert lamina.out("logs", "-n", "1", "lg") == "3"
    stamped = lamina.out("logs", "-t", "--tail", "1", "lg")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z 3", stamped)
    assert lamina("logs", "--since", "1h", "--until", "30m", "lg").stdout == ""
    assert lamina("logs", "--since", "1h", "lg").stdout == "1\n3"


def test_logs_f_follows_until_the_end(lamina: Lamina) -> None:
    lamina(
        "run", "-d", "--name", "lg", "bb", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done"
    )
    assert lamina.out("logs", "-f", "lg") == "1\n2\n3"


def test_logs_f_shows_lines_as_they_come(lamina: Lamina) -> None:
    lamina("run", "-d", "-i", "--name", "lg", "bb", "sh", "-c", "echo first; sleep 600")
    process = lamina.popen("logs", "-f", "lg")
    assert process.stdout is not None
    assert process.stdout.readline() == b"first\n"
    lamina("rm", "-f", "lg")
    assert process.communicate(timeout=30)[0] == b""
    assert process.returncode == 0


def test_log_rotation_keeps_the_newest(lamina: Lamina) -> None:
    lamina(
        "run", "--name", "lg", "--log-opt", "max-size=4k", "--log-opt", "max-file=2", "bb",
        "sh", "-c", "for i in $(seq 1 300); do echo line $i; done",
    )  # fmt: skip
    directory = Path(lamina.inspect("lg")["LogPath"]).parent
    assert sorted(p.name for p in directory.glob("container.log*")) == [
        "container.log", "container.log.1",
    ]  # fmt: skip
    assert lamina.out("logs", "lg").split("\n")[-1] == "line 300"


def test_log_driver_none_keeps_no_log(lamina: Lamina) -> None:
    assert lamina.out("run", "--name", "lg", "--log-driver", "none", "bb", "echo", "x") == "x"
    assert "does not support reading" in lamina("logs", "lg", status=1).stderr


def test_stop_sends_the_stop_signal_and_waits(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "st", "bb", "sh", "-c", TRAPPED)
    wait_until(lambda: "ready" in lamina("logs", "st").stdout, "the trap is set")
    assert lamina.out("stop", "st") == "st"
    assert lamina.inspect("st")["State"]["ExitCode"] == 5
    assert lamina.out("logs", "st") == "ready\nbye"
    lamina("stop", "st")  # stopped already: no error


def test_stop_kills_after_the_timeout(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "st", *SLEEP)
    start = time.monotonic()
    lamina("stop", "-t", "1", "st")
    assert 1 <= time.monotonic() - start < 8
    assert lamina.inspect("st")["State"]["ExitCode"] == 137


def test_stop_signal_of_the_image_and_of_the_flag(lamina: Lamina) -> None:
    make_image(lamina.root, "docker.io/library/si:latest", StopSignal="SIGUSR1")
    script = "trap 'exit 11' USR1; trap 'exit 12' USR2; echo ready; while :; do sleep 0.05; done"
    lamina("run", "-d", "--name", "aa", "si", "sh", "-c", script)
    lamina("run", "-d", "--name", "bb", "--stop-signal", "USR2", "si", "sh", "-c", script)
    for name, status in (("aa", 11), ("bb", 12)):
        wait_until(lambda name=name: "ready" in lamina("logs", name).stdout, "ready")  # type: ignore[misc]  # a bound default
        lamina("stop", name)
        assert lamina.inspect(name)["State"]["ExitCode"] == status


def test_kill_sends_any_signal(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "kk", "bb", "sh", "-c", TRAPPED)
    wait_until(lambda: "ready" in lamina("logs", "kk").stdout, "ready")
    lamina("kill", "-s", "TERM", "kk")
    assert lamina.out("wait", "kk") == "5"
    assert "is not running" in lamina("kill", "kk", status=1).stderr
    assert "invalid signal" in lamina("kill", "-s", "NOPE", "kk", status=125).stderr


def test_wait_prints_the_status(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "ww", "bb", "sh", "-c", "sleep 0.5; exit 6")
    assert lamina.out("wait", "ww") == "6"
    assert lamina.out("wait", "ww", "ww") == "6\n6"


def test_rm_refuses_what_runs_and_f_does_not(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "rr", *SLEEP)
    assert "container is running" in lamina("rm", "rr", status=1).stderr
    assert lamina.out("rm", "-f", "rr") == "rr"
    assert lamina.out("ps", "-aq") == ""
    assert "No such container: rr" in lamina("rm", "rr", status=1).stderr
    lamina("rm", "-f", "rr")


def test_rm_goes_on_after_a_failure(lamina: Lamina) -> None:
    lamina("run", "--name", "xx", "bb", "true")
    done = lamina("rm", "nosuch", "xx", status=1)
    assert done.stdout == "xx\n"


def test_ambiguous_id_is_an_error(lamina: Lamina) -> None:
    for _ in range(17):  # two of 17 ids share their first digit
        lamina("run", "--network", "none", "bb", "true")
    ids = lamina.out("ps", "-aq").split()
    digit = next(id[0] for id in ids if sum(other[0] == id[0] for other in ids) > 1)
    assert "Multiple containers" in lamina("rm", digit, status=1).stderr


def test_exec_runs_beside_it_with_its_environment(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "ex", "-e", "A=1", "-w", "/tmp", *SLEEP)
    out = lamina.out("exec", "-e", "B=2", "ex", "sh", "-c", "echo $A $B $PWD $(id -u)")
    assert out == "1 2 /tmp 0"
    out = lamina.out(
        "exec", "-u", "guest", "-w", "/data", "ex", "sh", "-c", "id -un; pwd; echo $HOME"
    )
    assert out.split() == ["guest", "/data", "/home/guest"]
    assert lamina("exec", "-i", "ex", "cat", input="in\n").stdout == "in\n"
    assert lamina("exec", "ex", "cat", input="ignored").stdout == ""


def test_exec_passes_statuses_on(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "ex", *SLEEP)
    lamina("exec", "ex", "sh", "-c", "exit 17", status=17)
    lamina("exec", "ex", "nosuch", status=127)
    lamina("exec", "ex", "/etc/notexec", status=126)
    lamina("exec", "ex", "sh", "-c", "kill -9 $$", status=137)
    lamina("stop", "-t", "0", "ex")
    assert "is not running" in lamina("exec", "ex", "true", status=1).stderr


def test_exec_d_returns_and_the_process_stays(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "ex", *SLEEP)
    assert lamina.out("exec", "-d", "ex", "sh", "-c", "sleep 0.2; echo done >/tmp/mark") == ""
    wait_until(lambda: lamina("exec", "ex", "ls", "/tmp").stdout == "mark\n", "the mark")


def test_exec_has_the_containers_limits(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "ex", "--cap-drop", "ALL", "--ulimit", "nofile=100", *SLEEP)
    script = "grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; ulimit -n"
    assert lamina.out("exec", "ex", "sh", "-c", script).split() == [
        "CapEff:", "0000000000000000", "Seccomp:", "2", "100",
    ]  # fmt: skip
    privileged = lamina.out("exec", "--privileged", "ex", "grep", "CapEff", "/proc/self/status")
    assert int(privileged.split()[1], 16) > 0


def test_start_runs_it_again_with_its_files(lamina: Lamina) -> None:
    lamina("run", "--name", "ss", "bb", "sh", "-c", "echo x >>/count; wc -l </count")
    assert lamina.out("start", "-a", "ss") == "2"
    assert lamina.out("start", "ss") == "ss"
    lamina("wait", "ss")
    assert lamina.out("logs", "ss") == "1\n2\n3"


def test_start_i_passes_stdin(lamina: Lamina) -> None:
    lamina("run", "-i", "--name", "ss", "bb", "cat", input="a")
    assert lamina("start", "-ai", "ss", input="b").stdout == "b"


def test_restart_gives_a_new_process(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "rs", *SLEEP)
    before = lamina.inspect("rs")["State"]["Pid"]
    assert lamina.out("restart", "-t", "0", "rs") == "rs"
    after = lamina.inspect("rs")["State"]["Pid"]
    assert before != after > 0


def test_rm_flag_removes_when_it_ends(lamina: Lamina) -> None:
    lamina("run", "-d", "--rm", "--name", "rm", "bb", "sleep", "0.3")
    wait_until(lambda: lamina.out("ps", "-aq") == "", "it is removed")
    assert lamina.directories() == []


def test_two_containers_on_two_ports_answer(lamina: Lamina) -> None:
    ports = {name: free_port() for name in ("one", "two")}
    for name, port in ports.items():
        lamina("run", "-d", "--name", name, "-p", f"{port}:8000", "bb", *SERVER, name)
    for name, port in ports.items():
        wait_until(lambda port=port: fetch(port) != b"", "an answer")  # type: ignore[misc]  # a bound default
        assert fetch(port) == f"{name}\n".encode()
        assert lamina.out("port", name, "8000") == f"0.0.0.0:{port}"
        assert lamina.out("port", name) == f"8000/tcp -> 0.0.0.0:{port}"


def test_port_conflict_is_an_error_and_leaves_nothing(lamina: Lamina) -> None:
    port = free_port()
    lamina("run", "-d", "--name", "one", "-p", f"{port}:80", *SLEEP)
    done = lamina("run", "-d", "--rm", "--name", "two", "-p", f"{port}:80", *SLEEP, status=125)
    assert str(port) in done.stderr
    assert "already allocated" in done.stderr
    assert lamina.out("ps", "-a", "--format", "{{.Names}}") == "one"
    lamina("rm", "-f", "one")
    lamina("run", "--rm", "-p", f"{port}:80", "bb", "true")


def test_publish_all_takes_what_is_exposed(lamina: Lamina) -> None:
    make_image(lamina.root, "docker.io/library/xp:latest", ExposedPorts={"8000/tcp": {}})
    lamina("run", "-d", "--name", "pp", "-P", "--expose", "9000", "xp", "sleep", "600")
    bindings = lamina.inspect("pp")["NetworkSettings"]["Ports"]
    assert set(bindings) == {"8000/tcp", "9000/tcp"}
    assert all(int(entry[0]["HostPort"]) > 0 for entry in bindings.values())


@pytest.mark.host_root("there is no bridge")
def test_containers_reach_each_other(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "srv", "bb", *SERVER, "hi")
    address = lamina.inspect("srv")["NetworkSettings"]["IPAddress"]
    script = f"for i in 1 2 3 4 5 6 7 8 9; do nc {address} 8000 </dev/null && exit; sleep 0.1; done"
    assert lamina.out("run", "--rm", "bb", "sh", "-c", script) == "hi"


def test_monitor_shows_what_it_is_and_no_password(lamina: Lamina) -> None:
    id = lamina.out("run", "-d", "-e", "PASSWORD=hunter2", *SLEEP)
    directory = Path(lamina.root) / "containers" / id
    monitor = json.loads((directory / "state.json").read_text())["monitor_pid"]
    line = Path(f"/proc/{monitor}/cmdline").read_bytes()
    assert line.rstrip(b"\0").decode() == f"lamina-monitor {lamina.root} {id}"
    rest = Path(f"/proc/{monitor}/environ").read_bytes().strip(b"\0")
    assert line.rstrip(b"\0").endswith(rest), "at most the title's end is there"


def test_killed_monitor_is_told_by_ps_and_rm_f_cleans(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "om", "-p", f"{free_port()}:80", *SLEEP)
    state_file = Path(lamina.inspect("om")["LogPath"]).with_name("state.json")
    state = json.loads(state_file.read_text())
    os.kill(state["monitor_pid"], signal.SIGKILL)
    wait_until(lambda: "orphaned" in lamina.out("ps", "-a", "--format", "{{.Status}}"), "orphaned")
    assert Path(f"/proc/{state['pid']}").exists()
    assert state_file.parent.name not in Path("/proc/mounts").read_text()
    assert lamina.out("rm", "-f", "om") == "om"
    wait_until(lambda: not Path(f"/proc/{state['pid']}").exists(), "the process is gone")


def test_killed_monitor_and_process_are_told_as_exited(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "om", *SLEEP)
    state_file = Path(lamina.inspect("om")["LogPath"]).with_name("state.json")
    state = json.loads(state_file.read_text())
    os.kill(state["monitor_pid"], signal.SIGKILL)
    os.kill(state["pid"], signal.SIGKILL)
    wait_until(lambda: lamina.inspect("om")["State"]["Status"] == "exited", "exited")
    assert lamina.inspect("om")["State"]["ExitCode"] == 255
    assert lamina.out("wait", "om") == "255"
    lamina("start", "om")  # what was left behind is no hindrance
    assert lamina.inspect("om")["State"]["Running"]


def test_stop_works_on_an_orphan(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "om", *SLEEP)
    state_file = Path(lamina.inspect("om")["LogPath"]).with_name("state.json")
    os.kill(json.loads(state_file.read_text())["monitor_pid"], signal.SIGKILL)
    lamina("stop", "-t", "0", "om")
    assert lamina.out("ps", "-q") == ""


def test_twenty_starts_at_once_do_not_disturb_each_other(lamina: Lamina) -> None:
    processes = [lamina.popen("run", "--rm", "bb", "echo", str(n)) for n in range(10)]
    outputs = [process.communicate(timeout=60)[0].decode().strip() for process in processes]
    assert outputs == [str(n) for n in range(10)]


@pytest.mark.host_root("this process opens the store")
def test_python_interface(lamina: Lamina) -> None:
    script = (
        "import sys; from lamina.store import open_store; from lamina.app import containers\n"
        "store = open_store(sys.argv[1])\n"
        "c = containers.run(store, 'bb', ['sh', '-c', 'echo $A; exit 4'], env={'A': 'b'})\n"
        "print(c.wait(), c.output(), c.state().status); c.remove(); store.close()"
    )
    import sys

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, lamina.root],
        env=lamina.env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == "4 b'b\\n' exited\n"


def test_control_groups_go_with_the_container(lamina: Lamina) -> None:
    id = lamina.out("run", "-d", "--name", "cg", *SLEEP)
    lamina("exec", "-d", "cg", "sleep", "600")
    lamina("stop", "-t", "0", "cg")
    groups = [*Path("/sys/fs/cgroup").glob(id), *Path("/sys/fs/cgroup").glob(f"*/{id}")]
    assert groups == []


@pytest.mark.tool("runc")
def test_runtime_of_the_container_is_used_for_all_that_follows(lamina: Lamina) -> None:
    lamina("run", "-d", "--runtime", "runc", "--name", "rc", *SLEEP)
    assert lamina.out("exec", "rc", "echo", "hi") == "hi"
    lamina("exec", "rc", "nosuch", status=127)
    lamina("stop", "-t", "0", "rc")
    assert lamina.out("start", "rc") == "rc"
    lamina("run", "--rm", "--runtime", "runc", "bb", "nosuch", status=127)
    lamina("run", "--rm", "--runtime", "runc", "bb", "/etc/notexec", status=126)
