# SPDX-License-Identifier: Apache-2.0
"""`lamina bootstrap`: base images from the distribution's packages, without any registry.

`mmdebstrap` (or `debootstrap`) makes the tree; what belongs to this host (its hostname, its
resolv.conf, device nodes, logs, caches) is left out, and what makes apt behave in a container is
added. With SOURCE_DATE_EPOCH and an unchanged mirror the image is the same, byte for byte.
"""

from __future__ import annotations

import os
import re

from lamina.app.aptsources import AptSource, parse_deb822, parse_one_line, sources_for
from lamina.app.importing import changed, with_env
from lamina.errors import Kind, LaminaError
from lamina.events import Notice
from lamina.image.pack import Packed, PackOptions, pack_image, sorted_tar_items
from lamina.image.platforms import join_names
from lamina.image.times import format_time
from lamina.layer.entry import Entry, EntryType, sort_key
from lamina.record import Record
from lamina.spec.config import RunConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import IO

    from lamina.events import Emitter
    from lamina.layer.entry import Item, Items
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
VARIANTS = ("minbase", "essential", "apt", "required", "important", "standard", "buildd")
DISTRIBUTIONS = ("debian", "ubuntu")
_SUITE = re.compile(r"[a-z][a-z0-9.-]*", re.ASCII)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+:~=-]*", re.ASCII)
_SECOND = 1_000_000_000
_KEPT_LINES = 40  # of a failed tool's output

# What the tool leaves of this host or of the moment; directories stay.
_DROPPED = re.compile(
    rb"dev/.+"  # the runtime makes them; unpacking them needs privileges
    rb"|etc/(hostname|resolv\.conf|\.pwd\.lock|dpkg/dpkg\.cfg\.d/99mmdebstrap)"
    rb"|var/log/(.+/)?[^/]*(\.log|\.log\.\d+|term\.log|history\.log|eipp\.log\.xz)"
    rb"|var/cache/apt/(.*\.bin|archives/(lock|.*\.deb|partial/.+))"
    rb"|var/cache/ldconfig/aux-cache"
    rb"|var/cache/debconf/.*-old"
    rb"|var/lib/dpkg/[^/]*-old"
    rb"|var/lib/dpkg/lock(-frontend)?"
    rb"|var/lib/apt/lists/(lock|[^/]+_.*|partial/.+)"
    rb"|var/lib/systemd/(catalog/database|random-seed)"
    rb"|run/.*\.(pid|lock)"
    rb"|tmp/.+"
)
_EMPTIED = frozenset({b"etc/machine-id", b"var/lib/dbus/machine-id"})  # machine-id(5): made at boot
# As the distributions' own container images have it: no service starts, no .deb stays, no
# translations are fetched, and dpkg does not flush each file of a layer that is not yet one.
_ADDED: dict[bytes, tuple[int, bytes]] = {
    b"usr/sbin/policy-rc.d": (0o755, b"#!/bin/sh\n# no service starts in an image\nexit 101\n"),
    b"etc/dpkg/dpkg.cfg.d/container": (0o644, b"force-unsafe-io\n"),
    b"etc/apt/apt.conf.d/docker-clean": (
        0o644,
        (
            b'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };\n'
            b'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
        ),
    ),
    b"etc/apt/apt.conf.d/docker-no-languages": (0o644, b'Acquire::Languages "none";\n'),
}


class BootstrapOptions(Record):
    """What to make. `what` is `debian:SUITE`, `ubuntu:SUITE` or `busybox`.

    `names` are normalised references. `created` is now, `epoch` SOURCE_DATE_EPOCH (POSIX
    seconds). `search_path` is PATH, `env` the environment that tools may see (proxies). `host` is
    the platform of this host (None: `platform` is): programs of another one need an emulator.
    """

    what: str
    names: tuple[str, ...]
    platform: Platform
    created: float
    epoch: int | None = None
    include: tuple[str, ...] = ()
    variant: str = "minbase"
    mirror: str = ""
    components: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    changes: tuple[str, ...] = ()
    search_path: str = PATH
    tool_env: tuple[tuple[str, str], ...] = ()
    uid: int = 0
    host: Platform | None = None


