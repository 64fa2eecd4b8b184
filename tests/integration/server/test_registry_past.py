# SPDX-License-Identifier: Apache-2.0
"""History, undelete, quotas and retention on a running server, by command and by HTTP."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from pathlib import Path

import bcrypt
import pytest

from lamina.testing.command import Lamina
from lamina.testing.registry import RegistryClient, RegistryServer, collected
from lamina.testing.waiting import wait_until


def command(server: RegistryServer) -> Lamina:
    return Lamina(server.root, server.root)


def place(server: RegistryServer) -> list[str]:
    return ["--root", str(server.root), "--config", f"{server.root}.toml"]


def test_removed_tag_comes_back_by_command_beside_the_server(registry: RegistryServer) -> None:
    client, run = registry.client(), command(registry)
    digest, document = registry.client().push_image("team/app", "1", b"layer")
    assert client("DELETE", f"/v2/team/app/manifests/{digest}").status == 202
    assert client("GET", "/v2/team/app/manifests/1").status == 404
    root = ["--root", str(registry.root)]
    history = run("registry", "history", *root, "team/app:1").stdout.splitlines()
    assert f"1  {digest} -> -  delete" in history[0]
    assert f"1  - -> {digest}  push" in history[1]
    assert digest in run("registry", "history", *root, "--removed", "team/app").stdout
    restored = run("registry", "undelete", *root, "team/app:1").stdout
    assert f"team/app:1 is {digest}" in restored
    assert client("GET", "/v2/team/app/manifests/1").json() == document
    assert client("GET", f"/v2/team/app/blobs/{document['layers'][0]['digest']}").body == b"layer"
    again = run("registry", "undelete", *root, "team/app:1", check=False)
    assert again.returncode == 2
    assert "the tag 1 exists" in again.stderr
    usage = json.loads(run("registry", "usage", *root, "--json", "team/app").stdout)
    assert usage["tags"] == 1


def test_dry_run_says_what_would_go_and_why_and_the_rules_do_it(tmp_path: Path) -> None:
    config = """
[gc]
retention-interval = 0
[[retention]]
repositories = "ci/**"
tags = ["release-*"]
protect = true
[[retention]]
repositories = "ci/**"
keep-newest = 2
"""
    with RegistryServer(tmp_path / "r", config=config) as server:
        client, run = server.client(), command(server)
        for tag in ("release-1", "a", "b", "c"):
            client.push_image("ci/app", tag, tag.encode())
        planned = run("registry", "retention", *place(server), "--dry-run").stdout
        assert planned == "would remove ci/app:a: number 3, the newest 2 stay (rule 2)\n"
        words = ["registry", "retention", *place(server), "--dry-run", "--all", "--json"]
        verdicts = json.loads(run(*words).stdout)
        assert {verdict["tag"]: verdict["keep"] for verdict in verdicts} == {
            "release-1": True,
            "a": False,
            "b": True,
            "c": True,
        }
        assert client("GET", "/lamina/v1/retention").json()["verdicts"] == verdicts
        assert client("GET", "/v2/ci/app/manifests/a").status == 200
        assert "removed ci/app:a" in run("registry", "retention", *place(server)).stdout
        assert client("GET", "/v2/ci/app/tags/list").json()["tags"] == ["b", "c", "release-1"]
        assert client("POST", "/lamina/v1/undelete/ci/app?tag=a").status == 200
        assert client("GET", "/v2/ci/app/manifests/a").status == 200


def test_rules_on_a_running_server_beside_pushes_and_kill_9_lose_no_push(tmp_path: Path) -> None:
    """Whatever is acknowledged and newest is whole; nothing that a tag points to is missing."""
    config = """
