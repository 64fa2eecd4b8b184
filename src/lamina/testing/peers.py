# SPDX-License-Identifier: Apache-2.0
"""Builds a case of the corpus with lamina and with buildah, and compares what they made.

Trees are compared entry by entry: type, mode, owner, size and digest or link target, hard link
groups, extended attributes, device numbers; not times. lamina's image is unpacked from its layers
by umoci, so that what is judged is what other tools get.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from lamina.start.record import Record
from lamina.testing.command import installed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.testing.corpus import Case

CONFIG = (
    "Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Volumes", "Labels",
    "StopSignal", "Healthcheck", "Shell", "OnBuild",
)  # fmt: skip
# files that a builder binds over in its steps; buildah leaves empty ones (0755) in the layer
_STUBS = ("etc/hosts", "etc/hostname", "etc/resolv.conf")
_TIMEOUT = 120


class Built(Record):
    """What a builder made: `refused` is its message (empty: it built); `facts` say what is where.

    `facts` maps `/path type`, `/path mode`, ... and `Config.Env`, ... to text.
    """

    refused: str = ""
    facts: dict[str, str] | None = None


class Judgement(Record):
    """The sections `error`, `differs` and `result` as they are, lines sorted, and their seal.

    Comments of the case's own `differs` are not among them; what the case does not ask for is left
    out: there is a `result` only where buildah makes nothing to compare with.
    """

    sections: dict[str, list[str]]
    seal: str


class Peers:
    """Both builders with a store each below `place`, and the same base image `busybox`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.store = place / "store"
        self._number = 0
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("LAMINA_")}
        self._env |= {
            "LAMINA_ROOT": str(self.store),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        self._env.pop("SOURCE_DATE_EPOCH", None)
        self._buildah = [
            "buildah", "--root", str(place / "b"), "--runroot", str(place / "r"),
            "--storage-driver", "vfs",
        ]  # fmt: skip
        self._base: dict[str, str] | None = None

    def start(self) -> None:
        """Make the base image and give it to both."""
        self._call(installed("bootstrap", "busybox", "-t", "busybox:latest"))
        archive = str(self.place / "base.tar")
        self._call(installed("save", "-o", archive, "busybox"))
        self._call([*self._buildah, "pull", "-q", f"docker-archive:{archive}"])
        self._base = self._unpacked("busybox:latest")

    def close(self) -> None:
        """Remove everything. Leaves nothing mounted."""
        shutil.rmtree(self.place, ignore_errors=True)

    def judge(self, case: Case, *, judged: str = "") -> Judgement:
        """The case as both builders make it now.

        If what lamina makes was judged before (`judged` is the seal of that judgement) buildah is not
        asked: the case itself says what both make of it.
        """
        context = self.context(case)
        try:
            ours = self.lamina(case, context)
            seal = self._seal(case, ours)
            if seal == judged:
                names = ("error", "differs", "result")
                return Judgement({name: case.lines(name) for name in names}, seal)
            asked = case.section("buildah") is None
            theirs = self.buildah(case, context) if asked else None
        finally:
            shutil.rmtree(context)
        return Judgement(self._compared(ours, theirs), seal)

    def _seal(self, case: Case, ours: Built) -> str:
        """A digest of the case and what lamina made of it; not of the base, the host's busybox."""
        made = self._changes(ours.facts) if ours.facts is not None else []
        text = json.dumps([case.sections, ours.refused, made])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _changes(self, facts: dict[str, str]) -> list[str]:
        assert self._base is not None
        return changes(self._base if "/bin/sh type" in facts else {}, facts)

    def _compared(self, ours: Built, theirs: Built | None) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        if ours.refused:
            found["error"] = ours.refused.splitlines()
            if theirs is not None and not theirs.refused:
                found["differs"] = ["build: refused | made"]
            return found
        assert ours.facts is not None
        if theirs is None or theirs.refused:
            found["result"] = self._changes(ours.facts)
            if theirs is not None:
                found["differs"] = ["build: made | refused"]
        elif lines := differences(ours.facts, theirs.facts or {}):
            found["differs"] = lines
        return found

    def context(self, case: Case) -> Path:
        """The build context of a case in a directory of its own."""
        self._number += 1
        context = self.place / f"context{self._number}"
        context.mkdir()
        context.chmod(0o755)
        (context / "Dockerfile").write_text(case.section("Dockerfile") or "", encoding="utf-8")
        script = "set -e; umask 022\n" + (case.section("context") or "")
        self._call(["sh", "-c", script], cwd=context)
        return context

    def lamina(self, case: Case, context: Path) -> Built:
        """What lamina makes of a case."""
        tag = f"case{self._number}:latest"
        # no case needs a network, and setting one up takes longer than most steps
        flags = ("--progress=quiet", "--network=none", *case.args)
        words = installed("build", *flags, "-t", tag, str(context))
        done = self._run(words)
        if done.returncode:
            assert "Traceback" not in done.stderr, done.stderr
            return Built(refused=_message(done.stderr))
        return Built(facts=self._unpacked(tag))

    def _unpacked(self, tag: str) -> dict[str, str]:
        """Facts of an image of our store, its layers unpacked by another tool."""
        rootfs = self.place / f"rootfs{self._number}"
        self._call(["umoci", "raw", "unpack", "--image", f"{self.store}:{tag}", str(rootfs)])
        facts = tree_facts(rootfs)
        shutil.rmtree(rootfs)
        index = json.loads((self.store / "index.json").read_bytes())
        (digest,) = [
            each["digest"]
            for each in index["manifests"]
            if each["annotations"]["org.opencontainers.image.ref.name"] == tag
        ]
        manifest = json.loads(self._blob(digest))
        return facts | config_facts(json.loads(self._blob(manifest["config"]["digest"])))

    def _blob(self, digest: str) -> bytes:
        return (self.store / "blobs" / digest.replace(":", "/")).read_bytes()

    def buildah(self, case: Case, context: Path) -> Built:
        """What buildah makes of a case."""
        id_file = self.place / f"id{self._number}"
        words = [
            *self._buildah, "bud", "--isolation", "chroot", "--network=host", "--format=docker",
            "--layers=false", "--pull-never", "--identity-label=false", "-q",
            f"--iidfile={id_file}", *case.args, str(context),
        ]  # fmt: skip
        done = self._run(words)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:]
            text = " ".join(last).replace(str(context), "CONTEXT").replace(str(self.place), "")
            return Built(refused=text or "no message")
        digest = id_file.read_text().strip()
        images = json.loads((self.place / "b/vfs-images/images.json").read_bytes())
        (image,) = [each for each in images if each["id"] == digest.partition(":")[2]]
        # containers/storage keeps a big datum under "=" and its name in base64
        name = "=" + base64.b64encode(digest.encode()).decode()
        raw = (self.place / "b/vfs-images" / image["id"] / name).read_bytes()
        facts: dict[str, str] = {}
        if image.get("layer"):
            facts = tree_facts(self.place / "b/vfs/dir" / image["layer"], drop_stubs=True)
        return Built(facts=facts | config_facts(json.loads(raw)))

    def _run(self, words: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=cwd,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
            encoding="utf-8",
            errors="backslashreplace",
        )

    def _call(self, words: list[str], cwd: Path | None = None) -> None:
        done = self._run(words, cwd)
        if done.returncode:
            raise AssertionError(f"{words}: {done.returncode}\n{done.stdout}{done.stderr}")


