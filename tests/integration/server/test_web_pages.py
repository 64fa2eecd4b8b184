# SPDX-License-Identifier: Apache-2.0
"""The web page's answers: what is on them, who sees what, and what a browser is told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from lamina.spec import mediatype
from lamina.testing.registry import Answer, RegistryClient, RegistryServer
from lamina.testing.registry_sample import (
    config,
    descriptor,
    push_document,
    push_index,
    push_platform,
)

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


def text_of(answer: Answer) -> str:
    """What is read: without tags, entities decoded."""
    return unescape(re.sub(r"<[^>]+>", " ", answer.body.decode()))


def links(answer: Answer) -> list[str]:
    return [unescape(found) for found in re.findall(r'href="([^"]*)"', answer.body.decode())]


def test_empty_registry_says_how_to_push(registry: RegistryServer) -> None:
    page = registry.client()("GET", "/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert f"lamina push IMAGE {registry.host}/NAME:TAG" in text_of(page)


def test_a_browser_is_told_to_run_nothing(client: RegistryClient) -> None:
    for path in ("/", "/repositories/none", "/assets/page.js", "/assets/style.css"):
        answer = client("GET", path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_pages_hold_no_inline_code(client: RegistryClient, repository: str) -> None:
    push_index(client, repository, "v1")
    for path in ("/", f"/repositories/{repository}", f"/images/{repository}:v1"):
        body = client("GET", path).body.decode()
        assert re.findall(r"<script[^>]*>", body) == ['<script src="/assets/page.js" defer>']
        assert not re.search(r"<[^>]* (?:on\w+|style)=", body)


def test_list_counts_sizes_and_links(registry: RegistryServer) -> None:
    client = registry.client()
    client.push_image("team/app", "v1", b"x" * 5000)
    client.push_image("team/app", "v2", b"x" * 5000)
    page = client("GET", "/")
    assert "/repositories/team/app" in links(page)
    text = " ".join(text_of(page).split())
    assert "1 repository" in text
    assert re.search(r"team/app Tags 2 Size 5\.\d+ kB Last push just now", text)


def test_list_is_searched_and_paged(registry: RegistryServer) -> None:
    client = registry.client()
    _, document = client.push_image("seed", "v1", b"x")
    blobs = [document["config"]["digest"], document["layers"][0]["digest"]]
    for number in range(120):
        name = f"many/r{number:03}"
        for blob in blobs:
            assert client("POST", f"/v2/{name}/blobs/uploads/?mount={blob}&from=seed").status == 201
        client.push_manifest(name, "v1", document)
    first = client("GET", "/?q=many")
    assert "120 repositories with “many”, page 1 of 3" in text_of(first)
    assert len([x for x in links(first) if x.startswith("/repositories/")]) == 50
    (following,) = re.findall(r'href="([^"]*)" rel="next"', first.body.decode())
    second = client("GET", unescape(following))
    assert "/repositories/many/r050" in links(second)
    assert "/repositories/many/r049" not in links(second)
    assert "No repository here has “zzz”" in text_of(client("GET", "/?q=zzz"))
    assert "121 repositories" in text_of(client("GET", "/"))


def test_tags_are_newest_first_or_by_name(client: RegistryClient, repository: str) -> None:
    for tag in ("b", "a", "c"):
        client.push_image(repository, tag, tag.encode())

    def order(query: str) -> list[str]:
        page = client("GET", f"/repositories/{repository}{query}")
        assert page.status == 200
        return [x[-1] for x in links(page) if x.startswith(f"/images/{repository}:")]

    assert order("") == ["c", "a", "b"]
    assert order("?sort=name") == ["a", "b", "c"]
    assert order("?q=b") == ["b"]


def test_image_shows_what_a_pull_gives(client: RegistryClient, repository: str) -> None:
    index = push_index(client, repository, "v1")
    page = client("GET", f"/images/{repository}:v1")
    text = " ".join(text_of(page).split())
    for expected in (
        index["digest"],
        "linux/amd64",
        "linux/arm64",
        "RUN apt-get update && apt-get install -y libpq5",
        'Entrypoint ["python", "-m", "payments"]',
        "User app",
        "8000/tcp",
        "PYTHONUNBUFFERED",
        "Payments API",
        "https://spdx.dev/Document",
        "application/vnd.dev.sigstore.bundle.v0.3+json",
        f"lamina pull 127.0.0.1:{client.connection.port}/{repository}:v1",
        f"/{repository}@{index['digest']}",
    ):
        assert expected in text
    assert "https://git.example/team/payments" in links(page)
    assert "linux/unknown" not in text


def test_another_platform_is_chosen_by_link(client: RegistryClient, repository: str) -> None:
    push_index(client, repository, "v1")
    page = client("GET", f"/images/{repository}:v1")
    choices = [x for x in links(page) if "?manifest=" in x]
    assert len(choices) == 2
    other = client("GET", choices[1])
    assert re.search(r'aria-current="true">linux/arm64<', other.body.decode())
    assert '"architecture": "arm64"' in text_of(other)
    digest = "sha256:" + "0" * 64
    assert client("GET", f"/images/{repository}:v1?manifest={digest}").status == 404


def test_hostile_labels_names_and_commands_are_text(
    client: RegistryClient, repository: str
) -> None:
    image = config("amd64", labels={EVIL: EVIL, "link": "javascript:alert(1)", "bidi": "a\u202eb"})
    image["config"]["Env"] = [f"X={EVIL}"]
    image["config"]["User"] = EVIL
    image["config"]["Cmd"] = [EVIL]
    image["author"] = EVIL
    image["history"][2]["created_by"] = EVIL * 20
    push_platform(client, repository, image, tag="v1", annotations={EVIL: EVIL})
    page = client("GET", f"/images/{repository}:v1")
    assert page.status == 200
    body = page.body.decode()
    assert "<script>alert" not in body
    assert "<img" not in body
    assert not any(found.startswith("javascript:") for found in links(page))
    assert "a\\u202eb" in body
    assert EVIL in text_of(page) or "alert(1)" in text_of(page)


@pytest.mark.parametrize(
    "path", ["/?q={}", "/repositories/none?q={}", "/?page={}", "/images/{}:v1"]
)
def test_what_is_asked_is_text_too(client: RegistryClient, path: str) -> None:
    quoted = "%22%3E%3Cscript%3Ealert(1)%3C/script%3E"
    body = client("GET", path.format(quoted)).body.decode()
    assert "<script>alert" not in body


def test_a_hostile_host_header_is_not_repeated(client: RegistryClient) -> None:
    body = client("GET", "/", headers={"Host": 'x"><script>alert(1)</script>'}).body.decode()
    assert "alert" not in body


def test_artifacts_and_broken_configs_have_pages(client: RegistryClient, repository: str) -> None:
    blob = client.push_blob(repository, b"not json")
    title = {"org.opencontainers.image.title": "model.bin"}
    artifact: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "artifactType": "application/vnd.model",
        "config": descriptor(mediatype.OCI_EMPTY, blob, 8),
        "layers": [descriptor("application/octet-stream", blob, 8, annotations=title)],
    }
    push_document(client, repository, artifact, tag="model")
    text = text_of(client("GET", f"/images/{repository}:model"))
    assert "application/vnd.model" in text
    assert "model.bin" in text
    broken = {**artifact, "config": descriptor(mediatype.OCI_CONFIG, blob, 8)}
    push_document(client, repository, broken, tag="broken")
    assert "cannot be read" in text_of(client("GET", f"/images/{repository}:broken"))
    client("DELETE", f"/v2/{repository}/blobs/{blob}")
    assert "does not hold" in text_of(client("GET", f"/images/{repository}:broken"))
    empty = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}
    push_document(client, repository, empty, tag="empty")
    assert client("GET", f"/images/{repository}:empty").status == 200
    listing = client("GET", f"/repositories/{repository}")
    assert "application/vnd.model" in text_of(listing)


def test_manifest_that_an_index_lost_is_named(client: RegistryClient, repository: str) -> None:
    push_index(client, repository, "v1")
    index = client("GET", f"/v2/{repository}/manifests/v1").json()
    lost = index["manifests"][0]["digest"]
    assert client("DELETE", f"/v2/{repository}/manifests/{lost}").status == 202
    assert f"no longer holds {lost}" in text_of(client("GET", f"/images/{repository}:v1"))


def push_note(client: RegistryClient, repository: str, subject: dict[str, Any], n: int) -> None:
    empty = descriptor(mediatype.OCI_EMPTY, client.push_blob(repository, b"{}"), 2)
    note = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "artifactType": "application/vnd.note",
        "config": empty,
        "layers": [],
        "subject": {key: subject[key] for key in ("mediaType", "digest", "size")},
        "annotations": {"number": str(n)},
    }
    push_document(client, repository, note)


def test_many_referrers_are_paged_and_none_is_lost(client: RegistryClient, repository: str) -> None:
    """Of the index and of the platform that is shown, whose pages end at different digests."""
    index = push_index(client, repository, "v1")
    platform = client("GET", f"/v2/{repository}/manifests/v1").json()["manifests"][0]
    for number in range(101):
        push_note(client, repository, index, number)
    for number in range(3):
        push_note(client, repository, platform, number)
    page = client("GET", f"/images/{repository}:v1")
    (following,) = [x for x in links(page) if "after=" in x]
    assert f"manifest={platform['digest'].replace(':', '%3A')}" in following
    seen = set()
    for answer in (page, client("GET", following)):
        text = answer.body.decode().partition('aria-label="Referrers"')[2].partition("</ul>")[0]
        seen |= set(re.findall(r'href="(/images/[^"]*)"', text))
    assert len(seen) == 105  # and the signature of the sample


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/", 200),
        ("POST", "/", 405),
        ("GET", "/repositories/none", 404),
        ("GET", "/repositories/UPPER", 400),
        ("GET", "/repositories/%2e%2e/x", 400),
        ("GET", "/images/none:v1", 404),
        ("GET", "/images/none", 404),
        ("GET", "/images/none@sha256:0", 400),
        ("GET", "/assets/../site.py", 404),
        ("GET", "/assets/%2e%2e/site.py", 404),
        ("POST", "/assets/page.js", 405),
        ("GET", "/sign-in", 303),
    ],
)
def test_paths(client: RegistryClient, method: str, path: str, status: int) -> None:
    assert client(method, path).status == status


def test_assets_are_not_sent_again(client: RegistryClient) -> None:
    first = client("GET", "/assets/style.css")
    assert first.headers["content-type"].startswith("text/css")
    again = client("GET", "/assets/style.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def test_page_can_be_turned_off(tmp_path: Path) -> None:
    config = "[web]\nenabled = false\n"
    with RegistryServer(tmp_path / "registry", config=config) as server:
        client = server.client()
        assert client("GET", "/").body == b"a lamina registry; its API is at /v2/\n"
        assert client("GET", "/assets/page.js").status == 404


def test_another_sites_page_cannot_use_a_browsers_password(client: RegistryClient) -> None:
    path = "/v2/r/blobs/uploads/"
    for site in ("cross-site", "same-site"):
        answer = client("POST", path, headers={"Sec-Fetch-Site": site})
        assert (answer.status, answer.code()) == (403, "DENIED")
    assert client("POST", path, headers={"Sec-Fetch-Site": "same-origin"}).status == 202


RULES = """
[[rules]]
repositories = "public/**"
users = ["anonymous"]
actions = ["pull"]
[[rules]]
repositories = "team/**"
users = ["alice"]
actions = ["pull", "push"]
[[rules]]
repositories = "**"
users = ["root"]
actions = ["admin"]
"""


@pytest.fixture(scope="module", params=["passwords", "tokens"])
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RegistryServer]:
    """A registry with a public and a private repository, that takes passwords or tokens."""
    place = tmp_path_factory.mktemp("guarded")
    lines = [
        f"{user}:{bcrypt.hashpw(b'pw', bcrypt.gensalt(4)).decode()}" for user in ("alice", "root")
    ]
    (place / "users").write_text("\n".join(lines))
    with RegistryServer(place / "registry") as server:
        for name in ("public/app", "team/app", "secret/app"):
            server.client().push_image(name, "v1", name.encode())
    text = f'[auth]\nhtpasswd = "{place}/users"\n'
    if request.param == "tokens":
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (place / "key").write_bytes(key)
        text += (
            '[auth.token]\nissuer = "i"\nservice = "s"\nrealm = "http://127.0.0.1/token"\n'
            f'signing-key = "{place}/key"\n'
        )
    with RegistryServer(place / "registry", config=text + RULES) as server:
        yield server


def visit(server: RegistryServer, path: str, user: str = "", password: str = "pw") -> Answer:
    import base64

    word = base64.b64encode(f"{user}:{password}".encode()).decode()
    return server.client()("GET", path, headers={"Authorization": f"Basic {word}"} if user else {})


def test_everybody_sees_what_everybody_may_pull(guarded: RegistryServer) -> None:
    page = visit(guarded, "/")
    names = [x for x in links(page) if x.startswith("/repositories/")]
    assert names == ["/repositories/public/app"]
    assert "/sign-in" in links(page)
    assert visit(guarded, "/images/public/app:v1").status == 200


@pytest.mark.parametrize(
    "path",
    ["/repositories/team/app", "/images/team/app:v1", "/repositories/none", "/sign-in"],
)
def test_the_rest_asks_for_a_password_whether_it_exists_or_not(
    guarded: RegistryServer, path: str
) -> None:
    answer = visit(guarded, path)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert b"team/app:v1" not in answer.body


def test_a_user_sees_their_own(guarded: RegistryServer) -> None:
    page = visit(guarded, "/", "alice")
    assert {x for x in links(page) if x.startswith("/repositories/")} == {
        "/repositories/public/app",
        "/repositories/team/app",
    }
    assert "alice" in text_of(page)
    assert visit(guarded, "/images/team/app:v1", "alice").status == 200
    assert visit(guarded, "/sign-in", "alice").status == 303
    for path in ("/repositories/secret/app", "/images/secret/app:v1", "/repositories/none"):
        assert visit(guarded, path, "alice").status == 403
    assert visit(guarded, "/repositories/secret/app", "root").status == 200


def test_a_wrong_password_is_asked_again(guarded: RegistryServer) -> None:
    answer = visit(guarded, "/", "alice", "wrong")
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")


def test_a_registry_with_nothing_public_asks_at_once(tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(b"pw", bcrypt.gensalt(4)).decode()
    (tmp_path / "users").write_text(f"alice:{hashed}\n")
    with RegistryServer(
        tmp_path / "registry", config=f'[auth]\nhtpasswd = "{tmp_path}/users"\n'
    ) as server:
        assert visit(server, "/").status == 401
        assert visit(server, "/", "alice").status == 200


def test_the_api_is_as_before(guarded: RegistryServer) -> None:
    answer = guarded.client()("GET", "/v2/team/app/manifests/v1")
    assert answer.status == 401
    assert json.loads(answer.body)["errors"][0]["code"] == "UNAUTHORIZED"
