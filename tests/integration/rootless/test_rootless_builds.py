# SPDX-License-Identifier: Apache-2.0
"""What an ordinary user can build, with the ids of /etc/subuid and without."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from lamina.testing.command import Lamina
from lamina.testing.ordinary import OrdinaryLamina, OrdinaryUser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.root,
    pytest.mark.tool("crun", "nsenter", "setpriv", "newuidmap", "busybox"),
]

OWNERS = """FROM busybox
RUN echo one > /one && chown 1000:2000 /one && mkdir /closed && touch /closed/f \\
  && chown -R 33:33 /closed && chmod 700 /closed
"""


def entries(lamina: OrdinaryLamina, name: str) -> dict[str, tarfile.TarInfo]:
    """What the root file system of an image holds, as an export of lamina's shows it."""
    lamina.write({"export/Dockerfile": f"FROM {name}\n"})
    lamina("build", "--output", "type=tar,dest=out.tar", "export")
    with tarfile.open(fileobj=io.BytesIO((lamina.seen / "out.tar").read_bytes())) as archive:
        return {member.name.rstrip("/"): member for member in archive}


def test_run_steps_give_files_to_other_users_and_the_next_step_sees_them(
    lamina: OrdinaryLamina,
) -> None:
    lamina.write({"Dockerfile": OWNERS + "RUN stat -c %u:%g /one /closed/f > /seen\n"})
    lamina("build", "-t", "made", ".")
    assert lamina("run", "--rm", "made", "cat", "/seen").stdout == "1000:2000\n33:33\n"
    found = entries(lamina, "made")
    assert (found["one"].uid, found["one"].gid) == (1000, 2000)
    assert (found["closed/f"].uid, found["closed"].mode) == (33, 0o700)


def test_layers_are_the_bytes_that_root_makes(lamina: OrdinaryLamina, tmp_path: Path) -> None:
    dockerfile = (
        "FROM busybox\nCOPY --chown=7:8 --chmod=4755 tool /t/\n"
        "ADD archive.tar /a/\nCOPY --from=busybox /bin/busybox /b\n"
    )
    with tarfile.open(tmp_path / "archive.tar", "w") as archive:
        member = tarfile.TarInfo("owned")
        member.uid, member.gid, member.mtime = 50, 60, 1000
        archive.addfile(member)
    files = {"Dockerfile": dockerfile, "tool": "tool\n"}
    lamina.write(files)
    (lamina.seen / "archive.tar").write_bytes((tmp_path / "archive.tar").read_bytes())
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for path in (tmp_path / "tool", lamina.seen / "tool"):
        os.utime(path, (1, 1))
    lamina("save", "-o", "busybox.tar", "busybox")
    root = Lamina(tmp_path / "store", tmp_path)
    root("load", stdin=(lamina.seen / "busybox.tar").read_bytes())
    for each in (lamina, root):
        each("build", "-t", "made", ".")
    layers = [
        each("inspect", "-f", "{{json .RootFS.Layers}}", "made").stdout for each in (lamina, root)
    ]
    assert layers[0] == layers[1]


def test_whiteouts_and_replaced_directories_are_exported(lamina: OrdinaryLamina) -> None:
    text = OWNERS + "RUN rm /one && rm -r /closed && mkdir /closed && touch /closed/new\n"
    lamina.write({"Dockerfile": text})
    lamina("build", "-t", "made", ".")
    found = entries(lamina, "made")
    assert "one" not in found
    assert "closed/f" not in found
    assert found["closed/new"].uid == 0
    lamina("save", "-o", "made.tar", "made")
    again = lamina.user.with_busybox("again")
    again("load", stdin=(lamina.seen / "made.tar").read_bytes())
    assert again("run", "--rm", "made", "ls", "/closed").stdout == "new\n"


def test_mounts_of_steps(lamina: OrdinaryLamina) -> None:
    lamina.write(
        {
            "secret": "hush\n",
            "given": "given\n",
            "Dockerfile": "FROM busybox AS other\nRUN echo there > /there\nFROM busybox\n"
            "RUN --mount=type=cache,target=/cache,uid=1000 echo kept > /cache/a "
            "&& chown 5:5 /cache/a\n"
            "RUN --mount=type=cache,target=/cache,uid=1000 stat -c %u /cache /cache/a > /cached\n"
            "RUN --mount=type=secret,id=s,uid=1000,mode=0400 stat -c %u /run/secrets/s > /secret\n"
            "RUN --mount=type=tmpfs,target=/t --mount=target=/ctx "
            "--mount=from=other,target=/o,rw touch /o/x && cat /ctx/given /o/there > /bound\n",
        }
    )
    lamina("build", "--secret", "id=s,src=secret", "-t", "made", ".")
    out = lamina("run", "--rm", "made", "cat", "/cached", "/secret", "/bound").stdout
    assert out == "1000\n5\n1000\ngiven\nthere\n"
    lamina("builder", "prune", "-af")
    assert not list((lamina.store_seen / "cachemounts").rglob("fs"))


