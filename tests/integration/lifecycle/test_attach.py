# SPDX-License-Identifier: Apache-2.0
"""Joining containers that run, leaving them, and coming back: several clients, slow ones, dead ones."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.container.state import read_state
from lamina.testing.busybox import Lamina
from lamina.testing.terminal import Terminal
from lamina.testing.waiting import wait_until

SHELL = ("run", "-dit", "--name", "cc", "bb", "sh")
MEGABYTES = "head -c 8388608 /dev/zero | tr '\\0' x"


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with Terminal() as made:
        yield made


@pytest.fixture
def other() -> Iterator[Terminal]:
    with Terminal() as made:
        yield made


def state_of(lamina: Lamina, name: str) -> str:
    text: str = lamina.inspect(name)["State"]["Status"]
    return text


def logged(lamina: Lamina, name: str, text: str) -> None:
    """Wait until the container has written it."""
    wait_until(lambda: text in lamina.out("logs", name), seconds=20)


def has_joined(client: subprocess.Popen[bytes], *, is_deaf: bool = False) -> bool:
    """Whether the command is connected to the container's monitor: from then on it passes signals on,
    if it does at all.
    """
    if not is_deaf:
        return catches(client.pid, signal.SIGTERM)
    path = f"/proc/{client.pid}/fd"
    return any("socket:" in _link(f"{path}/{descriptor}") for descriptor in os.listdir(path))


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(mask >> (number - 1) & 1)


def children_of(pid: int) -> list[str]:
    """Directories in /proc of the process's children."""
    return [
        f"/proc/{child}" for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]


def is_monitor(process: str) -> bool:
    return Path(process, "comm").read_text() == "lamina-monitor\n"


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


def _monitor(lamina: Lamina, id: str) -> int:
    return read_state(f"{lamina.root}/containers/{id}").monitor_pid


def test_a_terminal_is_left_and_joined_again(lamina: Lamina, terminal: Terminal) -> None:
    before = terminal.settings
    terminal.run(lamina, "run", "-it", "--name", "cc", "bb", "sh")
    terminal.expect(b"# ")
    terminal.type(b"word=kept\n\x10\x11")
    assert terminal.status() == 0
    terminal.run(lamina, "attach", "cc")
    terminal.await_raw()
    terminal.type(b"echo got-$word\n")
    terminal.expect(b"got-kept")
    terminal.type(b"\x10\x11")
    terminal.expect(b"read escape sequence")
    assert terminal.status() == 1
    assert terminal.settings == before
    terminal.run(lamina, "container", "attach", "cc")
    terminal.await_raw()
    terminal.type(b"exit 5\n")
    assert terminal.status() == 5
    assert terminal.settings == before


def test_other_keys_detach(lamina: Lamina, terminal: Terminal) -> None:
    terminal.run(lamina, "run", "-it", "--detach-keys", "ctrl-x,q", "--name", "cc", "bb", "cat")
    terminal.await_raw()
    terminal.type(b"\x10\x18w\n")
    terminal.expect(b"^P^Xw")
    terminal.type(b"\x18q")
    assert terminal.status() == 0
    terminal.run(lamina, "start", "-ai", "--detach-keys=DEL", "cc")
    terminal.await_raw()
    terminal.type(b"\x7f")
    assert terminal.status() == 0
    assert state_of(lamina, "cc") == "running"


@pytest.mark.parametrize("command", ["run", "start", "attach", "exec"])
def test_keys_that_are_none_are_refused(lamina: Lamina, command: str) -> None:
    lamina(*SHELL)
    rest = {"run": ["bb", "true"], "exec": ["cc", "true"]}.get(command, ["cc"])
    attach = ["-a"] if command == "start" else []
    done = lamina(command, *attach, "--detach-keys=ctrl-aa", *rest, status=125)
    assert "Invalid detach keys (ctrl-aa) provided" in done.stderr


