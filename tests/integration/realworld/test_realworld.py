# SPDX-License-Identifier: Apache-2.0
"""Dockerfiles of the common kinds: built, run, asked something, stopped.

The base is made from the distribution's packages; every Dockerfile installs what it needs from the
package mirror, PyPI or npm, as its author would write it. All share one store.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

import pytest

from lamina.testing.command import Lamina
from lamina.testing.waiting import wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.tool("crun", "mmdebstrap", "nft", "ip"),
]

T = TypeVar("T")
HERE = Path(__file__).parent
USER, PASSWORD, TOKEN = (
    "reader",
    "pw-9f3b1c77d2aa",
    "tok-5e81f0b4c6d93377",
)  # of a private package index


@pytest.fixture
def image(debian_store: Path) -> Callable[[str], tuple[Lamina, str]]:
    """Build the example of a name; the command and the image's name."""

    def build(name: str) -> tuple[Lamina, str]:
        lamina = Lamina(debian_store, HERE)
        bundle = os.environ.get("SSL_CERT_FILE", "")
        flags = ["--ca-bundle", bundle] if bundle else []
        lamina("build", "--progress=plain", *flags, "-t", f"real-{name}", str(HERE / name))
        return lamina, f"real-{name}"

    return build


@pytest.fixture
def started(
    image: Callable[[str], tuple[Lamina, str]],
) -> Iterator[Callable[[str, int], tuple[Lamina, str, str]]]:
    """Build and start the example of a name; the command, the container and its address."""
    running: list[tuple[Lamina, str]] = []

    def start(name: str, port: int) -> tuple[Lamina, str, str]:
        lamina, tag = image(name)
        container = lamina("run", "-d", "-p", f"127.0.0.1::{port}", tag).stdout.strip()
        running.append((lamina, container))
        address = lamina("port", container, str(port)).stdout.strip()
        return lamina, container, address

    yield start
    for lamina, container in running:
        lamina("rm", "-f", "-v", container)


