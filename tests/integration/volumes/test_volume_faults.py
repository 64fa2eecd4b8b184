# SPDX-License-Identifier: Apache-2.0
"""kill -9 while a volume is made, filled or removed, and many processes at one volume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from lamina.testing.busybox import Lamina, processes_of
from lamina.testing.sample import randomness, rounds
from lamina.testing.waiting import wait_until

MANY = 4000  # files in the image's /many


def place(lamina: Lamina, *parts: str) -> Path:
    return Path(lamina.root, "volumes", *parts)


def entries(path: Path) -> int:
    try:
        return len(os.listdir(path))
    except FileNotFoundError:
        return 0


def monitor_of(lamina: Lamina) -> int:
    """The pid of the only container's monitor; 0 if there is none (yet)."""
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                comm = Path(f"/proc/{pid}/comm").read_text()
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if comm == "lamina-monitor\n" and lamina.root.encode() in command:
                return int(pid)
    return 0


def killed_while_copying(lamina: Lamina, volume: str) -> bool:
    """Run a container that fills the volume, kill its monitor meanwhile; False if it was faster."""
    running = lamina.popen("run", "--name", volume, "-v", f"{volume}:/many", "many", "true")
    aside = place(lamina, volume, "copying")
    wait_until(lambda: entries(aside) > 0 or running.poll() is not None)
    monitor = monitor_of(lamina)
    was_copying = monitor > 0 and entries(aside) in range(1, MANY)
    if was_copying:
        os.kill(monitor, signal.SIGKILL)
    running.communicate()
    wait_until(lambda: processes_of(lamina.root) == [])  # `cp` too
    return was_copying and entries(place(lamina, volume, "_data")) == 0


def test_monitor_killed_while_it_copies(lamina: Lamina) -> None:
    one = next(
        name for name in ("v1", "v2", "v3", "v4", "v5") if killed_while_copying(lamina, name)
    )
    assert entries(place(lamina, one, "copying")) > 0
    assert one in lamina.out("volume", "ls", "-q").split()
    assert "in use" in lamina("volume", "rm", one, status=1).stderr
    count = ("many", "sh", "-c", "ls /many | wc -l")
    assert lamina.out("run", "--rm", "-v", f"{one}:/many", *count) == str(MANY)
    assert sorted(os.listdir(place(lamina, one))) == ["_data", "volume.json"]
    lamina("rm", "-f", one)
    assert lamina.root not in Path("/proc/mounts").read_text()


def test_next_container_finishes_a_move_that_was_cut_short(lamina: Lamina) -> None:
    # what a monitor that dies between two renames leaves, while another container has the volume
    lamina("run", "-d", "--name=has", "-v", "one:/w", "bb", "sleep", "600")
    ready = place(lamina, "one/copied")
    ready.mkdir()
    for name in ("a", "b"):
        (ready / name).write_text(name)
    place(lamina, "one/_data/a").write_text("mine")
    shown = lamina.out("run", "--rm", "-v", "one:/w:nocopy", "bb", "sh", "-c", "cat /w/a /w/b")
    assert shown == "mineb"
    assert lamina.out("exec", "has", "ls", "/w") == "a\nb"  # it sees the same directory
    assert not ready.exists()


@pytest.mark.sampled
def test_create_and_rm_killed_anywhere_leave_no_half_volume(lamina: Lamina) -> None:
    lamina("volume", "create", "stays")
    random = randomness("volumes killed anywhere")
    for attempt in range(rounds(whole=300, sample=16)):
        name = f"v{attempt}"
        if attempt % 2:
            lamina("volume", "create", name)
            place(lamina, name, "_data/f").write_text("x")
        process = lamina.popen("volume", "rm" if attempt % 2 else "create", name)
        try:
            process.wait(timeout=random.uniform(0.02, 0.25))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        shown = lamina.out("volume", "ls", "-q").split()
        whole = [each for each in place(lamina).iterdir() if (each / "volume.json").exists()]
        assert sorted(shown) == sorted(each.name for each in whole)
        for each in whole:
            assert (each / "_data").is_dir()
            json.loads((each / "volume.json").read_text())
        lamina("volume", "create", name)
        assert lamina.out("volume", "rm", name) == name
    lamina("volume", "prune", "-f")
    assert sorted(os.listdir(place(lamina))) == ["stays"]


def test_rubbish_of_killed_processes_is_pruned_and_counted(lamina: Lamina) -> None:
    lamina("volume", "create", "stays")
    place(lamina, "half/_data").mkdir(parents=True)
    place(lamina, "half/_data/f").write_bytes(b"x" * 300_000)
    assert lamina.out("volume", "ls", "-q") == "stays"
    lamina("volume", "inspect", "half", status=1)
    assert "Total reclaimed space: 3" in lamina.out("volume", "prune", "-f")
    assert os.listdir(place(lamina)) == ["stays"]


def test_one_of_many_containers_fills_a_volume(lamina: Lamina) -> None:
    script = "ls /many | wc -l"
    running = [
        lamina.popen("run", "--rm", "--network=none", "-v", "one:/many", "many", "sh", "-c", script)
        for _ in range(6)
    ]
    for process in running:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out.decode().strip()) == (0, str(MANY)), err
    assert sorted(os.listdir(place(lamina, "one"))) == ["_data", "volume.json"]


@pytest.mark.sampled
def test_create_rm_prune_and_run_at_once(lamina: Lamina) -> None:
    run = ("run", "--rm", "--network=none", "-v", "one:/data", "bb", "cat", "/data/seed")
    for _ in range(rounds(whole=20, sample=2)):
        others = [
            ("volume", "create", "one"),
            ("volume", "rm", "-f", "one"),
            ("volume", "prune", "-af"),
        ]
        running = [(words, lamina.popen(*words)) for words in (run, *others, run, *others, run)]
        for words, process in running:
            out, err = process.communicate(timeout=60)
            if words == run:
                assert (process.returncode, out) == (0, b"from the image\n"), err
            elif process.returncode:
                assert b"volume is in use" in err, (words, err)
    assert lamina.out("volume", "ls", "-q") in {"", "one"}
    lamina("volume", "rm", "-f", "one")
    assert os.listdir(place(lamina)) == []


@pytest.mark.sampled
def test_anonymous_volume_of_a_new_container_survives_prune(lamina: Lamina) -> None:
    for _ in range(rounds(whole=20, sample=3)):
        prunes = [lamina.popen("volume", "prune", "-af") for _ in range(3)]
        out = lamina.out("run", "--rm", "--network=none", "v", "cat", "/data/seed")
        assert out == "from the image"
        for process in prunes:
            process.communicate(timeout=60)
            assert process.returncode == 0
    assert entries(place(lamina)) == 0


def test_monitor_killed_before_it_removes_anonymous_volumes(lamina: Lamina) -> None:
    lamina("run", "-d", "--rm", "--name=it", "v", "sleep", "600")
    os.kill(monitor_of(lamina), signal.SIGKILL)
    lamina("rm", "-f", "it")  # what --rm promised
    assert entries(place(lamina)) == 0
    assert lamina.directories() == []
