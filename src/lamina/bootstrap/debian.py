# SPDX-License-Identifier: Apache-2.0
"""Debian's and Ubuntu's trees, made by `mmdebstrap` or `debootstrap`."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading

from lamina.bootstrap.aptsources import AptSource, parse_deb822, parse_one_line, sources_for
from lamina.bootstrap.contained import contained
from lamina.bootstrap.options import BootstrapOptions, debian_architecture, tool_env
from lamina.errors import Kind, LaminaError
from lamina.events import Notice
from lamina.image.pack import sorted_tar_items
from lamina.layer.walk import tree_items
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import IO

    from lamina.events import Emitter
    from lamina.layer.entry import Item, Items
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

VARIANTS = ("minbase", "essential", "apt", "required", "important", "standard", "buildd")
_SUITE = re.compile(r"[a-z][a-z0-9.-]*", re.ASCII)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+:~=-]*", re.ASCII)
_KEPT_LINES = 40  # of a failed tool's output


class DebianRequest(Record):
    """A checked request: what the tool is told."""

    suite: str
    sources: tuple[AptSource, ...]
    options: BootstrapOptions
    mtime: int


def debian_request(options: BootstrapOptions, distribution: str, suite: str) -> DebianRequest:
    if suite == "latest":
        suite = "stable"
    if not _SUITE.fullmatch(suite):
        raise LaminaError(f"invalid suite {suite!r}", kind=Kind.USAGE)
    if options.variant not in VARIANTS:
        raise LaminaError(
            f"unknown variant {options.variant!r}",
            kind=Kind.USAGE,
            hint=f"variants: {', '.join(VARIANTS)}",
        )
    for word in (*options.include, *options.components):
        if not _PACKAGE.fullmatch(word):
            raise LaminaError(f"invalid package or component name {word!r}", kind=Kind.USAGE)
    sources = _sources(options, distribution, suite)
    if not sources and distribution != "debian":
        raise LaminaError(
            f"this host has no {distribution} mirror in its apt sources",
            kind=Kind.UNSUPPORTED,
            hint="give one with --mirror URL",
        )
    seconds = int(options.created) if options.epoch is None else options.epoch
    return DebianRequest(suite, tuple(sources), options, seconds)


def _sources(options: BootstrapOptions, distribution: str, suite: str) -> list[AptSource]:
    host = read_host_sources()
    if not options.mirror:
        return sources_for(
            host, distribution=distribution, suite=suite, components=options.components
        )
    if not re.fullmatch(r"(https?|file|copy)://?[^\s\[\]]+", options.mirror):
        raise LaminaError(f"invalid mirror {options.mirror!r}: not a URL", kind=Kind.USAGE)
    known = sources_for(host, distribution=distribution, suite=suite)
    keyring = known[0].signed_by if known else ""
    return [AptSource(options.mirror, suite, options.components or ("main",), keyring)]


def read_host_sources(root: str = "/etc/apt") -> list[AptSource]:
    """The host's apt sources; none if it has no apt."""
    found: list[AptSource] = []
    try:
        names = sorted(os.listdir(f"{root}/sources.list.d"))
    except OSError:
        names = []
    for path in (f"{root}/sources.list", *(f"{root}/sources.list.d/{name}" for name in names)):
        parse = parse_deb822 if path.endswith(".sources") else parse_one_line
        if not path.endswith((".list", ".sources")):
            continue
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found += parse(file.read())
        except OSError:
            continue  # apt itself would report it; here it only means that no mirror is known
    return found


def find_tool(options: BootstrapOptions) -> type[_Mmdebstrap | _Debootstrap]:
    if shutil.which("mmdebstrap", path=options.search_path):
        return _Mmdebstrap
    if shutil.which("debootstrap", path=options.search_path) and options.uid == 0:
        return _Debootstrap
    raise LaminaError(
        "cannot bootstrap: mmdebstrap is not installed on this host",
        kind=Kind.SYSTEM,
        hint="install it (apt-get install mmdebstrap), or use 'lamina import' with a rootfs tar",
    )


