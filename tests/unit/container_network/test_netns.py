# SPDX-License-Identifier: Apache-2.0
"""What is said when a namespace cannot be made."""

from __future__ import annotations

import errno
import os

import pytest

from lamina.errors import Kind, LaminaError
from lamina.system import netns


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EPERM, Kind.DENIED),
        (errno.ENOSPC, Kind.EXHAUSTED),
        (errno.EMFILE, Kind.EXHAUSTED),
        (errno.EINVAL, Kind.UNSUPPORTED),
        (errno.EIO, Kind.SYSTEM),
    ],
)
def test_refusal_of_the_kernel_is_explained(
    monkeypatch: pytest.MonkeyPatch, code: int, kind: Kind
) -> None:
    def refuse(flags: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(netns, "unshare", refuse)

    with pytest.raises(LaminaError, match="cannot create a network namespace") as caught:
        netns.create_namespace(lambda: None)

    assert caught.value.kind is kind
    assert "--network host" in caught.value.hint


def test_failed_configuration_gives_the_descriptor_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "unshare", lambda _: None)
    before = os.listdir("/proc/self/fd")

    def fail() -> None:
        raise LaminaError("not like this")

    with pytest.raises(LaminaError, match="not like this"):
        netns.create_namespace(fail)

    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_call_that_the_kernel_refuses_raises_its_errno() -> None:
    with pytest.raises(OSError, match="setns") as caught:
        netns.setns(-1, netns.CLONE_NEWNET)

    assert caught.value.errno == errno.EBADF