def fetch(lamina: Lamina, container: str, url: str) -> str:
    """The page, as soon as the server answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def page() -> str:
        try:
            with opener.open(url, timeout=5) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            return ""

    return answered(lamina, container, page)


def answered(lamina: Lamina, container: str, ask: Callable[[], T]) -> T:
    """What is answered, as soon as there is an answer; the logs if there is none."""
    try:
        return wait_until(ask, "an answer", pause=0.1)
    except AssertionError as error:
        logs = lamina("logs", container)
        raise AssertionError(f"no answer\n{logs.stdout}{logs.stderr}") from error


def stop(lamina: Lamina, container: str) -> str:
    """Stop it as Docker does; its exit status."""
    lamina("stop", container)
    return lamina("inspect", "--format", "{{.State.ExitCode}}", container).stdout.strip()


Start = Callable[[str, int], tuple[Lamina, str, str]]


def test_flask_with_gunicorn_in_a_venv(started: Start) -> None:
    lamina, container, address = started("flask", 8000)
    page = fetch(lamina, container, f"http://{address}/hello/world")
    assert page.startswith("hello world from uid ")
    assert page != "hello world from uid 0\n"
    assert stop(lamina, container) == "0"


def test_express_with_npm(started: Start) -> None:
    lamina, container, address = started("express", 8000)
    page = fetch(lamina, container, f"http://{address}/hello/world")
    assert page == "hello world from uid 65534\n"
    assert stop(lamina, container) == "0"


def test_nginx_serves_a_static_site(started: Start) -> None:
    lamina, container, address = started("nginx", 80)
    assert fetch(lamina, container, f"http://{address}/hello/") == "hello from a static site\n"
    assert "GET /hello/" in lamina("logs", container).stdout
    assert stop(lamina, container) == "0"


def test_postgres_filled_by_a_step_and_run_as_its_user(started: Start) -> None:
    lamina, container, _ = started("postgres", 5432)
    ready = ("exec", container, "pg_isready", "-q", "-t", "60")
    answered(lamina, container, lambda: lamina(*ready, check=False).returncode == 0)
    query = "SELECT words, current_user FROM greeting WHERE name = 'world'"
    answer = lamina("exec", container, "psql", "-At", "-c", query)
    assert answer.stdout == "hello world|postgres\n"
    assert stop(lamina, container) == "0"


def test_static_c_program_from_scratch(image: Callable[[str], tuple[Lamina, str]]) -> None:
    lamina, tag = image("c-static")
    assert lamina("run", "--rm", tag).stdout == "hello world from uid 1000\n"
    assert lamina("run", "--rm", tag, "you").stdout == "hello you from uid 1000\n"


def test_go_server_alone_in_an_image(started: Start) -> None:
    lamina, container, address = started("go", 8080)
    assert fetch(lamina, container, f"http://{address}/") == "go dev for uid 65532\n"
    assert lamina("exec", container, "/bin/sh", check=False).returncode == 127
    assert stop(lamina, container) == "0"


def test_redis_from_source(started: Start) -> None:
    lamina, container, _ = started("redis", 6379)
    ask = ("exec", container, "redis-cli")
    answered(lamina, container, lambda: lamina(*ask, "ping", check=False).stdout == "PONG\n")
    assert lamina(*ask, "set", "hello", "world").stdout == "OK\n"
    assert lamina(*ask, "get", "hello").stdout == "world\n"
    assert stop(lamina, container) == "0"


def built(lamina: Lamina, place: Path, name: str, *flags: str) -> str:
    """Build the example at `place`; what was shown."""
    bundle = os.environ.get("SSL_CERT_FILE", "")
    trust = ["--ca-bundle", bundle] if bundle else []
    command = ("build", "--progress=plain", *trust, *flags, "-t", name, str(place))
    found = lamina(*command)
    return found.stdout + found.stderr


def test_packages_are_downloaded_once(debian_store: Path, tmp_path: Path) -> None:
    lamina = Lamina(debian_store, HERE)
    place = tmp_path / "caches"
    shutil.copytree(HERE / "caches", place)
    first = built(lamina, place, "real-caches")
    assert "already downloaded" not in first
    (place / "requirements.txt").write_text("idna==3.10\niniconfig==2.0.0\n")
    second = built(lamina, place, "real-caches")
    assert "File was already downloaded /wheels/idna-3.10" in second
    assert "already downloaded /wheels/iniconfig" not in second
    assert "apt-get" not in second.split("pip download", 1)[1]
    third = built(lamina, place, "real-caches", "--build-arg", "ROUND=2")
    assert "Need to get 0 B/" in third
    assert "File was already downloaded /wheels/iniconfig-2.0.0" in third
    assert lamina("run", "--rm", "real-caches").stdout == "xn--strae-oqa\n"
    look = (
        "sh",
        "-c",
        "ls -A /var/cache/apt /var/lib/apt /wheels 2>/dev/null | grep -cE 'deb|whl'",
    )
    assert lamina("run", "--rm", "real-caches", *look, check=False).stdout == "0\n"


class _Private(BaseHTTPRequestHandler):
    """Answers who knows the password or the token."""

    def do_GET(self) -> None:
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        wanted = f"Bearer {TOKEN}" if self.path == "/private/variable" else basic
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="private"')
            self.end_headers()
            return
        body = f"content of {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def private_port() -> Iterator[int]:
    """Where a server of private packages listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Private) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_secrets_of_a_private_index_stay_out(
    debian_store: Path, tmp_path: Path, private_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVATE_TOKEN", TOKEN)
    lamina = Lamina(debian_store, HERE)
    login = tmp_path / "login"
    machine = f"machine http://127.0.0.1:{private_port} login {USER} password {PASSWORD}\n"
    login.write_text(machine)
    flags = ["--allow=network.host", f"--build-arg=PORT={private_port}"]
    flags += [f"--secret=id=login,src={login}", "--secret=id=token,env=PRIVATE_TOKEN"]
    flags += [f"--metadata-file={tmp_path / 'metadata'}"]
    shown = built(lamina, HERE / "secrets", "real-secrets", *flags)
    assert lamina("run", "--rm", "real-secrets").stdout == (
        "content of /private/file\ncontent of /private/variable\n"
    )
    assert "asked with ***" in shown
    shown += lamina("history", "--no-trunc", "real-secrets").stdout
    shown += lamina("inspect", "real-secrets").stdout
    shown += (tmp_path / "metadata").read_text()
    lamina("save", "-o", str(tmp_path / "image.tar"), "real-secrets")
    output = ("build", "-o", str(tmp_path / "tree"), *flags, str(HERE / "secrets"))
    shown += lamina(*output).stderr
    for secret in (PASSWORD, TOKEN):
        assert secret not in shown
        for place in (debian_store, tmp_path / "tree"):
            search = ["grep", "-rlFa", "--exclude-dir=proc", secret, str(place)]
            found = subprocess.run(search, capture_output=True, text=True, check=False)
            assert not found.stdout, f"a secret is in {found.stdout}"
            # other tests share the store: what they remove meanwhile cannot be searched
            strange = [line for line in found.stderr.splitlines() if "No such file" not in line]
            assert strange == []
