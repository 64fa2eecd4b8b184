# SPDX-License-Identifier: Apache-2.0
"""The engines that cases of behaviour are run with: lamina of root, of an ordinary user, podman."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from lamina.testing.behaviours import Engine
from lamina.testing.busybox import Lamina, make_image
from lamina.testing.ordinary import UID, OrdinaryUser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_CONTAINERS_CONF = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
_TIMEOUT = 120  # s


@contextmanager
def lamina_of_root(place: Path) -> Iterator[Engine]:
    """The command on a store of its own at `place`, at whose end no container is left."""
    root = str(place / "store")
    make_image(root)
    env = Lamina(root).env | {"HOME": str(place)}
    command = os.path.join(os.path.dirname(sys.executable), "lamina")
    engine = Engine(command, _runner(place, env, lambda argv, cwd: (argv, str(cwd))))
    try:
        yield engine
    finally:
        engine.remove_all()
    assert os.listdir(f"{root}/containers") == []
    assert root not in Path("/proc/mounts").read_text()


@contextmanager
def lamina_of_user(place: Path) -> Iterator[Engine]:
    """As `lamina_of_root`, of an ordinary user. `place` is where the image is made."""
    root = str(place / "made")
    make_image(root)
    archive = place / "bb.tar"
    Lamina(root)("save", "-o", str(archive), "bb")
    with OrdinaryUser() as user:
        lamina = user.lamina("store")
        shutil.copy(archive, user.seen(f"{user.home}/bb.tar"))
        os.chown(user.seen(f"{user.home}/bb.tar"), UID, UID)
        lamina("load", "-q", "-i", f"{user.home}/bb.tar")

        def argv(words: Sequence[str], cwd: Path) -> tuple[list[str], str]:
            os.chown(cwd, UID, UID)
            inside = f"{user.home}/{cwd.name}"
            return user.command(*words, cwd=inside), "/"

        seen = user.seen(user.home)
        engine = Engine(
            f"{sys.executable} -m lamina.cli.main", _runner(seen, lamina.env, argv), ports=188
        )
        try:
            yield engine
        finally:
            engine.remove_all()
        assert os.listdir(user.seen(f"{user.home}/store/containers")) == []


@contextmanager
def podman(place: Path) -> Iterator[Engine]:
    """Debian's podman as root, with the same image."""
    # Not below /dev/shm: what it mounts there is in the way of an ordinary user who mounts that. And
    # podman refuses a runroot of more than 50 characters.
    run_root = tempfile.mkdtemp(prefix="pm-", dir="/var/tmp")
    root = str(place / "made")
    make_image(root)
    archive = place / "bb.tar"
    Lamina(root)("save", "-o", str(archive), "bb")
    (place / "containers.conf").write_text(_CONTAINERS_CONF)
    (place / "registries.conf").write_text('unqualified-search-registries = ["docker.io"]\n')
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "CONTAINERS_CONF": str(place / "containers.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(place / "registries.conf"),
    }
    # crun refuses hosts with hybrid control groups
    command = (
        f"podman --root {run_root}/root --runroot {run_root}/r --tmpdir {run_root}/t --runtime runc "
        "--cgroup-manager cgroupfs --events-backend file"
    )
    subprocess.run(
        [*command.split(), "load", "-q", "-i", str(archive)],
        env=env,
        check=True,
        capture_output=True,
    )
    run = _runner(place, env, lambda argv, cwd: (argv, str(cwd)))
    engine = Engine(command, run, remove="rm -f -v -t 0", ports=189)
    try:
        yield engine
    finally:
        engine.remove_all()
        # podman mounts its store on itself
        umount = ["umount", "-l", f"{run_root}/root/overlay"]
        subprocess.run(umount, check=False, capture_output=True)
        shutil.rmtree(run_root)


def _runner(
    seen: Path,
    env: dict[str, str],
    argv: Callable[[list[str], Path], tuple[list[str], str]],
) -> Callable[[str], dict[str, str]]:
    """What runs a script in a new directory beneath `seen` and gives the files that it made."""

    def run(script: str) -> dict[str, str]:
        place = Path(tempfile.mkdtemp(dir=seen, prefix="w"))
        place.chmod(0o755)
        words, cwd = argv(["sh", "-c", script], place)
        subprocess.run(
            words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, check=False, timeout=_TIMEOUT
        )
        made = {
            path.name: path.read_text(errors="backslashreplace")
            for path in place.iterdir()
            if path.name.startswith(("out", "err", "status")) and path.is_file()
        }
        shutil.rmtree(place)
        return made

    return run


ENGINES = {"root": lamina_of_root, "user": lamina_of_user, "podman": podman}
