# SPDX-License-Identifier: Apache-2.0
"""What `bootstrap` is asked for, and what it tells the tools it runs."""

from __future__ import annotations

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.spec.platform import Platform

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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


def debian_architecture(platform: Platform) -> str:
    names = {
        ("386", ""): "i386",
        ("arm", "v7"): "armhf",
        ("arm", "v6"): "armel",
        ("ppc64le", ""): "ppc64el",
        ("mips64le", ""): "mips64el",
    }
    return names.get((platform.architecture, platform.variant), platform.architecture)


def tool_env(options: BootstrapOptions) -> dict[str, str]:
    """Proxies and PATH of the caller, and nothing that could change the result."""
    passed = {"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy", "tmpdir"}
    env = {name: value for name, value in options.tool_env if name.lower() in passed}
    env |= {"PATH": options.search_path, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    if options.epoch is not None:
        env["SOURCE_DATE_EPOCH"] = str(options.epoch)
    return env
