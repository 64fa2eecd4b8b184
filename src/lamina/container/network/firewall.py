# SPDX-License-Identifier: Apache-2.0
"""Packet rules of one bridge: masquerading, published ports, and who may reach a container.

`Nftables` keeps one table of the bridge's own, made and removed as a whole; a published port is
one element of a map. `Iptables` is used where nft is missing: it masquerades, and published ports
are left to the forwarder. Both also let the bridge through an iptables FORWARD chain that drops
(Docker's hosts): a packet must pass every table, so accepting it in ours is not enough.
docs/networking.md shows the rules.
"""

from __future__ import annotations

import errno
import struct

from lamina.container.launcher import ENVIRONMENT
from lamina.container.network.netlink import NETFILTER, Netlink, attribute
from lamina.errors import Kind, LaminaError
from lamina.start.record import Record
from lamina.system.programs import find_program, output_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol

    from lamina.container.network.plan import BridgePlan
else:
    Protocol = object

DEFAULT_SEARCH_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
"""Directories of the tools: `su` without `-` leaves root a PATH without the sbin ones."""

_GETTABLE = 0x0A01  # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE
_AF_INET = 2
_TABLE_NAME = 1  # NFTA_TABLE_NAME
_NO_TOOL = "install nftables (or iptables), or use `--network host`"


class Redirect(Record):
    """Connections to `host_ip`:`host_port` (empty: any address of the host) go to `ip`:`port`."""

    protocol: str
    host_ip: str
    host_port: int
    ip: str
    port: int


class Firewall(Protocol):
    """The rules of one bridge. Called with the network's lock held."""

    redirects: bool
    """Whether `add` does anything; if not, the forwarder serves every connection."""

    def ensure(self, subnet: str, redirects: Iterable[Redirect]) -> None:
        """Make the bridge's rules if they are not there, with these redirects in them."""

    def add(self, redirects: Sequence[Redirect]) -> None:
        """Redirect ports, all or none; a stale redirect of the same port is replaced."""

    def remove(self, redirects: Sequence[Redirect]) -> None:
        """Stop redirecting; no error for one that is not there."""

    def clear(self, subnet: str) -> None:
        """Remove the bridge's rules. Idempotent."""


def find_firewall(plan: BridgePlan, *, search_path: str = DEFAULT_SEARCH_PATH) -> Firewall:
    """The nftables one if there is an nft program in `search_path`, else iptables.

    Raises:
        LaminaError: kind UNSUPPORTED, if there is neither; or no nft for a user's network, which is to
            be apart from others.
    """
    bridge = plan.name
    iptables = find_program("iptables", search_path=search_path)
    gate = IptablesGate(bridge, program=iptables) if iptables else None
    nft = find_program("nft", search_path=search_path)
    if nft:
        return Nftables(plan, program=nft, gate=gate)
    if plan.network:
        raise LaminaError(
            "nft is not installed: networks would not be apart from one another",
            kind=Kind.UNSUPPORTED,
            hint="install nftables, or use `--network bridge`",
        )
    if gate:
        return Iptables(bridge, gate=gate)
    raise LaminaError(
        "neither nft nor iptables is installed: containers would not reach the network",
        kind=Kind.UNSUPPORTED,
        hint=_NO_TOOL,
    )


class Nftables:
    """Table `ip <plan.table>`, and `ip6 <plan.table>` of a bridge with IPv6."""

    redirects = True

    def __init__(self, plan: BridgePlan, *, program: str, gate: IptablesGate | None) -> None:
        self._plan = plan
        self._table = plan.table
        self._program = program
        self._gate = gate

    def ensure(self, subnet: str, redirects: Iterable[Redirect]) -> None:
        # Asked each time, in 50 us, because a firewall's reload may flush the whole ruleset.
        if _table_exists(self._table):
            return
        lines = [_base_rules(self._plan, subnet)]
        lines += [f"add element {self._element(redirect)}" for redirect in redirects]
        _run([self._program, "-f", "-"], "\n".join(lines))
        if self._gate:
            self._gate.open()

    def add(self, redirects: Sequence[Redirect]) -> None:
        lines = [f"add element {self._element(redirect)}" for redirect in redirects]
        try:
            _run([self._program, "-f", "-"], "\n".join(lines))
        except LaminaError:
            # The caller holds the ports' sockets, so an element of one is a dead process's.
            for redirect in redirects:
                self._remove_key(redirect)
            _run([self._program, "-f", "-"], "\n".join(lines))

    def remove(self, redirects: Sequence[Redirect]) -> None:
        if not redirects:
            return
        lines = [f"delete element {self._key(redirect)}" for redirect in redirects]
        try:
            _run([self._program, "-f", "-"], "\n".join(lines))
        except LaminaError:  # one of them is not there, which undid the whole transaction
            for redirect in redirects:
                self._remove_key(redirect)

    def clear(self, subnet: str) -> None:
        if _table_exists(self._table):
            families = ("ip", "ip6") if self._plan.subnet6 else ("ip",)
            lines = [f"delete table {family} {self._table}" for family in families]
            _run([self._program, "-f", "-"], "\n".join(lines))
        if self._gate:
            self._gate.close()

    def _remove_key(self, redirect: Redirect) -> None:
        _attempt([self._program, "-f", "-"], f"delete element {self._key(redirect)}")

    def _key(self, redirect: Redirect) -> str:
        if redirect.host_ip:
            key = f"{redirect.protocol} . {redirect.host_ip} . {redirect.host_port}"
            return f"ip {self._table} published_at {{ {key} }}"
        key = f"{redirect.protocol} . {redirect.host_port}"
        return f"ip {self._table} published {{ {key} }}"

    def _element(self, redirect: Redirect) -> str:
        return f"{self._key(redirect)[:-2]} : {redirect.ip} . {redirect.port} }}"


