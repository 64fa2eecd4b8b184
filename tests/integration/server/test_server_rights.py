# SPDX-License-Identifier: Apache-2.0
"""Passwords, tokens, rules, read-only mode and TLS: the right status and the right challenge."""

from __future__ import annotations

import base64
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import bcrypt
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lamina.testing.registry import RegistryClient, RegistryServer

RULES = """
[[rules]]
repositories = "public/**"
users = ["anonymous"]
actions = ["pull"]
[[rules]]
repositories = "**"
users = ["alice"]
actions = ["pull", "push", "delete", "admin"]
[[rules]]
repositories = "team/*"
users = ["*"]
actions = ["pull"]
[[rules]]
repositories = "team/bob"
users = ["bob"]
actions = ["push"]
"""


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def htpasswd(place: Path) -> Path:
    path = place / "htpasswd"
    lines = [
        f"{user}:{bcrypt.hashpw(f'{user}-pw'.encode(), bcrypt.gensalt(4)).decode()}"
        for user in ("alice", "bob")
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return key


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    place = tmp_path_factory.mktemp("rights")
    config = f'[auth]\nhtpasswd = "{htpasswd(place)}"\nrealm = "the team"\n{RULES}'
    with RegistryServer(place / "registry", config=config) as server:
        client = RegistryClient(server.port, headers=basic("alice", "alice-pw"))
        for repository in ("public/app", "team/bob", "private/app"):
            client.push_image(repository, "v1", b"layer of " + repository.encode())
        client.connection.close()
        yield server


def ask(
    server: RegistryServer, method: str, path: str, headers: dict[str, str], body: Any = None
) -> Any:
    client = RegistryClient(server.port, headers=headers)
    try:
        return client(method, path, body)
    finally:
        client.connection.close()


def test_base_asks_who_you_are(server: RegistryServer) -> None:
    answer = ask(server, "GET", "/v2/", {})
    assert (answer.status, answer.code()) == (401, "UNAUTHORIZED")
    assert answer.headers["www-authenticate"] == 'Basic realm="the team"'
    assert ask(server, "GET", "/v2/", basic("bob", "bob-pw")).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        basic("bob", "wrong"),
        basic("nobody", "bob-pw"),
        basic("bob", "bob-pw\0x"),
        basic("bob", "x" * 100),
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic"},
        {"Authorization": "Bearer x"},
        {"Authorization": "Negotiate x"},
    ],
)
def test_wrong_credentials_are_401_even_for_what_is_public(
    server: RegistryServer, headers: dict[str, str]
) -> None:
    answer = ask(server, "GET", "/v2/public/app/manifests/v1", headers)
    assert (answer.status, answer.code()) == (401, "UNAUTHORIZED")
    assert "www-authenticate" in answer.headers


@pytest.mark.parametrize(
    ("user", "method", "path", "status"),
    [
        ("", "GET", "/v2/public/app/manifests/v1", 200),
        ("", "GET", "/v2/private/app/manifests/v1", 401),
        ("", "POST", "/v2/public/app/blobs/uploads/", 401),
        ("", "GET", "/v2/_catalog", 401),
        ("", "GET", "/metrics", 401),
        ("", "GET", "/healthz", 200),
        ("bob", "GET", "/v2/team/bob/manifests/v1", 200),
        ("bob", "POST", "/v2/team/bob/blobs/uploads/", 202),
        ("bob", "DELETE", "/v2/team/bob/manifests/v1", 403),
        ("bob", "POST", "/v2/team/alice/blobs/uploads/", 403),
        ("bob", "GET", "/v2/team/a/b/tags/list", 403),
        ("bob", "GET", "/v2/private/app/manifests/v1", 403),
        ("bob", "GET", "/v2/private%2fapp/manifests/v1", 403),
        ("bob", "GET", "/v2/private/app/referrers/sha256:" + "0" * 64, 403),
        ("bob", "GET", "/metrics", 403),
        ("alice", "GET", "/v2/private/app/manifests/v1", 200),
        ("alice", "GET", "/metrics", 200),
    ],
)
def test_rules(server: RegistryServer, user: str, method: str, path: str, status: int) -> None:
    headers = basic(user, f"{user}-pw") if user else {}
    answer = ask(server, method, path, headers)
    assert answer.status == status
    if status in {401, 403}:
        assert answer.code() == {401: "UNAUTHORIZED", 403: "DENIED"}[status]


