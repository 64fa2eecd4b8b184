# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from lamina.container.capabilities import (
    ALL_CAPABILITIES,
    DEFAULT_CAPABILITIES,
    container_capabilities,
    from_mask,
)
from lamina.errors import Kind, LaminaError


def caps(
    *, add: tuple[str, ...] = (), drop: tuple[str, ...] = (), privileged: bool = False
) -> tuple[str, ...]:
    return container_capabilities(
        add, drop, privileged=privileged, available=set(ALL_CAPABILITIES) - {"CAP_SYS_RESOURCE"}
    )


def test_default_set_is_dockers_mask() -> None:
    assert from_mask(0x00000000A80425FB) == DEFAULT_CAPABILITIES == caps()


def test_numbers_are_the_kernels() -> None:
    numbers = {"CAP_CHOWN": 0, "CAP_SYS_ADMIN": 21, "CAP_SETFCAP": 31, "CAP_CHECKPOINT_RESTORE": 40}
    assert {name: ALL_CAPABILITIES.index(name) for name in numbers} == numbers


def test_names_need_no_prefix_and_no_case() -> None:
    assert "CAP_NET_ADMIN" in caps(add=("net_admin",))
    assert caps(drop=("Cap_Mknod",)) == tuple(c for c in DEFAULT_CAPABILITIES if c != "CAP_MKNOD")


def test_drop_all_leaves_what_is_added() -> None:
    assert caps(add=("KILL",), drop=("ALL",)) == ("CAP_KILL",)


def test_add_all_leaves_out_what_is_dropped() -> None:
    assert set(ALL_CAPABILITIES) - set(caps(add=("ALL",), drop=("SYS_ADMIN",))) == {
        "CAP_SYS_ADMIN",
        "CAP_SYS_RESOURCE",
    }


def test_privileged_takes_all_that_there_are() -> None:
    assert set(caps(privileged=True)) == set(ALL_CAPABILITIES) - {"CAP_SYS_RESOURCE"}


def test_asking_for_one_that_is_not_there_is_denied() -> None:
    with pytest.raises(LaminaError, match="CAP_SYS_RESOURCE") as caught:
        caps(add=("sys_resource",))
    assert caught.value.kind is Kind.DENIED


def test_unknown_name_is_a_usage_error() -> None:
    with pytest.raises(LaminaError, match="'FLY'") as caught:
        caps(drop=("FLY",))
    assert caught.value.kind is Kind.USAGE
