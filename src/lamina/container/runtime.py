# SPDX-License-Identifier: Apache-2.0
"""The OCI runtime of this host: found by running a real container, remembered until it changes.

`find_runtime` tries crun, then runc, in several ways, and keeps the first that runs a tiny
container under everything a RUN step gets (docs/adr/0030-runtime.md gives the order and why).
"""

from __future__ import annotations

import os

from lamina.container.host import Cgroups, NoRuntime, Runtime, has_seccomp, read_cgroups, read_facts
from lamina.container.spec import HostFacts
from lamina.errors import Kind
from lamina.start.hashing import sha256
from lamina.start.jsontext import loads
from lamina.start.record import fields, replace
from lamina.system.userns import enter, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMES = ("crun", "runc")
RECORD_VERSION = 4  # of runtime.json


def find_runtime(
    root: str,
    *,
    override: str = "",
    search_path: str = DEFAULT_SEARCH_PATH,
    delegated: bool = False,
) -> Runtime:
    """The runtime for the store at `root`, from its record if nothing changed since.

    With `delegated` an ordinary user's containers get control groups where some were delegated.
    `override` is a name or an absolute path (`--runtime`). A probe takes 20 to 100 ms. An ordinary
    user's process enters a user namespace, in which the runtime will run.

    Raises:
        NoRuntime: none works; the message says why for each way tried.
        LaminaError: as `userns.enter`.
    """
    enter()
    candidates = _candidates(override, search_path)
    cgroups = read_cgroups(delegated=delegated)
    keys = [_key(path, cgroups) for _, path in candidates]
    record = _record_file(root, override + "+" * bool(cgroups.delegated))
    remembered = _load(record, keys, override)
    if remembered is not None:
        return replace(
            remembered,
            cgroups=cgroups,
            host=read_facts(cgroups, manager=remembered.manager, nodev=remembered.nodev),
        )
    from lamina.container.probe import probe  # the slow way: not needed again until a reboot

    runtime = probe(root, candidates, cgroups, seccomp=has_seccomp())
    _save(record, runtime, keys, override)
    return runtime


def _record_file(root: str, override: str) -> str:
    """The file that remembers what was found for this `override`.

    Each has its own: who asks for crun and runc in turn should not wait for a probe each time.
    """
    suffix = f"-{sha256(override.encode()).hexdigest()[:12]}" if override else ""
    return f"{root}/runtime{suffix}.json"


def _candidates(override: str, search_path: str) -> list[tuple[str, str]]:
    """(kind, path) of the runtimes present, in order of preference."""
    if override.startswith("/"):
        if not os.access(override, os.X_OK):
            raise NoRuntime(f"cannot execute the OCI runtime {override}", kind=Kind.NOT_FOUND)
        return [(_kind(override), override)]
    wanted = (override,) if override else NAMES
    present = [
        (_kind(name), f"{directory}/{name}")
        for name in wanted
        for directory in search_path.split(":")
        if directory and os.access(f"{directory}/{name}", os.X_OK)
    ]
    if not present:
        raise NoRuntime(
            f"no OCI runtime found: {' and '.join(wanted)} not in {search_path}",
            hint="install crun (or runc) from the distribution, or name one with --runtime",
        )
    seen: dict[str, tuple[str, str]] = {}
    for kind, path in present:
        seen.setdefault(os.path.realpath(path), (kind, path))
    return list(seen.values())


def _kind(path: str) -> str:
    """Which command line it understands. Anything not named crun is taken for a runc."""
    return "crun" if "crun" in path.rpartition("/")[2] else "runc"


def _key(path: str, cgroups: Cgroups) -> list[object]:
    """What a probe's result depends on."""
    status = os.stat(path)
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        boot = file.read().strip()
    with open("/proc/self/status", encoding="utf-8") as file:
        powers = [line.split()[1] for line in file if line.startswith(("CapPrm", "CapBnd"))]
    return [
        boot,
        path,
        status.st_mtime_ns,
        status.st_size,
        cgroups.mode,
        bool(cgroups.delegated),
        state(),
        *powers,
    ]


def _load(file: str, keys: list[list[object]], override: str) -> Runtime | None:
    """The remembered runtime; None if there is none, it is damaged, or something changed."""
    try:
        with open(file, encoding="utf-8") as stream:
            document = loads(stream.read())
        if (document["version"], document["keys"]) != (RECORD_VERSION, keys):
            return None
        if document["override"] != override:
            return None
        return _parse(document["runtime"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


_TEXTS = (
    *("name", "path", "version", "manager", "shield", "why"),
    *("program", "program_digest"),
)
_NOT_KEPT = frozenset(("cgroups", "host"))  # read again each time: cheap, and never stale


def _parse(document: dict[str, Any]) -> Runtime:
    texts = {name: document[name] for name in _TEXTS}
    if not all(isinstance(value, str) for value in texts.values()):
        raise TypeError("not a text")
    return Runtime(
        **texts,
        seccomp=bool(document["seccomp"]),
        nodev=bool(document["nodev"]),
        refused=tuple((str(way), str(why)) for way, why in document["refused"]),
        cgroups=Cgroups("none"),
        host=HostFacts(architecture="", kernel=(0, 0), capabilities=()),
    )


def _save(file: str, runtime: Runtime, keys: list[list[object]], override: str) -> None:
    """Remember it; a store that cannot be written only costs another probe."""
    import json

    values = {name: getattr(runtime, name) for name in fields(Runtime) if name not in _NOT_KEPT}
    document = {
        "version": RECORD_VERSION,
        "keys": keys,
        "override": override,
        "runtime": values,
    }
    aside = f"{file}.{os.getpid()}"
    try:
        with open(aside, "w", encoding="utf-8") as stream:
            json.dump(document, stream, indent=1)
        os.rename(aside, file)
    except OSError:
        return
