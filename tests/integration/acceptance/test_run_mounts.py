# SPDX-License-Identifier: Apache-2.0
"""`RUN --mount`, `--security` and programs in heredocs on the real kernel, through the command."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lamina.store import open_store
from lamina.testing.command import Lamina
from lamina.testing.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.tool("busybox")]


def build(
    lamina: Lamina, steps: str, *words: str, check: bool = True, env: dict[str, str] | None = None
) -> str:
    """Build the steps on busybox without the cache; what was printed."""
    (lamina.cwd / "Dockerfile").write_text(f"FROM busybox\n{steps}\n")
    done = lamina("build", "--progress=plain", *words, ".", check=check, env=env)
    return done.stderr


def fails(lamina: Lamina, steps: str, *words: str) -> str:
    (lamina.cwd / "Dockerfile").write_text(f"FROM busybox\n{steps}\n")
    done = lamina("build", "--progress=plain", *words, ".", check=False)
    assert done.returncode != 0
    return done.stderr


@pytest.fixture
def files(lamina: Lamina) -> Path:
    """A context with a directory, a link that leads out of it, and something ignored."""
    top = lamina.cwd / "dir"
    top.mkdir()
    (top / "a").write_text("content\n")
    (top / "a").chmod(0o640)
    os.chown(top / "a", 1234, 1234)
    (top / "ignored").write_text("ignored\n")
    (lamina.cwd / ".dockerignore").write_text("dir/ignored\n")
    (lamina.cwd / "out").symlink_to("/etc")
    return top


@pytest.mark.host_root("a file of another user's is in the context")
@pytest.mark.usefixtures("files")
def test_bind_of_the_context_shows_what_copy_would_copy(lamina: Lamina) -> None:
    build(
        lamina,
        "RUN --mount=type=bind,source=dir,target=/d "
        "test \"$(stat -c '%a %u %g' /d/a)\" = '640 0 0' && test ! -e /d/ignored "
        '&& test "$(cat /d/a)" = content && ! touch /d/new 2>/dev/null\n'
        "RUN test ! -e /d",
    )


@pytest.mark.host_root("a file of another user's is in the context")
@pytest.mark.usefixtures("files")
def test_bind_of_one_file(lamina: Lamina) -> None:
    build(
        lamina, "RUN --mount=source=dir/a,target=/etc/a grep content /etc/a\nRUN test ! -e /etc/a"
    )


@pytest.mark.host_root("a file of another user's is in the context")
def test_bind_of_the_working_directory_is_not_in_the_image(lamina: Lamina, files: Path) -> None:
    build(
        lamina,
        "WORKDIR /src\nRUN --mount=target=.,rw touch made && cp dir/a /kept\n"
        "RUN test ! -e made -a ! -e dir && grep content /kept",
    )
    assert not (lamina.cwd / "made").exists()
    assert sorted(os.listdir(files)) == ["a", "ignored"]


@pytest.mark.usefixtures("files")
def test_bind_does_not_leave_the_context(lamina: Lamina) -> None:
    shown = fails(lamina, "RUN --mount=source=out/passwd,target=/x cat /x")
    assert "not found" in shown
    assert "Dockerfile:2" in shown
    assert "not found" in fails(lamina, "RUN --mount=source=dir/ignored,target=/x cat /x")
    assert "not found" in fails(
        lamina, "RUN --mount=source=../..,target=/x,from=scratch,src=y true"
    )


@pytest.mark.host_root("a file of another user's is in the context")
def test_only_what_is_mounted_is_in_the_key(lamina: Lamina, files: Path) -> None:
    step = "RUN --mount=source=dir,target=/d cat /d/a"
    build(lamina, step)
    (lamina.cwd / "other").write_text("x")
    os.utime(files / "a", (1, 1))
    assert "CACHED" in build(lamina, step).partition("RUN")[2]
    (files / "a").write_text("changed\n")
    assert "changed" in build(lamina, step)


def test_bind_of_a_stage(lamina: Lamina) -> None:
    build(
        lamina,
        "RUN mkdir /o && echo 1 > /o/f && chown 5:6 /o/f && ln -s /o /l\n"
        "FROM busybox\n"
        "RUN --mount=from=0,source=/o,target=/m test \"$(stat -c '%u %g' /m/f)\" = '5 6' "
        "&& ! touch /m/x 2>/dev/null\n"
        "RUN --mount=from=0,source=l/f,target=/m,rw echo 2 >> /m && test $(wc -l < /m) = 2\n"
        "RUN --mount=from=0,target=/m,rw rm -r /m/o && test ! -e /m/o\n"
        "RUN --mount=from=0,source=/o,target=/m test $(wc -l < /m/f) = 1\n"
        "RUN --mount=from=busybox,target=/b test -x /b/bin/sh\n"
        'RUN --mount=from=scratch,target=/e,rw test -z "$(ls -A /e)" && touch /e/x',
    )
    assert "not found" in fails(lamina, "RUN --mount=from=busybox,source=/none,target=/x true")


def test_step_stays_cached_when_a_stage_comes_out_the_same(lamina: Lamina) -> None:
    steps = "RUN echo 1 > /f{}\nFROM busybox\nRUN --mount=from=0,source=/f,target=/f echo it ran"
    build(lamina, steps.format(""))
    assert "it ran\n" not in build(lamina, steps.format(" && true")).replace("echo it ran", "")


def test_cache_lasts_and_is_not_in_the_image(lamina: Lamina) -> None:
    step = "RUN --mount=type=cache,target=/c{} echo x >> /c/f && echo lines $(wc -l < /c/f)"
    for number in (1, 2):
        shown = build(lamina, f"ARG N={number}\n{step.format('')}\nRUN test ! -e /c")
        assert f"lines {number}" in shown
    assert "lines 1" in build(lamina, step.format(",id=other"))
    # how it is shared is not in the key, as in BuildKit
    assert "CACHED" in build(lamina, f"ARG N=2\n{step.format(',sharing=locked')}")
    assert "lines 3" in build(lamina, f"ARG N=3\n{step.format(',sharing=locked')}")


def test_cache_has_the_owner_and_files_it_was_asked_for(lamina: Lamina) -> None:
    build(
        lamina,
        "RUN mkdir -p /o/d && touch /o/d/f && chown 7:8 /o/d/f\n"
        "FROM busybox\n"
        "RUN --mount=type=cache,target=/c test \"$(stat -c '%a %u %g' /c)\" = '755 0 0'\n"
        "RUN --mount=type=cache,target=/c,uid=3,gid=4,mode=0700 "
        "test \"$(stat -c '%a %u %g' /c)\" = '700 3 4'\n"
        "RUN --mount=type=cache,target=/s,from=0,source=/o test \"$(stat -c '%u %g' /s/d/f)\" = '7 8' "
        "&& touch /s/mine\n"
        "RUN --mount=type=cache,target=/s,from=0,source=/o,ro test -e /s/mine && ! touch /s/x\n",
    )


def test_private_cache_is_new_while_another_build_uses_it(lamina: Lamina) -> None:
    (lamina.cwd / "Dockerfile").write_text(
        "FROM busybox\nARG N\n"
        "RUN --mount=type=cache,target=/c,sharing=private --mount=type=cache,target=/meet "
        "touch /c/$N /meet/$N && i=0; "
        "until [ $(ls /meet | wc -l) = 2 ]; do i=$((i+1)); [ $i -lt 600 ] || exit 1; sleep 0.1; done; "
        "echo have $(ls /c)\n"
    )
    processes = [building(lamina, f"--build-arg=N={n}") for n in "ab"]
    outputs = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted("have a b" in text for text in outputs) == [False, False]


def test_two_processes_take_turns_in_a_locked_cache(lamina: Lamina) -> None:
    (lamina.cwd / "Dockerfile").write_text(
        "FROM busybox\nARG N\n"
        "RUN --mount=type=cache,target=/c,sharing=locked --mount=type=cache,target=/meet "
        "mkdir /c/busy && echo holds $N && i=0; "
        "until [ -e /meet/go ]; do i=$((i+1)); [ $i -lt 600 ] || exit 1; sleep 0.1; done; "
        "rmdir /c/busy && echo done $N\n"
    )
    first, second = building(lamina, "--build-arg=N=a"), building(lamina, "--build-arg=N=b")
    with ThreadPoolExecutor(2) as pool:
        texts = [pool.submit(said, process) for process in (first, second)]
        told = list(pool.map(lambda text: text.result(), texts))
    build(lamina, "RUN --mount=type=cache,target=/meet touch /meet/go")
    assert sorted(told) == ["holds", "waits"]
    rest = [process.communicate(timeout=60)[1] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], rest
    assert [f"done {n}" in text for n, text in zip("ab", rest, strict=True)] == [True, True]


def said(process: subprocess.Popen[str]) -> str:
    """Whether a build holds the cache or waits for it, by the first that it says of either."""
    assert process.stderr is not None
    for line in process.stderr:
        if "waiting for the cache mount" in line:
            return "waits"
        if re.search(r" holds [ab]$", line):
            return "holds"
    return "ended"


def building(lamina: Lamina, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        lamina.argv("build", "--progress=plain", *words, "."),
        env=lamina.env,
        cwd=lamina.cwd,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.parametrize("with_secret", [False, True])
def test_killed_build_leaves_a_cache_that_works(lamina: Lamina, with_secret: bool) -> None:
    (lamina.cwd / "sec").write_text("v4lue-of-it\n")
    secret = "--mount=type=secret,id=sec,env=SEC " if with_secret else ""
    (lamina.cwd / "Dockerfile").write_text(
        f"FROM busybox\nRUN {secret}--mount=type=cache,target=/c,sharing=locked "
        "echo x >> /c/f && echo begun && sleep 60\n"
    )
    process = subprocess.Popen(
        lamina.argv("build", "--progress=plain", "--secret", "id=sec,src=sec", "."),
        env=lamina.env,
        cwd=lamina.cwd,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while " begun" not in process.stderr.readline().replace("echo begun", ""):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stderr.close()
    begun = time.monotonic()
    shown = build(lamina, "RUN --mount=type=cache,target=/c,sharing=locked cat /c/f && echo again")
    assert "again" in shown
    assert time.monotonic() - begun < 20
    found = subprocess.run(
        ["grep", "-rl", "v4lue-of-it", str(lamina.root)], capture_output=True, check=False
    )
    assert found.stdout == b""
    assert not [name for name in os.listdir(lamina.root / "run") if "-" in name]
    store = open_store(str(lamina.root))
    assert [each.name for each in store.snapshots.walk() if "@" in each.name] == []
    store.close()


@pytest.mark.parametrize(
    "runtime", [pytest.param(name, marks=pytest.mark.tool(name)) for name in ("crun", "runc")]
)
def test_tmpfs(lamina: Lamina, runtime: str) -> None:
    build(
        lamina,
        "RUN --mount=type=tmpfs,target=/t,size=4m mount | grep -q 'tmpfs on /t .*size=4096k' "
        "&& test $(stat -c %a /t) = 1777 && cp /bin/busybox /t/true && /t/true\n"
        "RUN test ! -e /t\n"
        "RUN mkdir -m 0750 /k && touch /k/f\n"
        "RUN --mount=type=tmpfs,target=/k test ! -e /k/f && test $(stat -c %a /k) = 750\n"
        "RUN test -e /k/f\n"
        "RUN --mount=type=tmpfs,target=/t,ro ! touch /t/x 2>/dev/null",
        f"--runtime={runtime}",
    )


def test_heredocs(lamina: Lamina) -> None:
    build(
        lamina,
        "RUN <<EOF\n#!/bin/sh -e\ntest $0 = /dev/pipes/EOF\necho program > /p\nEOF\n"
        "RUN grep program /p && test ! -e /dev/pipes\n"
        "RUN cat <<ONE > /1 && cat <<-TWO > /2\none\nONE\n\ttwo\n\tTWO\n"
        "RUN test $(cat /1) = one && test $(cat /2) = two\n"
        'SHELL ["/bin/sh", "-e", "-c"]\n'
        "RUN <<EOF\nfalse && true\ntrue\nEOF\n",
    )
    assert "exit code: 1" in fails(lamina, 'SHELL ["/bin/sh", "-ec"]\nRUN <<EOF\nfalse\ntrue\nEOF')


def test_insecure_step_needs_leave(lamina: Lamina) -> None:
    step = "RUN --security=insecure mount -t tmpfs none /mnt"
    assert "--allow security.insecure" in fails(lamina, step)
    build(lamina, step, "--allow", "security.insecure")
    assert "exit code" in fails(lamina, "RUN mount -t tmpfs none /mnt")


def test_limits_reach_the_step(lamina: Lamina) -> None:
    step = "RUN echo limit $(ulimit -n) && mount | grep /dev/shm"
    shown = build(lamina, step, "--ulimit", "nofile=77:88", "--shm-size", "8m")
    assert "limit 77" in shown
    assert "size=8192k" in shown
    assert "CACHED" in build(lamina, step, "--ulimit", "nofile=66:88", "--shm-size", "8m")


def test_hostname_and_other_buildkit_arguments(lamina: Lamina) -> None:
    shown = build(
        lamina,
        "RUN echo name $(hostname)",
        *("--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=here", "--build-arg", "BUILDKIT_WHAT=1"),
    )
    assert "name here" in shown
    assert "BUILDKIT_WHAT has no effect" in shown


@pytest.fixture
def key(lamina: Lamina) -> str:
    """A key pair `key` in the context with ssh-add and its libraries; the key's fingerprint."""
    tools = lamina.cwd / "tools"
    tools.mkdir()
    program = shutil.which("ssh-add")
    assert program is not None
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for word in listed.split():
        if word.startswith("/"):
            shutil.copy(word, tools / ("ld.so" if "/ld-" in word else os.path.basename(word)))
    shutil.copy(program, tools / "ssh-add")
    path = lamina.cwd / "key"
    generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(generate, check=True)
    path.chmod(0o644)  # ssh-add would refuse it; BuildKit does not
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(path)], capture_output=True, text=True, check=True
    )
    return shown.stdout.split()[1]