def bootstrap(
    store: Store, options: BootstrapOptions, *, key: str, emit: Emitter, cancel: CancelToken
) -> Packed:
    """Make the image and name it; progress lines are notices. A name that means an image of another
    platform means both afterwards (`image.platforms`).

    Raises:
        LaminaError: USAGE for what cannot be asked, UNSUPPORTED for an unknown suite, SYSTEM for a
            missing tool, UNAVAILABLE for a mirror that does not answer, NOT_FOUND for a package.
    """
    name, _, suite = options.what.partition(":")
    if name == "busybox":
        _check_busybox(options, suite)
        config = changed(_config(options, ("sh",)), options.changes)
        with store.lease("bootstrap"):
            tree = _busybox(store, options, cancel)
            return _pack(store, tree, config, options, key=key, cancel=cancel)
    if name not in DISTRIBUTIONS:
        raise LaminaError(
            f"cannot bootstrap {options.what!r}",
            kind=Kind.UNSUPPORTED,
            hint="known: debian:SUITE, ubuntu:SUITE (with an Ubuntu mirror), busybox",
        )
    config = changed(_config(options, ("bash",)), options.changes)
    request = _request(options, name, suite or "stable")
    _require_emulation(options)
    tool = _find_tool(options)
    with store.lease("bootstrap"), tool(request, store, emit, cancel) as items:
        return _pack(store, items, config, options, key=key, cancel=cancel)


def _require_emulation(options: BootstrapOptions) -> None:
    """The packages' own programs run while they are installed."""
    if options.host is None or options.host.runs(options.platform):
        return
    from lamina.container.emulation import require_emulation

    require_emulation(options.platform.architecture, host=options.host.architecture)


def _config(options: BootstrapOptions, command: tuple[str, ...]) -> RunConfig:
    return with_env(RunConfig(env=(("PATH", PATH),), cmd=command), options.env)


def _pack(
    store: Store,
    items: Items,
    config: RunConfig,
    options: BootstrapOptions,
    *,
    key: str,
    cancel: CancelToken,
) -> Packed:
    seconds = options.created if options.epoch is None else options.epoch
    words = ["lamina bootstrap", options.what]
    if options.include:
        words.append(f"--include {','.join(options.include)}")
    packing = PackOptions(
        platform=options.platform,
        created=format_time(seconds),
        config=config,
        created_by=" ".join(words),
        clamp_mtime=options.epoch,
    )
    packed = pack_image(store, items, packing, key=f"bootstrap {key}", cancel=cancel)
    join_names(store, options.names, packed.target, options.platform, cancel=cancel)
    return packed


# --- Debian and Ubuntu -----------------------------------------------------------------------


class _Request(Record):
    """A checked request: what the tool is told."""

    suite: str
    sources: tuple[AptSource, ...]
    options: BootstrapOptions
    mtime: int


def _request(options: BootstrapOptions, distribution: str, suite: str) -> _Request:
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
    return _Request(suite, tuple(sources), options, seconds)


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


def _find_tool(options: BootstrapOptions) -> type[_Mmdebstrap | _Debootstrap]:
    import shutil

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
        import subprocess
        import threading

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
        import signal

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


class _Mmdebstrap:
    """The tree as a tar on the tool's standard output, spooled and sorted."""

    def __init__(self, request: _Request, store: Store, emit: Emitter, cancel: CancelToken) -> None:
        self._request = request
        self._store = store
        self._emit = emit
        self._cancel = cancel

    def __enter__(self) -> Items:
        import tempfile

        self._spool: IO[bytes] = tempfile.TemporaryFile(dir=f"{self._store.root}/ingest")
        self._process = _Process(
            mmdebstrap_argv(self._request),
            _tool_env(self._request.options),
            self._emit,
            self._cancel,
        )
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


class _Debootstrap:
    """The tree in a temporary directory of the store, removed afterwards."""

    def __init__(self, request: _Request, store: Store, emit: Emitter, cancel: CancelToken) -> None:
        self._request = request
        self._store = store
        self._emit = emit
        self._cancel = cancel

    def __enter__(self) -> Items:
        import tempfile

        self._directory = tempfile.TemporaryDirectory(prefix="bootstrap-", dir=self._store.root)
        self._process = _Process(
            debootstrap_argv(self._request, self._directory.name),
            _tool_env(self._request.options),
            self._emit,
            self._cancel,
        )
        return self._items()

    def __exit__(self, *exc: object) -> None:
        self._process.close()
        self._directory.cleanup()

    def _items(self) -> Iterator[Item]:
        from lamina.layer.walk import tree_items

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