def _message(stderr: str) -> str:
    """The error without excerpt and hint's place: the lines that begin with `lamina: `."""
    lines = [line for line in stderr.splitlines() if line.startswith("lamina: ")]
    return "\n".join(line.removeprefix("lamina: ") for line in lines)


# Trees ------------------------------------------------------------------------------------------


def tree_facts(root: Path, *, drop_stubs: bool = False) -> dict[str, str]:
    """`/path ATTRIBUTE` -> text, for everything below `root`."""
    facts: dict[str, str] = {}
    groups: dict[tuple[int, int], list[str]] = {}
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            shown = path[len(top) :].decode("utf-8", "backslashreplace")
            if drop_stubs and shown[1:] in _STUBS and not status.st_size:
                continue
            _entry_facts(facts, shown, path, status)
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                groups.setdefault((status.st_dev, status.st_ino), []).append(shown)
    for group in groups.values():
        for shown in group:
            facts[f"{shown} links"] = " ".join(sorted(group))
    return facts


def _entry_facts(facts: dict[str, str], shown: str, path: bytes, status: os.stat_result) -> None:
    mode = status.st_mode
    kind = stat.filemode(mode)[0].replace("-", "f")
    facts[f"{shown} type"] = kind
    facts[f"{shown} owner"] = f"{status.st_uid}:{status.st_gid}"
    if kind == "l":
        facts[f"{shown} target"] = os.fsdecode(os.readlink(path))
    else:
        facts[f"{shown} mode"] = f"{stat.S_IMODE(mode):04o}"
    if kind == "f":
        facts[f"{shown} content"] = _content(path, status.st_size)
    if kind in "bc":
        facts[f"{shown} device"] = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        value = os.getxattr(path, name, follow_symlinks=False)
        facts[f"{shown} xattr {name}"] = ascii(value)


