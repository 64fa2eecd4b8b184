# SPDX-License-Identifier: Apache-2.0
"""Hostile account files, resolvers and profiles: a value or a LaminaError, never anything else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina.container.etcfiles import resolv_conf
from lamina.container.host import parse_cgroups
from lamina.container.seccomp import container_seccomp
from lamina.container.users import MAX_ID, resolve_user
from lamina.errors import LaminaError

FIELD = st.sampled_from(["root", "app", "0", "1000", "-1", "", "99999999999", "x", "²", "\x00"])
LINES = st.lists(st.lists(FIELD, max_size=8).map(":".join), max_size=6).map("\n".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["names", "action", "args", "includes", "caps", "index", "minKernel"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(FIELD, LINES, LINES)
def test_user_resolves_within_range_or_is_refused(user: str, passwd: str, group: str) -> None:
    try:
        found = resolve_user(
            user,
            passwd=passwd.encode("utf-8", "surrogateescape"),
            group=group.encode("utf-8", "surrogateescape"),
        )
    except LaminaError:
        return
    assert all(0 <= number <= MAX_ID for number in (found.uid, found.gid, *found.groups))
    assert found.groups[0] == found.gid


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_account_files_of_any_bytes(passwd: bytes, group: bytes) -> None:
    assert resolve_user("5:6", passwd=passwd, group=group).uid >= 0


@given(st.text(alphabet="nameserv ch\t\n127.08:x#", max_size=80))
def test_resolv_conf_always_has_a_server_that_is_not_loopback(host: str) -> None:
    found = resolv_conf(host).text
    servers = [line.split()[1] for line in found.splitlines() if line.startswith("nameserver ")]
    assert servers
    assert not any(server.startswith("127.") for server in servers)
    assert resolv_conf(found).text == found


@given(JSON, JSON)
def test_profile_of_any_shape(action: object, syscalls: object) -> None:
    profile = {"defaultAction": action, "syscalls": syscalls}
    try:
        container_seccomp(profile, architecture="amd64", capabilities=(), kernel=(6, 1))
    except LaminaError:
        return


@given(st.text(alphabet="0 /sysfcgroup2-\n", max_size=80))
def test_mountinfo_of_any_text(text: str) -> None:
    assert parse_cgroups(text, unified_controllers="").mode in ("v1", "v2", "hybrid", "none")