[gc]
interval = "100ms"
grace = "2s"
retention-interval = "50ms"
[history]
window = "1s"
[[retention]]
repositories = "**"
keep-newest = 3
untagged-after = "1s"
"""
    server = RegistryServer(tmp_path / "r", config=config).start()
    newest: dict[str, str] = {}
    failures: list[str] = []
    over, running = threading.Event(), threading.Event()
    running.set()

    def work(repository: str) -> None:
        number = 0
        while not over.is_set():
            client = RegistryClient(server.port)
            try:
                number += 1
                tag = f"t{number}"
                digest, _ = client.push_image(repository, tag, b"shared", tag.encode() * 500)
                newest[repository] = tag
                answer = client("GET", f"/v2/{repository}/manifests/{tag}")
                if answer.headers["docker-content-digest"] != digest:
                    failures.append(f"{repository}:{tag} is {answer.status} after its push")
            except (OSError, http.client.HTTPException):
                running.wait(60)  # killed; the next round connects anew
            except AssertionError as error:
                failures.append(f"{repository}: {error}")
            finally:
                client.connection.close()

    threads = [threading.Thread(target=work, args=(f"r{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        client = server.client()
        wait_until(lambda client=client: collected(client), "the collector is at work")  # type: ignore[misc]  # bound now
        running.clear()
        server.kill()
        server.start()
        running.set()
    over.set()
    for thread in threads:
        thread.join()
    server.stop()
    with server:
        client = server.client()
        assert failures == []
        wait_until(
            lambda: all(
                len(client("GET", f"/v2/{name}/tags/list").json()["tags"]) <= 3 for name in newest
            )
        )
        assert len(newest) == 4
        for repository, tag in newest.items():
            assert tag in client("GET", f"/v2/{repository}/tags/list").json()["tags"]
            for each in client("GET", f"/v2/{repository}/tags/list").json()["tags"]:
                manifest = client("GET", f"/v2/{repository}/manifests/{each}")
                assert manifest.status == 200
                for layer in manifest.json()["layers"]:
                    found = client("HEAD", f"/v2/{repository}/blobs/{layer['digest']}")
                    assert found.status == 200
        metrics = client("GET", "/metrics").body.decode()
        wait_until(
            lambda: b"lamina_registry_retention_tags_total" in client("GET", "/metrics").body
        )
        assert 'status="5' not in metrics


def test_quota_refuses_before_the_body_is_sent(tmp_path: Path) -> None:
    config = '[[quotas]]\nrepositories = "team/**"\nbytes = "1MiB"\ntags = 1\n'
    with RegistryServer(tmp_path / "r", config=config) as server:
        client = server.client()
        client.push_image("team/app", "1", b"x" * 500_000)
        begun = client("POST", "/v2/team/app/blobs/uploads/").headers["location"]
        # no byte of the body follows: the answer comes from the headers
        client.connection.putrequest("PATCH", begun)
        client.connection.putheader("Content-Length", "800000")
        client.connection.endheaders()
        refused = client.connection.getresponse()
        body = json.loads(refused.read())
        assert (refused.status, body["errors"][0]["code"]) == (403, "DENIED")
        assert body["errors"][0]["detail"]["quota"] == 1 << 20
        client = server.client()
        with pytest.raises(AssertionError, match="quota of 1 tags"):
            client.push_image("team/app", "2", b"y")
        usage = client("GET", "/lamina/v1/usage/team/app").json()
        assert (usage["tags"], usage["tagsLimit"], usage["bytesLimit"]) == (1, 1, 1 << 20)
        client.push_image("other", "1", b"z" * 2_000_000)
        metrics = client("GET", "/metrics").body.decode()
        assert "lamina_registry_quota_refusals_total 2" in metrics


def test_admin_pages_need_the_right_and_name_who_did_it(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(
        "".join(
            f"{name}:{bcrypt.hashpw(name.encode(), bcrypt.gensalt(4)).decode()}\n"
            for name in ("admin", "dev")
        )
    )
    config = f"""
[auth]
htpasswd = "{users}"
[[rules]]
repositories = "team/**"
users = ["dev"]
actions = ["pull", "push", "delete"]
[[rules]]
repositories = "team/**"
users = ["admin"]
actions = ["admin"]
"""
    with RegistryServer(tmp_path / "r", config=config) as server:

        def client_of(name: str) -> RegistryClient:
            client = server.client()
            word = base64.b64encode(f"{name}:{name}".encode()).decode()
            client.headers = {"Authorization": f"Basic {word}"}
            return client

        dev, admin, nobody = client_of("dev"), client_of("admin"), server.client()
        dev.push_image("team/app", "1", b"layer")
        assert dev("DELETE", "/v2/team/app/manifests/1").status == 202
        path = "/lamina/v1/history/team/app"
        assert nobody("GET", path).status == 401
        assert dev("GET", path).status == 403
        assert admin("GET", "/lamina/v1/history/foreign").status == 403
        assert admin("GET", "/lamina/v1/retention").status == 403  # of every repository
        moves = admin("GET", path).json()["moves"]
        assert [(move["user"], move["why"]) for move in moves] == [
            ("dev", "delete"),
            ("dev", "push"),
        ]
        assert admin("GET", f"{path}?n=1&skip=1").json()["moves"] == moves[1:]
        assert admin("GET", f"{path}?n=x").code() == "PAGINATION_NUMBER_INVALID"
        undelete = "/lamina/v1/undelete/team/app"
        assert dev("POST", f"{undelete}?tag=1").status == 403
        assert admin("GET", f"{undelete}?tag=1").status == 405
        assert admin("POST", undelete).status == 400
        assert admin("POST", f"{undelete}?tag=2").status == 404
        assert admin("POST", f"{undelete}?tag=1").json()["tags"] == ["1"]
        assert admin("POST", f"{undelete}?tag=1").status == 409
        assert dev("GET", "/v2/team/app/manifests/1").status == 200
        assert admin("GET", path).json()["moves"][0]["user"] == "admin"
        assert admin("GET", "/lamina/v1/nonsense/team/app").status == 404
        assert admin("GET", "/lamina/v1/history/Team").code() == "NAME_INVALID"


def test_pull_keeps_an_image_from_its_rule_over_a_restart(tmp_path: Path) -> None:
    config = """
[gc]
retention-interval = 0
[[retention]]
repositories = "**"
keep-pulled = "1h"
"""
    with RegistryServer(tmp_path / "r", config=config) as server:
        client = server.client()
        for tag in ("pulled", "asked"):
            client.push_image("app", tag, tag.encode())
        client("GET", "/v2/app/manifests/pulled")
        client("HEAD", "/v2/app/manifests/asked")
    with server:
        gone = command(server)("registry", "retention", *place(server)).stdout
        assert gone == "removed app:asked: never pulled (rule 1)\n"
