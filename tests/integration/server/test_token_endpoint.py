# SPDX-License-Identifier: Apache-2.0
"""`/token` in its OAuth2 form: grants, refresh tokens, and what is refused."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import bcrypt
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lamina.testing.registry import Answer, RegistryServer
from lamina.testing.waiting import wait_until

SERVICE = "the registry"
RULES = """
[[rules]]
repositories = "team/*"
users = ["alice"]
actions = ["pull", "push"]
"""


def make(place: Path, *, lifetime: str = "30d") -> RegistryServer:
    """A registry that issues tokens to alice and bob."""
    key = ec.generate_private_key(ec.SECP256R1())
    raw = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (place / "key.pem").write_bytes(raw)
    write_users(place, alice="alice-pw", bob="bob-pw")
    config = f"""
[auth]
htpasswd = "{place}/users"
[auth.token]
issuer = "i"
service = "{SERVICE}"
realm = "http://127.0.0.1/token"
signing-key = "{place}/key.pem"
refresh-lifetime = "{lifetime}"
{RULES}"""
    return RegistryServer(place / "registry", config=config)


def write_users(place: Path, **users: str) -> None:
    lines = [
        f"{user}:{bcrypt.hashpw(text.encode(), bcrypt.gensalt(4)).decode()}"
        for user, text in users.items()
    ]
    (place / "users").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with make(tmp_path_factory.mktemp("tokens")) as server:
        yield server


def post(server: RegistryServer, **form: str) -> Answer:
    fields = {"service": SERVICE, "client_id": "test", **form}
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode({key: value for key, value in fields.items() if value})
    return server.client()("POST", "/token", body, kind)


def by_password(server: RegistryServer, **form: str) -> Answer:
    given = {"username": "alice", "password": "alice-pw", **form}
    return post(server, grant_type="password", **given)


def status_with(server: RegistryServer, token: str, path: str = "/v2/team/a/blobs/uploads/") -> int:
    return server.client()("POST", path, headers={"Authorization": f"Bearer {token}"}).status


def test_password_gives_what_the_rules_allow(server: RegistryServer) -> None:
    scope = "repository:team/a:pull,push,delete repository:other/b:pull"
    answer = by_password(server, scope=scope)
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert document["scope"] == "repository:team/a:pull,push"
    assert document["expires_in"] >= 60
    assert document["token_type"] == "Bearer"
    assert "refresh_token" not in document
    assert status_with(server, document["access_token"]) == 202
    assert status_with(server, document["access_token"], "/v2/other/b/blobs/uploads/") == 401


def test_refresh_token_gives_tokens_of_other_scopes(server: RegistryServer) -> None:
    refresh = by_password(server, access_type="offline").json()["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": refresh}
    answer = post(server, **form, scope="repository:team/a:push")
    assert answer.json()["scope"] == "repository:team/a:push"
    assert "refresh_token" not in answer.json()
    assert status_with(server, answer.json()["access_token"]) == 202
    again = post(server, **form, access_type="offline")
    assert again.json()["refresh_token"] == refresh


def test_get_gives_a_refresh_token_when_asked(server: RegistryServer) -> None:
    word = base64.b64encode(b"alice:alice-pw").decode()
    headers = {"Authorization": f"Basic {word}"}
    path = f"/token?service={quote(SERVICE)}&offline_token=true&client_id=test"
    refresh = server.client()("GET", path, headers=headers).json()["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": refresh}
    assert post(server, **form, scope="repository:team/a:pull").status == 200
    assert "refresh_token" not in server.client()("GET", path).json()


def test_refresh_token_opens_nothing_by_itself(server: RegistryServer) -> None:
    refresh = by_password(server, access_type="offline").json()["refresh_token"]
    assert status_with(server, refresh) == 401
    access = by_password(server, scope="repository:team/a:push").json()["access_token"]
    assert post(server, grant_type="refresh_token", refresh_token=access).status == 401


def refused(answer: Answer, status: int, error: str) -> None:
    assert answer.status == status
    document = answer.json()
    assert document["error"] == error
    assert document["errors"][0]["message"] == document["error_description"]
    assert document["errors"][0]["code"] == ("UNAUTHORIZED" if status == 401 else "UNSUPPORTED")


@pytest.mark.parametrize(
    "form",
    [
        {"username": "alice", "password": "wrong"},
        {"username": "nobody", "password": "alice-pw"},
        {"username": "", "password": ""},
    ],
)
def test_wrong_password(server: RegistryServer, form: dict[str, str]) -> None:
    answer = by_password(server, **form)
    refused(answer, 401, "invalid_grant")
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert b"alice-pw" not in answer.body


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "x" * 20_000])
def test_wrong_refresh_token(server: RegistryServer, token: str) -> None:
    refused(post(server, grant_type="refresh_token", refresh_token=token), 401, "invalid_grant")


def test_forged_refresh_token(server: RegistryServer) -> None:
    claims = {
        "iss": "i",
        "aud": f"refresh {SERVICE}",
        "sub": "alice",
        "exp": int(time.time()) + 100,
        "stamp": "",
    }
    stranger = ec.generate_private_key(ec.SECP256R1())
    made: list[tuple[Any, str]] = [(stranger, "ES256"), (None, "none"), ("k" * 32, "HS256")]
    for key, algorithm in made:
        token = jwt.encode(claims, key, algorithm=algorithm)
        refused(post(server, grant_type="refresh_token", refresh_token=token), 401, "invalid_grant")
    own = serialization.load_pem_private_key(
        (server.root.parent / "key.pem").read_bytes(), password=None
    )
    for wrong in ({}, {"stamp": 5}, {"sub": "nobody"}, {"aud": SERVICE}, {"exp": "never"}):
        token = jwt.encode({**claims, **wrong}, own, algorithm="ES256")  # type: ignore[arg-type]  # an elliptic key
        refused(post(server, grant_type="refresh_token", refresh_token=token), 401, "invalid_grant")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": ""}, "invalid_request"),
        ({"client_id": ""}, "invalid_request"),
        ({"service": ""}, "invalid_request"),
        ({"service": "another"}, "invalid_target"),
        ({"grant_type": "authorization_code"}, "unsupported_grant_type"),
    ],
)
def test_requests_that_are_none(server: RegistryServer, form: dict[str, str], error: str) -> None:
    refused(post(server, **{"grant_type": "password"} | form), 400, error)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 400),
        (b"\xff=1", "application/x-www-form-urlencoded", 400),
        (b"a=1&" * 100, "application/x-www-form-urlencoded", 400),
        (b"a" * 100_000, "application/x-www-form-urlencoded", 413),
        (
            f"grant_type=password&service={quote(SERVICE)}&client_id=a&username=a&username=b".encode(),
            "application/x-www-form-urlencoded",
            400,
        ),
    ],
)
def test_bodies_that_are_no_form(
    server: RegistryServer, body: bytes, kind: str, status: int
) -> None:
    answer = server.client()("POST", "/token", body, {"Content-Type": kind})
    assert answer.status == status
    assert json.loads(answer.body)["errors"]


def test_other_methods(server: RegistryServer) -> None:
    answer = server.client()("DELETE", "/token")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")


def test_expired_refresh_token(tmp_path: Path) -> None:
    with make(tmp_path, lifetime="0s") as server:
        refresh = by_password(server, access_type="offline").json()["refresh_token"]

        def other_answer() -> Answer | None:
            answer = post(server, grant_type="refresh_token", refresh_token=refresh)
            return None if answer.status == 200 else answer

        answer = wait_until(other_answer, "the end of the second to which it lives")
        assert answer is not None
        refused(answer, 401, "invalid_grant")
        assert "expired" in answer.json()["error_description"]


def test_refresh_token_survives_a_restart_and_ends_with_the_password(tmp_path: Path) -> None:
    with make(tmp_path) as server:
        refresh = by_password(server, access_type="offline").json()["refresh_token"]
        form = {"grant_type": "refresh_token", "refresh_token": refresh}
        server.kill()
        server.start()
        assert post(server, **form).status == 200
        write_users(tmp_path, alice="new", bob="bob-pw")
        refused(post(server, **form), 401, "invalid_grant")
        write_users(tmp_path, bob="bob-pw")
        refused(post(server, **form), 401, "invalid_grant")
