# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from lamina.system.subids import (
    MAX_LINES,
    Range,
    Ranges,
    map_arguments,
    parse_getsubids,
    parse_ranges,
)


def test_ranges_are_found_by_name_and_by_uid_in_order() -> None:
    text = "ann:100000:65536\nbob:200000:65536\n1000:300000:10\n"
    assert parse_ranges(text, ["ann", "1000"]) == (Range(100000, 65536), Range(300000, 10))


@pytest.mark.parametrize(
    "line",
    ["", "# ann:1:2", "ann:1", "ann:1:2:3", "ann:x:5", "ann:-1:5", "ann:5:0", "ann:4294967000:400"],
)
def test_lines_that_are_no_ranges_are_passed_over(line: str) -> None:
    assert parse_ranges(f"{line}\nann:7:1\n", ["ann"]) == (Range(7, 1),)


def test_ranges_that_overlap_an_earlier_one_are_left_out() -> None:
    text = "ann:100:50\nann:149:10\nann:90:11\nann:150:10\n"
    assert parse_ranges(text, ["ann"]) == (Range(100, 50), Range(150, 10))


def test_no_more_ranges_than_the_kernel_takes_in_one_map() -> None:
    text = "".join(f"ann:{number * 10}:1\n" for number in range(1, 500))
    assert len(parse_ranges(text, ["ann"])) == MAX_LINES - 1


def test_the_map_begins_with_the_users_own_id_and_has_no_gap() -> None:
    ranges = (Range(100000, 1000), Range(500000, 5))
    assert map_arguments(1000, ranges) == [
        *("0", "1000", "1"),
        *("1", "100000", "1000"),
        *("1001", "500000", "5"),
    ]


def test_getsubids_output() -> None:
    assert parse_getsubids("0: ann 100000 65536\n1: ann 300000 10\n") == (
        Range(100000, 65536),
        Range(300000, 10),
    )
    assert parse_getsubids("Error fetching ranges\n") == ()


def test_uids_without_gids_are_no_ranges() -> None:
    assert not Ranges((Range(1, 2),), ())
    assert Ranges((Range(1, 2),), (Range(1, 2),))
