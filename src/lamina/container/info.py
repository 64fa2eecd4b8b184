# SPDX-License-Identifier: Apache-2.0
"""What `lamina info` says about this host: kernel, snapshots, runtime, and why each was chosen."""

from __future__ import annotations

import os

from lamina.container.host import NoRuntime, read_cgroups
from lamina.container.network.usernet import find_way
from lamina.container.runtime import DEFAULT_SEARCH_PATH, find_runtime
from lamina.errors import LaminaError
from lamina.system.userns import enter, ids_hint, is_host_root, mapped_count, own_uid

_OVERLAY_PARAMETERS = "/sys/module/overlay/parameters"


def host_report(
    root: str, *, override: str = "", search_path: str = DEFAULT_SEARCH_PATH
) -> tuple[tuple[str, str], ...]:
    """(name, value) rows in the order to print; a name may come twice. Probes at most once a boot.

    A host on which no runtime works is reported as such, not raised: this is where one looks then.
    """
    uname = os.uname()
    rows = [
        ("Kernel", f"{uname.sysname} {uname.release} ({uname.machine})"),
        ("Snapshotter", snapshotter()),
    ]
    try:
        enter()
    except LaminaError as error:
        return (*rows, ("User namespace", f"none: {error}"))
    rows.append(("User namespace", _namespace()))
    rows.append(("Network", _network()))
    try:
        runtime = find_runtime(root, override=override, search_path=search_path, delegated=True)
    except NoRuntime as error:
        return (*rows, ("Runtime", f"none: {error}"), ("Cgroup mode", read_cgroups().mode))
    return (*rows, *runtime.describe())


def _namespace() -> str:
    if is_host_root():
        return "none is needed: this is root"
    count = mapped_count()
    return f"{count} ids for uid {own_uid()}" + (f" ({ids_hint()})" if count == 1 else "")


def _network() -> str:
    if is_host_root():
        return "a bridge"
    way = find_way()
    if not way.programs:
        return f"the host's: {way.why}"
    return f"led out by {way.programs[0][0]} ({way.programs[0][1]})"


def snapshotter() -> str:
    """Whether the kernel has overlayfs, and the defaults it was built with."""
    with open("/proc/filesystems", encoding="ascii") as file:
        if not any(line.split()[-1:] == ["overlay"] for line in file):
            return "none: this kernel has no overlayfs (or its module is not loaded yet)"
    features = [name for name in ("index", "metacopy", "redirect_dir") if _enabled(name)]
    return "overlayfs" + (f" (on by default: {', '.join(features)})" if features else "")


def _enabled(parameter: str) -> bool:
    try:
        with open(f"{_OVERLAY_PARAMETERS}/{parameter}", encoding="ascii") as file:
            return file.read().strip() == "Y"
    except OSError:
        return False