class _Process:
    """A tool whose standard error becomes notices; killed if the block is left early."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], emit: Emitter, cancel: CancelToken
    ) -> None:
        self._emit = emit
        self._cancel = cancel
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="bootstrap-log")
        self._reader.start()
        cancel.on_cancel(self.terminate)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for raw in self.process.stderr:
            line = raw.decode("utf-8", "replace").rstrip().rpartition("\r")[2]
            if line:
                self.lines = [*self.lines[1 - _KEPT_LINES :], line]
                if line.startswith("I: "):
                    self._emit(Notice(line.removeprefix("I: ")))

    def terminate(self) -> None:
        """Ask the tool to end: it unmounts and removes its temporary directory. Idempotent."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Its exit status, all of its output read."""
        status = self.process.wait()
        self._reader.join()
        self._cancel.forget(self.terminate)
        return status

    def close(self) -> None:
        """End it if it still runs, and free its pipes."""
        self.terminate()
        self.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class _Tool:
    """What makes the tree: a block that gives its items, and cleans up at its end."""

    def __init__(
        self, request: DebianRequest, store: Store, emit: Emitter, cancel: CancelToken
    ) -> None:
        self._request = request
        self._store = store
        self._emit = emit
        self._cancel = cancel

    def _start(self, argv: list[str]) -> _Process:
        return _Process(argv, tool_env(self._request.options), self._emit, self._cancel)


class _Mmdebstrap(_Tool):
    """The tree as a tar on the tool's standard output, spooled and sorted."""

    def __enter__(self) -> Items:
        self._spool: IO[bytes] = tempfile.TemporaryFile(dir=f"{self._store.root}/ingest")
        self._process = self._start(mmdebstrap_argv(self._request))
        return self._items()

    def __exit__(self, *exc: object) -> None:
        self._process.close()
        self._spool.close()

    def _items(self) -> Iterator[Item]:
        stdout = self._process.process.stdout
        assert stdout is not None
        items = sorted_tar_items(stdout, self._spool, cancel=self._cancel)
        try:
            first = next(items, None)  # the whole tar is read now
            while stdout.read(1 << 20):
                pass  # the padding after the end of the archive
        except LaminaError:
            self._check()  # a tool that failed leaves half a tar: say why it failed
            raise
        self._check()
        if first is None:
            raise LaminaError("mmdebstrap made an empty tree", kind=Kind.SYSTEM)
        yield from contained(_chain(first, items), self._request.sources, mtime=self._request.mtime)

    def _check(self) -> None:
        status = self._process.wait()
        self._cancel.check()
        if status != 0:
            raise explain_failure("mmdebstrap", self._process.lines, self._request.suite)


def _chain(first: Item, rest: Iterator[Item]) -> Iterator[Item]:
    yield first
    yield from rest


class _Debootstrap(_Tool):
    """The tree in a temporary directory of the store, removed afterwards."""

    def __enter__(self) -> Items:
        self._directory = tempfile.TemporaryDirectory(prefix="bootstrap-", dir=self._store.root)
        self._process = self._start(debootstrap_argv(self._request, self._directory.name))
        return self._items()

    def __exit__(self, *exc: object) -> None:
        self._process.close()
        self._directory.cleanup()

    def _items(self) -> Iterator[Item]:
        stdout = self._process.process.stdout
        assert stdout is not None
        for raw in stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            if line.startswith("I: "):
                self._emit(Notice(line.removeprefix("I: ")))
            self._process.lines.append(line)
        status = self._process.wait()
        self._cancel.check()
        if status != 0:
            raise explain_failure("debootstrap", self._process.lines, self._request.suite)
        yield from contained(
            tree_items(self._directory.name), self._request.sources, mtime=self._request.mtime
        )


