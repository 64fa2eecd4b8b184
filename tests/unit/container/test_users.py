# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from lamina.container.users import InvalidUser, ResolvedUser, needs_accounts, resolve_user

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a comment
broken line
app:x:1001:2001:App:/home/app:/bin/sh
nohome:x:7:7:::
1234:x:55:56:a numeric name:/n:/bin/sh
big:x:99999999999:0::/:/bin/sh
app:x:1:1:later lines lose:/other:
"""
GROUP = b"root:x:0:\nstaff:x:50:app,other\naudio:x:29:app\napp:x:2001:\nbad\n\n"


def resolve(user: str, *groups: str) -> ResolvedUser:
    return resolve_user(user, passwd=PASSWD, group=GROUP, extra_groups=groups)


def test_nobody_asked_for_is_root() -> None:
    assert resolve("") == ResolvedUser(uid=0, gid=0, groups=(0,), home="/root", name="root")


def test_first_line_with_the_name_wins() -> None:
    assert resolve("app") == ResolvedUser(
        uid=1001, gid=2001, groups=(2001, 50, 29), home="/home/app", name="app"
    )


def test_number_with_a_line_is_that_user() -> None:
    assert resolve("1001") == resolve("app")


def test_number_without_a_line_is_taken_as_it_is() -> None:
    assert resolve("4000") == ResolvedUser(uid=4000, gid=0, groups=(0,), home="/")


def test_numeric_name_is_matched_as_a_name_too() -> None:
    assert resolve("1234").uid == 55


def test_empty_home_is_the_root() -> None:
    assert resolve("nohome").home == "/"


def test_explicit_group_replaces_the_others() -> None:
    assert resolve("app:staff").groups == (50,)
    assert (resolve("app:staff").uid, resolve("app:staff").gid) == (1001, 50)
    assert resolve("app:77").groups == (77,)


def test_empty_group_after_the_colon_means_none_given() -> None:
    assert resolve("app:") == resolve("app")


def test_only_a_group() -> None:
    assert (resolve(":staff").uid, resolve(":staff").gid) == (0, 50)


def test_extra_groups_are_added_once() -> None:
    assert resolve("app", "audio", "4").groups == (2001, 50, 29, 4)


@pytest.mark.parametrize("user", ["nobody", "app:nogroup", "-1", "2147483648", "1:2147483648"])
def test_bad_user_is_named(user: str) -> None:
    with pytest.raises(InvalidUser):
        resolve(user)


def test_absent_files_are_enough_for_numbers() -> None:
    found = resolve_user("12:34", passwd=b"", group=b"")
    assert (found.uid, found.gid, found.home) == (12, 34, "/")


@pytest.mark.parametrize(
    ("user", "needed"), [("", False), ("0", False), ("1:2", False), ("a", True), ("1:b", True)]
)
def test_only_names_need_the_files(user: str, needed: bool) -> None:
    assert needs_accounts(user) is needed