def test_catalog_shows_what_one_may_pull(server: RegistryServer) -> None:
    answer = ask(server, "GET", "/v2/_catalog", basic("bob", "bob-pw"))
    assert answer.json()["repositories"] == ["public/app", "team/bob"]


def test_mount_needs_the_right_to_pull_from_the_source(server: RegistryServer) -> None:
    manifest = ask(server, "GET", "/v2/private/app/manifests/v1", basic("alice", "alice-pw")).json()
    layer = manifest["layers"][0]["digest"]
    path = f"/v2/team/bob/blobs/uploads/?mount={layer}&from=private/app"
    assert ask(server, "POST", path, basic("bob", "bob-pw")).status == 202
    assert ask(server, "HEAD", f"/v2/team/bob/blobs/{layer}", basic("bob", "bob-pw")).status == 404
    assert ask(server, "POST", path, basic("alice", "alice-pw")).status == 201


def test_upload_of_another_user_is_not_there(server: RegistryServer) -> None:
    begun = ask(server, "POST", "/v2/team/bob/blobs/uploads/", basic("bob", "bob-pw"))
    location = begun.headers["location"]
    assert ask(server, "PATCH", location, basic("alice", "alice-pw"), b"x").status == 404
    assert ask(server, "PATCH", location, basic("bob", "bob-pw"), b"x").status == 202


def test_changed_password_file_counts_at_once(tmp_path: Path) -> None:
    path = htpasswd(tmp_path)
    config = f'[auth]\nhtpasswd = "{path}"\n'
    with RegistryServer(tmp_path / "registry", config=config) as server:
        for _ in range(2):  # the second is remembered
            assert ask(server, "GET", "/v2/", basic("bob", "bob-pw")).status == 200
        path.write_text(f"bob:{bcrypt.hashpw(b'new', bcrypt.gensalt(4)).decode()}\n")
        assert ask(server, "GET", "/v2/", basic("bob", "bob-pw")).status == 401
        assert ask(server, "GET", "/v2/", basic("bob", "new")).status == 200


