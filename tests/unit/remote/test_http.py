# SPDX-License-Identifier: Apache-2.0
"""Which hop of a redirect gets the credentials of the URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import pytest

from lamina.errors import Kind, LaminaError
from lamina.remote.http import HttpClient, origin
from lamina.remote.settings import RemoteSettings
from lamina.tasks import CancelToken

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse


class Answer:
    def __init__(self, location: str) -> None:
        self.status = 302 if location else 200
        self.headers = {"Location": location} if location else {}

    def close(self) -> None: ...


class Scripted(HttpClient):
    """Answers with one redirect after the other, then with the file."""

    def __init__(self, *locations: str) -> None:
        super().__init__(RemoteSettings())
        self._locations = [*locations]
        self.sent: list[tuple[str, str]] = []

    def _request(
        self,
        asked: str,
        url: str,
        credentials: str,
        headers: Mapping[str, str],
        cancel: CancelToken,
    ) -> BaseHTTPResponse:
        self.sent.append((url, credentials))
        location = self._locations.pop(0) if self._locations else ""
        return cast("BaseHTTPResponse", Answer(location))  # only what `open` uses


def sent(url: str, *locations: str) -> list[str]:
    client = Scripted(*locations)
    _, last = client.open(url, {}, cancel=CancelToken())
    assert last == client.sent[-1][0]
    assert "@" not in "".join(asked for asked, _ in client.sent)
    return [credentials for _, credentials in client.sent]


@pytest.mark.parametrize(
    ("location", "goes_along"),
    [
        ("/other", True),
        ("https://h/other", True),
        ("https://H:443/other", True),
        ("//h/other", True),
        ("http://h/other", False),
        ("http://h:443/other", False),
        ("https://h:8443/other", False),
        ("https://other/f", False),
        ("https://h.other/f", False),
        ("https://sub.h/f", False),
        ("https://h@other/f", False),
    ],
)
def test_credentials_stay_with_scheme_host_and_port(location: str, *, goes_along: bool) -> None:
    first, second = sent("https://me:p%40w@h/f", location)
    assert first == "me:p@w"
    assert (second == "me:p@w") is goes_along


def test_credentials_of_a_redirect_are_for_its_own_host() -> None:
    places = ("https://you:pw@other/f", "/g", "https://h/f")
    assert sent("https://me:pw@h/f", *places) == ["me:pw", "you:pw", "you:pw", ""]


def test_host_that_is_come_back_to_gets_its_credentials() -> None:
    assert sent("https://me:pw@h/f", "https://b/", "https://h/") == ["me:pw", "", "me:pw"]


def test_redirects_end_and_lead_to_http_only() -> None:
    for places, what in ((["/f"] * 20, "more than"), (["file:///f"], "neither http nor https")):
        with pytest.raises(LaminaError, match=what) as caught:
            Scripted(*places).open("https://me:pw@h/f", {}, cancel=CancelToken())
        assert caught.value.kind is Kind.INVALID
        assert "pw" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://h:x/", "http://h:99999/", "http://[::1/"])
def test_what_is_no_url_is_invalid(url: str) -> None:
    with pytest.raises(LaminaError) as caught:
        origin(url)
    assert caught.value.kind is Kind.INVALID