def _base_rules(plan: BridgePlan, subnet: str) -> str:
    bridge, table = plan.name, plan.table
    leaving = f'ip saddr {subnet} oifname != "{bridge}" masquerade' if _masquerades(plan) else ""
    rules = f"""
add table ip {table}
delete table ip {table}
table ip {table} {{
  map published {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map published_at {{ type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; }}
  chain publishing {{
    meta l4proto {{ tcp, udp }} dnat to meta l4proto . ip daddr . th dport map @published_at
    meta l4proto {{ tcp, udp }} fib daddr type local dnat to meta l4proto . th dport map @published
  }}
  chain arriving {{
    type nat hook prerouting priority dstnat; policy accept;
    jump publishing
  }}
  chain local {{
    type nat hook output priority -100; policy accept;
    jump publishing
  }}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
  }}
{_forwarding(plan)}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    {leaving}
    oifname "{bridge}" ct status dnat ip saddr {{ 127.0.0.0/8, {subnet} }} masquerade
  }}
}}
"""
    if plan.subnet6 is None:
        return rules
    leaving = f'ip6 saddr {plan.subnet6} oifname != "{bridge}" masquerade'
    return f"""{rules}
add table ip6 {table}
delete table ip6 {table}
table ip6 {table} {{
{_forwarding(plan)}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    {leaving if _masquerades(plan) else ""}
  }}
}}
"""


def _masquerades(plan: BridgePlan) -> bool:
    return plan.masquerade and not plan.internal


def _forwarding(plan: BridgePlan) -> str:
    """The chain that decides who passes: the same for both families."""
    bridge = plan.name
    shut = ""
    if plan.internal:  # before `dnat`: a published port of another network is outside too
        shut = f"""iifname "{bridge}" oifname != "{bridge}" drop
    iifname != "{bridge}" oifname "{bridge}" drop"""
    among = f'iifname "{bridge}" accept' if plan.icc else ""
    return f"""  chain forwarding {{
    type filter hook forward priority filter; policy accept;
    {shut}
    oifname != "{bridge}" accept
    {among}
    ct state established,related accept
    ct status dnat accept
    drop
  }}"""


def lead_to_resolver(address: str, *, udp: int, tcp: int) -> None:
    """Lead port 53 of `address` to these ports of it, in the calling thread's network namespace, and
    to no former ones.

    Raises LaminaError.
    """
    nft = find_program("nft", search_path=DEFAULT_SEARCH_PATH)
    if not nft:
        raise LaminaError("nft is not installed", kind=Kind.UNSUPPORTED, hint="install nftables")
    rules = f"""
add table ip lamina-resolver
delete table ip lamina-resolver
table ip lamina-resolver {{
  chain asking {{
    type nat hook output priority -100; policy accept;
    ip daddr {address} udp dport 53 dnat to {address}:{udp}
    ip daddr {address} tcp dport 53 dnat to {address}:{tcp}
  }}
}}
"""
    _run([nft, "-f", "-"], rules)


def _table_exists(name: str) -> bool:
    request = struct.pack("=BBH", _AF_INET, 0, 0) + attribute(_TABLE_NAME, name)
    try:
        with Netlink(NETFILTER) as netlink:
            netlink.get(_GETTABLE, request)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        if error.errno in {errno.EPERM, errno.EACCES}:
            raise LaminaError(
                "no permission to set packet rules",
                kind=Kind.DENIED,
                hint="run as root with CAP_NET_ADMIN, or use `--network host`",
            ) from error
        raise LaminaError(
            f"the kernel refuses nftables: {error.strerror}",
            kind=Kind.UNSUPPORTED,
            hint="use a kernel with nf_tables and nf_nat, or `--network host`",
        ) from error
    return True