@pytest.fixture(scope="module")
def issuing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry that issues tokens and believes one other issuer's key."""
    place = tmp_path_factory.mktemp("tokens")
    private_key(place / "own.pem")
    other = private_key(place / "other.pem")
    (place / "trusted.pem").write_bytes(
        other.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    config = f"""
[auth]
htpasswd = "{htpasswd(place)}"
[auth.token]
issuer = "the issuer"
service = "the registry"
realm = "http://127.0.0.1/token"
keys = ["{place}/trusted.pem"]
signing-key = "{place}/own.pem"
{RULES}"""
    with RegistryServer(place / "registry", config=config) as server:
        yield server


def token(server: RegistryServer, scope: str, headers: dict[str, str]) -> dict[str, str]:
    answer = ask(server, "GET", f"/token?service=the%20registry&scope={scope}", headers)
    assert answer.status == 200, answer.body
    return {"Authorization": "Bearer " + answer.json()["token"]}


def test_token_flow(issuing: RegistryServer) -> None:
    path = "/v2/private/app/blobs/uploads/"
    refused = ask(issuing, "POST", path, {})
    challenge = refused.headers["www-authenticate"]
    assert refused.status == 401
    assert dict(re.findall(r'(\w+)="([^"]*)"', challenge)) == {
        "realm": "http://127.0.0.1/token",
        "service": "the registry",
        "scope": "repository:private/app:pull,push",
    }
    allowed = token(issuing, "repository:private/app:pull,push", basic("alice", "alice-pw"))
    assert ask(issuing, "POST", path, allowed).status == 202
    assert ask(issuing, "GET", "/v2/", allowed).status == 200
    elsewhere = ask(issuing, "POST", "/v2/private/other/blobs/uploads/", allowed)
    assert elsewhere.status == 401
    assert 'error="insufficient_scope"' in elsewhere.headers["www-authenticate"]


def test_token_grants_only_what_the_rules_allow(issuing: RegistryServer) -> None:
    pull = token(issuing, "repository:team/bob:pull,push,delete", basic("bob", "bob-pw"))
    claims = jwt.decode(pull["Authorization"][7:], options={"verify_signature": False})
    assert claims["access"] == [
        {"type": "repository", "name": "team/bob", "actions": ["pull", "push"]}
    ]
    nobody = token(issuing, "repository:private/app:pull", {})
    assert ask(issuing, "GET", "/v2/private/app/tags/list", nobody).status == 401
    public = token(issuing, "repository:public/x:pull,push", {})
    assert ask(issuing, "GET", "/v2/public/x/tags/list", public).status == 404
    assert ask(issuing, "POST", "/v2/public/x/blobs/uploads/", public).status == 401


def test_metrics_take_a_password_where_the_rest_takes_tokens(issuing: RegistryServer) -> None:
    nobody = ask(issuing, "GET", "/metrics", {})
    assert nobody.status == 401
    assert nobody.headers["www-authenticate"].startswith("Basic ")
    assert ask(issuing, "GET", "/metrics", basic("bob", "bob-pw")).status == 403
    assert ask(issuing, "GET", "/metrics", basic("alice", "alice-pw")).status == 200


def test_token_service_refuses_a_wrong_password(issuing: RegistryServer) -> None:
    answer = ask(issuing, "GET", "/token?service=the%20registry", basic("alice", "wrong"))
    assert (answer.status, answer.code()) == (401, "UNAUTHORIZED")
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert ask(issuing, "GET", "/v2/", basic("alice", "alice-pw")).status == 401


def test_tokens_that_are_not_believed(issuing: RegistryServer, tmp_path: Path) -> None:
    place = issuing.root.parent
    now = int(time.time())
    good: dict[str, Any] = {
        "iss": "the issuer",
        "aud": "the registry",
        "sub": "ci",
        "exp": now + 60,
        "access": [{"type": "repository", "name": "private/app", "actions": ["pull", "push"]}],
    }
    trusted = (place / "other.pem").read_bytes()
    public = (place / "trusted.pem").read_bytes()
    stranger = private_key(tmp_path / "stranger.pem")

    def status(claims: dict[str, Any], key: Any, algorithm: str, **headers: Any) -> int:
        made = jwt.encode(claims, key, algorithm=algorithm, headers=headers)
        bearer = {"Authorization": f"Bearer {made}"}
        answer = ask(issuing, "POST", "/v2/private/app/blobs/uploads/", bearer)
        if answer.status == 401:
            assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        return int(answer.status)

    assert status(good, trusted, "ES256") == 202
    assert status({**good, "exp": now - 120}, trusted, "ES256") == 401
    assert status({**good, "nbf": now + 120}, trusted, "ES256") == 401
    assert status({**good, "iss": "other"}, trusted, "ES256") == 401
    assert status({**good, "aud": "other"}, trusted, "ES256") == 401
    assert status({k: v for k, v in good.items() if k != "exp"}, trusted, "ES256") == 401
    assert status({**good, "exp": "never"}, trusted, "ES256") == 401
    assert status(good, None, "none") == 401
    jwk = jwt.algorithms.ECAlgorithm.to_jwk(stranger.public_key(), as_dict=True)
    assert status(good, stranger, "ES256", jwk=jwk) == 401
    forged = base64.urlsafe_b64encode(public).decode()
    assert status(good, forged * 2, "HS256") == 401
    garbage = {"Authorization": "Bearer " + "x" * 20_000}
    assert ask(issuing, "GET", "/v2/", garbage).status == 401


def test_read_only_registry_takes_nothing(tmp_path: Path) -> None:
    with RegistryServer(tmp_path / "registry") as server:
        server.client().push_image("r", "v1", b"x")
    with RegistryServer(tmp_path / "registry", flags=("--read-only",)) as server:
        client = server.client()
        assert client("GET", "/v2/r/manifests/v1").status == 200
        for method, path in (
            ("POST", "/v2/r/blobs/uploads/"),
            ("PUT", "/v2/r/manifests/v2"),
            ("DELETE", "/v2/r/manifests/v1"),
        ):
            answer = client(method, path)
            assert (answer.status, answer.code()) == (405, "UNSUPPORTED")


@pytest.mark.tool("openssl")
def test_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
    )
    config = f'[http]\ntls-certificate = "{certificate}"\ntls-key = "{key}"\n'
    with RegistryServer(tmp_path / "registry", config=config) as server:
        assert server.scheme == "https"
        context = ssl.create_default_context(cafile=str(certificate))
        with urlopen(Request(f"https://{server.host}/v2/"), context=context) as answer:
            assert answer.status == 200
