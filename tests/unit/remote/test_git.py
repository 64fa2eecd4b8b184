# SPDX-License-Identifier: Apache-2.0
"""What git is told of credentials, by where the repository's address leads."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import pytest

from lamina.errors import Kind, LaminaError
from lamina.remote.git import Git
from lamina.remote.http import HttpClient
from lamina.remote.settings import RemoteSettings
from lamina.tasks import CancelToken

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

REFS = "/info/refs?service=git-upload-pack"


class Answer:
    def close(self) -> None: ...


class Leading(HttpClient):
    """Every address leads to one; an empty one does not answer."""

    def __init__(self, end: str) -> None:
        super().__init__(RemoteSettings())
        self._end = end

    def open(
        self, url: str, headers: Mapping[str, str], *, cancel: CancelToken
    ) -> tuple[BaseHTTPResponse, str]:
        if not self._end:
            raise LaminaError("no answer", kind=Kind.UNAVAILABLE)
        return cast("BaseHTTPResponse", Answer()), self._end  # only `close` is used


def told(remote: str, end: str) -> tuple[str, str, dict[str, str]]:
    """The remote, where git is sent, and git's configuration."""
    made = Git(RemoteSettings(), Leading(end))._address(remote, CancelToken())
    count = int(made.env["GIT_CONFIG_COUNT"])
    config = {
        made.env[f"GIT_CONFIG_KEY_{n}"]: made.env[f"GIT_CONFIG_VALUE_{n}"] for n in range(count)
    }
    return made.remote, made.url, config


def test_header_is_for_the_one_address_and_follows_no_redirect() -> None:
    remote, url, config = told("https://me:p%40w@h/r.git", f"https://h:443/new.git{REFS}")
    assert (remote, url) == ("https://h/r.git", "https://h:443/new.git")
    token = base64.b64encode(b"me:p@w").decode()
    assert config[f"http.{url}.extraHeader"] == f"Authorization: Basic {token}"
    assert config[f"http.{url}.followRedirects"] == "false"
    assert [key for key in config if key.startswith("credential.https")] == [
        "credential.https://h.helper"
    ]


@pytest.mark.parametrize(
    "end",
    ["http://h/r.git", "https://h:8443/r.git", "https://other/r.git", "https://h.other/r.git"],
)
def test_another_scheme_host_or_port_gets_no_header(end: str) -> None:
    remote, url, config = told("https://me:pw@h/r.git", end + REFS)
    assert (remote, url) == ("https://h/r.git", end)
    assert not [key for key in config if "extraHeader" in key]


@pytest.mark.parametrize("end", ["", "https://other/login", f"https://other/a b.git{REFS}"])
def test_address_that_leads_to_no_repository_is_left_to_git(end: str) -> None:
    assert told("https://me:pw@h/r.git", end)[1] == "https://h/r.git"


def test_token_without_a_password_is_a_user() -> None:
    _, url, config = told("https://token@h/r.git", f"https://h/r.git{REFS}")
    assert config[f"http.{url}.extraHeader"].endswith(base64.b64encode(b"token:").decode())


def test_no_credentials_ask_nobody() -> None:
    assert told("https://h/r.git", "")[1] == "https://h/r.git"
    assert told("ssh://git@h/r.git", "")[1] == "ssh://git@h/r.git"


@pytest.mark.parametrize("bad", ["a%0Ahost=b:c", "a:b%0D", "a:b%00"])
def test_credentials_that_could_be_more_lines_are_refused(bad: str) -> None:
    with pytest.raises(LaminaError, match="control characters") as caught:
        told(f"https://{bad}@h/r.git", "")
    assert caught.value.kind is Kind.INVALID