def test_size_follows_who_is_attached(lamina: Lamina, terminal: Terminal) -> None:
    script = "trap 'stty size' WINCH; while :; do sleep 0.05; done"
    lamina("run", "-dit", "--name", "cc", "bb", "sh", "-c", script)
    terminal.resize(31, 97)
    terminal.run(lamina, "attach", "cc")
    terminal.await_raw()
    terminal.expect(b"31 97")
    terminal.resize(40, 120)
    assert terminal.process is not None
    terminal.process.send_signal(signal.SIGWINCH)
    terminal.expect(b"40 120")


def test_the_screen_is_painted_anew_at_the_same_size(lamina: Lamina, terminal: Terminal) -> None:
    script = "trap 'echo painted' WINCH; while :; do sleep 0.05; done"
    terminal.run(lamina, "run", "-it", "--name", "cc", "bb", "sh", "-c", f"echo up; {script}")
    terminal.expect(b"up")
    terminal.type(b"\x10\x11")
    assert terminal.status() == 0
    terminal.text = b""
    terminal.run(lamina, "attach", "cc")
    terminal.await_raw()
    terminal.expect(b"painted")


def test_several_clients_see_and_type_the_same(
    lamina: Lamina, terminal: Terminal, other: Terminal
) -> None:
    lamina(*SHELL)
    for each in (terminal, other):
        each.run(lamina, "attach", "cc")
        each.await_raw()
    for each in (terminal, other):
        each.type(b"\n")
        each.expect(b"# ")
    terminal.type(b"echo to-$((40+2))\n")
    terminal.expect(b"to-42")
    other.expect(b"to-42")
    other.type(b"\x10\x11")
    assert other.status() == 1
    terminal.type(b"exit 6\n")
    assert terminal.status() == 6


def test_output_and_status_without_a_terminal(lamina: Lamina) -> None:
    id = lamina.out("run", "-d", "-i", "bb", "sh", "-c", "read x; echo $x; echo err >&2; exit 9")
    clients = [lamina.popen("attach", "--no-stdin", id) for _ in range(2)]
    wait_until(lambda: all(map(has_joined, clients)))
    typing = lamina.popen("attach", id, stdin=subprocess.PIPE)
    out, err = typing.communicate(b"hello\n", timeout=30)
    assert (out, err, typing.returncode) == (b"hello\n", b"err\n", 9)
    for client in clients:
        out, err = client.communicate(timeout=30)
        assert client.returncode == 9
        assert (out, err) == (b"hello\n", b"err\n")


def test_input_of_a_detached_container_stays_open(lamina: Lamina) -> None:
    """Docker's StdinOnce is off with -d: a client's end of input is its own."""
    lamina("run", "-d", "-i", "--name", "cc", "bb", "cat")
    inspected = lamina.inspect("cc")["Config"]
    assert (inspected["OpenStdin"], inspected["StdinOnce"]) == (True, False)
    clients = []
    for word in (b"one\n", b"two\n"):
        client = lamina.popen("attach", "cc", stdin=subprocess.PIPE)
        assert client.stdin is not None
        client.stdin.write(word)
        client.stdin.close()
        clients.append(client)
        logged(lamina, "cc", word.decode().strip())
    assert state_of(lamina, "cc") == "running"
    lamina("kill", "cc")
    for client in clients:
        assert client.wait(timeout=30) == 137
        assert client.stdout is not None
        client.stdout.close()
        assert client.stderr is not None
        client.stderr.close()


def test_input_ends_with_the_client_that_has_it(lamina: Lamina) -> None:
    lamina("create", "-i", "--name", "cc", "bb", "sh", "-c", "cat; echo ended")
    assert lamina.inspect("cc")["Config"]["StdinOnce"] is True
    lamina("start", "cc")
    watching = lamina.popen("attach", "--no-stdin", "cc")
    wait_until(lambda: has_joined(watching))
    watching.kill()  # it had no input: nothing ends
    watching.communicate()
    assert state_of(lamina, "cc") == "running"
    done = lamina("attach", "cc", input="typed\n")
    assert done.stdout == "typed\nended\n"


