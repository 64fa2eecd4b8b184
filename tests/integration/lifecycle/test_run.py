# SPDX-License-Identifier: Apache-2.0
"""`lamina run` in the foreground: output, statuses, the image's defaults, every flag."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from lamina.testing.busybox import Lamina, make_image
from lamina.testing.waiting import wait_until


def test_output_of_both_streams_and_status_are_passed_on(lamina: Lamina) -> None:
    done = lamina("run", "--rm", "bb", "sh", "-c", "echo out; echo err >&2; exit 42", status=42)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_output_without_newline_and_of_any_bytes_arrives_unchanged(lamina: Lamina) -> None:
    process = lamina.popen("run", "--rm", "bb", "printf", r"\377\000x")
    out, _ = process.communicate(timeout=60)
    assert out == b"\xff\x00x"


def test_large_output_arrives_complete(lamina: Lamina) -> None:
    process = lamina.popen("run", "--rm", "bb", "dd", "if=/dev/zero", "bs=65536", "count=256")
    out, _ = process.communicate(timeout=60)
    assert len(out) == 256 * 65536


def test_slow_reader_gets_everything_after_the_container_has_ended(lamina: Lamina) -> None:
    process = lamina.popen("run", "--name", "ended", "bb", "sh", "-c", "seq 1 40000")
    assert process.stdout is not None
    ended = ("ps", "-aq", "--filter", "name=ended", "--filter", "status=exited")
    wait_until(lambda: lamina.out(*ended), "the container ends", pause=0.1)
    assert process.stdout.read().split()[-1] == b"40000"
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("command", "status"),
    [("nosuch", 127), ("/no/such", 127), ("/etc/notexec", 126), ("/etc", 126)],
)
def test_command_that_cannot_run_gives_dockers_status(
    lamina: Lamina, command: str, status: int
) -> None:
    assert "lamina: " in lamina("run", "--rm", "bb", command, status=status).stderr


def test_death_by_signal_is_128_plus_its_number(lamina: Lamina) -> None:
    lamina("run", "--rm", "bb", "sh", "-c", "sh -c 'kill -9 $$'; exit $?", status=137)


def test_missing_image_is_status_125_and_says_what_to_do(lamina: Lamina) -> None:
    done = lamina("run", "nosuch:1", status=125)
    assert 'image "nosuch:1" not found' in done.stderr
    assert "hint:" in done.stderr


def test_unknown_flag_is_status_125(lamina: Lamina) -> None:
    assert "unknown flag: --frobnicate" in lamina("run", "--frobnicate", "bb", status=125).stderr


@pytest.mark.parametrize("flag", [["--isolation=x"], ["--link", "x"]])
def test_flag_that_is_not_supported_is_refused_by_name(lamina: Lamina, flag: list[str]) -> None:
    done = lamina("run", *flag, "bb", "true", status=125)
    assert flag[0].partition("=")[0] in done.stderr
    assert lamina.out("ps", "-aq") == ""


def test_flags_after_the_image_belong_to_the_command(lamina: Lamina) -> None:
    assert lamina.out("run", "--rm", "bb", "echo", "--rm", "-d", "-e", "x") == "--rm -d -e x"


def test_pull_asks_the_registry_as_it_says(lamina: Lamina) -> None:
    """Nothing listens on port 1: only `never` does not try."""
    assert "cannot reach" in lamina("run", "--pull", "always", "127.0.0.1:1/x", status=125).stderr
    missing = lamina("run", "127.0.0.1:1/x", status=125).stderr
    assert "Unable to find image '127.0.0.1:1/x' locally" in missing
    assert "cannot reach" in missing
    never = lamina("run", "--pull", "never", "127.0.0.1:1/x", status=125).stderr
    assert "cannot reach" not in never
    assert "not found" in never


def test_other_platform_is_an_error(lamina: Lamina) -> None:
    done = lamina("run", "--platform", "linux/s390x", "bb", "true", status=125)
    assert "s390x" in done.stderr


def test_entrypoint_and_cmd_of_the_image_are_joined(lamina: Lamina) -> None:
    make_image(lamina.root, "docker.io/library/ep:latest", Entrypoint=["echo", "e"], Cmd=["c"])
    assert lamina.out("run", "--rm", "ep") == "e c"
    assert lamina.out("run", "--rm", "ep", "x", "y") == "e x y"
    assert lamina.out("run", "--rm", "--entrypoint", "printf", "ep", "z") == "z"
    assert "no command specified" in lamina("run", "--entrypoint", "", "ep", status=125).stderr


def test_defaults_of_the_image_apply_and_options_win(lamina: Lamina) -> None:
    make_image(
        lamina.root,
        "docker.io/library/d:latest",
        Env=["PATH=/bin", "A=image", "B=image"],
        WorkingDir="/work/deep",
        User="guest",
        StopSignal="SIGUSR1",
        Labels={"l": "image"},
    )
    script = "pwd; id -un; echo $A $B $HOME"
    assert lamina.out("run", "--rm", "-e", "B=mine", "d", "sh", "-c", script) == (
        "/work/deep\nguest\nimage mine /home/guest"
    )
    out = lamina.out(
        "run", "--rm", "-w", "/tmp", "-u", "0:2000", "d", "sh", "-c", "pwd; id -u; id -g"
    )
    assert out == "/tmp\n0\n2000"


def test_environment_comes_from_flags_files_and_the_host(lamina: Lamina, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\n\nF=from file\nA=file\nHOSTVAR\n")
    lamina.env["HOSTVAR"] = "from host"
    out = lamina.out(
        "run", "--rm", "--env-file", str(file), "-e", "A=flag", "-e", "UNSET_HERE", "bb",
        "sh", "-c", 'echo "$F|$A|$HOSTVAR|${UNSET_HERE-unset}"',
    )  # fmt: skip
    assert out == "from file|flag|from host|unset"


def test_hostname_hosts_and_dns(lamina: Lamina) -> None:
    out = lamina.out(
        "run", "--rm", "-h", "myhost", "--add-host", "db:10.1.2.3", "--dns", "9.9.9.9", "bb",
        "sh", "-c", "hostname; grep db /etc/hosts; grep nameserver /etc/resolv.conf",
    )  # fmt: skip
    assert out.split() == ["myhost", "10.1.2.3", "db", "nameserver", "9.9.9.9"]


def test_hostname_is_the_short_id(lamina: Lamina) -> None:
    assert lamina.out("run", "--name", "hh", "bb", "hostname") == lamina.inspect("hh")["Id"][:12]


def test_bind_mounts_writable_and_read_only(lamina: Lamina, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_text("host\n")
    volume = f"{tmp_path}/in:/mnt"
    assert lamina.out(
        "run", "--rm", "-v", volume, "bb", "sh", "-c", "cat /mnt/file; echo x >/mnt/new"
    ) == ("host")
    assert (tmp_path / "in/new").read_text() == "x\n"
    denied = lamina("run", "--rm", "-v", f"{volume}:ro", "bb", "touch", "/mnt/no", status=1)
    assert "Read-only" in denied.stderr
    lamina(
        "run",
        "--rm",
        "--mount",
        f"type=bind,src={tmp_path}/in,dst=/mnt,readonly",
        "bb",
        "touch",
        "/mnt/no",
        status=1,
    )


def test_v_makes_a_missing_host_directory_and_mount_does_not(
    lamina: Lamina, tmp_path: Path
) -> None:
    lamina("run", "--rm", "-v", f"{tmp_path}/made:/mnt", "bb", "true")
    assert (tmp_path / "made").is_dir()
    done = lamina("run", "--mount", f"type=bind,src={tmp_path}/no,dst=/mnt", "bb", status=125)
    assert "bind source path does not exist" in done.stderr


def test_tmpfs_and_read_only_root(lamina: Lamina) -> None:
    script = "touch /x; echo $?; touch /run/y; echo $?; df -k /run | tail -1 | awk '{print $2}'"
    out = lamina.out(
        "run", "--rm", "--read-only", "--tmpfs", "/run:size=1m", "bb", "sh", "-c", script
    )
    assert out.split() == ["1", "0", "1024"]


def test_anonymous_volume_starts_with_the_images_files(lamina: Lamina) -> None:
    make_image(lamina.root, "docker.io/library/v:latest", Volumes={"/data": {}})
    out = lamina.out(
        "run",
        "--name",
        "vv",
        "v",
        "sh",
        "-c",
        "cat /data/seed; stat -c %u:%a /data/seed; echo 2 >/data/new",
    )
    assert out.split("\n") == ["from the image", "1000:640"]
    source = lamina.inspect("vv")["Mounts"][0]["Source"]
    assert Path(source, "new").read_text() == "2\n"
    lamina("start", "-a", "vv")
    lamina("rm", "-v", "vv")
    assert not os.path.exists(source)


def test_capabilities_and_privileged(lamina: Lamina) -> None:
    show = ["bb", "grep", "CapEff", "/proc/self/status"]
    default = int(lamina.out("run", "--rm", *show).split()[1], 16)
    dropped = int(lamina.out("run", "--rm", "--cap-drop", "ALL", *show).split()[1], 16)
    added = int(
        lamina.out("run", "--rm", "--cap-drop=ALL", "--cap-add=NET_RAW", *show).split()[1], 16
    )
    full = int(lamina.out("run", "--rm", "--privileged", *show).split()[1], 16)
    assert (dropped, added) == (0, 1 << 13)
    assert full & default == default
    assert full > default


def test_security_options(lamina: Lamina, tmp_path: Path) -> None:
    def field(name: str, *flags: str) -> str:
        out = lamina.out("run", "--rm", *flags, "bb", "grep", f"^{name}:", "/proc/self/status")
        return out.split()[1]

    assert field("Seccomp") == "2"
    assert field("Seccomp", "--security-opt", "seccomp=unconfined") == "0"
    assert field("NoNewPrivs", "--security-opt", "no-new-privileges") == "1"
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"],'
        ' "action": "SCMP_ACT_ERRNO"}]}'
    )
    lamina("run", "--rm", "--security-opt", f"seccomp={profile}", "bb", "mkdir", "/x", status=1)
    done = lamina("run", "--security-opt", "apparmor=x", "bb", status=125)
    assert "apparmor" in done.stderr


def test_limits_work_or_are_refused(lamina: Lamina) -> None:
    limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
    done = subprocess.run(
        lamina.argv("run", "--rm", "-m", "64m", "bb", "sh", "-c", limit),
        capture_output=True, text=True, env=lamina.env, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode == 125:
        assert "--memory" in done.stderr
        assert "cannot be enforced" in done.stderr
    else:
        assert done.stdout.strip() == str(64 << 20)


def test_ulimit_and_shm_size(lamina: Lamina) -> None:
    script = "ulimit -n; df -k /dev/shm | tail -1 | awk '{print $2}'"
    out = lamina.out(
        "run", "--rm", "--ulimit", "nofile=200:300", "--shm-size", "2m", "bb", "sh", "-c", script
    )
    assert out.split() == ["200", "2048"]


def test_network_none_and_host(lamina: Lamina) -> None:
    assert lamina.out("run", "--rm", "--network", "none", "bb", "ls", "/sys/class/net") == "lo"
    namespace = os.readlink("/proc/self/ns/net")
    assert lamina.out("run", "--rm", "--network=host", "bb", "readlink", "/proc/self/ns/net") == (
        namespace
    )


@pytest.mark.host_root("networks of one's own take root")
def test_network_that_is_not_there(lamina: Lamina) -> None:
    assert "network mynet not found" in lamina("run", "--network", "mynet", "bb", status=125).stderr


def test_stdin_is_empty_without_i_and_passed_with_it(lamina: Lamina) -> None:
    assert lamina("run", "--rm", "bb", "cat", input="ignored").stdout == ""
    assert lamina("run", "--rm", "-i", "bb", "cat", input="hello\n").stdout == "hello\n"
    data = "x" * 3_000_000
    assert lamina("run", "--rm", "-i", "bb", "wc", "-c", input=data).stdout.strip() == "3000000"


def test_stdin_from_a_file_works(lamina: Lamina, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("from file")
    with open(tmp_path / "f", "rb") as file:
        process = lamina.popen("run", "--rm", "-i", "bb", "cat", stdin=file)
        assert process.communicate(timeout=60)[0] == b"from file"


def test_cidfile_holds_the_id_and_must_be_new(lamina: Lamina, tmp_path: Path) -> None:
    path = tmp_path / "cid"
    lamina("run", "--name", "cc", "--cidfile", str(path), "bb", "true")
    assert path.read_text() == lamina.inspect("cc")["Id"]
    assert (
        "container ID file found" in lamina("run", "--cidfile", str(path), "bb", status=125).stderr
    )
    lamina("run", "--cidfile", str(tmp_path / "other"), "nosuch", status=125)
    assert not (tmp_path / "other").exists()


def test_name_conflict_names_the_holder(lamina: Lamina) -> None:
    lamina("run", "--name", "web", "bb", "true")
    id = lamina.inspect("web")["Id"]
    done = lamina("run", "--name", "web", "bb", "true", status=125)
    assert f'The container name "/web" is already in use by container "{id}"' in done.stderr
    assert "Invalid container name" in lamina("run", "--name", "-x", "bb", status=125).stderr


def test_rm_removes_even_if_the_command_cannot_start(lamina: Lamina) -> None:
    lamina("run", "--rm", "bb", "nosuch", status=127)
    assert lamina.out("ps", "-aq") == ""


@pytest.mark.parametrize(
    "name", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
)
def test_signals_are_forwarded(lamina: Lamina, name: signal.Signals) -> None:
    script = f"trap 'echo got; exit 9' {name.name.removeprefix('SIG')}; echo ready; while :; do sleep 0.05; done"
    process = lamina.popen("run", "--rm", "bb", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(name)
    assert process.stdout.read() == b"got\n"
    process.communicate(timeout=30)
    assert process.returncode == 9


def test_second_interrupt_kills_what_ignores_the_first(lamina: Lamina) -> None:
    script = "trap 'echo got' INT; echo ready; while :; do sleep 0.05; done"
    process = lamina.popen("run", "--rm", "bb", "sh", "-c", script)
    assert process.stdout is not None
    for line in (b"ready\n", b"got\n"):  # the first has arrived, and process 1 goes on
        assert process.stdout.readline() == line
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 137


def test_without_sig_proxy_the_client_dies_and_the_container_stays(lamina: Lamina) -> None:
    process = lamina.popen(
        "run", "--sig-proxy=false", "--name", "ss", "bb", "sh", "-c", "echo ready; exec sleep 60"
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert lamina.inspect("ss")["State"]["Running"]


def test_killed_client_leaves_the_container_running(lamina: Lamina) -> None:
    process = lamina.popen("run", "--name", "kk", "bb", "sh", "-c", "echo ready; exec sleep 60")
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=30)
    assert lamina.out("ps", "--format", "{{.Names}}") == "kk"
