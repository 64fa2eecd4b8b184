# SPDX-License-Identifier: Apache-2.0
"""What the container room is asked to do: values for a process, and the Executor contract."""

from __future__ import annotations

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from lamina.container.extras import Extras
    from lamina.container.keeping import Kept
    from lamina.tasks import CancelToken
else:
    Protocol = object


class Mount(Record):
    """A mount into the container: `type` is `bind` or `tmpfs`; paths absolute.

    `options` are runtime mount options (`ro`, `rbind`, `size=64m`). A container's record also has
    mounts of type `volume` (`container.volumemounts`). `flag` is the flag that asked for it (`-v`,
    `--mount`, `--tmpfs`; empty: the image, or another container), `mode` its mode as it was written.
    """

    destination: str
    type: str
    source: str = ""
    options: tuple[str, ...] = ()
    flag: str = ""
    mode: str = ""


class ProcessSpec(Record):
    """A process in a container. `env` in order, names unique; `user` as written in the image or
    on the command line (name, uid, name:group...), resolved in the rootfs when it starts.

    `privileged` drops every restriction; `cap_add`/`cap_drop` are names with or without CAP_,
    or ALL. `network_ns` is the path of a network namespace to join; empty with `host_network`
    False makes a new one with only loopback.

    `memory` and `shm_size` are bytes, `cpus` is a number of CPUs, `pids_limit` a number of
    processes; 0 (and -1 for `pids_limit`) is no limit. `ulimits` are (name, soft, hard), -1 is
    unlimited. `seccomp` is empty for Docker's profile, `unconfined`, or a profile's JSON text.
    `address` is the container's own, for /etc/hosts, `more_addresses` those in further networks and of
    IPv6; `host_gateway` what `host-gateway` means. `dns_search` and `dns_options` are resolv.conf's.
    `secret_env` is added to `env` and must not reach any disk. `cpu_shares`, `cpuset_cpus`,
    `cpuset_mems` and `memory_swap` (memory and swap together, -1 for no limit) are the kernel's.
    `architecture` is the image's (empty: the host's); a 32-bit one is let through the filter.
    `extras` are what few ask for (`refine`).
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str = "/"
    user: str = ""
    hostname: str = ""
    terminal: bool = False
    host_network: bool = False
    network_ns: str = ""
    privileged: bool = False
    no_new_privileges: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    read_only: bool = False
    shm_size: int = 0
    extra_hosts: tuple[tuple[str, str], ...] = ()
    dns: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    groups: tuple[str, ...] = ()
    memory: int = 0
    cpus: float = 0.0
    pids_limit: int = 0
    ulimits: tuple[tuple[str, int, int], ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    seccomp: str = ""
    address: str = ""
    host_gateway: str = ""
    architecture: str = ""
    secret_env: tuple[tuple[str, str], ...] = ()
    cpu_period: int = 0  # microseconds, of `cpus`; 0 is the kernel's
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory_swap: int = 0
    domainname: str = ""
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    more_addresses: tuple[str, ...] = ()
    extras: Extras | None = None


class Helpers(Protocol):
    """Programs that run beside this process: each ends when it is dropped or this process dies."""

    def keep(self, id: str, argv: Sequence[str]) -> Kept:
        """Start `argv`, a path first. The caller closes what it gets."""

    def drop(self, id: str) -> None:
        """Kill it, if it runs."""


class Executor(Protocol):
    """Runs one process to its end in a mounted rootfs."""

    def run(
        self,
        process: ProcessSpec,
        rootfs: str,
        *,
        on_output: Callable[[int, bytes], None],
        cancel: CancelToken,
    ) -> int:
        """Run `process` with `rootfs` (a mounted, writable path) as `/`; return its exit status
        (128 + N for a signal). Output arrives through `on_output(stream, data)`. stdin is empty.

        Files that exist in the rootfs only as mount points of lamina's (`/etc/resolv.conf`, the CA
        bundle) are gone again, and parents' mtimes restored, when it returns. On cancel or if this
        process dies (kill -9 too) every process of the container dies.

        Raises:
            LaminaError: kind SYSTEM (no runtime works), INVALID (cwd or user do not exist in the
                image), STEP_FAILED never: a status is returned.
            Cancelled: the token was set; the process is dead.
        """