def test_input_ends_when_its_client_is_killed(lamina: Lamina) -> None:
    client = lamina.popen("run", "-i", "--name", "cc", "bb", "cat", stdin=subprocess.PIPE)
    assert client.stdin is not None
    client.stdin.write(b"here\n")
    client.stdin.flush()
    assert client.stdout is not None
    assert client.stdout.readline() == b"here\n"
    client.kill()
    client.communicate()
    wait_until(lambda: state_of(lamina, "cc") == "exited", seconds=20)
    assert lamina.inspect("cc")["State"]["ExitCode"] == 0


def test_killed_client_leaves_container_and_terminal_usable(
    lamina: Lamina, terminal: Terminal
) -> None:
    before = terminal.settings
    terminal.run(lamina, "run", "-it", "--name", "cc", "bb", "sh")
    terminal.expect(b"# ")
    assert terminal.settings != before
    assert terminal.process is not None
    terminal.process.kill()
    terminal.process.wait()
    wait_until(lambda: terminal.settings == before)
    assert state_of(lamina, "cc") == "running"
    terminal.run(lamina, "attach", "cc")
    terminal.await_raw()
    terminal.type(b"exit 4\n")
    assert terminal.status() == 4


def test_terminal_that_a_shell_has_set_meanwhile_is_left_alone(
    lamina: Lamina, terminal: Terminal
) -> None:
    import termios

    terminal.run(lamina, "run", "-it", "--rm", "bb", "sh")
    terminal.expect(b"# ")
    assert terminal.process is not None
    guards = [pid for pid in children_of(terminal.process.pid) if not is_monitor(pid)]
    assert guards
    changed = terminal.settings
    changed[3] |= termios.ECHO
    termios.tcsetattr(terminal.slave, termios.TCSANOW, changed)
    expected = terminal.settings
    terminal.process.kill()
    terminal.process.wait()
    wait_until(lambda: not any(map(os.path.exists, guards)))
    assert terminal.settings == expected


def test_signals_are_passed_on_unless_told_otherwise(lamina: Lamina) -> None:
    script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"
    lamina("run", "-d", "--name", "cc", "bb", "sh", "-c", script)
    logged(lamina, "cc", "up")
    deaf = lamina.popen("attach", "--sig-proxy=false", "cc")
    wait_until(lambda: has_joined(deaf, is_deaf=True))
    deaf.send_signal(signal.SIGTERM)
    deaf.communicate(timeout=30)
    assert deaf.returncode == -signal.SIGTERM
    assert state_of(lamina, "cc") == "running"
    client = lamina.popen("attach", "cc")
    wait_until(lambda: has_joined(client))
    client.send_signal(signal.SIGTERM)
    client.communicate(timeout=30)
    assert client.returncode == 7


def test_slow_client_does_not_hold_the_container(lamina: Lamina) -> None:
    id = lamina.out(
        "run",
        "-d",
        "-i",
        "--log-driver=none",
        "bb",
        "sh",
        "-c",
        f"read x; {MEGABYTES}; touch /done",
    )
    client = lamina.popen("attach", id, stdin=subprocess.PIPE)  # nobody reads what it prints
    assert client.stdin is not None
    client.stdin.write(b"go\n")
    client.stdin.flush()
    wait_until(lambda: state_of(lamina, id) == "exited", seconds=30)
    out, err = client.communicate(timeout=30)
    assert client.returncode == 0
    assert 0 < len(out) < 8388608
    left_out = int(err.partition(b"lamina: ")[2].split()[0])
    assert len(out) + left_out == 8388608


def test_whoever_started_it_gets_every_byte_into_a_pipe(lamina: Lamina) -> None:
    client = lamina.popen("run", "--rm", "--name", "cc", "bb", "sh", "-c", MEGABYTES)
    assert client.stdout is not None
    assert client.stdout.read(1) == b"x"
    assert state_of(lamina, "cc") == "running"  # it waits, as it would for any pipe
    assert len(client.stdout.read()) == 8388607
    client.communicate()
    assert client.returncode == 0