def mmdebstrap_argv(request: _Request) -> list[str]:
    """The command line; the tar comes on standard output."""
    options = request.options
    argv = [
        "mmdebstrap",
        f"--mode={'root' if options.uid == 0 else 'unshare'}",
        f"--variant={options.variant}",
        "--format=tar",
        f"--architectures={_debian_architecture(options.platform)}",
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


def debootstrap_argv(request: _Request, directory: str) -> list[str]:
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
    argv.append(f"--arch={_debian_architecture(options.platform)}")
    if options.include:
        argv.append(f"--include={','.join(options.include)}")
    argv += [f"--keyring={source.signed_by}" for source in request.sources[:1] if source.signed_by]
    return [*argv, request.suite, directory, *(source.uri for source in request.sources[:1])]


def _debian_architecture(platform: Platform) -> str:
    names = {
        ("386", ""): "i386",
        ("arm", "v7"): "armhf",
        ("arm", "v6"): "armel",
        ("ppc64le", ""): "ppc64el",
        ("mips64le", ""): "mips64el",
    }
    return names.get((platform.architecture, platform.variant), platform.architecture)


def _tool_env(options: BootstrapOptions) -> dict[str, str]:
    """Proxies and PATH of the caller, and nothing that could change the result."""
    passed = {"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy", "tmpdir"}
    env = {name: value for name, value in options.tool_env if name.lower() in passed}
    env |= {"PATH": options.search_path, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    if options.epoch is not None:
        env["SOURCE_DATE_EPOCH"] = str(options.epoch)
    return env


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


def contained(items: Items, sources: Sequence[AptSource], *, mtime: int) -> Iterator[Item]:
    """The tree as a container's: without what is this host's, with what apt needs; sorted."""
    added = {
        path: _file(path, data, mode=mode, mtime=mtime) for path, (mode, data) in _ADDED.items()
    }
    if sources:
        listed = "".join(f"{source.line()}\n" for source in sources).encode()
        added[b"etc/apt/sources.list"] = _file(
            b"etc/apt/sources.list", listed, mode=0o644, mtime=mtime
        )
    waiting = sorted(added, key=sort_key, reverse=True)
    for entry, content in items:
        while waiting and sort_key(waiting[-1]) < sort_key(entry.path):
            yield added[waiting.pop()]
        if entry.path in added or _DROPPED.fullmatch(entry.path):
            continue
        if entry.path in _EMPTIED and entry.type is EntryType.FILE:
            yield _file(entry.path, b"", mode=entry.mode, mtime=mtime)
            continue
        yield entry, content
    while waiting:
        yield added[waiting.pop()]


def _file(path: bytes, data: bytes, *, mode: int, mtime: int) -> Item:
    entry = Entry(path, EntryType.FILE, mode, size=len(data), mtime_ns=mtime * _SECOND)
    return entry, data or None


# --- busybox ---------------------------------------------------------------------------------

_DIRECTORIES: dict[bytes, int] = {
    b"bin": 0o755,
    b"dev": 0o755,
    b"etc": 0o755,
    b"home": 0o755,
    b"mnt": 0o755,
    b"opt": 0o755,
    b"proc": 0o555,
    b"root": 0o700,
    b"run": 0o755,
    b"sbin": 0o755,
    b"srv": 0o755,
    b"sys": 0o555,
    b"tmp": 0o1777,
    b"usr": 0o755,
    b"usr/bin": 0o755,
    b"usr/local": 0o755,
    b"usr/local/bin": 0o755,
    b"usr/sbin": 0o755,
    b"var": 0o755,
    b"var/cache": 0o755,
    b"var/lib": 0o755,
    b"var/log": 0o755,
    b"var/spool": 0o755,
    b"var/tmp": 0o1777,
}
_FILES: dict[bytes, tuple[int, bytes]] = {
    b"etc/passwd": (
        0o644,
        (
            b"root:x:0:0:root:/root:/bin/sh\n"
            b"daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
            b"bin:x:2:2:bin:/bin:/bin/false\n"
            b"www-data:x:33:33:www-data:/var/www:/bin/false\n"
            b"nobody:x:65534:65534:nobody:/home:/bin/false\n"
        ),
    ),
    b"etc/group": (
        0o644,
        (
            b"root:x:0:\ndaemon:x:1:\nbin:x:2:\nadm:x:4:\ntty:x:5:\nmail:x:8:\n"
            b"www-data:x:33:\nusers:x:100:\nnogroup:x:65533:\nnobody:x:65534:\n"
        ),
    ),
    b"etc/shadow": (0o640, b"root:*::0:::::\nnobody:*::0:::::\n"),
    b"etc/nsswitch.conf": (0o644, b"hosts: files dns\n"),
    b"etc/shells": (0o644, b"/bin/sh\n/bin/ash\n"),
}


def _check_busybox(options: BootstrapOptions, suite: str) -> None:
    given = [
        flag
        for flag, value in (
            ("--include", options.include),
            ("--mirror", options.mirror),
            ("--components", options.components),
        )
        if value
    ]
    if options.variant != "minbase":
        given.append("--variant")
    if given:
        raise LaminaError(f"bootstrap busybox does not take {given[0]}", kind=Kind.USAGE)
    if suite not in {"", "latest"}:
        raise LaminaError(
            f"bootstrap busybox has no versions: it is the host's ({options.what!r})",
            kind=Kind.USAGE,
        )


def _busybox(store: Store, options: BootstrapOptions, cancel: CancelToken) -> list[Item]:
    if options.host is None or options.platform == options.host:
        return busybox_items(options.search_path)
    from lamina.app.foreignbusybox import applets_of, fetch_busybox

    places = _applets(_host_busybox(options.search_path))
    program = fetch_busybox(
        _debian_architecture(options.platform),
        scratch=f"{store.root}/ingest",
        env=_tool_env(options),
        cancel=cancel,
    )
    return _busybox_tree(program.data, program.mtime, applets_of(program.data, places))


def _host_busybox(search_path: str) -> str:
    import shutil

    binary = shutil.which("busybox", path=search_path)
    if binary is None:
        raise LaminaError(
            "there is no busybox on this host",
            kind=Kind.SYSTEM,
            hint="install it: apt-get install busybox-static",
        )
    return binary


def busybox_items(search_path: str) -> list[Item]:
    """A small root filesystem around the host's static busybox; all times are the binary's.

    Raises:
        LaminaError: kind SYSTEM: there is no busybox, or it is not static.
    """
    binary = _host_busybox(search_path)
    with open(binary, "rb") as file:
        data = file.read()
        mtime = int(os.fstat(file.fileno()).st_mtime)
    if b"/ld-linux" in data[:4096] or b"/ld-musl" in data[:4096]:
        raise LaminaError(
            f"{binary} is not statically linked, so it would not run in an image",
            kind=Kind.SYSTEM,
            hint="install busybox-static",
        )
    return _busybox_tree(data, mtime, _applets(binary))


def _busybox_tree(program: bytes, mtime: int, applets: Sequence[bytes]) -> list[Item]:
    found: dict[bytes, Item] = {}
    for path, mode in _DIRECTORIES.items():
        found[path] = (Entry(path, EntryType.DIR, mode, mtime_ns=mtime * _SECOND), None)
    for path, (mode, content) in _FILES.items():
        found[path] = _file(path, content, mode=mode, mtime=mtime)
    found[b"bin/busybox"] = _file(b"bin/busybox", program, mode=0o755, mtime=mtime)
    for applet in applets:
        found.setdefault(
            applet,
            (
                Entry(
                    applet,
                    EntryType.SYMLINK,
                    0o777,
                    mtime_ns=mtime * _SECOND,
                    linkname=b"/bin/busybox",
                ),
                None,
            ),
        )
    return [found[path] for path in sorted(found, key=sort_key)]


def _applets(binary: str) -> list[bytes]:
    """The paths of the binary's applets, relative to the root."""
    import subprocess

    done = subprocess.run([binary, "--list-full"], capture_output=True, check=False)
    known = set(_DIRECTORIES)
    paths = [
        path
        for path in done.stdout.split()
        if path.rpartition(b"/")[0] in known and b".." not in path
    ]
    if done.returncode != 0 or b"bin/sh" not in paths:
        raise LaminaError(
            f"{binary} --list-full does not list its applets",
            kind=Kind.SYSTEM,
            hint="install busybox-static",
        )
    return paths
