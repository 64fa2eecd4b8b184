# SPDX-License-Identifier: Apache-2.0
"""RuntimeExecutor: exit statuses, output, users, /etc files, and what is left behind."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from lamina.container.executor import RuntimeExecutor, sweep
from lamina.container.host import Runtime, read_facts
from lamina.container.ports import Mount, ProcessSpec
from lamina.errors import Cancelled, Kind, LaminaError
from lamina.start.record import replace
from lamina.system.loop import loop_device
from lamina.tasks import CancelToken
from lamina.testing.waiting import wait_until

pytestmark = pytest.mark.root
Run = Callable[..., tuple[int, str, str]]


def tree(top: Path) -> dict[str, tuple[int, int, int]]:
    """Every path below `top` with its mode, size (of files) and mtime in nanoseconds."""
    found = {}
    for path in [top, *top.rglob("*")]:
        status = path.lstat()
        size = status.st_size if path.is_file() else 0
        found[str(path)] = (status.st_mode, size, status.st_mtime_ns)
    return found


def processes_with(marker: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in command:
                found.append(command.decode(errors="replace"))
    return found


def descendants(top: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit():
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(stat[1])
    found = {top}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exit_status_is_the_programs(run: Run, code: int) -> None:
    assert run("sh", "-c", f"exit {code}")[0] == code


def test_death_by_signal_is_128_and_its_number(run: Run) -> None:
    # PID 1 is immune to its own signals: a child that dies shows the shell's view of it.
    assert run("sh", "-c", "sh -c 'kill -15 $$'; exit $?")[0] == 143


def test_container_init_killed_by_a_signal(run: Run) -> None:
    # A fault is a forced signal, which reaches PID 1 too.
    assert run("sh", "-c", "ulimit -t 1; while :; do :; done")[0] in (137, 152)


def test_both_streams_arrive_apart(run: Run) -> None:
    assert run("sh", "-c", "echo out; echo err >&2") == (0, "out\n", "err\n")


def test_large_output_arrives_whole(run: Run) -> None:
    status, out, _ = run("sh", "-c", "dd if=/dev/zero bs=64k count=64 2>/dev/null | cat")
    assert (status, len(out)) == (0, 4 << 20)


def test_standard_input_is_empty(run: Run) -> None:
    assert run("cat") == (0, "", "")


def test_background_process_dies_with_the_step(run: Run) -> None:
    status, _, _ = run("sh", "-c", "sleep 7531 & exit 0")
    assert status == 0
    assert processes_with("7531") == []


@pytest.mark.parametrize(
    ("command", "status"), [("nope", 127), ("/nope", 127), ("/etc", 126), ("/etc/hosts", 126)]
)
def test_command_that_cannot_run(run: Run, command: str, status: int) -> None:
    found, _, err = run(command)
    assert found == status
    assert command in err or "exec" in err
    assert len(err.splitlines()) == 1


def test_file_that_is_no_program(run: Run, rootfs: Path) -> None:
    script = rootfs / "work/x"
    script.write_bytes(b"\x7fnonsense")
    script.chmod(0o755)
    assert run("/work/x")[0] == 126


def test_missing_working_directory_is_named(run: Run) -> None:
    with pytest.raises(LaminaError, match="working directory /absent") as caught:
        run("true", cwd="/absent")
    assert caught.value.kind is Kind.INVALID


@pytest.mark.parametrize("cwd", ["/proc/self/fd/7", "/proc/1/root", "/link", "/dev/fd/9", "rel"])
def test_hostile_working_directory_is_refused(run: Run, rootfs: Path, cwd: str) -> None:
    (rootfs / "link").symlink_to("/proc/self/fd/7")
    with pytest.raises(LaminaError) as caught:
        run("ls", cwd=cwd)
    assert caught.value.kind is Kind.INVALID


def test_working_directory_through_a_link_stays_inside(run: Run, rootfs: Path) -> None:
    (rootfs / "inside").symlink_to("/../../work")
    (rootfs / "work/here").touch()
    assert run("ls", cwd="/inside")[1] == "here\n"


def test_working_directory_in_a_mount(run: Run, tmp_path: Path) -> None:
    (tmp_path / "vol/sub").mkdir(parents=True)
    mounts = (Mount("/vol", "bind", str(tmp_path / "vol")),)
    _, out, _ = run("sh", "-c", "pwd", cwd="/vol/sub", mounts=mounts)
    assert out == "/vol/sub\n"


def test_user_group_and_home(run: Run) -> None:
    _, out, _ = run("sh", "-c", "id -u; id -g; id -G; echo $HOME", user="app")
    assert out.splitlines() == ["1001", "2001", "2001 29 50", "/home/app"]


def test_user_with_group_has_no_other_groups(run: Run) -> None:
    assert run("id", "-G", user="app:staff")[1] == "50\n"
    assert run("id", "-G", user="4242:4343")[1] == "4343\n"


def test_unknown_user_is_refused(run: Run) -> None:
    with pytest.raises(LaminaError, match="unable to find user nobody-here") as caught:
        run("true", user="nobody-here")
    assert caught.value.kind is Kind.INVALID


def test_passwd_that_links_to_the_hosts_file_is_not_followed(run: Run, rootfs: Path) -> None:
    (rootfs / "etc/passwd").unlink()
    (rootfs / "etc/passwd").symlink_to("../../../../../../../../etc/passwd")
    with pytest.raises(LaminaError, match="user daemon"):
        run("true", user="daemon")


@pytest.mark.parametrize("kind", ["fifo", "huge", "directory"])
def test_hostile_passwd_neither_hangs_nor_fills_memory(
    run: Run, runtime: Runtime, rootfs: Path, kind: str
) -> None:
    path = rootfs / "etc/passwd"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        path.mkdir()
    with pytest.raises(LaminaError, match="passwd"):
        run("true", user="app")
    # runc 1.1 opens the container's /etc/passwd itself, whoever the user is.
    if runtime.name == "crun":
        assert "\t77\t" in run("grep", "^Uid", "/proc/self/status", user="77")[1]


def test_etc_files_are_the_containers_and_the_images_stay(run: Run, rootfs: Path) -> None:
    script = "cat /etc/hosts /etc/resolv.conf; echo lost > /etc/hosts; echo kept > /etc/hostname"
    _, out, _ = run(
        "sh",
        "-c",
        script,
        hostname="box",
        extra_hosts=(("db", "192.0.2.7"), ("gw", "host-gateway")),
        host_gateway="192.0.2.1",
        dns=("192.0.2.99",),
    )
    assert "\tbox\n" in out
    assert "192.0.2.7\tdb\n" in out
    assert "192.0.2.1\tgw\n" in out
    assert "nameserver 192.0.2.99\n" in out
    assert "from-the-image" not in out
    assert (rootfs / "etc/hosts").read_text() == "192.0.2.1 from-the-image\n"
    assert (rootfs / "etc/hostname").read_text() == "kept\n"


def test_step_leaves_nothing_that_was_only_a_mount_point(run: Run, rootfs: Path) -> None:
    for name in ("hosts", "hostname", "resolv.conf"):
        (rootfs / "etc" / name).unlink()
    for name in ("proc", "sys", "dev"):
        (rootfs / name).rmdir()
    os.utime(rootfs / "etc", (1, 1))
    before = tree(rootfs)
    assert "lamina" in run("cat", "/etc/hosts")[1]
    assert tree(rootfs) == before


def test_dangling_link_at_a_mount_point_leaves_nothing(run: Run, rootfs: Path) -> None:
    (rootfs / "etc/resolv.conf").unlink()
    (rootfs / "etc/resolv.conf").symlink_to("../run/resolver/stub.conf")
    before = tree(rootfs)
    assert run("cat", "/etc/resolv.conf", dns=("192.0.2.9",))[1].startswith("nameserver 192.0.2.9")
    assert tree(rootfs) == before


def test_what_the_step_puts_at_a_mount_point_is_kept(run: Run, rootfs: Path) -> None:
    (rootfs / "etc/resolv.conf").unlink()
    mounts = (Mount("/opt/x", "tmpfs"),)
    status, _, _ = run("sh", "-c", "echo kept > /opt/file; touch /etc/other", mounts=mounts)
    assert status == 0
    assert (rootfs / "opt/file").read_text() == "kept\n"
    assert not (rootfs / "opt/x").exists()
    assert (rootfs / "etc/other").exists()
    assert not (rootfs / "etc/resolv.conf").exists()


@pytest.fixture
def ca_executor(runtime: Runtime, tmp_path: Path) -> RuntimeExecutor:
    bundle = tmp_path / "company.pem"
    bundle.write_text("-----BEGIN CERTIFICATE-----\ncompany\n-----END CERTIFICATE-----\n")
    bundle.chmod(0o600)
    return RuntimeExecutor(runtime, state_dir=str(tmp_path / "state"), ca_bundle=str(bundle))


def test_ca_bundle_is_seen_and_leaves_nothing(ca_executor: RuntimeExecutor, rootfs: Path) -> None:
    (rootfs / "run").rmdir()
    before = tree(rootfs)
    output: list[bytes] = []
    process = ProcessSpec(
        argv=("sh", "-c", "cat $SSL_CERT_FILE; cat $APT_CONFIG; echo $PIP_CERT; rm $SSL_CERT_FILE"),
        env=(("PIP_CERT", "/mine"),),
        user="app",
    )
    with ca_executor:
        status = ca_executor.run(
            process,
            str(rootfs),
            on_output=lambda _stream, data: output.append(data),
            cancel=CancelToken(),
        )
    text = b"".join(output).decode()
    assert status == 1  # it cannot be removed
    assert "company" in text
    assert 'CaInfo "/run/lamina/ca-bundle.crt"' in text
    assert "/mine\n" in text
    assert tree(rootfs) == before


def test_unreadable_ca_bundle_is_named(runtime: Runtime, rootfs: Path, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    with (
        RuntimeExecutor(runtime, state_dir=state, ca_bundle="/absent.pem") as executor,
        pytest.raises(LaminaError, match=r"/absent\.pem"),
    ):
        executor.run(
            ProcessSpec(argv=("true",), env=()),
            str(rootfs),
            on_output=lambda _stream, _data: None,
            cancel=CancelToken(),
        )


def test_cancel_kills_every_process(executor: RuntimeExecutor, rootfs: Path) -> None:
    cancel = CancelToken()
    seen = threading.Event()

    def cancel_when_running() -> None:
        seen.wait(30)
        cancel.cancel()

    thread = threading.Thread(target=cancel_when_running)
    thread.start()
    process = ProcessSpec(
        argv=("sh", "-c", "trap '' TERM INT; sleep 8642 & echo up; sleep 8642"), env=()
    )
    with pytest.raises(Cancelled):
        executor.run(
            process, str(rootfs), on_output=lambda _stream, _data: seen.set(), cancel=cancel
        )
    thread.join()
    assert processes_with("8642") == []
    assert not list(Path("/sys/fs/cgroup").glob(f"*/lamina-{os.getpid()}-*"))


def test_cancelled_before_it_starts(executor: RuntimeExecutor, rootfs: Path) -> None:
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        executor.run(
            ProcessSpec(argv=("touch", "/work/x"), env=()),
            str(rootfs),
            on_output=lambda _stream, _data: None,
            cancel=cancel,
        )
    assert not (rootfs / "work/x").exists()


def test_failing_output_callback_stops_the_step(executor: RuntimeExecutor, rootfs: Path) -> None:
    def fail(_stream: int, _data: bytes) -> None:
        raise LaminaError("cannot write")

    process = ProcessSpec(argv=("sh", "-c", "echo x; sleep 9753"), env=())
    with pytest.raises(LaminaError, match="cannot write"):
        executor.run(process, str(rootfs), on_output=fail, cancel=CancelToken())
    assert processes_with("9753") == []


def test_steps_run_at_the_same_time(executor: RuntimeExecutor, rootfs: Path) -> None:
    statuses: list[int] = []
    met = threading.Barrier(4, timeout=60)

    def step(number: int) -> None:
        def meet(_stream: int, _data: bytes) -> None:
            met.wait()

        process = ProcessSpec(argv=("sh", "-c", f"echo up; exit {number}"), env=())
        status = executor.run(process, str(rootfs), on_output=meet, cancel=CancelToken())
        statuses.append(status)

    threads = [threading.Thread(target=step, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [0, 1, 2, 3]


def launcher_of(pid: int) -> int:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"launcher.main" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError("no launcher")


@pytest.mark.parametrize("victim", ["process", "group", "launcher"])
def test_kill_of_lamina_leaves_nothing(
    runtime: Runtime, rootfs: Path, tmp_path: Path, victim: str
) -> None:
    """SIGKILL the process that runs a step (its group, its launcher too): nothing may stay."""
    marker = f"{7000 + os.getpid()}.{runtime.name}{victim}"
    state = tmp_path / "killed"
    program = textwrap.dedent(
        """
        import sys
        from lamina.container.executor import RuntimeExecutor, sweep
        from lamina.container.ports import ProcessSpec
        from lamina.container.runtime import find_runtime
        from lamina.tasks import CancelToken
        store, name, state, rootfs, marker = sys.argv[1:]
        executor = RuntimeExecutor(find_runtime(store, override=name), state_dir=state)
        script = f"trap '' TERM HUP INT; sh -c 'sleep 100; : {marker}' & echo up; sleep 100; : "
        executor.run(ProcessSpec(argv=("sh", "-c", script + marker), env=()), rootfs,
            on_output=lambda s, d: print(s, d, flush=True), cancel=CancelToken())
        """
    )
    store = tmp_path / "store"
    store.mkdir()
    lamina = subprocess.Popen(
        [sys.executable, "-c", program, store, runtime.name, state, rootfs, marker],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert lamina.stdout is not None
    assert b"up" in lamina.stdout.readline()
    # "up" may be printed before the other shell has started
    wait_until(lambda: len(processes_with(marker)) >= 3, "the other shell", process=lamina)
    if victim == "launcher":
        os.kill(launcher_of(lamina.pid), 9)
    if victim == "group":
        os.killpg(lamina.pid, 9)
    else:
        lamina.kill()
    lamina.wait()
    lamina.stdout.close()
    wait_until(lambda: not processes_with(marker))

    def tidy() -> bool:
        if victim == "launcher":  # nobody is left to tidy up: the next process does
            sweep(str(state))
        return not list(state.glob("*"))

    wait_until(tidy)
    assert not list(Path("/sys/fs/cgroup").glob(f"*/lamina-{lamina.pid}-*"))
    assert not list(Path("/sys/fs/cgroup").glob(f"lamina-{lamina.pid}-*"))
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def test_death_of_the_launcher_is_reported_and_the_next_step_works(
    executor: RuntimeExecutor, run: Run, rootfs: Path
) -> None:
    def kill_launcher(_stream: int, _data: bytes) -> None:
        os.kill(launcher_of(os.getpid()), 9)

    process = ProcessSpec(argv=("sh", "-c", "echo up; sleep 6420"), env=())
    with pytest.raises(LaminaError, match="launcher has died"):
        executor.run(process, str(rootfs), on_output=kill_launcher, cancel=CancelToken())
    wait_until(lambda: not processes_with("6420"))
    assert run("true")[0] == 0


def test_state_of_a_dead_process_is_swept(runtime: Runtime, rootfs: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    left = state / "999999999-1-1/lamina-999999999-1-1-1"
    left.mkdir(parents=True)
    (left / "config.json").touch()
    with RuntimeExecutor(runtime, state_dir=str(state)) as executor:
        executor.run(
            ProcessSpec(argv=("true",), env=()),
            str(rootfs),
            on_output=lambda _stream, _data: None,
            cancel=CancelToken(),
        )
    assert list(state.iterdir()) == []


def test_overlay_of_another_step_is_not_kept_mounted(
    executor: RuntimeExecutor, rootfs: Path, tmp_path: Path
) -> None:
    """While one step runs, an overlay that another step had mounted can really be unmounted."""
    for name in ("low", "up", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/low,upperdir={tmp_path}/up,workdir={tmp_path}/work"
    overlay = ["mount", "-t", "overlay", "overlay", "-o", options, str(tmp_path / "merged")]
    subprocess.run(overlay, check=True)
    device = (tmp_path / "merged").stat().st_dev
    seen: list[str] = []
    process = ProcessSpec(argv=("sh", "-c", "echo up; sleep 1; echo still"), env=())

    def look(_stream: int, data: bytes) -> None:
        if data == b"up\n":
            subprocess.run(["umount", str(tmp_path / "merged")], check=True)
            minor = f"{os.major(device)}:{os.minor(device)}"
            for pid in descendants(os.getpid()):
                with suppress(OSError):
                    if f" {minor} " in Path(f"/proc/{pid}/mountinfo").read_text():
                        seen.append(str(pid))

    executor.run(process, str(rootfs), on_output=look, cancel=CancelToken())
    assert seen == []


def test_root_file_system_that_is_missing(executor: RuntimeExecutor, tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="root file system"):
        executor.run(
            ProcessSpec(argv=("true",), env=()),
            str(tmp_path / "absent"),
            on_output=lambda _stream, _data: None,
            cancel=CancelToken(),
        )


@pytest.mark.parametrize("runtime", ["crun"], indirect=True)  # runc always makes control groups
@pytest.mark.parametrize("nodev", [True, False])
def test_disk_of_the_host_that_an_image_names_is_out_of_reach_without_control_groups(
    runtime: Runtime, rootfs: Path, tmp_path: Path, *, nodev: bool
) -> None:
    """The other case shows what it is good for."""
    facts = read_facts(runtime.cgroups, manager="disabled", nodev=nodev)
    bare = replace(runtime, manager="disabled", host=facts)
    assert runtime.nodev
    assert not facts.device_control
    (tmp_path / "disk").write_bytes(b"a disk of the host".ljust(1 << 20))
    fd = os.open(tmp_path / "disk", os.O_RDONLY)
    output: list[bytes] = []
    try:
        with loop_device(fd) as path, RuntimeExecutor(bare, state_dir=str(tmp_path / "s")) as made:
            os.mknod(rootfs / "node", stat.S_IFBLK | 0o666, os.stat(path).st_rdev)
            (rootfs / "node").chmod(0o666)
            status = made.run(
                ProcessSpec(argv=("head", "-c", "18", "/node"), env=(), user="1000"),
                str(rootfs),
                on_output=lambda _stream, data: output.append(data),
                cancel=CancelToken(),
            )
    finally:
        os.close(fd)
    text = b"".join(output).decode()
    assert (status, text) == ((1, "head: /node: Permission denied\n") if nodev
                              else (0, "a disk of the host"))  # fmt: skip


@pytest.mark.parametrize("runtime", ["crun"], indirect=True)  # runc always makes control groups
def test_host_without_control_groups_still_runs_and_withholds_devices(
    runtime: Runtime, rootfs: Path, tmp_path: Path
) -> None:
    bare = replace(
        runtime, manager="disabled", host=read_facts(runtime.cgroups, manager="disabled")
    )
    output: list[bytes] = []
    with RuntimeExecutor(bare, state_dir=str(tmp_path / "state")) as executor:
        status = executor.run(
            ProcessSpec(argv=("sh", "-c", "grep CapEff /proc/self/status; mknod /x c 1 3"), env=()),
            str(rootfs),
            on_output=lambda _stream, data: output.append(data),
            cancel=CancelToken(),
        )
    text = b"".join(output).decode()
    assert status == 1
    assert f"{0xA80425FB & ~(1 << 27):016x}" in text
    assert "not permitted" in text