def test_dead_client_in_a_pipe_lets_the_container_go_on(lamina: Lamina) -> None:
    client = lamina.popen("run", "--name", "cc", "bb", "sh", "-c", MEGABYTES)
    assert client.stdout is not None
    assert client.stdout.read(1) == b"x"
    client.kill()
    client.communicate()
    wait_until(lambda: state_of(lamina, "cc") == "exited", seconds=30)
    assert lamina.inspect("cc")["State"]["ExitCode"] == 0


def test_what_cannot_be_attached_to_says_why(lamina: Lamina) -> None:
    assert "No such container: nosuch" in lamina("attach", "nosuch", status=1).stderr
    lamina("create", "--name", "cc", "bb", "sleep", "600")
    stopped = "You cannot attach to a stopped container, start it first"
    assert stopped in lamina("attach", "cc", status=1).stderr
    lamina("start", "cc")
    assert "requires 1 argument" in lamina("attach", status=125).stderr
    lamina("kill", "cc")
    assert stopped in lamina("attach", "cc", status=1).stderr
    lamina("run", "-dit", "--name", "tt", "bb", "sh")
    assert "stdin is not a terminal" in lamina("attach", "tt", status=125).stderr


@pytest.mark.host_root("the freezer is a control group's")
def test_paused_container_cannot_be_attached_to(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "cc", "bb", "sleep", "600")
    lamina("pause", "cc")
    paused = "You cannot attach to a paused container, unpause it first"
    assert paused in lamina("attach", "cc", status=1).stderr
    lamina("unpause", "cc")


def test_killed_monitor_has_taken_the_streams_along(lamina: Lamina) -> None:
    id = lamina.out("run", "-d", "--name", "cc", "bb", "sleep", "600")
    client = lamina.popen("attach", "cc")
    wait_until(lambda: has_joined(client))
    os.kill(_monitor(lamina, id), signal.SIGKILL)
    wait_until(lambda: lamina.inspect("cc")["State"]["Orphaned"])
    done = lamina("attach", "cc", status=1)
    assert "its monitor was killed, which held its streams" in done.stderr
    _, err = client.communicate(timeout=30)
    assert client.returncode == 1
    assert b"was killed: it runs on, its output is lost" in err


