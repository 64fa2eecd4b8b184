# SPDX-License-Identifier: Apache-2.0
"""skopeo, buildah, podman and lamina's own client with passwords, tokens and TLS; whole indexes."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from lamina.spec import mediatype
from lamina.testing.busybox import IMAGE, make_image
from lamina.testing.command import Lamina
from lamina.testing.registry import RegistryServer
from lamina.testing.registry_sample import push_index

pytestmark = [pytest.mark.root, pytest.mark.tool("skopeo", "buildah", "podman", "openssl")]

USER, PASSWORD = "alice", "correct horse"


def run(*words: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 0, f"{words}\n{done.stderr}"
    return done.stdout


def certificate(place: Path) -> Path:
    """`cert.pem` and `key.pem` for 127.0.0.1 in the directory, and it as a certs.d of `ca.crt`."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", str(place / "key.pem"), "-out", str(place / "cert.pem")),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    (place / "certs").mkdir()
    shutil.copy(place / "cert.pem", place / "certs" / "ca.crt")
    return place / "certs"


class Guarded:
    """A registry with TLS and a user, and the archive of an image to push."""

    def __init__(self, server: RegistryServer, place: Path, *, tokens: bool) -> None:
        self.server = server
        self.tokens = tokens
        self.certs = place / "certs"
        self.place = place
        self.archive = place / "image.tar"

    def name(self, repository: str) -> str:
        return f"{self.server.host}/{repository}:v1"


@pytest.fixture(scope="module", params=["passwords", "tokens"])
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    place = tmp_path_factory.mktemp("guarded")
    certificate(place)
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (place / "users").write_text(f"{USER}:{hashed}\n")
    text = f'[auth]\nhtpasswd = "{place}/users"\n'
    if request.param == "tokens":
        # the realm names the port, so it is chosen before the server starts
        port = _free_port()
        text += (
            f'[auth.token]\nissuer = "i"\nservice = "s"\nsigning-key = "{place}/key.pem"\n'
            f'realm = "https://127.0.0.1:{port}/token"\n'
        )
    text = f'[http]\ntls-certificate = "{place}/cert.pem"\ntls-key = "{place}/key.pem"\n{text}'
    server = RegistryServer(place / "registry", config=text)
    if request.param == "tokens":
        server.port = port
    make_image(str(place / "store"))
    lamina = Lamina(place / "store", place)
    lamina("save", "-o", str(place / "image.tar"), "--format", "oci-archive", IMAGE)
    with server:
        yield Guarded(server, place, tokens=request.param == "tokens")


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_skopeo(guarded: Guarded, tmp_path: Path) -> None:
    name = f"docker://{guarded.name('skopeo/a')}"
    creds, certs = f"{USER}:{PASSWORD}", str(guarded.certs)
    to = ("--dest-creds", creds, "--dest-cert-dir", certs)
    run("skopeo", "copy", "-q", *to, f"oci-archive:{guarded.archive}", name)
    back = ("--src-creds", creds, "--src-cert-dir", certs)
    run("skopeo", "copy", "-q", *back, name, f"oci:{tmp_path / 'back'}")
    done = subprocess.run(
        ["skopeo", "inspect", "--creds", f"{USER}:wrong", "--cert-dir", certs, name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0


def test_buildah_or_podman(guarded: Guarded, tmp_path: Path) -> None:
    """One with passwords, the other with tokens: they share the code that talks to registries."""
    program = "podman" if guarded.tokens else "buildah"
    runroot = tempfile.mkdtemp(prefix="r")  # podman takes 50 characters at most
    store = ["--root", str(tmp_path / "s"), "--runroot", runroot, "--storage-driver", "vfs"]
    call = [program, *store]
    name = guarded.name(f"{program}/a")
    access = ["--cert-dir", str(guarded.certs), "--creds", f"{USER}:{PASSWORD}"]
    try:
        loaded = run(*call, "pull", "-q", f"oci-archive:{guarded.archive}").strip().splitlines()[-1]
        run(*call, "push", "-q", *access, loaded, f"docker://{name}")
        run(*call, "rmi", "-f", loaded)
        pulled = run(*call, "pull", "-q", *access, f"docker://{name}").strip().splitlines()[-1]
        assert pulled == loaded
    finally:
        subprocess.run([*call, "rmi", "-af"], capture_output=True, check=False)
        shutil.rmtree(runroot, ignore_errors=True)


def test_lamina_itself(guarded: Guarded, tmp_path: Path) -> None:
    """Where there is a token service, `login` keeps a refresh token and not the password."""
    host, name = guarded.server.host, guarded.name("lamina/a")
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    shutil.copytree(guarded.certs, tmp_path / "config" / "containers" / "certs.d" / host)
    lamina = Lamina(guarded.place / "store", tmp_path)
    other = {**home, "LAMINA_ROOT": str(tmp_path / "other")}
    lamina("tag", IMAGE, name)
    assert lamina("push", name, env=home, check=False).returncode == 5
    words = ("login", "-u", USER, "--password-stdin", host)
    assert lamina(*words, env=home, stdin=b"wrong", check=False).returncode == 5
    lamina(*words, env=home, stdin=PASSWORD.encode())
    lamina("push", name, env=home)
    lamina("pull", name, env=other)
    assert lamina("tags", name.rpartition(":")[0], env=home).stdout == "v1\n"
    kept = json.loads((tmp_path / ".docker" / "config.json").read_text())["auths"][host]
    password = PASSWORD in base64.b64decode(kept["auth"]).decode()
    assert password is not guarded.tokens
    assert bool(kept.get("identitytoken")) is guarded.tokens


def test_whole_index_and_schema_2(shared: RegistryServer, repository: str, tmp_path: Path) -> None:
    """All platforms both ways; the digest stays, and schema 2 comes out where it is asked for."""
    client = shared.client()
    index = push_index(client, f"{repository}/from", "v1")
    source = f"docker://{shared.host}/{repository}/from:v1"
    target = f"docker://{shared.host}/{repository}/to:v1"
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
    run("skopeo", "copy", "-q", "--all", "--preserve-digests", *plain, source, target)
    copied = client("GET", f"/v2/{repository}/to/manifests/v1")
    assert copied.headers["docker-content-digest"] == index["digest"]
    run("skopeo", "copy", "-q", "--all", *plain[:1], target, f"dir:{tmp_path / 'all'}")
    old = f"docker://{shared.host}/{repository}/old:v1"
    run("skopeo", "copy", "-q", "--multi-arch", "system", "-f", "v2s2", *plain, source, old)
    found = client("GET", f"/v2/{repository}/old/manifests/v1")
    assert found.headers["content-type"] == mediatype.DOCKER_MANIFEST
    assert json.loads(found.body)["config"]["mediaType"] == mediatype.DOCKER_CONFIG