class IptablesGate:
    """Lets the bridge through the host's FORWARD chain, where that chain drops packets."""

    def __init__(self, bridge: str, *, program: str) -> None:
        self.bridge = bridge
        self.program = program

    def open(self) -> None:
        """Insert the rules where they are needed: Docker's own chain for them, else FORWARD."""
        chain = self._chain()
        if not chain:
            return
        for rule in self._rules():
            if not self.has(["-t", "filter"], chain, rule):
                self.run(["-t", "filter", "-I", chain, *rule])

    def close(self) -> None:
        """Remove the rules from either chain; no error if there are none."""
        listed = self._listed()
        for chain in ("DOCKER-USER", "FORWARD"):
            for rule in self._rules():
                if f"-A {chain} {' '.join(rule)}" in listed:
                    self.run(["-t", "filter", "-D", chain, *rule])

    def _chain(self) -> str:
        listed = self._listed()
        if "-N DOCKER-USER" in listed:
            return "DOCKER-USER"
        restrictive = "-P FORWARD DROP" in listed or any(
            line.startswith("-A FORWARD") for line in listed
        )
        return "FORWARD" if restrictive else ""

    def _rules(self) -> list[list[str]]:
        # What may come in is decided by the bridge's own table; these only undo a general drop.
        # Order and spelling are those of `iptables -S`, which `close` compares with.
        states = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
        published = ["-m", "conntrack", "--ctstate", "DNAT"]
        return [
            ["-i", self.bridge, "-j", "ACCEPT"],
            ["-o", self.bridge, *states, "-j", "ACCEPT"],
            ["-o", self.bridge, *published, "-j", "ACCEPT"],
        ]

    def _listed(self) -> list[str]:
        status, output, _ = _attempt([self.program, "-w", "-t", "filter", "-S"])
        # An iptables that does not work on this kernel cannot be dropping anything either.
        return output.decode(errors="replace").splitlines() if status == 0 else []

    def has(self, table: list[str], chain: str, rule: list[str]) -> bool:
        """Whether the rule is in the chain."""
        return _attempt([self.program, "-w", *table, "-C", chain, *rule])[0] == 0

    def run(self, arguments: list[str]) -> None:
        """Run iptables. Raises LaminaError."""
        _run([self.program, "-w", *arguments])


class Iptables:
    """Masquerading by iptables; published ports are the forwarder's."""

    redirects = False

    def __init__(self, bridge: str, *, gate: IptablesGate) -> None:
        self._bridge = bridge
        self._gate = gate

    def ensure(self, subnet: str, redirects: Iterable[Redirect]) -> None:
        rule = self._rule(subnet)
        if not self._gate.has(["-t", "nat"], "POSTROUTING", rule):
            self._gate.run(["-t", "nat", "-A", "POSTROUTING", *rule])
            self._gate.open()

    def add(self, redirects: Sequence[Redirect]) -> None:
        pass

    def remove(self, redirects: Sequence[Redirect]) -> None:
        pass

    def clear(self, subnet: str) -> None:
        rule = self._rule(subnet)
        if self._gate.has(["-t", "nat"], "POSTROUTING", rule):
            self._gate.run(["-t", "nat", "-D", "POSTROUTING", *rule])
        self._gate.close()

    def _rule(self, subnet: str) -> list[str]:
        return ["-s", subnet, "!", "-o", self._bridge, "-j", "MASQUERADE"]


def _attempt(argv: list[str], text: str = "") -> tuple[int, bytes, bytes]:
    try:
        return output_of(argv, env=ENVIRONMENT, stdin=text.encode())
    except OSError as error:
        raise LaminaError(
            f"cannot run {argv[0]}: {error.strerror}", kind=Kind.SYSTEM, hint=_NO_TOOL
        ) from error


def _run(argv: list[str], text: str = "") -> None:
    status, _, errors = _attempt(argv, text)
    if status == 0:
        return
    said = errors.decode(errors="replace").strip().splitlines()
    reason = next((line for line in said if "rror" in line), said[0] if said else "no message")
    denied = "not permitted" in reason or "you must be root" in reason.lower()
    raise LaminaError(
        f"setting packet rules failed: {argv[0]}: {reason}",
        kind=Kind.DENIED if denied else Kind.SYSTEM,
        hint="run as root with CAP_NET_ADMIN, or use `--network host`" if denied else "",
    )
