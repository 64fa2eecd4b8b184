# SPDX-License-Identifier: Apache-2.0
"""Restart policies: what is taken, who is started again, and when."""

from __future__ import annotations

import pytest

from lamina.container.restarts import RestartPolicy, Restarts, parse_policy
from lamina.errors import LaminaError


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", RestartPolicy("no")),
        ("no", RestartPolicy("no")),
        ("always", RestartPolicy("always")),
        ("unless-stopped", RestartPolicy("unless-stopped")),
        ("on-failure", RestartPolicy("on-failure")),
        ("on-failure:3", RestartPolicy("on-failure", 3)),
        ("on-failure:0", RestartPolicy("on-failure")),
    ],
)
def test_policies_are_read(text: str, policy: RestartPolicy) -> None:
    assert parse_policy(text) == policy
    assert parse_policy(str(policy)) == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sometimes", "unknown policy 'sometimes'"),
        ("always:3", "can only be used with 'on-failure'"),
        ("unless-stopped:1", "can only be used with 'on-failure'"),
        ("on-failure:x", "maximum retry count must be an integer"),
        ("on-failure:", "maximum retry count must be an integer"),
        ("on-failure:1:2", "maximum retry count must be an integer"),
        ("on-failure:٣", "maximum retry count must be an integer"),
        ("on-failure:-1", "maximum retry count cannot be negative"),
        (":3", "no policy provided before colon"),
    ],
)
def test_others_are_refused_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(LaminaError, match="invalid restart policy") as refused:
        parse_policy(text)
    assert message in refused.value.what


def delays(policy: str, runs: list[tuple[int, float]]) -> list[float | None]:
    """What follows each run of (status, seconds)."""
    restarts = Restarts()
    chosen = parse_policy(policy)
    return [restarts.after(chosen, status, seconds=seconds) for status, seconds in runs]


def test_the_delay_doubles_up_to_a_minute() -> None:
    found = delays("always", [(0, 0.1)] * 12)
    assert found == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60]


def test_a_run_of_ten_seconds_begins_the_series_anew() -> None:
    assert delays("always", [(1, 0), (1, 0), (1, 10.0), (1, 9.9)]) == [0.1, 0.2, 0.1, 0.2]


def test_only_failures_are_restarted_and_only_so_often() -> None:
    assert delays("on-failure", [(1, 0), (0, 0)]) == [0.1, None]
    # a long run does not give back what was used up (moby: restartCount)
    assert delays("on-failure:2", [(1, 0), (1, 99), (1, 0)]) == [0.1, 0.1, None]


@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
def test_others_are_restarted_whatever_they_ended_with(policy: str) -> None:
    assert delays(policy, [(0, 0), (137, 0)]) == [0.1, 0.2]


def test_without_a_policy_nothing_is_restarted() -> None:
    assert delays("no", [(1, 0)]) == [None]


def test_restarts_are_counted() -> None:
    restarts = Restarts()
    for status in (1, 1, 0):
        restarts.after(RestartPolicy("on-failure"), status, seconds=0)
    assert restarts.count == 2
