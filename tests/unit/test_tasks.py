# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

from lamina.errors import Cancelled
from lamina.tasks import CancelToken, TaskGroup


def test_child_token_follows_its_parent_but_not_the_other_way_round() -> None:
    parent = CancelToken()
    child = CancelToken(parent)
    other = CancelToken(parent)
    child.cancel()
    assert not parent.is_cancelled
    parent.cancel()
    assert other.is_cancelled


def test_callback_runs_once_even_if_registered_late() -> None:
    token = CancelToken()
    calls: list[str] = []
    token.on_cancel(lambda: calls.append("early"))
    token.cancel()
    token.cancel()
    token.on_cancel(lambda: calls.append("late"))
    assert calls == ["early", "late"]


def test_first_failure_cancels_siblings_and_rises() -> None:
    def fails() -> None:
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"), TaskGroup() as group:
        token = group.token

        def waits() -> None:
            assert token.wait(10)
            token.check()

        group.start(waits)
        group.start(fails)


def test_error_in_the_block_joins_the_tasks_first() -> None:
    ended = threading.Event()
    with pytest.raises(KeyError), TaskGroup() as group:
        token = group.token

        def waits() -> None:
            token.wait(10)
            ended.set()

        group.start(waits)
        raise KeyError("block")
    assert ended.is_set()


def test_cancelled_task_alone_rises_as_cancelled() -> None:
    with pytest.raises(Cancelled), TaskGroup() as group:
        group.start(group.token.cancel)

        def checks() -> None:
            group.token.wait(10)
            group.token.check()

        group.start(checks)