def test_cache_mounts_with_files_of_others_are_exported(lamina: OrdinaryLamina) -> None:
    step = "mkdir /c/p && touch /c/p/f && chown -R 5:5 /c/p && chmod 700 /c/p"
    lamina.write({"Dockerfile": f"FROM busybox\nRUN --mount=type=cache,id=k,target=/c {step}\n"})
    lamina("build", ".")
    lamina("cache", "export", "--all", "--to", "type=local,dest=kept")
    lamina("cache", "prune", "-f")
    lamina("cache", "import", "type=local,src=kept")
    text = "FROM busybox\nRUN --mount=type=cache,id=k,target=/c stat -c %u:%a /c/p > /seen\n"
    lamina.write({"Dockerfile": text})
    lamina("build", "-t", "made", ".")
    assert lamina("run", "--rm", "made", "cat", "/seen").stdout == "5:700\n"


def test_cached_build_enters_no_namespace(lamina: OrdinaryLamina) -> None:
    lamina.write({"Dockerfile": OWNERS + "COPY Dockerfile /d\n"})
    lamina("build", "-t", "made", ".")
    code = (
        "import os, sys; from lamina.cli import main\n"
        "sys.argv[1:] = ['build', '-t', 'made', '.']\n"
        "assert main.console() == 0\n"
        "assert os.geteuid() == 54321\n"
        "assert 'lamina.system.subids' not in sys.modules\n"
    )
    python = lamina.argv()[lamina.argv().index("-m") - 1]
    done = lamina.user.command(python, "-c", code, cwd=lamina.directory)
    subprocess.run(done, env=lamina.env, check=True)


EXPORTS = [
    pytest.param(("-t", "one"), id="image"),
    pytest.param(("-o", "type=cacheonly", "--cache-to", "type=local,dest=c,mode=max"), id="cache"),
    pytest.param(("-o", "type=local,dest=out"), id="directory"),
    pytest.param(("-o", "type=oci,dest=out.tar"), id="archive"),
]


@pytest.mark.parametrize("flags", EXPORTS)
def test_layers_of_a_cached_build_are_exported(
    lamina: OrdinaryLamina, flags: tuple[str, ...]
) -> None:
    """Several layers are packed in threads, and nothing ran that had entered the namespace."""
    steps = "RUN mkdir /a && touch /a/f && chown -R 5:5 /a && chmod 700 /a\nRUN touch /b\n"
    text = f"FROM busybox AS one\n{steps}FROM busybox\nCOPY --from=one /b /b\n"
    lamina.write({"Dockerfile": text})
    lamina("build", "-t", "made", ".")
    lamina("build", "--target", "one", *flags, ".")
    if flags[0] == "-t":
        assert lamina("run", "--rm", "one", "ls", "/a").stdout == "f\n"


def test_everything_of_other_owners_is_removed(lamina: OrdinaryLamina) -> None:
    lamina.write({"Dockerfile": OWNERS})
    lamina("build", "-t", "made", ".")
    lamina("system", "fsck")
    lamina("system", "prune", "-af")
    assert list((lamina.store_seen / "snapshots").iterdir()) == []


@pytest.fixture(scope="module")
def alone() -> Iterator[OrdinaryUser]:
    """A user without subordinate ids."""
    with OrdinaryUser(ranges="") as made:
        yield made


def test_without_ranges_steps_run_with_one_id(alone: OrdinaryUser) -> None:
    lamina = alone.with_busybox("single")
    lamina.write({"Dockerfile": "FROM busybox\nRUN id -u > /id && cat /proc/self/uid_map > /m\n"})
    done = lamina("build", "-t", "made", ".")
    assert done.stderr.count("only your own id is mapped") == 1
    assert "usermod --add-subuids" in done.stderr
    assert lamina("run", "--rm", "made", "cat", "/id", "/m").stdout.split() == [
        *("0", "0", "54321", "1")
    ]


def test_without_ranges_a_foreign_owner_is_refused_by_name(alone: OrdinaryUser) -> None:
    lamina = alone.with_busybox("foreign")
    lamina.write({"Dockerfile": "FROM busybox\nRUN chown 33 /bin\n"})
    failed = lamina("build", ".", check=False)
    assert failed.returncode == 1
    lamina.write({"Dockerfile": "FROM busybox\nCOPY --chown=33 Dockerfile /d\nRUN true\n"})
    failed = lamina("build", ".", check=False)
    assert failed.returncode == 5
    assert "33:33 is not among the ids of your user" in failed.stderr
    assert "usermod --add-subuids" in failed.stderr
    failed = lamina("run", "--rm", "-u", "33", "busybox", "true", check=False)
    assert failed.returncode == 125
    assert "33:33 is not among the ids" in failed.stderr


def test_without_newuidmap_one_id_is_mapped() -> None:
    with OrdinaryUser(hidden=["/usr/bin/newuidmap"]) as user:
        lamina = user.with_busybox("bare")
        done = lamina("run", "--rm", "busybox", "id", "-u")
        assert done.stdout == "0\n"
        assert "newuidmap is not installed" in done.stderr