def test_socket_is_for_its_owner_and_its_path_may_be_long(
    lamina: Lamina, tmp_path: Path, terminal: Terminal
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    (deep / "store").symlink_to(lamina.root)
    long = Lamina(str(deep / "store"))
    id = long.out("run", "-dit", "--network=none", "--name", "cc", "bb", "sh")
    assert len(f"{deep}/store/containers/{id}/attach.sock") > 108
    mode = os.stat(f"{lamina.root}/containers/{id}/attach.sock").st_mode
    assert stat.S_IMODE(mode) == 0o600
    terminal.run(long, "attach", "cc")
    terminal.await_raw()
    terminal.type(b"exit 3\n")
    assert terminal.status() == 3


def test_run_a_names_the_streams(lamina: Lamina) -> None:
    script = ["bb", "sh", "-c", "echo out; echo err >&2; exit 3"]
    done = lamina("run", "-a", "stdout", *script, status=3)
    assert (done.stdout, done.stderr) == ("out\n", "")
    done = lamina("run", "-a", "STDERR", *script, status=3)
    assert (done.stdout, done.stderr) == ("", "err\n")
    done = lamina("run", "-a", "stdout", "--attach=stderr", *script, status=3)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert "valid streams are" in lamina("run", "-a", "all", *script, status=125).stderr
    assert "Conflicting options" in lamina("run", "-d", "-a", "stdin", *script, status=125).stderr


def test_run_a_stdin_gives_input_and_leaves(lamina: Lamina) -> None:
    done = lamina(
        "run", "-i", "-a", "stdin", "--name", "cc", "bb", "sh", "-c", "cat; exit 3", input="x"
    )
    assert done.stdout.strip() == lamina.inspect("cc")["Id"]
    wait_until(lambda: state_of(lamina, "cc") == "exited")
    assert lamina.inspect("cc")["State"]["ExitCode"] == 3
    assert lamina.out("logs", "cc") == "x"


def test_a_command_on_a_terminal_runs_on_when_it_is_left(
    lamina: Lamina, terminal: Terminal
) -> None:
    lamina("run", "-d", "--name", "cc", "bb", "sleep", "600")
    before = terminal.settings
    script = "echo up; while ! test -e /go; do sleep 0.05; done; echo x; touch /done; sleep 600"
    terminal.run(lamina, "exec", "-it", "--detach-keys=ctrl-a", "cc", "sh", "-c", script)
    terminal.expect(b"up")
    terminal.type(b"\x01")
    terminal.expect(b"read escape sequence")
    assert terminal.status() == 1
    assert terminal.settings == before
    lamina("exec", "cc", "touch", "/go")
    lamina("exec", "cc", "sh", "-c", "while ! test -e /done; do sleep 0.05; done")


def test_killed_exec_leaves_command_and_terminal(lamina: Lamina, terminal: Terminal) -> None:
    lamina("run", "-d", "--name", "cc", "bb", "sleep", "600")
    before = terminal.settings
    script = "echo up; while ! test -e /go; do sleep 0.05; done; touch /done; sleep 600"
    terminal.run(lamina, "exec", "-it", "cc", "sh", "-c", script)
    terminal.expect(b"up")
    assert terminal.process is not None
    terminal.process.kill()
    terminal.process.wait()
    wait_until(lambda: terminal.settings == before)
    lamina("exec", "cc", "touch", "/go")
    lamina("exec", "cc", "sh", "-c", "while ! test -e /done; do sleep 0.05; done")


def test_exec_on_a_terminal_is_sized_and_fails_as_docker_does(
    lamina: Lamina, terminal: Terminal
) -> None:
    lamina("run", "-d", "--name", "cc", "bb", "sleep", "600")
    terminal.resize(33, 99)
    # crun starts the command and sets the size at the same time
    script = "until stty size 2>&1 | grep '33 99'; do sleep 0.02; done; sleep 600"
    terminal.run(lamina, "exec", "-it", "cc", "sh", "-c", script)
    terminal.expect(b"33 99")
    terminal.type(b"\x03")
    assert terminal.status() == 130
    terminal.run(lamina, "exec", "-it", "cc", "nosuch")
    assert terminal.status() == 127
    terminal.run(lamina, "exec", "-it", "cc", "/etc/notexec")
    assert terminal.status() == 126
    lamina("stop", "-t", "0", "cc")
    terminal.run(lamina, "exec", "-it", "cc", "true")
    terminal.expect(b"is not running")
    assert terminal.status() == 1


def test_killed_holder_of_a_command_leaves_nothing(lamina: Lamina, terminal: Terminal) -> None:
    """Its terminal hangs up, as a real one does; the container is as it was."""
    id = lamina.out("run", "-d", "--name", "cc", "bb", "sleep", "600")
    before = terminal.settings
    terminal.run(lamina, "exec", "-it", "cc", "sh", "-c", "echo up; sleep 611")
    terminal.expect(b"up")
    [holder] = [
        pid
        for pid in filter(str.isdigit, os.listdir("/proc"))
        if _command_of(pid) == f"lamina-exec {lamina.root} {id}"
    ]
    os.kill(int(holder), signal.SIGKILL)
    terminal.expect(b"the process that held the command's terminal was killed")
    assert terminal.status() == 1
    assert terminal.settings == before
    wait_until(lambda: "611" not in lamina.out("exec", "cc", "ps"), seconds=20)
    assert state_of(lamina, "cc") == "running"


def test_container_that_ends_takes_its_commands_along(lamina: Lamina, terminal: Terminal) -> None:
    lamina("run", "-d", "--name", "cc", "bb", "sleep", "600")
    terminal.run(lamina, "exec", "-it", "cc", "sh", "-c", "echo up; sleep 600")
    terminal.expect(b"up")
    lamina("rm", "-f", "cc")
    assert terminal.status() == 137


def _command_of(pid: str) -> str:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return text.rstrip("\0")