ADD = "--mount=source=tools,target=/t /t/ld.so --library-path /t /t/ssh-add"


@pytest.mark.tool("ssh-agent")
@pytest.mark.tool("ssh-keygen")
def test_ssh_agent_of_a_key_file(lamina: Lamina, key: str) -> None:
    shown = build(
        lamina,
        f"RUN --mount=type=ssh,required {ADD} -l\n"
        f"RUN --mount=type=ssh {ADD} -D || echo refused\n"
        f"RUN --mount=type=ssh {ADD} -l && test $SSH_AUTH_SOCK = /run/buildkit/ssh_agent.0\n"
        "RUN --mount=type=ssh,uid=5,gid=6,mode=0622,target=/s "
        "test \"$(stat -c '%a %u %g %F' /s)\" = '622 5 6 socket'\n"
        "RUN test -z $SSH_AUTH_SOCK && test ! -e /run/buildkit",
        "--ssh=default=key",
    )
    assert shown.count(key) == 2
    assert "refused" in shown.replace("echo refused", "")
    found = subprocess.run(["pgrep", "-fa", str(lamina.root)], capture_output=True, check=False)
    assert b"ssh-agent" not in found.stdout


def children(pid: int, name: str) -> list[int]:
    """The children of a process that run the program `name`."""
    found = subprocess.run(
        ["pgrep", "-P", str(pid), "-x", name], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


@pytest.mark.slow
@pytest.mark.tool("ssh-agent")
@pytest.mark.tool("ssh-keygen")
@pytest.mark.usefixtures("key")
def test_agent_of_a_key_file_ends_with_a_killed_build(lamina: Lamina) -> None:
    (lamina.cwd / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=ssh echo begun && sleep 60\n"
    )
    process = subprocess.Popen(
        lamina.argv("build", "--progress=plain", "--ssh=default=key", "."),
        env=lamina.env,
        cwd=lamina.cwd,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while " begun" not in process.stderr.readline().replace("echo begun", ""):
        assert process.poll() is None
    (agent,) = [pid for cat in children(process.pid, "cat") for pid in children(cat, "ssh-agent")]
    process.kill()
    process.wait(10)
    process.stderr.close()
    # ssh-agent looks for its parent every ten seconds
    wait_until(lambda: not os.path.exists(f"/proc/{agent}"), "the agent ends", pause=0.1)


@pytest.mark.host_root("the agent is root's")
@pytest.mark.tool("ssh-agent")
@pytest.mark.tool("ssh-keygen")
def test_ssh_agent_of_the_user(lamina: Lamina, key: str, tmp_path: Path) -> None:
    socket = str(tmp_path / ("long" * 10) / "agent")
    os.mkdir(os.path.dirname(socket))
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", "agent"], cwd=os.path.dirname(socket), stdout=subprocess.DEVNULL
    )
    try:
        while not os.path.exists(socket):
            assert agent.poll() is None
        subprocess.run(
            ["ssh-add", "-q", "-"],
            input=(lamina.cwd / "key").read_bytes(),
            env={**os.environ, "SSH_AUTH_SOCK": "agent"},
            cwd=os.path.dirname(socket),
            check=True,
        )
        step = f"RUN --mount=type=ssh,id=x,uid=1000 --mount=type=ssh,id=y {ADD} -l"
        shown = build(lamina, f"USER 1000\n{step}", f"--ssh=x={socket}")
        assert key in shown
    finally:
        agent.terminate()
        agent.wait()


def test_missing_agent(lamina: Lamina) -> None:
    shown = fails(lamina, "RUN --mount=type=ssh,required true")
    assert 'no SSH key "default" forwarded' in shown
    assert "Dockerfile:2" in shown
    build(lamina, "RUN --mount=type=ssh test ! -e $SSH_AUTH_SOCK")


def test_one_id_with_another_beginning_is_another_cache(lamina: Lamina) -> None:
    build(
        lamina,
        "RUN mkdir -p /a /b && touch /a/a /b/b\n"
        "FROM busybox\n"
        "RUN --mount=type=cache,id=i,target=/c,from=0,source=/a test $(ls /c) = a\n"
        "RUN --mount=type=cache,id=i,target=/c,from=0,source=/b test $(ls /c) = b\n"
        "RUN --mount=type=cache,id=i,target=/c test -z $(ls /c)\n"
        "RUN --mount=type=cache,id=i,target=/c --mount=type=cache,id=i,target=/d,sharing=locked "
        "touch /c/both && test -e /d/both",
    )


@pytest.mark.host_root("a program of root uses the store")
def test_python_api_gives_secrets(lamina: Lamina) -> None:
    (lamina.cwd / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=secret,id=s,required test $(cat /run/secrets/s) = value\n"
    )
    code = (
        f"import lamina; lamina.build({str(lamina.cwd)!r}, root={str(lamina.root)!r}, "
        "secrets={'s': b'value'})"
    )
    subprocess.run([sys.executable, "-c", code], env=lamina.env, check=True)
