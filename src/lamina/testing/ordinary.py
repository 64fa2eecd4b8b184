# SPDX-License-Identifier: Apache-2.0
"""An ordinary user for tests that run as root: a process that holds a mount namespace, in which /etc
knows the user and its subordinate ids, and which has a tmpfs for the user's files.

Nothing of it is seen outside and nothing is left: it ends with the process that made it, and the
processes that run there. Any number can exist at one time, with the same uid.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from lamina.testing.command import Actor, Lamina, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

UID = 54321
NAME = "lamina-tester"
FIRST = 600000  # of the ids that are the user's
RANGES = f"{NAME}:{FIRST}:65536\n"
PLACE = "/mnt"  # where the user's tmpfs is

# Run by the holder, as root. argv: ranges, 1 for a usable /dev/net/tun, then programs to hide.
_HOLD = """
import os, sys
ranges, tun, *hidden = sys.argv[1:]
from lamina.system.mounts import bind, isolate, tmpfs, unmount
isolate()
parts = []
os.makedirs("{place}", exist_ok=True)
tmpfs("{place}", size=4 << 30)
os.system("mount -o remount,exec,suid,dev {place}")
home, etc = "{place}/home", "{place}/etc"
for directory in (home, etc):
    os.mkdir(directory)
os.chown(home, {uid}, {uid})
def etc_file(name, text):
    with open(f"{{etc}}/{{name}}", "w") as file:
        file.write(text)
    bind(f"{{etc}}/{{name}}", f"/etc/{{name}}")
etc_file("passwd", open("/etc/passwd").read() + "{name}:x:{uid}:{uid}::{place}/home:/bin/sh\\n")
etc_file("group", open("/etc/group").read() + "{name}:x:{uid}:\\n")
for name in ("subuid", "subgid"):
    etc_file(name, ranges)
for number, name, mode in ((200, "net/tun", int(tun)), (229, "fuse", 1)):
    node = f"{{etc}}/{{os.path.basename(name)}}"
    os.mknod(node, 0o20666 if mode else 0o20600, os.makedev(10, number))
    os.chmod(node, 0o666 if mode else 0o600)
    if os.path.exists(f"/dev/{{name}}"):
        bind(node, f"/dev/{{name}}", devices=True)
for path in hidden:
    bind("/dev/null", path, devices=True)
# the interpreter may lie where only root can look
prefix, at = os.path.realpath(sys.base_prefix), "/"
for part in prefix.strip("/").split("/"):
    at = os.path.join(at, part)
    if not os.stat(at).st_mode & 1:
        inside = os.open(prefix, os.O_PATH)
        tmpfs(at, size=1 << 20)
        os.system(f"mount -o remount,exec {{at}}")
        os.makedirs(prefix, exist_ok=True)
        bind(f"/proc/self/fd/{{inside}}", prefix)
        break
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.read()
"""


class OrdinaryUser:
    """The user, from `__enter__` to `__exit__`. `home` is an empty directory of theirs, as they see
    it; `seen(path)` is the same as root sees it from outside.

    `ranges` is the text of /etc/subuid; with `tun` /dev/net/tun may be used by all; `hidden` are
    programs that are not there.
    """

    home = f"{PLACE}/home"

    def __init__(
        self, *, ranges: str = RANGES, tun: bool = True, hidden: Sequence[str] = ()
    ) -> None:
        self._arguments = [ranges, "1" if tun else "0", *hidden]

    def __enter__(self) -> Self:
        code = _HOLD.format(place=PLACE, uid=UID, name=NAME)
        self._holder = subprocess.Popen(
            [sys.executable, "-c", code, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": _python_path()},
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.wait()
        self._holder.stdout.close()

    def seen(self, path: str | Path) -> Path:
        """A path of the user's, from outside."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def command(self, *argv: str, cwd: str | Path = "/") -> list[str]:
        """`argv` as the user runs it, without any privilege."""
        return [
            *("nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--"),
            *("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--"),
            *("env", f"--chdir={cwd}", *argv),
        ]

    def lamina(self, name: str = "store") -> OrdinaryLamina:
        """`lamina` as the user runs it, on a store of their own."""
        return OrdinaryLamina(self, name)

    def with_busybox(self, name: str) -> OrdinaryLamina:
        """`lamina` in a new directory of the user, with an image `busybox`."""
        directory = hashlib.sha256(f"{name} {self._holder.pid}".encode()).hexdigest()[:8]
        made = self.lamina(f"{directory}.store")
        made.directory = f"{self.home}/{directory}"
        made.in_user("mkdir", made.directory)
        made("bootstrap", "busybox", "-t", "busybox")
        return made


class OrdinaryActor(Actor):
    """The user as the one who runs commands on stores and directories that tests made as root.

    What belongs to root beside them becomes the user's before each command.
    """

    def __init__(self, user: OrdinaryUser) -> None:
        self._user = user

    def command(
        self, argv: Sequence[str], *, cwd: str | Path, own: Sequence[str | Path]
    ) -> list[str]:
        trees = {os.path.dirname(path) for path in own}
        for above in {parent for tree in trees for parent in Path(tree).parents}:
            status = above.stat()
            if status.st_uid == 0 and not status.st_mode & 1:
                above.chmod(status.st_mode | 0o011)
        subprocess.run(
            ["chown", "-hR", "--from=0", f"{UID}:{UID}", "--", *trees],
            check=False,
            capture_output=True,
        )
        return self._user.command("env", f"HOME={self._user.home}", *argv, cwd=cwd)

    def uid(self, inside: int) -> int:
        return FIRST + inside - 1 if inside else UID


class OrdinaryLamina(Lamina):
    """See `Lamina`. Its working directory is `directory`; root sees that as `seen`, and the store as
    `store_seen`.
    """

    def __init__(self, user: OrdinaryUser, name: str) -> None:
        super().__init__(Path(user.home, name), Path("/"))
        self.user = user
        self.store_seen = user.seen(self.root)
        self.directory = user.home
        self.env |= {"HOME": user.home, "PYTHONPATH": _python_path(), "TMPDIR": user.home}
        for unset in ("XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
            self.env.pop(unset, None)

    def argv(self, *words: str) -> list[str]:
        python = [sys.executable, "-m", "lamina.cli.main", *words]
        return self.user.command(*python, cwd=self.directory)

    @property
    def seen(self) -> Path:
        """The working directory, from outside."""
        return self.user.seen(self.directory)

    def in_user(self, *argv: str) -> str:
        """The output of another program that the user runs."""
        done = subprocess.run(
            self.user.command(*argv), env=self.env, check=True, capture_output=True, text=True
        )
        return done.stdout

    def write(self, files: dict[str, str]) -> None:
        """Files of the user's in the working directory."""
        write(self.seen, files)
        for path in self.seen.rglob("*"):
            os.chown(path, UID, UID, follow_symlinks=False)


def _python_path() -> str:
    return os.pathsep.join(path for path in sys.path if path)
