# SPDX-License-Identifier: Apache-2.0
"""The static busybox of another architecture, from the distribution's package.

apt fetches and verifies it with the host's own sources and keys, in a configuration, lists and
cache of its own, so the host's apt is not touched. Nothing of the package is run: the names of its
applets are read from the program, and where each belongs from the host's busybox.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile

from lamina.errors import Kind, LaminaError
from lamina.layer.tarread import read_tar
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lamina.tasks import CancelToken

PACKAGE = "busybox-static"
_MEMBER = b"bin/busybox"
_MAX_PROGRAM = 64 << 20  # bytes; Debian's are 1 to 3 MB
# the sorted names, each ended by a NUL, begin with these (busybox applets/applet_tables.c)
_NAMES = re.compile(rb"(?:\[\x00\[\[\x00)(?:[a-z0-9_.-]{1,40}\x00){20,}")

_UNREACHABLE = ("Could not resolve", "Could not connect", "onnection failed", "timed out")


class Program(Record):
    """The program's bytes, and its time in the package (POSIX seconds)."""

    data: bytes
    mtime: int


def fetch_busybox(
    architecture: str, *, scratch: str, env: Mapping[str, str], cancel: CancelToken
) -> Program:
    """The busybox of a Debian `architecture`; `scratch` is a directory for temporary files.

    Raises:
        LaminaError: SYSTEM without apt or where it fails, NOT_FOUND if the distribution has no
            such package, UNAVAILABLE if it cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="busybox-", dir=scratch) as place:
        config = _configure(place, architecture)
        apt = _Apt(config, place, architecture, env, cancel)
        apt.run("update")
        apt.run("download", PACKAGE)
        packages = [name for name in os.listdir(place) if name.endswith(".deb")]
        if len(packages) != 1:
            raise LaminaError(f"apt-get download left no {PACKAGE} package", kind=Kind.SYSTEM)
        return _unpack(f"{place}/{packages[0]}", env)


def _configure(place: str, architecture: str) -> str:
    """An apt configuration with everything it writes below `place`; its path."""
    for directory in ("lists/partial", "cache/archives/partial"):
        os.makedirs(f"{place}/{directory}")
    with open(f"{place}/status", "wb"):
        pass  # no installed packages: those of the host have another architecture
    quoted = place.replace("\\", "\\\\").replace('"', '\\"')
    lines = [
        f'APT::Architecture "{architecture}";',
        "#clear APT::Architectures;",
        f'APT::Architectures {{ "{architecture}"; }};',
        'APT::Sandbox::User "";',
        'Acquire::Languages "none";',
        "#clear APT::Update::Post-Invoke;",
        "#clear APT::Update::Post-Invoke-Success;",
        f'Dir::State "{quoted}";',
        f'Dir::State::Lists "{quoted}/lists/";',
        f'Dir::State::status "{quoted}/status";',
        f'Dir::Cache "{quoted}/cache";',
    ]
    path = f"{place}/apt.conf"
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return path


class _Apt:
    """apt-get with the configuration, run in `place`. `update` succeeds with mirrors unreachable, so
    all its output counts when a later command fails.
    """

    def __init__(
        self,
        config: str,
        place: str,
        architecture: str,
        env: Mapping[str, str],
        cancel: CancelToken,
    ) -> None:
        self._config = config
        self._place = place
        self._architecture = architecture
        self._env = dict(env)
        self._cancel = cancel
        self._output = ""

    def run(self, *words: str) -> None:
        process = self._start(words)
        self._cancel.on_cancel(process.terminate)
        try:
            self._output += process.communicate()[0].decode("utf-8", "replace")
        finally:
            self._cancel.forget(process.terminate)
        self._cancel.check()
        if process.returncode:
            raise _explain(self._output, self._architecture)

    def _start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                ["apt-get", "-q", "-c", self._config, *words],
                cwd=self._place,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except FileNotFoundError:
            raise LaminaError(
                f"a busybox for {self._architecture} comes from the distribution's packages, "
                "and this host has no apt-get",
                kind=Kind.SYSTEM,
                hint="use 'lamina import --platform' with a root filesystem of that architecture",
            ) from None


def _explain(output: str, architecture: str) -> LaminaError:
    lines = [line for line in output.splitlines() if line.startswith(("E: ", "W: ", "Err:"))]
    if any(text in output for text in _UNREACHABLE):
        error = LaminaError(
            f"cannot reach the package mirror for {architecture}",
            kind=Kind.UNAVAILABLE,
            hint="check the network and the proxy variables",
        )
    elif "Unable to locate package" in output or "no installation candidate" in output:
        error = LaminaError(
            f"the host's apt sources have no {PACKAGE} for {architecture}", kind=Kind.NOT_FOUND
        )
    else:
        reason = lines[-1].removeprefix("E: ") if lines else "it gave no reason"
        error = LaminaError(f"apt-get failed: {reason}", kind=Kind.SYSTEM)
    for line in lines[-8:]:
        error.add_note(f"  apt-get: {line}")
    return error


def _unpack(package: str, env: Mapping[str, str]) -> Program:
    """The program out of the .deb, read as a stream: nothing is extracted to a path."""
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", package],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        found: Program | None = None
        for entry, reader in read_tar(process.stdout):
            if entry.path.removeprefix(b"usr/") == _MEMBER and 0 < entry.size <= _MAX_PROGRAM:
                pieces = []
                while piece := reader.read(1 << 20):
                    pieces.append(piece)
                found = Program(b"".join(pieces), entry.mtime_ns // 1_000_000_000)
    if process.returncode or found is None:
        raise LaminaError(f"{os.path.basename(package)} holds no busybox", kind=Kind.INTEGRITY)
    return found


def applets_of(program: bytes, places: Iterable[bytes]) -> list[bytes]:
    """Those of `places` (paths of a busybox's applets) that this program has, too.

    Raises:
        LaminaError: kind INTEGRITY: the program has no table of applets.
    """
    match = _NAMES.search(program)
    if match is None:
        raise LaminaError("the busybox of the package lists no applets", kind=Kind.INTEGRITY)
    names = set(match[0].split(b"\x00"))
    return [path for path in places if path.rpartition(b"/")[2] in names]
