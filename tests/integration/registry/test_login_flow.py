# SPDX-License-Identifier: Apache-2.0
"""Passwords and tokens: who gets them, and who does not."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from pathlib import Path

import pytest

from lamina.app.registries import connect
from lamina.app.settings import Settings
from lamina.errors import Kind, LaminaError
from lamina.image.names import set_names
from lamina.registry.client import Registries
from lamina.spec.reference import Reference
from lamina.store import LocalStore
from lamina.tasks import CancelToken
from lamina.testing.command import Lamina
from lamina.testing.fakeregistry import FakeRegistry, TokenServer
from lamina.testing.images import ImageMaker
from lamina.testing.registries import distribution, image_in, pull, push


def log_in(home: dict[str, str], host: str, pair: str = "me:secret", **more: str) -> None:
    """Put credentials where `docker login` does."""
    entry = {"auth": base64.b64encode(pair.encode()).decode(), **more}
    place = Path(home["HOME"]) / ".docker"
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps({"auths": {host: entry}}))


def test_a_password_is_sent_only_when_asked_for(
    fake: FakeRegistry,
    store: LocalStore,
    other_store: LocalStore,
    registries: Registries,
    home: dict[str, str],
) -> None:
    image_in(fake, store, "open")
    log_in(home, fake.host)
    pull(other_store, registries, f"{fake.host}/open:1")
    assert not [seen for seen in fake.seen if seen.authorization]


def test_basic(
    fake: FakeRegistry,
    store: LocalStore,
    other_store: LocalStore,
    registries: Registries,
    home: dict[str, str],
) -> None:
    image_in(fake, store, "closed")
    fake.basic = "me:secret"
    with pytest.raises(LaminaError, match="UNAUTHORIZED") as caught:
        pull(other_store, registries, f"{fake.host}/closed:1")
    assert caught.value.kind is Kind.DENIED
    assert "lamina login" in caught.value.hint
    log_in(home, fake.host)
    pull(other_store, registries, f"{fake.host}/closed:1")


def test_tokens_are_asked_with_the_least_scope(
    fake: FakeRegistry,
    store: LocalStore,
    other_store: LocalStore,
    registries: Registries,
    home: dict[str, str],
) -> None:
    manifest = image_in(fake, store, "a/app")
    log_in(home, fake.host)
    with TokenServer(fake, account="me:secret") as tokens:
        pull(other_store, registries, f"{fake.host}/a/app:1")
        assert tokens.scopes == [["repository:a/app:pull"]]
        fake.repository_blobs.add(("a/app", str(manifest.layers[0].digest)))
        target = other_store.metadata.list_names()[0].target
        with other_store.lease("test"):
            set_names(other_store, [f"{fake.host}/b/app:1"], target)
        done = push(other_store, registries, f"{fake.host}/b/app:1")
        assert done.mounted == 1
        assert ["repository:b/app:pull,push"] in tokens.scopes
        assert ["repository:a/app:pull", "repository:b/app:pull,push"] in tokens.scopes
        assert all(given.startswith("Basic ") for given in tokens.authorizations)


def test_anonymous_tokens(
    fake: FakeRegistry, store: LocalStore, other_store: LocalStore, registries: Registries
) -> None:
    image_in(fake, store, "public")
    with TokenServer(fake) as tokens:
        pull(other_store, registries, f"{fake.host}/public:1")
        assert tokens.authorizations == [""]


def test_a_token_that_expired_is_replaced(
    fake: FakeRegistry, store: LocalStore, other_store: LocalStore, registries: Registries
) -> None:
    image_in(fake, store, "short")
    with TokenServer(fake) as tokens:
        repository = registries.repository(Reference.parse(f"{fake.host}/short:1"))
        repository.resolve("1")
        fake.tokens.clear()  # revoked before its time
        repository.resolve("1")
        assert len(tokens.scopes) == 2


def test_an_identity_token_is_exchanged(
    fake: FakeRegistry,
    store: LocalStore,
    other_store: LocalStore,
    registries: Registries,
    home: dict[str, str],
) -> None:
    image_in(fake, store, "id")
    log_in(home, fake.host, "me:", identitytoken="refresh-me")
    with TokenServer(fake, refresh="refresh-me") as tokens:
        pull(other_store, registries, f"{fake.host}/id:1")
        assert tokens.bodies[0]["refresh_token"] == "refresh-me"
        assert tokens.bodies[0]["scope"] == "repository:id:pull"


def test_a_refresh_token_that_was_replaced_is_not_used_again(
    fake: FakeRegistry, store: LocalStore, registries: Registries, home: dict[str, str]
) -> None:
    image_in(fake, store, "turn")
    log_in(home, fake.host, "me:", identitytoken="once")
    repository = registries.repository(Reference.parse(f"{fake.host}/turn:1"))
    with TokenServer(fake, refresh="once") as tokens:
        tokens.rotates = True
        for _ in range(3):
            repository.resolve("1")
            fake.tokens.clear()  # the next request needs a new token
        assert [body["refresh_token"] for body in tokens.bodies] == ["once", "once+", "once++"]


def test_no_credentials_cross_a_redirect(
    fake: FakeRegistry,
    store: LocalStore,
    other_store: LocalStore,
    registries: Registries,
    home: dict[str, str],
) -> None:
    image_in(fake, store, "moved")
    log_in(home, fake.host)
    fake.basic = "me:secret"
    with FakeRegistry() as elsewhere:
        elsewhere.blobs = fake.blobs
        fake.redirect_blobs = f"http://{elsewhere.host}"
        pull(other_store, registries, f"{fake.host}/moved:1")
        assert elsewhere.requests("GET", "blobs")
        assert not [seen for seen in elsewhere.seen if seen.authorization]


def test_a_foreign_realm_gets_no_password(
    fake: FakeRegistry, other_store: LocalStore, registries: Registries, home: dict[str, str]
) -> None:
    log_in(home, fake.host)
    fake.realm = "https://tokens.example.net/token"
    with pytest.raises(LaminaError, match="no password was sent") as caught:
        pull(other_store, registries, f"{fake.host}/x:1")
    assert caught.value.kind is Kind.DENIED


def test_a_refresh_token_is_kept_in_place_of_the_password(
    fake: FakeRegistry, command: Lamina, home: dict[str, str]
) -> None:
    with TokenServer(fake, account="me:secret", refresh="refresh-me"):
        wrong = command(
            "login", "-u", "me", "--password-stdin", fake.host, stdin=b"bad\n", check=False
        )
        assert wrong.returncode == 5
        assert "incorrect username or password" in wrong.stderr
        assert not (Path(home["HOME"]) / ".docker/config.json").exists()
        command("login", "-u", "me", "--password-stdin", fake.host, stdin=b"secret\n")
    kept = json.loads((Path(home["HOME"]) / ".docker/config.json").read_text())
    assert kept["auths"][fake.host]["identitytoken"] == "refresh-me"
    assert "secret" not in base64.b64decode(kept["auths"][fake.host]["auth"]).decode()
    done = command("logout", fake.host)
    assert "Removing login credentials" in done.stdout


@pytest.mark.tool("docker-registry", "htpasswd", "openssl")
def test_htpasswd_and_tls(
    store: LocalStore, command: Lamina, home: dict[str, str], tmp_path: Path
) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{tmp_path}/key.pem"),
            *("-out", f"{tmp_path}/ca.pem", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    users = subprocess.run(
        ["htpasswd", "-Bbn", "me", "secret"], check=True, capture_output=True
    ).stdout
    (tmp_path / "users").write_bytes(users)
    tls = f", tls: {{certificate: {tmp_path}/ca.pem, key: {tmp_path}/key.pem}}"
    auth = f"auth: {{htpasswd: {{realm: r, path: {tmp_path}/users}}}}\n"
    with distribution(tmp_path / "registry", http=tls, auth=auth) as running:
        name = f"{running.host}/app:1"
        ImageMaker(store)("content", name)
        place = Path(home["HOME"]) / ".config/containers/certs.d" / running.host
        place.mkdir(parents=True)
        (place / "ca.crt").write_bytes((tmp_path / "ca.pem").read_bytes())
        denied = command("push", name, check=False)
        assert denied.returncode == 5
        assert "UNAUTHORIZED" in denied.stderr
        wrong = command("login", "-u", "me", "-p", "bad", running.host, check=False)
        assert wrong.returncode == 5
        done = command("login", "-u", "me", "--password-stdin", running.host, stdin=b"secret")
        assert "Login Succeeded" in done.stdout
        command("push", name)
        command("pull", name, env={"LAMINA_ROOT": str(tmp_path / "third")})
        # another CA than the server's: the host has a CA file, so it is verified
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x",
                        "-keyout", "/dev/null", "-out", str(place / "ca.crt")],
                       check=True, capture_output=True)  # fmt: skip
        done = command("pull", name, env={"LAMINA_ROOT": str(tmp_path / "fourth")}, check=False)
        assert done.returncode == 7


def test_the_clock_decides_when_a_token_ends(
    fake: FakeRegistry, store: LocalStore, other_store: LocalStore, home: dict[str, str]
) -> None:
    image_in(fake, store, "clock")
    now = [time.time()]
    found = connect(home, uid=1000, settings=Settings(), clock=lambda: now[0], cancel=CancelToken())
    with TokenServer(fake) as tokens:
        repository = found.repository(Reference.parse(f"{fake.host}/clock:1"))
        repository.resolve("1")
        repository.resolve("1")
        assert len(tokens.scopes) == 1
        now[0] += 400
        repository.resolve("1")
        assert len(tokens.scopes) == 2
    found.close()