def mmdebstrap_argv(request: DebianRequest) -> list[str]:
    """The command line; the tar comes on standard output."""
    options = request.options
    argv = [
        "mmdebstrap",
        f"--mode={'root' if options.uid == 0 else 'unshare'}",
        f"--variant={options.variant}",
        "--format=tar",
        f"--architectures={debian_architecture(options.platform)}",
        "--dpkgopt=force-unsafe-io",  # the tree is copied and thrown away: no flush for each file
    ]
    if options.host is not None and not options.host.runs(options.platform):
        # lamina has checked itself; the tool's check asks for a further package
        argv.append("--skip=check/qemu")
    if options.include:
        argv.append(f"--include={','.join(options.include)}")
    if not request.sources and options.components:
        argv.append(f"--components={','.join(options.components)}")
    keyrings = dict.fromkeys(source.signed_by for source in request.sources if source.signed_by)
    argv += [f"--keyring={keyring}" for keyring in keyrings]
    # no keyring inside the line: the path is this host's
    return [*argv, request.suite, "-", *(source.line() for source in request.sources)]


def debootstrap_argv(request: DebianRequest, directory: str) -> list[str]:
    """The command line. debootstrap takes one mirror; -updates and -security come by apt later."""
    options = request.options
    variant = options.variant
    if variant not in {"minbase", "buildd"}:
        raise LaminaError(
            f"debootstrap does not know the variant {variant!r}",
            kind=Kind.UNSUPPORTED,
            hint="install mmdebstrap",
        )
    components = ",".join(options.components or ("main",))
    argv = ["debootstrap", f"--variant={variant}", f"--components={components}"]
    argv.append(f"--arch={debian_architecture(options.platform)}")
    if options.include:
        argv.append(f"--include={','.join(options.include)}")
    argv += [f"--keyring={source.signed_by}" for source in request.sources[:1] if source.signed_by]
    return [*argv, request.suite, directory, *(source.uri for source in request.sources[:1])]


_UNREACHABLE = (
    "could not resolve",
    "could not connect",
    "connection failed",
    "connection timed out",
    "cannot initiate the connection",
    "temporary failure",
    "network is unreachable",
    "unable to connect",
    "failed getting release file",
)


def explain_failure(tool: str, lines: Sequence[str], suite: str) -> LaminaError:
    """One sentence of what the tool's last lines say went wrong; the lines are notes on it."""
    text = "\n".join(lines).lower()
    missing = re.search(r"unable to locate package (\S+)|couldn't find these debs: (\S+)", text)
    if missing is not None:
        package = missing[1] or missing[2]
        error = LaminaError(
            f'no package "{package}" in {suite}', kind=Kind.NOT_FOUND, hint="see --include"
        )
    elif any(words in text for words in _UNREACHABLE):
        error = LaminaError(
            f"cannot reach the package mirror for {suite}",
            kind=Kind.UNAVAILABLE,
            hint="check the network, the proxy variables, or give another --mirror",
        )
    elif "does not have a release file" in text or "404" in text or "no such script" in text:
        error = LaminaError(
            f"the mirror has no suite {suite!r}",
            kind=Kind.UNSUPPORTED,
            hint="suites are named like bookworm, trixie, stable, noble",
        )
    elif "no_pubkey" in text or "not signed" in text or "unknown key" in text:
        error = LaminaError(
            f"the signature of {suite} cannot be verified: its key is not on this host",
            kind=Kind.INTEGRITY,
            hint="install the distribution's archive keyring package",
        )
    else:
        reason = next((line for line in reversed(lines) if line.startswith("E: ")), "")
        error = LaminaError(
            f"{tool} failed: {reason.removeprefix('E: ') or 'it gave no reason'}", kind=Kind.SYSTEM
        )
    for line in lines[-8:]:
        error.add_note(f"  {tool}: {line}")
    return error