def _content(path: bytes, size: int) -> str:
    """Small text as it is, the rest as size and digest."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    if text and size <= 200 and "\0" not in text:
        return json.dumps(text)
    return f"{size} {hashlib.sha256(data).hexdigest()[:16]}"


def config_facts(config: dict[str, Any]) -> dict[str, str]:
    """`Config.NAME` -> JSON text, for what is set; and the number of history entries."""
    facts: dict[str, str] = {}
    run = config.get("config") or {}
    for name in CONFIG:
        value = run.get(name)
        if isinstance(value, dict):
            value = dict(sorted(value.items()))
        if value:
            facts[f"Config.{name}"] = json.dumps(value, ensure_ascii=False)
    facts["Config.history"] = str(len(config.get("history") or ()))
    return facts


def differences(ours: dict[str, str], theirs: dict[str, str]) -> list[str]:
    """`WHAT: OURS | THEIRS`, sorted; of what one side lacks altogether only the type is named."""
    lines = []
    for fact in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get(fact, "-"), theirs.get(fact, "-")
        path, _, attribute = fact.partition(" ")
        whole = f"{path} type"
        if attribute not in {"", "type"} and (whole in ours) != (whole in theirs):
            continue
        if left != right:
            lines.append(f"{fact}: {left} | {right}")
    return lines


def changes(base: dict[str, str], made: dict[str, str]) -> list[str]:
    """What was added, changed and removed (`-`), sorted, one line an entry or config field."""
    lines: dict[str, str] = {}
    for fact in sorted(base.keys() | made.keys()):
        path, _, attribute = fact.partition(" ")
        if base.get(fact) == made.get(fact):
            continue
        if not attribute:
            lines[path] = f"{path}: {made.get(fact, '-')}"
        elif f"{path} type" not in made:
            lines[path] = f"{path}: -"
        else:
            lines[path] = f"{path}: {_described(path, made)}"
    return [lines[path] for path in sorted(lines)]


def _described(path: str, facts: dict[str, str]) -> str:
    """An entry in one line: `f 0644 0:0 "content"`."""
    words = [facts.get(f"{path} {name}", "") for name in ("type", "mode", "owner")]
    if target := facts.get(f"{path} target"):
        words.append(f"-> {target}")
    words += [facts.get(f"{path} {name}", "") for name in ("content", "device")]
    if links := facts.get(f"{path} links"):
        words.append(f"links {links}")
    xattrs = [fact for fact in facts if fact.startswith(f"{path} xattr ")]
    words += [f"{fact.split(' ', 2)[2]}={facts[fact]}" for fact in sorted(xattrs)]
    return " ".join(word for word in words if word)
