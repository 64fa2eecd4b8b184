# SPDX-License-Identifier: Apache-2.0
"""Whatever a registry sends, parsing ends with a value or a LaminaError."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import LaminaError
from lamina.registry import protocol
from lamina.registry.auth import check_realm
from lamina.registry.client import manifest_type
from lamina.registry.transport import bare_address

_HEADERS = st.one_of(
    st.text(), st.text(alphabet='Bearealm="\\, \t=/:;<>-*0123456789bytesnxt', max_size=200)
)
_VALUES = st.text(alphabet="abcXYZ019-._~:/?&%+@ \"\\,'", max_size=30)


@given(_HEADERS)
def test_headers_never_raise(header: str) -> None:
    for challenge in protocol.parse_challenges(header):
        assert challenge.scheme == challenge.scheme.lower()
    protocol.parse_upload_range(header)
    protocol.parse_content_range(header)
    protocol.next_link(header)
    protocol.retry_after(header, now=0.0)


@given(
    st.dictionaries(st.sampled_from(["realm", "service", "scope", "error"]), _VALUES, min_size=1)
)
def test_a_written_challenge_is_read_back(parameters: dict[str, str]) -> None:
    def quoted(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"')

    header = "Bearer " + ",".join(f'{name}="{quoted(v)}"' for name, v in parameters.items())
    (found,) = protocol.parse_challenges(header)
    assert dict(found.parameters) == parameters


@given(st.binary(max_size=300), st.integers(100, 599))
def test_error_bodies_never_raise(body: bytes, status: int) -> None:
    assert str(protocol.error_of(status, body, what="w"))


@given(st.text(max_size=80), st.booleans())
def test_realms_are_allowed_or_refused(realm: str, credentials: bool) -> None:
    with contextlib.suppress(LaminaError):
        check_realm("https://registry.example.com", realm, with_credentials=credentials)


@given(st.binary(max_size=200), st.text(max_size=40))
def test_manifest_types_are_known_or_refused(raw: bytes, header: str) -> None:
    with contextlib.suppress(LaminaError):
        manifest_type(raw, header)


@given(st.text(max_size=80))
def test_redaction_never_raises(url: str) -> None:
    bare_address("https://user:secret@host/" + url)
    assert "secret" not in bare_address("https://user:secret@host/p?q=secret")
